"""What a frozen run thinks of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.reward.said import texts
from tests.running import lines, tokenrl, train, weights
from tokenrl_cli.interfaces import Frozen, Texts, UserError
from tokenrl_cli.reward.likelihood import Likelihood
from tokenrl_cli.run.assembly import frozen_loader
from tokenrl_cli.tokenizer.char import Char

CPU = torch.device("cpu")
SAID = ["1 2 3", "", "4", "1 1 1 1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("likelihood") / "judge"
    assert train(run, "trainer.warm_start_steps=300", "trainer.steps=0", "trainer.eval_every=300") == 0
    return run


def reward(run: Path, **changes: Any) -> Likelihood:
    frozen = frozen_loader([], CPU)
    tokenizer = frozen(str(run)).tokenizer
    plain: dict[str, Any] = {"checkpoint": str(run), "temperature": 1.0, "per_token": False}
    return Likelihood(**(plain | {"frozen": frozen, "tokenizer": tokenizer, "here": "reward"} | changes))


def seen(frozen: Frozen, said: list[str], ended: list[bool]) -> Texts:
    """The texts with the ids that the run's own tokenizer gives them."""
    ids = [frozen.tokenizer.encode(text) + [0] * end for text, end in zip(said, ended, strict=True)]
    made = texts([(text, []) for text in said], [len(each) for each in ids], ended)
    for row, each in enumerate(ids):
        made.actions[row, : len(each)] = each
    return made


def by_hand(frozen: Frozen, source: str, ids: list[int], temperature: float = 1.0) -> list[float]:
    """Step by step, a row alone."""
    state = frozen.policy.start(
        torch.tensor([frozen.source_tokenizer.encode(source) or [0]]),
        torch.ones(1, max(1, len(frozen.source_tokenizer.encode(source))), dtype=torch.bool),
    )
    previous, found = None, []
    for token in ids:
        output, state = frozen.policy.step(state, previous)
        found.append(float((output.logits[0, -1] / temperature).log_softmax(-1)[token]))
        previous = torch.tensor([token])
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_is_the_log_probability_step_by_step(run: Path, temperature: float) -> None:
    mean = reward(run, temperature=temperature)
    made = seen(mean.judge, SAID, [True, True, False, True])
    each = reward(run, temperature=temperature, per_token=True)(made)
    for row, ids in enumerate(made.actions):
        expected = by_hand(mean.judge, made.sources[row], ids[made.mask[row]].tolist(), temperature)
        assert mean(made)[row] == pytest.approx(np.mean(expected), abs=1e-5)
        assert each[row, made.mask[row]] == pytest.approx(expected, abs=1e-5)
    assert not each[~made.mask].any()


def test_a_text_that_did_not_end_is_scored_without_eos_and_nothing_yet_is_0(run: Path) -> None:
    judge = reward(run)
    ended, cut = judge(seen(judge.judge, ["1", "1"], [True, False]))
    assert ended != cut
    assert judge(seen(judge.judge, ["", "1"], [False, False]))[0] == judge(seen(judge.judge, [""], [False]))[0] == 0
    assert judge(seen(judge.judge, [""], [True]))[0] < 0  # the log-probability of ending at once


def test_a_row_of_a_ragged_batch_is_the_row_alone_however_many_there_are(run: Path, monkeypatch: Any) -> None:
    judge = reward(run)
    together = judge(seen(judge.judge, SAID, [True] * 4))
    monkeypatch.setattr("tokenrl_cli.reward.likelihood.ROWS", 3)
    assert judge(seen(judge.judge, SAID, [True] * 4)) == pytest.approx(together, abs=1e-6)


def test_another_tokenizer_is_read_as_text_but_not_as_tokens(run: Path) -> None:
    other = Char(100, 1)
    other.train(SAID)
    made = seen(reward(run).judge, SAID, [True] * 4)
    assert (reward(run, tokenizer=other)(made) == reward(run)(made)).all()
    with pytest.raises(UserError, match="has another target tokenizer"):
        reward(run, tokenizer=other, per_token=True)(made)


def test_a_run_that_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"reward.checkpoint={tmp_path}: .*holds no complete checkpoint"):
        reward(run, checkpoint=str(tmp_path)).judge  # noqa: B018


def test_the_frozen_run_has_no_gradient_and_is_in_evaluation_mode(run: Path) -> None:
    policy: Any = reward(run).judge.policy
    assert not policy.training
    assert not any(each.requires_grad for each in policy.parameters())


def test_a_likely_text_is_worth_more(run: Path) -> None:
    judge = reward(run)
    made = seen(judge.judge, ["3 2 1", "1 1 1"], [True, True])
    made.sources[:] = ["1 2 3", "1 2 3"]
    assert judge(made)[0] > judge(made)[1]


@pytest.mark.parametrize("options", [["credit=delta"], ["reward.per_token=true", "credit=token"]])
def test_a_run_trains_on_it_and_resumes_to_the_same_bits(run: Path, tmp_path: Path, options: list[str]) -> None:
    chosen = ["reward=likelihood", f"reward.checkpoint={run}", f"init_from={run}", *options]
    assert train(tmp_path / "whole", *chosen, "trainer.warm_start_steps=0") == 0
    assert train(tmp_path / "part", *chosen, "trainer.warm_start_steps=0", "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=6", f"reward.checkpoint={run}") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
    last = [line for line in lines(tmp_path / "whole") if line["split"] == "train"][-1]["metrics"]
    assert last["rewards/likelihood/mean"] < 0
    assert json.loads((tmp_path / "whole" / "results.json").read_text())["format"] == 1


def test_a_run_that_is_not_there_is_told_before_any_training(tmp_path: Path, capsys: Any) -> None:
    assert train(tmp_path / "run", "reward=likelihood", "reward.checkpoint=nowhere") == 2
    assert "reward.checkpoint=nowhere" in capsys.readouterr().err
