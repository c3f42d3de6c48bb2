"""What a reward, metric or credit of the user's own does or gives ends in numbers, or in one error that names it."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from tests.reward.said import texts
from tests.reward.test_callable import state
from tokenrl_cli.episodes.scoring import corpus_score, scored
from tokenrl_cli.interfaces import CorpusScore, Reward, Scored, Texts, UserError
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.usercode.calling import call_user_code

ROWS = texts([("a", ["A"]), ("bb", ["B"])])


class Gives:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, texts: Texts) -> Any:
        return self.value() if isinstance(self.value, Does) else self.value

    def corpus(self, texts: Texts) -> Any:
        return self.value


class Does:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __call__(self) -> Any:
        self.act()
        return np.zeros(2)


@pytest.mark.parametrize(
    "value",
    [
        [0.5, 1], (0.5, True), [Decimal("0.5"), np.float16(1)], np.array([0.5, 1], dtype=np.float32),
        torch.tensor([0.5, 1], requires_grad=True), torch.tensor([0.5, 1], dtype=torch.bfloat16),
        [torch.tensor(0.5, requires_grad=True), torch.tensor(1)], np.array([0.5, 1], dtype=object),
        np.array([0.5, 1], dtype=np.longdouble),
    ],
)  # fmt: skip
def test_numbers_of_any_library_are_taken(value: Any) -> None:
    scores = scored(Gives(value), ROWS).scores
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.5, 1]


def test_none_is_no_score() -> None:
    assert math.isnan(scored(Gives([None, 1.0]), ROWS).scores[0])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["0.5", "1"], r"\['0.5', '1'\] \(list\), must be an array of numbers"),
        (np.array(["0.5", "1"]), "must be an array of numbers"),
        ([10**400, 1], "must be an array of numbers"),
        ([1j, 1], "must be an array of numbers"),
        (torch.tensor([1j, 1]), "must be an array of numbers"),
        (torch.empty(2, device="meta"), "must be an array of numbers"),
        ([[1.0], [1.0, 2.0]], "must be an array of numbers"),
        ((each for each in [1.0, 2.0]), r"\(generator\), must be an array of numbers"),
        (None, r"scores of shape \(\), must be"),
        ([1.0], r"of shape \(1,\), must be \(2,\) or"),
        ([1e300, 1.0], "which no policy can be trained on"),
        ([math.inf, 1.0], "infinite"),
        (Scored(np.zeros(2), {"level": "x"}, {}), "'x' .* as 'level', must be a number"),
        (Scored(np.zeros(2), [], {}), "as its metrics, must be a dictionary"),  # type: ignore[arg-type]
        (Scored(np.zeros(2), {}, {"level": [1]}), "as column 'level', must be a list of 2"),
    ],
)
def test_what_is_no_score_is_named(value: Any, told: str) -> None:
    with pytest.raises(UserError, match=f"reward: test_calling gave (.*{told})"):
        scored(Gives(value), ROWS)


def test_what_no_table_can_hold_is_shown() -> None:
    columns = scored(Gives(Scored(np.zeros(2), {"a": torch.tensor(1)}, {"b": ["\ud800", object]})), ROWS)  # type: ignore[dict-item]
    assert columns.metrics == {"a": 1.0}
    assert columns.columns["b"] == ["\\ud800", "<class 'object'>"]


def raises(error: BaseException) -> Callable[[], Any]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (raises(ValueError("no")), "ValueError: no"),
        (raises(SystemExit(3)), "SystemExit: 3"),
        (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
        (raises(GeneratorExit()), "GeneratorExit"),
        (raises(StopIteration(1)), "StopIteration: 1"),
        (raises(RecursionError("deep")), "RecursionError: deep"),
        (raises(MemoryError()), "MemoryError"),
        (lambda: os._exit(3), r"SystemExit: os._exit\(3\)"),
    ],
)
def test_what_a_reward_raises_is_told_with_its_place(act: Any, told: str) -> None:
    with pytest.raises(UserError, match=rf"reward: Gives failed: {told} \(.*test_calling.py, line \d+\)"):
        scored(Gives(Does(act)), ROWS)


def test_an_interruption_that_really_came_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        scored(Gives(Does(lambda: os.kill(os.getpid(), signal.SIGINT))), ROWS)


def test_what_a_reward_does_to_this_process_is_put_back(tmp_path: Any) -> None:
    def act() -> None:
        os.chdir(tmp_path)
        sys.stdout.close()
        sys.stderr = None  # type: ignore[assignment]
        torch.manual_seed(1)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        np.seterr(all="ignore")
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    before = state()
    scored(Gives(Does(act)), ROWS)
    assert state() == before


def test_what_is_tokenrls_own_is_called_as_it_is() -> None:
    from tokenrl_cli.reward.ended import Ended

    owner: Reward = Ended()
    with pytest.raises(ZeroDivisionError):
        call_user_code(owner, "reward", lambda: 1 / 0)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.5, "gave 0.5 .float., must be a CorpusScore"),
        (CorpusScore("x", "", np.zeros(2), np.zeros((2, 1)), float), "gave the value 'x'"),  # type: ignore[arg-type]
        (
            CorpusScore(math.inf, "", np.zeros(2), np.zeros((2, 1)), float),  # type: ignore[arg-type]
            "gave the value inf .float., must be a finite number, or NaN where there is no score",
        ),
        (CorpusScore(1.0, "", np.zeros(3), np.zeros((3, 1)), float), r"of shape \(3,\)"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_corpus_score_is_named(value: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        corpus_score(Gives(value), ROWS)
    assert corpus_score(Gives(mean_score(np.ones(2), "")), ROWS).value == 1


def test_a_corpus_without_a_score_has_the_value_nan() -> None:
    unscored = np.full(2, math.nan)
    assert math.isnan(corpus_score(Gives(mean_score(unscored, "")), ROWS).value)
