"""Beam search against listing every text, and against another search that keeps lists."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.toys import FunctionPolicy, Logits, anything
from tests.world import EOS, RECORDED, SEQUENCES, WORLD, TabularPolicy, batch_of, probabilities
from tokenrl_cli.episodes.beam import beam_search, penalty
from tokenrl_cli.episodes.sampling import Decoding, generate
from tokenrl_cli.optim import NonFinite

BEAM = Decoding(3, 0.0, 0, 1.0, 0.0, [], 15, 0.0)
TABLES = [WORLD["policy_logits"], WORLD["reference_logits"], WORLD["behaviour_logits"]]


def divisor(length: int, alpha: float) -> float:
    """Wu et al. 2016, equation 14."""
    return float((5 + length) ** alpha / (5 + 1) ** alpha)


def test_the_penalty_is_the_published_one() -> None:
    for alpha in (0.0, 0.6, 1.0, 1.7):
        decoding = replace(BEAM, length_penalty=alpha)
        assert [penalty(n, decoding) for n in (1, 7, 13)] == pytest.approx([1.0, 2**alpha, 3**alpha])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_enough_beams_find_the_best_text(table: list[list[float]], alpha: float) -> None:
    decoding, policy, batch = replace(BEAM, length_penalty=alpha), TabularPolicy(table), batch_of(2)
    found = beam_search(policy, batch.source, batch.source_mask, decoding, EOS)
    scores = probabilities(policy).detach().log()
    ranked = [score / divisor(len(s), alpha) for score, s in zip(scores, SEQUENCES, strict=True)]
    best = SEQUENCES[max(range(len(ranked)), key=ranked.__getitem__)]
    for row, mask, ended in zip(found.actions.tolist(), found.mask.tolist(), found.ended.tolist(), strict=True):
        assert row[: sum(mask)] == best
        assert ended == (EOS in best)


@pytest.mark.parametrize("table", TABLES)
def test_one_beam_is_greedy_decoding(table: list[list[float]]) -> None:
    policy, batch = TabularPolicy(table), batch_of(3)
    one = replace(BEAM, beam_size=1, length_penalty=1.0)
    found = beam_search(policy, batch.source, batch.source_mask, one, EOS)
    greedy = generate(policy, batch.source, batch.source_mask, one, 1, EOS, torch.Generator())
    assert torch.equal(found.mask, greedy.mask)
    assert torch.equal(found.ended, greedy.ended)
    assert torch.equal(found.actions, greedy.actions)


def searched(
    logits: Logits, size: int, source: int, beams: int, limit: int, alpha: float, banned: list[int]
) -> tuple[int, ...]:
    """The definition, on lists: of the best 2 k continuations of the open texts those of the first k that say EOS are
    finished, and the best k of the others stay open; k finished texts end it. At the limit open texts compete, too."""
    still: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, limit + 1):
        grown = []
        for score, text in still:
            row = [-math.inf if token in banned else value for token, value in enumerate(logits(source, text))]
            level = math.log(sum(map(math.exp, row)))
            grown += [(score + row[token] - level, (*text, token)) for token in range(size) if token not in banned]
        grown.sort(key=lambda pair: -pair[0])
        for place, (score, text) in enumerate(grown[: 2 * beams]):
            if text[-1] == EOS and place < beams:
                finished.append((score / divisor(length, alpha), text))
        still = [(score, text) for score, text in grown[: 2 * beams] if text[-1] != EOS][:beams]
        if length == limit:
            finished += [(score / divisor(limit, alpha), text) for score, text in still]
        if len(finished) >= beams:
            break
    return max(finished)[1]


@pytest.mark.parametrize("beams", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_any_number_of_beams_finds_what_another_search_finds(beams: int, alpha: float) -> None:
    """40 sources at once, 5 tokens, limits of 1 to 6: hypotheses end at different lengths, and some never."""
    sources, told = list(range(40)), set()
    for limit, spread, banned in ((1, 1.0, []), (4, 1.0, []), (6, 1.5, []), (6, 0.7, [2]), (6, 3.0, [])):
        logits = anything(5, limit, spread)
        decoding = Decoding(limit, 0.0, 0, 1.0, 0.0, banned, beams, alpha)
        source = torch.tensor(sources).unsqueeze(1)
        found = beam_search(FunctionPolicy(logits, 5), source, source >= 0, decoding, EOS)
        for i, row in enumerate(found.actions.tolist()):
            text = tuple(row[: int(found.mask[i].sum())])
            assert text == searched(logits, 5, i, beams, limit, alpha, banned)
            assert bool(found.ended[i]) == (text[-1] == EOS)
            assert not any(row[len(text) :])
            told.add((len(text), text[-1] == EOS))
        assert not found.logprobs.any()
        assert found.support is None
    assert {length for length, _ in told} >= {1, 2, 3, 4}
    assert {ended for _, ended in told} == {True, False}


@pytest.mark.parametrize("table", TABLES)
def test_the_best_hypotheses_are_all_texts_ranked_where_there_are_enough_beams(table: list[list[float]]) -> None:
    """17 of 15: two rows stay empty; and the first of them are the best of one, of two, of three."""
    policy, batch = TabularPolicy(table), batch_of(2)
    ranked = [SEQUENCES[i] for i in probabilities(policy).argsort(descending=True).tolist()]
    for beams in (15, 17):
        decoding = replace(BEAM, beam_size=beams)
        found = beam_search(policy, batch.source, batch.source_mask, decoding, EOS, beams)
        texts = [row[: int(m.sum())] for row, m in zip(found.actions.tolist(), found.mask, strict=True)]
        assert texts == [*ranked, *[[]] * (beams - 15)] * 2
        assert found.ended.tolist() == [EOS in text for text in texts]
        for few in (1, 2, 3):
            less = beam_search(policy, batch.source, batch.source_mask, decoding, EOS, few)
            assert [row[: int(m.sum())] for row, m in zip(less.actions.tolist(), less.mask, strict=True)] == (
                ranked[:few] * 2
            )


@pytest.mark.parametrize("beams", [2, 3, 4])
def test_the_best_hypotheses_of_few_beams_are_different_and_begin_with_the_best(beams: int) -> None:
    source = torch.arange(40).unsqueeze(1)
    for limit, spread in ((4, 1.0), (6, 1.5), (6, 3.0)):
        policy = FunctionPolicy(anything(5, limit, spread), 5)
        decoding = Decoding(limit, 0.0, 0, 1.0, 0.0, [], beams, 0.0)
        several = beam_search(policy, source, source >= 0, decoding, EOS, beams)
        one = beam_search(policy, source, source >= 0, decoding, EOS)
        texts = [tuple(row[: int(m.sum())]) for row, m in zip(several.actions.tolist(), several.mask, strict=True)]
        first = [tuple(row[: int(m.sum())]) for row, m in zip(one.actions.tolist(), one.mask, strict=True)]
        assert all(texts)
        assert all(len(set(texts[i : i + beams])) == beams for i in range(0, len(texts), beams))
        assert sum(texts[i * beams] == text for i, text in enumerate(first)) == len(first)


@pytest.mark.parametrize(("beams", "alpha"), [(2, 2.0), (3, 3.0), (4, -1.0)])
def test_a_long_text_may_still_overtake(beams: int, alpha: float) -> None:
    """Where length is praised much the best text is found late; below 0 it is blamed."""
    logits, limit = anything(3, 8, 2.0), 8
    source = torch.arange(60).unsqueeze(1)
    decoding = Decoding(limit, 0.0, 0, 1.0, 0.0, [], beams, alpha)
    found, lengths = beam_search(FunctionPolicy(logits, 3), source, source >= 0, decoding, EOS), set()
    for i, row in enumerate(found.actions.tolist()):
        text = tuple(row[: int(found.mask[i].sum())])
        assert text == searched(logits, 3, i, beams, limit, alpha, [])
        lengths.add(len(text))
    assert len(lengths) > (2 if alpha > 0 else 1)


def test_settings_of_sampling_do_not_reach_a_beam() -> None:
    """A beam compares the policy's own probabilities, whatever temperature, cut or exploration stand beside it."""
    source = torch.arange(30).unsqueeze(1)
    policy = FunctionPolicy(anything(5, 9), 5)
    plain = Decoding(5, 0.0, 0, 1.0, 0.0, [], 3, 0.6)
    found = beam_search(policy, source, source >= 0, plain, EOS)
    warped = replace(plain, temperature=3.0, top_k=2, top_p=0.5, epsilon=0.9)
    other = beam_search(policy, source, source >= 0, warped, EOS)
    assert torch.equal(found.actions, other.actions)
    assert torch.equal(found.mask, other.mask)


def test_without_any_number_there_is_no_hypothesis() -> None:
    model = TabularPolicy(RECORDED.policy)
    model.table.data.fill_(float("nan"))
    source = torch.ones(2, 1, dtype=torch.int64)
    with pytest.raises(NonFinite, match="no numbers"):
        beam_search(model, source, source.bool(), replace(BEAM, beam_size=2), EOS)
