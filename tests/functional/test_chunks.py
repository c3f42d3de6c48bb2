"""A reduction computed on chunks of rows equals the same reduction on all rows, alone and inside a whole update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.presets import preset
from tests.world import Letters, numbered
from tokenrl_cli.episodes.sampling import Decoding, distribution, of_tokens
from tokenrl_cli.functional import chunks
from tokenrl_cli.functional.chunks import in_pieces, logits_of, over_states, sum_over_states
from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.kl import full
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.interfaces import Batch, ModelOutput, UserError
from tokenrl_cli.model.recurrent import Recurrent

V, B, T, D = 23, 3, 5, 4
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.mark.parametrize("largest", [7, 30, 10**6])
def test_pieces_give_the_same_values_and_gradients(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    actions = torch.arange(15).view(3, 5) % 7
    widest = 0

    def reduced(hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        nonlocal widest
        logits = hidden @ weight.T
        widest = max(widest, logits.numel())
        return logits.logsumexp(-1), logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    logits = hidden @ weight.T
    expected = [logits.logsumexp(-1), logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)]
    exact = torch.autograd.grad((expected[0] * expected[1].sin()).sum(), (hidden, weight))
    monkeypatch.setattr(chunks, "LARGEST", largest)
    found = in_pieces(reduced, 7, hidden, actions)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (3, 5)
        assert torch.allclose(one, other, rtol=1e-14)
    for one, other in zip(torch.autograd.grad((found[0] * found[1].sin()).sum(), (hidden, weight)), exact, strict=True):
        assert torch.allclose(one, other, rtol=1e-13)
    assert widest <= max(7, largest)


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the number of states a chunk, for a vocabulary of V tokens."""

    def states(rows: int) -> None:
        monkeypatch.setattr(chunks, "WHOLE", 0)
        monkeypatch.setattr(chunks, "LARGEST", rows * V)
        monkeypatch.setattr(chunks, "FEWEST", 1)
        monkeypatch.setattr(chunks, "EVEN", 1)

    return states


def random(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


DECODINGS = {
    "plain": Decoding(T, 1.0, 0, 1.0, 0.0, [], 1, 0.0),
    "warm": Decoding(T, 0.7, 0, 1.0, 0.1, [3], 1, 0.0),
    "cut": Decoding(T, 1.3, 5, 1.0, 0.0, [], 1, 0.0),
}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_log_probabilities_entropy_kl_and_nll_in_chunks_are_those_of_the_whole(
    decoding: str, dtype: torch.dtype, chunked: Callable[[int], None]
) -> None:
    """In value and in gradient, of every state that the mask has; no chunk is larger than it may be."""
    hidden, weight = random(0, B, T, D, dtype=dtype), random(1, V, D, dtype=dtype)
    reference, actions = random(2, B, T, V, dtype=dtype), torch.arange(B * T).view(B, T) % V
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 5])
    chosen = DECODINGS[decoding]
    _, support = distribution(hidden @ weight.T, chosen)
    actions = actions if support is None else support[..., 1]
    for each in (hidden, weight):
        each.requires_grad_()
    widest = 0

    def reduced(hidden: Tensor, actions: Tensor, support: Tensor | None, reference: Tensor) -> tuple[Tensor, ...]:
        nonlocal widest
        logits = logits_of(ModelOutput(hidden, lambda of: of @ weight.T), hidden)
        widest = max(widest, logits.numel())
        log_policy, _ = distribution(logits, chosen, support)
        nll = negative_log_likelihood(logits, actions, 0.1)
        return of_tokens(log_policy, actions), entropy(logits), full(log_policy, reference), nll

    def both() -> tuple[list[Tensor], tuple[Tensor, ...]]:
        found = [each.masked_fill(~mask, 0.0) for each in over_states(reduced, V, mask, hidden, *columns)]
        total = sum((i + each.sin()).square().masked_fill(~mask, 0.0).sum() for i, each in enumerate(found))
        return found, torch.autograd.grad(total, (hidden, weight))  # type: ignore[arg-type]

    columns = actions, support, reference
    expected, exact = both()
    assert widest == B * T * V
    for rows in (2, 3, 7):
        widest = 0
        chunked(rows)
        found, gradients = both()
        assert widest == rows * V
        for one, other in zip([*found, *gradients], [*expected, *exact], strict=True):
            assert one.shape == other.shape
            assert torch.allclose(one, other, rtol=CLOSE[dtype] * 10, atol=CLOSE[dtype])


def test_nothing_is_computed_for_states_that_the_mask_leaves_out(chunked: Callable[[int], None]) -> None:
    chunked(4)
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[0, 1:4] = mask[2, 0] = mask[2, 4] = True
    rows = 0

    def reduced(hidden: Tensor) -> tuple[Tensor, ...]:
        nonlocal rows
        rows += hidden.shape[1]
        return (hidden.sum(-1),)

    hidden = random(0, B, T, D, dtype=torch.float64)
    hidden[0, 0] = torch.nan
    (found,) = over_states(reduced, V, mask, hidden)
    assert rows == 5
    assert torch.equal(found, hidden.sum(-1).where(mask, torch.zeros(())))
    (nothing,) = over_states(reduced, V, torch.zeros_like(mask), hidden)
    assert nothing.shape == mask.shape


@pytest.mark.parametrize("learns", [(True, True), (False, True), (True, False)])
def test_a_sum_in_chunks_has_the_gradient_of_the_whole_and_computes_nothing_twice(
    learns: tuple[bool, bool], chunked: Callable[[int], None]
) -> None:
    hidden, weight = random(0, B, T, D, dtype=torch.float64), random(1, V, D, dtype=torch.float64)
    idle, actions = random(2, 3, dtype=torch.float64).requires_grad_(), torch.arange(B * T).view(B, T) % V
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 5])
    hidden.requires_grad_(learns[0])
    weight.requires_grad_(learns[1])
    learning = [each for each in (hidden, weight) if each.requires_grad]
    rows = 0

    def nll(hidden: Tensor, actions: Tensor) -> Tensor:
        nonlocal rows
        rows += hidden.shape[0] * hidden.shape[1]
        return negative_log_likelihood(hidden @ weight.T, actions, 0.1)

    def both() -> tuple[Tensor, tuple[Tensor, ...]]:
        total = sum_over_states(nll, V, mask, [idle, weight], hidden, actions)
        return total.detach(), torch.autograd.grad((3 * total).square(), learning)

    expected, exact = both()
    for size in (2, 3, 7):
        chunked(size)
        rows = 0
        found, gradients = both()
        assert rows == mask.sum()
        assert torch.allclose(found, expected, rtol=1e-13)
        for one, other in zip(gradients, exact, strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    assert sum_over_states(nll, V, torch.zeros_like(mask), [weight], hidden, actions) == 0


def test_a_projection_that_ignores_its_states_is_refused() -> None:
    output = ModelOutput(torch.zeros(B, T, D), lambda _: torch.zeros(B, T, V))
    assert logits_of(output, output.hidden).shape == (B, T, V)
    with pytest.raises(UserError, match="must compute logits from the hidden states that it is given"):
        logits_of(output, output.hidden[:1, :2])


def updated(name: str, *words: str) -> tuple[dict[str, float], list[Tensor]]:
    """What one update logs, and the gradients it leaves."""
    torch.manual_seed(0)
    model = Recurrent(Letters(V), Letters(V), "gru", 6, 8, 1, 0.0, False, False).double()
    algorithm = preset(name, model, Letters(V), T, *words)
    draw = torch.Generator().manual_seed(5)
    source, targets = (torch.randint(1, V, (4, T), generator=draw) for _ in range(2))
    mask = torch.ones(4, T, dtype=torch.bool)
    mask[1, 3:] = False
    nothing: Any = [["?"]] * 4
    rollout = algorithm.collect(
        Batch(0, source, mask, targets, mask, targets, mask, ["?"] * 4, nothing, {}, *numbered(source))
    )
    rewards = torch.rand(rollout.actions.shape, generator=draw, dtype=torch.float64) * rollout.mask
    logged = algorithm.update(replace(rollout, rewards=rewards))
    return logged, [each.grad for each in model.parameters() if each.grad is not None]


ONCE = ["algorithm.epochs=1", "algorithm.minibatches=1"]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "words",
    [
        ["mle", "algorithm.label_smoothing=0.1"],
        ["gold"],
        ["rloo", "algorithm.nll_mix=0.2", "algorithm.add_reference=true"],
        ["rloo", "algorithm.top_k=5", "algorithm.temperature=0.7", "algorithm.kl_loss_coef=0.1"],
        ["rloo", "algorithm.epsilon=0.1", "algorithm.entropy_coef=0.1", "algorithm.micro_batches=2"],
        ["ppo", *ONCE, "algorithm.kl_loss_coef=0.1", "algorithm/divergence=full", "algorithm.entropy_coef=0.1"],
        ["grpo"],
        ["ocd", "algorithm.tau=0.5"],
        ["actor_critic", "algorithm.critic_steps=0", "algorithm.entropy_coef=0.1", "algorithm.nll_mix=0.2"],
    ],
    ids=" ".join,
)
def test_an_update_in_chunks_logs_and_learns_what_an_update_on_the_whole_does(
    words: list[str], chunked: Callable[[int], None]
) -> None:
    expected, exact = updated(*words)
    chunked(3)
    found, gradients = updated(*words)
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-12)
    assert len(gradients) == len(exact)
    for one, other in zip(gradients, exact, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
