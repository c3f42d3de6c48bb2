"""Optimal completion distillation: the policy it is satisfied with, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.reward.said import error_rate, texts
from tests.toys import chi_squared
from tests.values import completion_values
from tests.world import LENGTH, SEQUENCES, STATES, WORLD, Capture, Letters, TabularPolicy, batch_of, samples_of
from tokenrl_cli.algorithm.ocd import Ocd
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.interfaces import SAMPLED
from tokenrl_cli.tokenizer.char import Char
from tokenrl_cli.tokenizer.word import Word

REFERENCE = [1, 2]  # batch_of demonstrates "ab"


def algorithm(table: Any, **changes: Any) -> Ocd:
    values: dict[str, Any] = {"samples_per_source": 1, "temperature": 1.0, "tau": 0.5, "micro_batches": 1}
    return Ocd(TabularPolicy(table), Letters(), LENGTH, 0, **(values | changes), optimizer=Capture)


def optimal() -> list[list[float]]:
    """Q* of every state of the world, by the definition, one prefix at a time."""
    return [completion_values(list(prefix), REFERENCE, 3)[-1].tolist() for prefix in STATES]


def gradient(ocd: Ocd, sequences: list[list[int]]) -> torch.Tensor:
    batch = batch_of(1)
    ocd.update(rollout_of(batch, samples_of(sequences, ocd.model), SAMPLED))
    found: torch.Tensor = ocd.optimizer.gradient  # type: ignore[attr-defined]
    return found


def test_it_is_satisfied_with_the_softmax_of_the_optimal_values_and_with_nothing_else() -> None:
    satisfied = algorithm([[value / 0.5 for value in row] for row in optimal()])
    assert gradient(satisfied, SEQUENCES).abs().max() < 1e-15
    assert gradient(algorithm(WORLD["policy_logits"]), SEQUENCES).abs().max() > 1e-3


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_the_loss_is_the_divergence_of_the_policy_from_the_optimal_tokens(tau: float) -> None:
    """KL(q || pi), q the softmax of Q* / tau: its gradient for a logit is pi - q; that of KL(pi || q) is another."""
    ocd, said = algorithm(WORLD["policy_logits"], tau=tau), [SEQUENCES[i] for i in (0, 5, 14, 2)]
    q = (torch.tensor(optimal(), dtype=torch.float64) / tau).softmax(-1)
    policy, tokens = ocd.model.table.detach().softmax(-1), sum(map(len, said))
    wanted, loss = torch.zeros_like(q), 0.0
    for sequence in said:
        for t in range(len(sequence)):
            state = STATES[tuple(sequence[:t])]
            wanted[state] += (policy[state] - q[state]) / tokens
            loss += float((q[state] * (q[state] / policy[state]).log()).sum()) / tokens
    assert (gradient(ocd, said) - wanted).abs().max() < 1e-12
    batch = batch_of(1)
    logged = ocd.update(rollout_of(batch, samples_of(said, ocd.model), SAMPLED))
    assert logged["loss/ocd"] == pytest.approx(loss)


def test_it_is_the_clean_reference_that_tells_what_is_best_and_the_policy_that_says_the_prefixes() -> None:
    batch = replace(batch_of(1), targets=torch.tensor([[2, 2, 0]]), source=torch.tensor([[2]]))
    ocd = algorithm([[value / 0.5 for value in row] for row in optimal()])
    ocd.update(rollout_of(batch, samples_of(SEQUENCES, ocd.model), SAMPLED))
    assert ocd.optimizer.gradient.abs().max() < 1e-15  # type: ignore[attr-defined]
    warm = algorithm(WORLD["policy_logits"], samples_per_source=3, temperature=1.5)
    rollout = warm.collect(batch_of(400))
    assert len(rollout) == 1200
    assert (rollout.role == SAMPLED).all()
    shares = (warm.model.table.detach()[0] / 1.5).softmax(-1)
    counts = torch.bincount(rollout.actions[:, 0], minlength=3)
    assert chi_squared(counts.tolist(), shares.tolist()) > 1e-4


def test_by_hand_the_best_tokens_of_a_state_share_the_mass() -> None:
    values = dict(zip(STATES, optimal(), strict=True))
    assert values[()] == [-2, 0, -1]  # of "ab": EOS leaves two errors, "a" none, "b" one
    assert values[(1,)] == [-1, -1, 0]
    assert values[(2,)] == [-1, -1, -1]  # one error is made: "b", "ba" and "bb" are all as near as can be


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_change_no_gradient(parts: int) -> None:
    ragged = [SEQUENCES[i] for i in (0, 5, 14, 2)]
    whole, split = (gradient(algorithm(WORLD["policy_logits"], micro_batches=n), ragged) for n in (1, parts))
    assert (whole - split).abs().max() < 1e-15


@pytest.mark.parametrize(
    ("tokenizer", "unit", "reference"), [(Word(20, 1), "words", "one two two"), (Char(20, 1), "characters", "a ba")]
)
def test_its_optimal_values_are_errors_of_words_or_characters_by_the_tokenizer(
    tokenizer: Any, unit: Any, reference: str
) -> None:
    """Q* of every token after every prefix of up to two tokens: minus the errors, in units of `wer` or of `cer`, of the
    best text that goes on so; Q* of EOS minus those of the prefix as it stands. Spaces at the edges are none of cer's
    characters, so no prefix ends in one."""
    tokenizer.train([reference, "three"])
    goal, reward = tokenizer.encode(reference), error_rate(unit)
    tokens = [token for token in range(2, tokenizer.size) if tokenizer.decode([token]).strip()]
    for prefix in [[], *([a] for a in tokens), *([a, b] for a in tokens for b in tokens)]:
        values = completion_values(prefix, goal, tokenizer.size)[-1].tolist()
        strings = [tokenizer.decode(prefix), *(tokenizer.decode([*prefix, token]) for token in tokens)]
        rows = texts([(string, [reference]) for string in strings], [2] * len(strings))
        open_ended = [[string, string] for string in strings]  # the first of two is not finished
        best = (reward.completion_scores(rows, open_ended)[:, 0] - 1) * len(goal)
        assert [values[token] for token in tokens] == pytest.approx(best[1:])
        assert values[tokenizer.eos_id] == pytest.approx((reward(rows)[0] - 1) * len(goal))
