PYTHON ?= python3
GIVEN  := $(filter-out file default,$(origin PYTHON))# not empty where PYTHON was given, on the command line or around it
VENV   ?= .venv
TORCH  ?= 2.13.0# exact: an open range would fetch gigabytes of another build. On a GPU machine: make setup TORCH=...
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOCKS  := requirements.lock requirements-dev.lock
# By file: what the tests of one share is made once. Without compiled modules on disk each process that a test starts
# would compile the package anew.
TEST   := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 2 --dist loadfile

WHEELS := wheels

.PHONY: help setup demo demo-speech format lint test check prove prove-pretrained prove-speech prove-gpu gpu-wheels docs lock clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 20

setup: $(READY) ## .venv with everything installed

$(READY): pyproject.toml requirements-dev.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tokenrl needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements-dev.lock "torch==$(TORCH)" -e ".[dev,hf,speech]"
	@touch $@

demo: $(READY) ## trains an LSTM by cross-entropy, then by RL on BLEU, and prints what it gained
	$(BIN)/tokenrl train model=lstm reward=bleu

demo-speech: $(READY) ## teaches an LSTM to recognise synthesised digits, then RL on the word error rate; shows what it still gets wrong
	RUN=outputs/demo-speech-$$(date +%Y-%m-%d-%H-%M-%S) && \
	$(BIN)/tokenrl train dataset=tones model=speech_lstm reward=wer out=$$RUN && \
	$(BIN)/tokenrl eval ckpt=$$RUN

format: $(READY) ## rewrites the code's layout
	$(BIN)/ruff check -q --fix-only .
	$(BIN)/ruff format .

lint: $(READY) ## layout, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: $(READY) ## the tests; TOKENRL_DATA=DIR adds those on real data
	$(TEST)

check: lint test ## what CI runs

prove: $(READY) ## slow proofs: tests that take too long for each change, and studies over seeds with recorded results
	$(TEST) -m slow
	$(BIN)/python benchmarks/prove.py
	$(BIN)/python benchmarks/corrupted.py
	$(BIN)/python benchmarks/values.py

prove-pretrained: $(READY) ## RL on real pretrained weights, from packages put into weights/; needs TOKENRL_DATA, at most 3 hours
	$(BIN)/python benchmarks/prove_pretrained.py

prove-speech: $(READY) ## RL on the word error rate: eight arms, five seeds, four times as long as recorded; needs TOKENRL_DATA, some 20 hours
	$(BIN)/python benchmarks/study.py --datasets fsdd_connected an4 --seeds 1 2 3 4 5 --longer 4 --out outputs/prove-speech

prove-gpu: $(if $(GIVEN),,$(READY)) ## all of it on a GPU, in 6 minutes; PYTHON=... runs that interpreter as it is
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) benchmarks/wheels.py run $(WHEELS) benchmarks/gpu.py

gpu-wheels: $(READY) ## wheels/: what an interpreter with torch and numpy may lack, for PYTHON=... make prove-gpu
	$(BIN)/python benchmarks/wheels.py fill $(WHEELS)

docs: $(READY) ## writes the tables of docs/ anew from conf/
	$(BIN)/python docs/tables.py

# torch is left out of the locks, for its build is another one on every kind of machine: make setup TORCH=...
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile -q --universal --python-version 3.11 \
          --no-annotate --no-emit-index-url --no-emit-find-links
KEPT    = $(if $(UPGRADE),,$(addprefix -c ,$(LOCKS)))
APART   = grep -vE '^(torch|nvidia|cuda|triton)' > lock.new && mv lock.new

lock: $(READY) ## pins what pyproject.toml asks for, as it is pinned now; UPGRADE=yes takes the newest
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	echo "torch==$(TORCH)" | $(COMPILE) $(KEPT) pyproject.toml - | $(APART) requirements.lock
	echo "torch==$(TORCH)" | $(COMPILE) -c requirements.lock $(KEPT) --extra dev --extra hf --extra speech pyproject.toml - | $(APART) requirements-dev.lock
	$(COMPILE) --generate-hashes requirements.lock -o requirements-hashes.lock

clean: ## removes .venv and caches, no run
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
