"""What an algorithm of the user's must provide so that its policy can be saved, loaded and evaluated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.running import TINY, tokenrl, train
from tokenrl_cli.run import assembly

ALGORITHM = '''
import torch

from tokenrl_cli.algorithm.mle import Mle
from tokenrl_cli.interfaces import ModelOutput


class Tilt(torch.nn.Module):
    """A model with a bias of its own on every token."""

    def __init__(self, model, size):
        super().__init__()
        self.model, self.width = model, model.width
        self.bias = torch.nn.Parameter(torch.zeros(size))

    def output(self, output):
        return ModelOutput(output.hidden, lambda _: output.logits + self.bias)

    def forward(self, source, source_mask, actions, source_row=None):
        return self.output(self.model(source, source_mask, actions, source_row))

    def start(self, source, source_mask):
        return self.model.start(source, source_mask)

    def step(self, state, previous):
        output, state = self.model.step(state, previous)
        return self.output(output), state


class Unsaved(Mle):
    """Learns nothing; its policy says token 2 whatever the model thinks, after its first update."""

    def __init__(
        self, model, tokenizer, seed, label_smoothing: float, scheduled_sampling, micro_batches: int, optimizer
    ):
        super().__init__(model, tokenizer, seed, label_smoothing, scheduled_sampling, micro_batches, optimizer)
        self.tilted = Tilt(model, tokenizer.size)

    def update(self, rollout):
        with torch.no_grad():
            self.tilted.bias[2] = 100.0
        return {}

    def policy(self):
        return self.tilted


class Unloaded(Unsaved):
    def state_dict(self):
        return super().state_dict() | {"policy.bias": self.tilted.bias}


class Whole(Unloaded):
    def load_policy(self, state):
        with torch.no_grad():
            self.tilted.bias.copy_(state["policy.bias"])

    def load_state_dict(self, state):
        self.load_policy(state)
'''
YAML = """defaults:
  - mle
  - _self_
_target_: my_policy.{}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the algorithms above as options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    Path("my_policy.py").write_text(ALGORITHM, "utf-8")
    Path("mine/algorithm").mkdir(parents=True)
    for name in ("Unsaved", "Unloaded", "Whole"):
        Path(f"mine/algorithm/{name.lower()}.yaml").write_text(f"# mine\n{YAML.format(name)}", "utf-8")
    yield tmp_path
    sys.modules.pop("my_policy", None)


MINE = ["--config-dir", "mine", "imports=[my_policy]"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("unsaved", "does not save them"), ("unloaded", "has no load_policy(state) to take it back")],
)
def test_a_policy_that_could_not_be_loaded_again_is_refused_by_name(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    for command in ("validate", "train"):
        assert tokenrl(command, *TINY, f"algorithm={name}", *MINE) == 2
        error = capsys.readouterr().err
        assert told in error, error
        assert name.title() in error, error


def test_eval_and_the_table_show_a_policy_of_the_users_own(home: Path) -> None:
    assert train(home / "run", "algorithm=whole", *MINE) == 0
    table = json.loads((home / "run" / "results.json").read_text("utf-8"))["test"]
    assert table["final"] != table["warm_start"], "the policy is not its model any more"
    assert tokenrl("eval", "ckpt=run/checkpoints/last", "imports=[my_policy]", "out=scored") == 0
    folder = next(Path("scored").iterdir())
    assert len(set((folder / "hypotheses.txt").read_text("utf-8").splitlines())) == 1
    said = json.loads((folder / "results.json").read_text("utf-8"))
    assert said["metrics"]["reward"]["value"] == table["final"]["reward"]


def test_a_models_attributes_are_its_own_affair(home: Path) -> None:
    """A model may have attributes called `values` or `best`: evaluation uses only what the protocols name."""
    Path("my_model.py").write_text(
        "from tokenrl_cli.model.recurrent import Recurrent\n\n\nclass Mine(Recurrent):\n"
        "    def __init__(self, tokenizer, source_tokenizer, cell: str, embedding: int, hidden: int, layers: int,\n"
        "                 dropout: float, tied: bool, window: bool) -> None:\n"
        "        given = cell, embedding, hidden, layers, dropout, tied, window\n"
        "        super().__init__(tokenizer, source_tokenizer, *given)\n"
        "        self.values = [1, 2, 3]\n        self.best = 'yes'\n",
        "utf-8",
    )
    Path("mine/model").mkdir()
    Path("mine/model/mine.yaml").write_text(
        "# mine\ndefaults:\n  - gru\n  - _self_\n_target_: my_model.Mine\n", "utf-8"
    )
    words = [each for each in TINY if each != "model=gru"]
    given = ["model=mine", "--config-dir", "mine", "imports=[my_model]"]
    assert train(home / "run", *words, *given, tiny=False) == 0
    assert "q/overestimation" not in json.loads((home / "run" / "results.json").read_text("utf-8"))["test"]["final"]


def test_a_model_that_cannot_be_given_which_row_reads_which_source_is_refused_before_the_first_step(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_reader.py").write_text(
        "from tokenrl_cli.model.recurrent import Recurrent\n\n\nclass Reader(Recurrent):\n"
        "    def forward(self, source, source_mask, actions):\n"
        "        return super().forward(source, source_mask, actions)\n",
        "utf-8",
    )
    words = ["model._target_=my_reader.Reader", "imports=[my_reader]"]
    assert train(home / "run", *words) == 2
    said = capsys.readouterr().err
    assert "model: Reader.forward" in said
    assert "source_row=None" in said
    assert "Traceback" not in said


CRITIC = '''
import torch


class Half:
    """Says 0.5 of every state and learns one number."""

    estimates, continuations, coef = True, 0, 1.0

    def attach(self, model):
        self.number = torch.nn.Parameter(torch.zeros(()))
        return [self.number]

    def states(self, mask):
        raise NotImplementedError

    def measure(self, rollout, model):
        return torch.full_like(rollout.logprobs, 0.5), torch.ones_like(rollout.mask)

    def loss(self, hidden, before, targets):
        return (self.number - 3.0).square().expand_as(targets)

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        with torch.no_grad():
            self.number.copy_(state["number"])


class Part(Half):
    """Has every method, and does not say what it is."""

    estimates = property()

    def __init__(self):
        pass


class Wrong(Half):
    def measure(self, rollout, model):
        return rollout.logprobs[:, :1], rollout.mask[:, :1]


class Dumb:
    continuations = 0

    def attach(self, model):
        return []
'''


@pytest.fixture
def critics(home: Path) -> list[str]:
    Path("my_critic.py").write_text(CRITIC, "utf-8")
    Path("mine/algorithm/critic").mkdir()
    for name in ("Half", "Part", "Wrong", "Dumb"):
        Path(f"mine/algorithm/critic/{name.lower()}.yaml").write_text(f"_target_: my_critic.{name}\n", "utf-8")
    return ["--config-dir", "mine", "imports=[my_critic]", "algorithm=a2c"]


def test_a_critic_of_the_users_own_is_asked_and_learns(home: Path, critics: list[str]) -> None:
    assert train(home / "run", *critics, "algorithm/critic=half", "algorithm.optimizer.lr=0.01") == 0
    logged = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    errors = [each["metrics"]["loss/value"] for each in logged if each["split"] == "train" and each["stage"] == "train"]
    assert 9.0 >= errors[0] > errors[-1] > 8.0, "its own loss, (0 - 3) ** 2 at first"
    state = json.loads((home / "run/checkpoints/last/state.json").read_text("utf-8"))
    assert "critic.number" not in state["algorithm"], "a tensor: it is with the others"
    saved = load_file(home / "run/checkpoints/last/algorithm.safetensors")
    assert float(saved["critic.number"]) > 0
    sys.modules.pop("my_critic", None)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dumb", "is not a Critic: it has no"),
        ("part", "it has no estimates"),
        ("wrong", "measure gave a tensor of shape"),
    ],
)
def test_a_critic_that_does_not_keep_its_contract_is_refused_by_name(
    home: Path, critics: list[str], capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    assert train(home / "run", *critics, f"algorithm/critic={name}") == 2
    error = capsys.readouterr().err
    assert told in error, error
    assert name.title() in error, error
    sys.modules.pop("my_critic", None)


@pytest.mark.parametrize(
    ("target", "device"),
    [("tokenrl_cli.model.gru.Gru", "meta"), ("tokenrl_cli_mine.Gru", "cpu"), ("mine.Gru", "cpu")],
)
def test_only_what_is_of_this_package_is_built_without_memory(target: str, device: str) -> None:
    with assembly.meta_device({"_target_": target}, {"inner": [{"_target_": target}]}):
        assert torch.zeros(1).device.type == device
