"""`freeze`: parameters of the model that a run leaves as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.running import TINY, tokenrl, train, weights
from tests.world import Letters
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.model.recurrent import Recurrent
from tokenrl_cli.run.assembly import freeze

FROZEN = "freeze=[source_embedding,'forwards.*.weight*',embedding.weight]"
SHORT = ["trainer.warm_start_steps=2", "trainer.eval_every=100", "trainer.eval_examples=4", "dataset.test_size=4"]


def model() -> Recurrent:
    return Recurrent(Letters(), Letters(), "gru", 4, 6, 2, 0.0, True, False)


def frozen(model: nn.Module) -> set[str]:
    return {name for name, each in model.named_parameters() if not each.requires_grad}


def saved(run: Path, name: str) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / name / "model.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of warm start and four of RL, with parts of the model frozen."""
    place = tmp_path_factory.mktemp("freeze") / "run"
    assert train(place, *SHORT, FROZEN, "trainer.steps=4") == 0
    return place


def test_a_pattern_names_parameters_or_all_of_a_module() -> None:
    for pattern, expected in {
        "bias": {"bias"},
        "query": {"query.weight"},
        "forwards.1": {f"forwards.1.{kind}_{side}_l0" for kind in ("weight", "bias") for side in ("ih", "hh")},
        "bridges.*.bias": {"bridges.0.bias", "bridges.1.bias"},
        "*embedding*": {"source_embedding.weight", "embedding.weight"},
    }.items():
        learner = model()
        freeze(learner, [pattern])
        assert frozen(learner) == expected, pattern
    both = model()
    freeze(both, ["query", "key"])
    assert frozen(both) == {"query.weight", "key.weight"}


def test_tied_weights_are_frozen_by_each_of_their_names() -> None:
    tied = nn.ModuleDict({"head": nn.Linear(3, 4, bias=False), "embedding": nn.Embedding(4, 3)})
    tied["embedding"].weight = tied["head"].weight
    freeze(tied, ["embedding"])
    assert not tied["head"].weight.requires_grad


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("embeding", r"\(did you mean 'embedding'\?\)"), ("forward.*", r"\(did you mean 'forwards'\?\)"), ("Query", ".")],
)
def test_a_pattern_without_a_parameter_is_refused_with_what_there_is(pattern: str, told: str) -> None:
    listed = r"source_embedding, embedding, forwards\.\*, backwards\.\*, bridges\.\*, decoder\.\*, query, key, combine"
    with pytest.raises(
        UserError, match=rf"freeze: '.*' names no parameter of the model.*{told}(.|\n)*{listed}"
    ) as error:
        freeze(model(), ["query", pattern])
    assert pattern in str(error.value)


def test_what_is_frozen_stays_through_warm_start_and_rl_and_the_rest_learns(run: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    assert train(start, *SHORT, "trainer.warm_start_steps=0", "trainer.steps=0") == 0
    before, after = saved(start, "last"), saved(run, "last")
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    assert stayed == {
        "source_embedding.weight", "embedding.weight", "forwards.0.weight_ih_l0", "forwards.0.weight_hh_l0"
    }  # fmt: skip


def test_a_resumed_run_keeps_what_is_frozen(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bits are those of a run that never stopped, and it cannot be changed."""
    stopped = tmp_path / "stopped"
    assert train(stopped, *SHORT, FROZEN, "trainer.steps=2") == 0
    capsys.readouterr()
    assert tokenrl("train", f"resume={stopped}", "freeze=[query]") == 2
    assert "freeze=['query']: cannot be changed on resume" in capsys.readouterr().err
    assert tokenrl("train", f"resume={stopped}", "trainer.steps=4") == 0
    assert weights(stopped) == weights(run)


@pytest.mark.parametrize("command", ["train", "validate"])
def test_a_mistake_is_told_before_the_first_step(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"out={tmp_path / 'run'}"
    assert tokenrl(command, *TINY, "freeze=[encodr]", place) == 2
    assert "freeze: 'encodr' names no parameter of the model" in capsys.readouterr().err
    assert tokenrl(command, *TINY, "freeze=['*']", place) == 2
    assert "nothing to learn" in capsys.readouterr().err
    assert tokenrl(command, *TINY, "freeze=query", place) == 2
    assert "freeze=query: must be a list" in capsys.readouterr().err
