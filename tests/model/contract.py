"""What every model must keep, whatever it is made of: checks that the tests of all models share. The vocabulary has
seven tokens, EOS is 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.episodes.beam import beam_search
from tokenrl_cli.episodes.sampling import Decoding, generate
from tokenrl_cli.interfaces import Model, ModelOutput

LIMIT = 6
GREEDY = Decoding(LIMIT, 0.0, 0, 1.0, 0.0, [], 1, 0.0)


def ragged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sources of 4, 1, 3 and 2 tokens, responses of 6, 2, 5 and 1, padded with junk."""
    draws = torch.Generator().manual_seed(1)
    source, actions = torch.randint(7, (4, 4), generator=draws), torch.randint(7, (4, 6), generator=draws)
    masks = [
        torch.arange(n) < torch.tensor(lengths).unsqueeze(1) for n, lengths in ((4, [4, 1, 3, 2]), (6, [6, 2, 5, 1]))
    ]
    return source, masks[0], actions, masks[1]


def stepwise(model: Model, source: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
    """The logits [B, T, V] of actions [B, T], one token at a time."""
    state, previous, outputs = model.start(source, mask), None, []
    for t in range(actions.shape[1]):
        output, state = model.step(state, previous)
        outputs.append(output.logits)
        previous = actions[:, t]
    return torch.cat(outputs, 1)


@torch.no_grad()
def check_steps(model: Any, tolerance: float) -> ModelOutput:
    """One step at a time is the teacher-forced pass, which is returned."""
    source, mask, actions, _ = ragged()
    whole: ModelOutput = model(source, mask, actions)
    assert whole.logits.shape == (4, 6, 7)
    assert whole.hidden.shape == (4, 6, model.width)
    difference = whole.logits.log_softmax(-1) - stepwise(model, source, mask, actions).log_softmax(-1)
    assert difference.abs().max() < tolerance
    return whole


@torch.no_grad()
def check_company(model: Any) -> None:
    """A row alone says what it says in a ragged batch, with junk in the padding of both sides (traps 2, 4 and 14)."""
    source, mask, actions, response = ragged()
    together = model(source, mask, actions).logits.log_softmax(-1)
    for row, (s, t) in enumerate(zip(mask.sum(1).tolist(), response.sum(1).tolist(), strict=True)):
        alone = model(source[row : row + 1, :s], mask[row : row + 1, :s], actions[row : row + 1, :t])
        assert (alone.logits.log_softmax(-1) - together[row : row + 1, :t]).abs().max() < 1e-5


@torch.no_grad()
def check_order(model: Any, times: tuple[int, ...]) -> None:
    """No output depends on its own or a later action, but the next one does: for actions that change at `times`."""
    source, mask, actions, _ = ragged()
    before = model(source, mask, actions).logits
    for t in times:
        changed = actions.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 7
        after = model(source, mask, changed).logits
        assert torch.allclose(after[:, : t + 1], before[:, : t + 1], atol=1e-6)
        assert t == 5 or not torch.allclose(after[:, t + 1], before[:, t + 1], atol=1e-4)


@torch.no_grad()
def check_states(model: Any) -> None:
    """Repeating and reordering a state is repeating and reordering its rows, and the old state stays usable."""
    source, mask, _, _ = ragged()
    rows, given = torch.tensor([2, 0, 0, 3]), torch.full((4, 3), 3)
    state = model.start(source, mask).repeat(2)
    wanted = stepwise(model, source[rows], mask[rows], given)
    _, state = model.step(state, None)
    for _ in range(2):
        output, following = model.step(state.reorder(rows * 2 + 1), given[:, 0])
        assert torch.allclose(output.logits, wanted[:, 1:2], atol=1e-5)
        output, _ = model.step(following, given[:, 1])
        assert torch.allclose(output.logits, wanted[:, 2:], atol=1e-5)


@torch.no_grad()
def check_empty_source(model: Any) -> None:
    """An empty source says the same in any company, whatever its padding; half precision is finite."""
    source, mask, actions, _ = ragged()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(source, mask, actions).logits.isfinite().all()
    mask = mask.index_fill(0, torch.tensor([2]), False)
    together = model(source, mask, actions).logits[2:3]
    assert together.isfinite().all()
    junk, nothing = (source[2:3, :1] + 1) % 7, torch.zeros(1, 1, dtype=torch.bool)
    assert torch.allclose(model(junk, nothing, actions[2:3]).logits, together, atol=1e-5)
    assert torch.allclose(stepwise(model, junk, nothing, actions[2:3]), together, atol=1e-5)


def check_beam(model: Any) -> None:
    """A beam of one is greedy decoding."""
    source, mask, _, _ = ragged()
    greedy = generate(model, source, mask, GREEDY, 1, 0, torch.Generator())
    beam = beam_search(model, source, mask, GREEDY, 0)
    assert torch.equal(beam.mask, greedy.mask)
    assert torch.equal(beam.actions, greedy.actions)


def check_gradients(model: Any, tolerance: float) -> None:
    """Every parameter learns, and padding teaches nothing."""
    source, mask, actions, response = ragged()

    def gradients(source: Tensor, actions: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        nll = -model(source, mask, actions).logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        nll[response].sum().backward()
        return {key: value.grad.clone() for key, value in model.named_parameters()}

    wanted = gradients(source, actions)
    junk = torch.where(response, actions, (actions + 1) % 7)
    for key, value in gradients(torch.where(mask, source, (source + 1) % 7), junk).items():
        assert value.isfinite().all(), key
        assert torch.allclose(value, wanted[key], atol=tolerance), key
