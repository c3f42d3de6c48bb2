PYTHON ?= python3
GIVEN  := $(filter-out file default,$(origin PYTHON))# not empty where PYTHON was given, on the command line or around it
VENV   ?= .venv
TORCH  ?= 2.13.0# exact: an open range would fetch gigabytes of another build. On a GPU machine: make setup TORCH=...
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TEST   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

WHEELS := wheels

.PHONY: help setup demo format lint test check prove prove-gpu gpu-wheels lock clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 12

setup: $(READY) ## .venv with everything installed

$(READY): pyproject.toml requirements.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tokenrl needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock "torch==$(TORCH)" -e ".[dev]"
	@touch $@

demo: $(READY) ## trains an LSTM by cross-entropy, then by RL on BLEU, and prints what it gained
	$(BIN)/tokenrl train model=lstm reward=bleu

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

prove: $(READY) ## slow proofs, over seeds, with recorded results
	$(BIN)/python benchmarks/prove.py
	$(BIN)/python benchmarks/corrupted.py
	$(BIN)/python benchmarks/values.py

prove-gpu: $(if $(GIVEN),,$(READY)) ## all of it on a GPU, in 6 minutes; PYTHON=... runs that interpreter as it is
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) benchmarks/wheels.py run $(WHEELS) benchmarks/gpu.py

gpu-wheels: $(READY) ## wheels/: what an interpreter with torch and numpy may lack, for PYTHON=... make prove-gpu
	$(BIN)/python benchmarks/wheels.py fill $(WHEELS)

lock: $(READY) ## pins what is installed now, torch excepted
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(torch|nvidia|cuda|triton)' > requirements.lock

clean: ## removes .venv and caches, no run
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
