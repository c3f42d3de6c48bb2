"""Optimisers, their clipping and their schedules, by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenrl_cli import optim
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.optim import NonFinite, Optimizer, ParameterGroup, gradient_step, over_steps


def flat(step: int) -> float:
    return 1.0


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def descent(*parameters: nn.Parameter, lr: float = 1.0, clip_norm: float = 0.0, schedule: Any = flat) -> Optimizer:
    return optim.sgd(parameters, lr, 0.0, 0.0, clip_norm, schedule)


def stepped(optimizer: Optimizer, parameters: list[nn.Parameter], *gradients: list[Any]) -> dict[str, float]:
    for one, gradient in zip(parameters, gradients, strict=True):
        one.grad = torch.tensor(gradient, dtype=one.dtype)
    return optimizer.step()


@pytest.mark.parametrize("clip_norm", [0.5, 2.0, 12.9])
def test_a_gradient_is_shortened_to_the_norm_over_all_parameters(clip_norm: float) -> None:
    one, other = parameter(1.0, 2.0), parameter(3.0)
    logged = stepped(descent(one, other, clip_norm=clip_norm), [one, other], [3.0, 4.0], [12.0])  # norm 13
    share = clip_norm / 13
    assert one.tolist() == pytest.approx([1 - 3 * share, 2 - 4 * share], abs=1e-5)
    assert other.tolist() == pytest.approx([3 - 12 * share], abs=1e-5)
    moved = math.hypot(one.tolist()[0] - 1, one.tolist()[1] - 2, other.tolist()[0] - 3)
    assert moved == pytest.approx(clip_norm, rel=1e-5)
    assert logged == {"grad_norm": pytest.approx(13), "grad_clipped": 1.0, "lr": 1.0}


@pytest.mark.parametrize("clip_norm", [0.0, 13.1, 100.0])
def test_a_gradient_that_is_short_enough_stays(clip_norm: float) -> None:
    one, other = parameter(0.0, 0.0), parameter(0.0)
    logged = stepped(descent(one, other, clip_norm=clip_norm), [one, other], [3.0, 4.0], [12.0])
    assert (one.tolist(), other.tolist()) == ([-3.0, -4.0], [-12.0])
    assert logged["grad_clipped"] == 0
    assert logged["grad_norm"] == pytest.approx(13)


def test_a_step_takes_the_rate_of_its_own_number_from_0_on() -> None:
    """Of a schedule that is 2 ** -step: the first step is the whole rate."""
    one = parameter(0.0)
    optimizer, places, rates = descent(one, lr=0.8, schedule=lambda step: 2.0**-step), [], []
    for _ in range(4):
        rates.append(stepped(optimizer, [one], [1.0])["lr"])
        places.append(one.item())
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1])
    assert places == pytest.approx([-0.8, -1.2, -1.4, -1.5])
    assert optimizer.steps == 4


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (partial(optim.constant, warmup_steps=0), {0: 1, 1: 1, 500: 1}),
        (partial(optim.constant, warmup_steps=4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1, 5: 1, 99: 1}),
        (
            partial(optim.linear, warmup_steps=4, horizon=14, final_fraction=0.1),
            {0: 0.2, 1: 0.4, 3: 0.8, 4: 1, 5: 0.91, 9: 0.55, 13: 0.19, 14: 0.1, 15: 0.1, 99: 0.1},
        ),
        (
            partial(optim.linear, warmup_steps=0, horizon=10, final_fraction=0.0),
            {0: 1, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0, 11: 0},
        ),
        (
            partial(optim.cosine, warmup_steps=4, horizon=12, final_fraction=0.1),
            {0: 0.2, 1: 0.4, 3: 0.8, 4: 1, 6: 0.1 + 0.9 * (1 + 2**-0.5) / 2, 8: 0.55,
             10: 0.1 + 0.9 * (1 - 2**-0.5) / 2, 12: 0.1, 13: 0.1, 99: 0.1},
        ),
        (
            partial(optim.cosine, warmup_steps=0, horizon=6, final_fraction=0.0),
            {0: 1, 2: 0.75, 3: 0.5, 4: 0.25, 6: 0, 7: 0},
        ),
        (
            partial(optim.inverse_sqrt, warmup_steps=3),
            {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 4: math.sqrt(4 / 5), 8: 2 / 3, 15: 0.5, 63: 0.25},
        ),
        (partial(optim.inverse_sqrt, warmup_steps=0), {0: 1, 3: 0.5, 99: 0.1}),
    ],
    ids=["constant", "warmed", "linear", "linear alone", "cosine", "cosine alone", "root", "root alone"],
)  # fmt: skip
def test_schedules_by_hand(schedule: Any, wanted: dict[int, float]) -> None:
    """At 0, 1, around the end of the warm-up, on the way, at the horizon and past it."""
    assert {step: schedule(step) for step in wanted} == pytest.approx(wanted, abs=1e-15)


def test_adam_by_hand() -> None:
    """Two steps of Kingma & Ba's algorithm 1, of gradients 1 and 3."""
    one = parameter(0.0)
    optimizer = optim.adam([one], 0.1, [0.9, 0.99], 1e-3, 0.0, lambda step: 1 - 0.5 * step)
    first, second, place = 0.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, 3.0), 1):
        stepped(optimizer, [one], [gradient])
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        mean, square = first / (1 - 0.9**step), second / (1 - 0.99**step)
        place -= 0.1 * (1 - 0.5 * (step - 1)) * mean / (math.sqrt(square) + 1e-3)
        assert one.item() == pytest.approx(place, rel=1e-12)


def matrix(value: float) -> nn.Parameter:
    return nn.Parameter(torch.full((1, 1), value, dtype=torch.float64))


def test_decay_is_decoupled_in_adamw_and_part_of_the_gradient_in_sgd() -> None:
    one, other = matrix(2.0), matrix(2.0)
    stepped(optim.adamw([one], 0.1, [0.9, 0.99], 0.0, 0.5, 0.0, flat), [one], [[4.0]])
    assert one.item() == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)
    optimizer = optim.sgd([other], 0.1, 0.9, 0.5, 0.0, flat)
    stepped(optimizer, [other], [[4.0]])
    assert other.item() == pytest.approx(2 - 0.1 * 5)
    stepped(optimizer, [other], [[4.0]])
    assert other.item() == pytest.approx(1.5 - 0.1 * (0.9 * 5 + 4 + 0.5 * 1.5))


def test_no_bias_and_no_gain_of_a_normalisation_decays() -> None:
    layers = nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()
    for make in (partial(optim.adamw, betas=[0.9, 0.99], eps=1e-8), partial(optim.sgd, momentum=0.0)):
        before = [each.detach().clone() for each in layers.parameters()]
        optimizer = make(layers.parameters(), lr=0.1, weight_decay=0.5, clip_norm=0.0, schedule=flat)
        for each in layers.parameters():
            each.grad = torch.zeros_like(each)
        optimizer.step()
        for each, was in zip(layers.parameters(), before, strict=True):
            assert torch.allclose(each, was * (0.95 if each.dim() > 1 else 1.0), rtol=0, atol=1e-15)


def test_a_group_learns_at_its_own_factor_of_every_rate_of_the_schedule() -> None:
    """A head with the factor 4 moves as 4 (w h + b) did with the factor 1: Adam's steps know no size of a gradient."""
    heads, scaled, trunk = parameter(0.0), parameter(0.0), parameter(0.0)
    groups = [trunk, ParameterGroup([heads], 4.0), scaled]
    optimizer = optim.adam(groups, 0.1, [0.9, 0.99], 1e-12, 0.0, lambda step: 2.0**-step)
    for gradient in (1.0, -3.0, 0.5):
        logged = stepped(optimizer, [trunk, heads, scaled], [gradient], [gradient], [4 * gradient])
        assert trunk.item() == pytest.approx(scaled.item())
        assert heads.item() == pytest.approx(4 * trunk.item())
    assert logged["lr"] == pytest.approx(0.1 / 4)
    assert trunk.item() != 0


def test_what_requires_no_gradient_is_left_alone_and_keeps_its_number() -> None:
    """State that was saved while a parameter was frozen belongs to the same parameters when it learns again."""
    one, frozen, other = matrix(1.0), matrix(2.0), matrix(3.0)
    make = partial(optim.adamw, lr=0.1, betas=[0.9, 0.99], eps=1e-8, clip_norm=0.0, schedule=flat)
    optimizer = make([one, frozen.requires_grad_(False), ParameterGroup([other], 2.0)], weight_decay=0.5)
    for each in (one, other):
        each.grad = torch.ones_like(each)
    optimizer.step()
    assert frozen.item() == 2.0
    assert one.item() < 1
    assert other.item() < 3
    state = optimizer.state_dict()
    assert {key.split(".")[0] for key in state} == {"steps", "0", "2"}
    thawed = make([one, frozen.requires_grad_(True), ParameterGroup([other], 9.0)], weight_decay=0.0)
    thawed.load_state_dict(state)
    again = thawed.state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(torch.as_tensor(again[k]), torch.as_tensor(state[k])) for k in state)
    with pytest.raises(ValueError, match="no parameter 2"):
        make([one, frozen], weight_decay=0.0).load_state_dict(state)
    with pytest.raises(UserError, match="nothing to learn"):
        make([frozen.requires_grad_(False)], weight_decay=0.0)


def half(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.bfloat16))


def test_small_steps_of_bfloat16_weights_add_up() -> None:
    """Each is 1e-4 of a weight: bfloat16 itself, whose numbers below 1 lie 2^-8 apart, would round every one away."""
    lost, one, other = torch.ones(2, dtype=torch.bfloat16), half(1.0, 1.0), parameter(1.0, 1.0)
    optimizer, exact = descent(one, lr=1e-4), descent(other, lr=1e-4)
    for _ in range(100):
        lost -= 1e-4 * torch.tensor([1.0, 2.0])
        stepped(optimizer, [one], [1.0, 2.0])
        stepped(exact, [other], [1.0, 2.0])
    assert lost.tolist() == [1, 1]
    assert one.tolist() == other.detach().bfloat16().tolist() != [1, 1]
    assert optimizer.state_dict()["0.master"].tolist() == pytest.approx([0.99, 0.98], rel=1e-5)


def test_a_bfloat16_weight_that_was_loaded_counts_as_it_is() -> None:
    one = half(1.0, 1.0)
    optimizer = descent(one, lr=1e-3)
    stepped(optimizer, [one], [1.0, 1.0])
    one.data[1] = 3.0
    stepped(optimizer, [one], [1.0, 1.0])
    assert optimizer.state_dict()["0.master"].tolist() == pytest.approx([0.998, 2.999], rel=1e-6)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_a_resumed_optimiser_of_bfloat16_weights_goes_on_from_what_was_rounded_away(bound: float) -> None:
    def made(weight: nn.Parameter) -> Optimizer:
        return optim.adamw([weight], 1e-3, [0.9, 0.99], 1e-8, 0.1, bound, flat)

    def trained(weight: nn.Parameter, optimizer: Optimizer, steps: range) -> list[float]:
        for step in steps:
            stepped(optimizer, [weight], [1.0 + step, -2.0])
        found: list[float] = optimizer.state_dict()["0.master"].tolist()
        return found

    whole = half(1.0, -2.0)
    wanted = trained(whole, made(whole), range(9))
    first = half(1.0, -2.0)
    stopped = made(first)
    trained(first, stopped, range(4))
    second = nn.Parameter(first.detach().clone())
    resumed = made(second)
    resumed.load_state_dict(stopped.state_dict())
    assert trained(second, resumed, range(4, 9)) == wanted
    assert torch.equal(second, whole)


def test_a_torch_optimiser_without_our_groups_is_refused() -> None:
    with pytest.raises(UserError, match="torch_groups"):
        Optimizer(torch.optim.Adam([parameter(0.0)]), 0.1, 0.0, flat)


@pytest.mark.parametrize("make", ["adam", "adamw", "sgd"])
def test_a_saved_optimiser_goes_on_as_if_it_had_never_stopped(make: str) -> None:
    def made(of: list[nn.Parameter]) -> Optimizer:
        falling = partial(optim.linear, warmup_steps=2, horizon=9, final_fraction=0.0)
        if make == "sgd":
            return optim.sgd(of, 0.3, 0.9, 0.1, 1.0, falling)
        more = [0.1] if make == "adamw" else []
        return getattr(optim, make)(of, 0.3, [0.8, 0.9], 1e-8, *more, 1.0, falling)  # type: ignore[no-any-return]

    whole, part = ([parameter(1.0, -1.0), parameter(0.5)] for _ in range(2))
    steps = [([i - 1.5, 0.4 * i], [0.3 - i]) for i in range(5)]
    one, other = made(whole), made(part)
    for number, gradients in enumerate(steps):
        stepped(one, whole, *gradients)
        if number == 2:
            state, other = other.state_dict(), made(part)
            assert all("." in key or key == "steps" for key in state)
            other.load_state_dict(state)
        stepped(other, part, *gradients)
    assert all(torch.equal(a, b) for a, b in zip(whole, part, strict=True))
    assert one.steps == other.steps == 5


@dataclass(frozen=True)
class Numbers:
    """Rows that are numbers."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: slice) -> Numbers:
        return Numbers(self.values[index])


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_every_row_counts_once_in_any_number_of_parts(parts: int) -> None:
    one, rows, seen = parameter(0.0), Numbers(torch.arange(1.0, 8.0, dtype=torch.float64)), list[int]()
    optimizer = descent(one, lr=0.5)

    def loss(part: Numbers) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(len(part))
        return one.sum() * part.values.sum() / 7, {"mean": part.values.sum() / 7, "rows": torch.tensor(len(part))}

    for number in (1, 2):  # what the first step left behind does not reach the second
        logged = gradient_step(optimizer, rows, loss, parts)
        assert one.item() == pytest.approx(-0.5 * 4 * number)
        assert logged["mean"] == pytest.approx(4)
        assert logged["rows"] == 7
        assert logged["grad_norm"] == pytest.approx(4)
    assert len(seen) == 2 * -(-7 // -(-7 // parts))
    assert max(seen) == -(-7 // parts)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_what_is_not_finite_changes_no_parameter(bad: str) -> None:
    one = parameter(4.0)
    optimizer = descent(one)

    def loss(part: Numbers) -> tuple[Tensor, dict[str, Tensor]]:
        if bad == "loss":
            return one.sum() * math.nan, {}
        return (one - 4.0).sqrt().sum(), {}  # 0, and infinitely steep

    with pytest.raises(NonFinite, match="the loss is nan" if bad == "loss" else "norm of the gradient is inf"):
        gradient_step(optimizer, Numbers(torch.ones(3)), loss, 2)
    assert one.item() == 4.0
    assert optimizer.steps == 0


def test_several_steps_are_logged_as_their_mean_but_extremes_as_extremes() -> None:
    seen = [3.0, 1.0, 8.0]
    assert over_steps("loss/td", seen) == over_steps("maximum", seen) == 4.0
    assert over_steps("q/min", seen) == 1.0
    assert over_steps("sampling/logp_difference/max", seen) == 8.0
