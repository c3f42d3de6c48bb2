"""What `generate` draws, against probabilities that are computed here, one token at a time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.toys import FunctionPolicy, anything, chi_squared
from tokenrl_cli.episodes.sampling import Decoding, Samples, _choose, distribution, generate

PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "epsilon": 0.0, "forbidden": []}
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.7}, {"epsilon": 0.3}, {"forbidden": [1]},
]  # fmt: skip
WAYS: list[dict[str, Any]] = [
    {},
    *SETTINGS,
    *(one | other for one, other in itertools.combinations(SETTINGS, 2) if one.keys() != other.keys()),
    {"temperature": 0.5, "top_k": 4, "top_p": 0.8, "epsilon": 0.2, "forbidden": [4]},
    {"temperature": 2.0, "top_k": 4, "top_p": 0.6, "epsilon": 0.1, "forbidden": [0, 3]},
    {"temperature": 0.0, "epsilon": 0.4},
    {"temperature": 0.0, "epsilon": 0.4, "forbidden": [2]},
]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(f"{k}={v}" for k, v in way.items()) or "plain")


def chances(logits: Sequence[float], way: dict[str, Any]) -> list[float]:
    """The probability of each token: ban, cut by number, cut by mass at the temperature, soften, explore."""
    how = PLAIN | way
    possible = [token for token in range(len(logits)) if token not in how["forbidden"]]
    ranked = sorted(possible, key=lambda token: -logits[token])
    if how["temperature"] == 0:
        softened = {token: float(token == ranked[0]) for token in possible}
    else:
        kept = ranked[: how["top_k"]] if how["top_k"] else ranked
        weights = {token: math.exp(logits[token] / how["temperature"]) for token in kept}
        total, nucleus, mass = sum(weights.values()), [], 0.0
        for token in kept:
            if mass < how["top_p"]:
                nucleus.append(token)
            mass += weights[token] / total
        possible = nucleus
        softened = {token: weights[token] / sum(weights[other] for other in nucleus) for token in nucleus}
    share = how["epsilon"]
    return [
        (1 - share) * softened[token] + share / len(possible) if token in possible else 0.0
        for token in range(len(logits))
    ]


LOGITS = [0.4, 1.3, -0.7, 0.9, -0.2, 0.1]


def said(policy: Any, sources: Sequence[int], samples: int, limit: int, way: dict[str, Any], seed: int = 0) -> Samples:
    decoding = Decoding(limit, *(PLAIN | way).values(), 1, 0.0)
    source = torch.tensor(sources).unsqueeze(1)
    return generate(policy, source, source >= 0, decoding, samples, 0, torch.Generator().manual_seed(seed))


def texts(found: Samples) -> list[tuple[int, ...]]:
    lengths = found.mask.sum(-1).tolist()
    return [tuple(row[:length]) for row, length in zip(found.actions.tolist(), lengths, strict=True)]


@pytest.mark.sample(4)
@ways
def test_a_token_is_drawn_as_often_as_it_should_be(way: dict[str, Any]) -> None:
    wanted = chances(LOGITS, way)
    found = said(FunctionPolicy(lambda source, text: LOGITS, 6), [0], 20_000, 1, way)
    assert chi_squared(torch.bincount(found.actions[:, 0], minlength=6).tolist(), wanted) > 1e-4
    if (PLAIN | way)["temperature"] > 0 or way.get("epsilon"):
        given = torch.tensor(wanted, dtype=torch.float64).log()[found.actions[:, 0]]
        assert (found.logprobs[:, 0] - given).abs().max() < 1e-12


@ways
def test_the_distribution_is_the_one_worked_out_here(way: dict[str, Any]) -> None:
    rows = [LOGITS, [-x for x in LOGITS], [3.0, 0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 5.0, 4.9, -9.0, 1.0, 2.0]]
    decoding = Decoding(1, *(PLAIN | way).values(), 1, 0.0)
    logprobs, support = distribution(torch.tensor(rows, dtype=torch.float64), decoding)
    wanted = torch.tensor([chances(row, way) for row in rows], dtype=torch.float64)
    assert (logprobs.exp() - wanted).abs().max() < 1e-12
    cut = PLAIN | way
    assert (support is None) == (not (cut["top_k"] or cut["top_p"] < 1) or cut["temperature"] == 0)
    if support is not None:
        for ids, row in zip(support.tolist(), wanted.tolist(), strict=True):
            assert set(ids) == {token for token, chance in enumerate(row) if chance > 0}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "way",
    [
        {},
        {"temperature": 0.6, "top_k": 2},
        {"temperature": 1.7, "top_p": 0.6},
        {"top_k": 2, "epsilon": 0.3},
        {"forbidden": [2], "epsilon": 0.2},
        {"temperature": 0.8, "top_k": 3, "top_p": 0.9, "epsilon": 0.1, "forbidden": [1]},
    ],
    ids=str,
)
def test_whole_texts_come_as_often_as_their_tokens_say(way: dict[str, Any]) -> None:
    """Of three sources, 4 tokens and at most 3 steps; rows end at different times."""
    logits, samples = anything(4, 3), 4_000
    found = said(FunctionPolicy(logits, 4), [5, 8, 6], samples, 3, way)
    everything: list[tuple[int, ...]] = [(0,)]
    everything += [(a, 0) for a in range(1, 4)]
    everything += [(a, b, c) for a in range(1, 4) for b in range(1, 4) for c in range(4)]
    lines, places = texts(found), range(3 * samples)
    for number, source in enumerate((5, 8, 6)):
        chance = {}
        for text in everything:
            steps = [chances(logits(source, text[:t]), way)[text[t]] for t in range(len(text))]
            chance[text] = math.prod(steps)
        assert sum(chance.values()) == pytest.approx(1)
        own = range(number * samples, (number + 1) * samples)
        counts = Counter(lines[i] for i in own)
        assert counts.keys() <= chance.keys()
        assert chi_squared([counts[text] for text in everything], [chance[text] for text in everything]) > 1e-4
    for i in places[::97]:
        source, text = (5, 8, 6)[i // samples], lines[i]
        wanted = [math.log(chances(logits(source, text[:t]), way)[text[t]]) for t in range(len(text))]
        assert found.logprobs[i, : len(text)].tolist() == pytest.approx(wanted, abs=1e-12)
        assert not found.logprobs[i, len(text) :].any()
        assert bool(found.ended[i]) == (text[-1] == 0)


def speaker(source: int, text: tuple[int, ...]) -> Sequence[float]:
    """Sources below 0 end at once, sources from 100 on never end, the others say what they like."""
    if source < 0 or source >= 100:
        return [99.0 if source < 0 else -99.0, 0.3, 0.1, 0.2]
    return anything(4, 1)(source, text)


@pytest.mark.parametrize("way", [{}, {"top_k": 2}, {"epsilon": 0.2, "temperature": 0.7}], ids=str)
@pytest.mark.parametrize("samples", [1, 3])
def test_a_row_says_the_same_whoever_else_is_talking(samples: int, way: dict[str, Any]) -> None:
    """Whatever the others say and however soon they end, a row in its place draws the same numbers at every step."""
    policy, own = FunctionPolicy(speaker, 4), list(range(12))
    found = []
    for others in (-1, 100, 50):
        sources = [each for source in own for each in (others, source, others)]
        rows = [i * samples + k for i, source in enumerate(sources) if source in own for k in range(samples)]
        heard = said(policy, sources, samples, 6, way, seed=4)
        lines = texts(heard)
        numbers = [[float(x) for x in heard.logprobs[i][heard.mask[i]]] for i in rows]
        found.append(([lines[i] for i in rows], numbers))
    assert found[0] == found[1] == found[2]
    assert len({len(text) for text in found[0][0]}) > 3  # they end at different times
    assert len(set(found[0][0])) > 8
    assert (
        said(policy, own, samples, 6, way, seed=5).actions.tolist()
        != said(policy, own, samples, 6, way).actions.tolist()
    )


def test_samples_of_a_source_stand_together_and_differ() -> None:
    def echo(source: int, text: tuple[int, ...]) -> Sequence[float]:
        return [0.0 if text else -99.0, *(0.0 if token == source else -99.0 for token in range(1, 4))]

    lines = texts(said(FunctionPolicy(echo, 4), [3, 1, 2], 40, 4, {}))
    assert [text[0] for text in lines] == [3] * 40 + [1] * 40 + [2] * 40
    assert all(len(set(lines[start : start + 40])) > 2 for start in (0, 40, 80))


def test_a_draw_falls_on_the_token_whose_stretch_it_lies_in() -> None:
    logprobs = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64).log().expand(7, -1)
    draw = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999, 1 - 2**-53], dtype=torch.float64)
    assert _choose(logprobs, draw, Decoding(1, 1.0, 0, 1.0, 0.0, [], 1, 0.0)).tolist() == [1, 1, 3, 3, 4, 4, 4]


def test_the_longest_row_gives_the_width_and_the_limit_ends_the_rest() -> None:
    for limit in (1, 2, 5):
        found = said(FunctionPolicy(speaker, 4), [-1, 100, -1], 1, limit, {})
        assert found.mask.sum(-1).tolist() == [1, limit, 1]
        assert found.actions.shape == (3, limit)
        assert found.ended.tolist() == [True, False, True]
    assert said(FunctionPolicy(speaker, 4), [-1, -1], 1, 5, {}).actions.shape == (2, 1)
