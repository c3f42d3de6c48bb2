"""Several rewards at once, each credited and logged by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.credit.toy import EOS, Merges, rollout_from
from tests.reward.said import error_rate, texts
from tests.running import lines, train
from tests.world import batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.credit.token import Token
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Texts, UserError
from tokenrl_cli.reward.exact_match import ExactMatch
from tokenrl_cli.reward.mixture import Mixture

WER, EXACT = error_rate("words"), ExactMatch(False, True)
TOKENIZER = Merges([" a", " b", " c"])
SAID = [[1, 2, EOS], [1, 3, EOS], [3, EOS], [1, 2, 3]]


class Nothing:
    def __call__(self, texts: Texts) -> np.ndarray:
        return np.array([np.nan if text == " c" else 0.5 for text in texts.hypotheses])


class Places:
    def __call__(self, texts: Texts) -> np.ndarray:
        return texts.actions / 8.0


def mixture(**changes: Any) -> Mixture:
    plain: dict[str, Any] = {"weights": {}, "scales": {}, "shifts": {}, "normalize": False}
    return Mixture(**({"parts": {"wer": WER, "exact": EXACT}} | plain | changes))


def judged(reward: Any, credit: Any) -> tuple[torch.Tensor, dict[str, float]]:
    batch = replace(batch_of(1), references=[[" a b"]])
    rollout, scores = judge(rollout_from(SAID, batch), batch, TOKENIZER, reward, credit)
    assert rollout.rewards is not None
    return rollout.rewards, scores.metrics


@pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])
def test_each_part_is_credited_alone_then_weighed(credit: Any) -> None:
    together, metrics = judged(mixture(weights={"wer": 0.25, "exact": 2.0}, scales={"exact": 0.5}), credit)
    wer, alone = judged(WER, credit)
    exact, _ = judged(EXACT, credit)
    assert torch.allclose(together, 0.25 * wer + exact, atol=1e-7)
    assert metrics["rewards/wer/mean"] == alone["rewards/wer/mean"]
    assert metrics["rewards/exact/mean"] == 0.25


def test_a_shift_moves_the_score_and_by_delta_no_reward() -> None:
    plain, shifted = mixture(), mixture(shifts={"wer": -1.0})
    assert torch.allclose(judged(shifted, Terminal())[0].sum(-1), judged(plain, Terminal())[0].sum(-1) - 1)
    assert torch.allclose(judged(shifted, Delta())[0], judged(plain, Delta())[0], atol=1e-7)
    assert judged(shifted, Delta())[1]["reward"] == judged(plain, Delta())[1]["reward"] - 1


@pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])
def test_normalised_parts_have_mean_0_and_deviation_1_over_the_batch(credit: Any) -> None:
    _, raw = judged(mixture(), credit)
    rewards, metrics = judged(mixture(weights={"wer": 1.0, "exact": 0.0}, normalize=True), credit)
    assert abs(metrics["reward"]) < 1e-12
    assert abs(metrics["reward_std"] - 1) < 1e-12
    assert metrics["rewards/wer/mean"] == raw["rewards/wer/mean"]  # logged as it is
    plain = judged(WER, credit)[0].sum(-1)
    assert torch.allclose(rewards.sum(-1) - rewards.sum(-1).mean(), (plain - plain.mean()) / raw["rewards/wer/std"])


def test_parts_that_all_say_the_same_normalise_to_nothing() -> None:
    rewards, metrics = judged(Mixture({"same": Nothing()}, {}, {}, {}, True), Terminal())
    assert metrics["reward"] == 0
    assert not rewards.any()


def test_a_text_that_one_part_cannot_score_is_invalid() -> None:
    assert judged(mixture(parts={"wer": WER, "half": Nothing()}), Terminal())[1]["rewards/invalid"] == 1


def test_evaluation_sums_without_normalising() -> None:
    seen = texts([("a b", ["a b"]), ("a", ["a b"])])
    said = mixture(weights={"wer": 2.0}, shifts={"exact": -0.5})(seen)
    assert said.scores.tolist() == [2 * 1 + 1 - 0.5, 2 * 0.5 - 0.5]
    assert said.columns == {"wer": [1, 0.5], "exact": [1, 0]}  # beside the samples
    assert (mixture(weights={"wer": 2.0}, normalize=True)(seen).scores == [3, 1]).all()


def test_numbers_a_token_can_be_scaled_but_not_shifted() -> None:
    together, _ = judged(Mixture({"places": Places()}, {"places": 2.0}, {}, {}, False), Token())
    assert torch.allclose(together, 2 * judged(Places(), Token())[0])
    for wrong in (mixture(parts={"p": Places()}, shifts={"p": 1.0}), mixture(parts={"p": Places()}, normalize=True)):
        with pytest.raises(UserError, match=r"reward.parts.p: gives one number a token, which cannot be shifted"):
            judged(wrong, Token())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"parts": {}}, "^parts: has no part"),
        ({"weights": {"bleu": 1.0}}, "^weights.bleu: there is no such part; there are wer, exact"),
        ({"normalize": True, "shifts": {"wer": 1.0}}, "^normalize: chooses scale and shift itself"),
        ({"parts": {"inner": mixture()}}, "^parts.inner: is a mixture itself"),
    ],
)
def test_what_cannot_be_mixed_is_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        mixture(**changes)


def test_parts_are_chosen_on_the_command_line(tmp_path: Path) -> None:
    chosen = [
        "reward=mixture",
        "+reward@reward.parts.wer=wer",
        "~reward@reward.parts.chrf",
        "+reward.weights.wer=0.5",
    ]
    assert train(tmp_path / "run", *chosen, "credit=delta") == 0
    logged = [line["metrics"] for line in lines(tmp_path / "run") if line["split"] == "train"]
    last = logged[-1]
    assert last["reward"] == pytest.approx(last["rewards/bleu/mean"] + 0.5 * last["rewards/wer/mean"])
    assert "rewards/chrf/mean" not in last
