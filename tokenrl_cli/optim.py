"""Optimisers, learning-rate schedules, and `gradient_step`, the only function that steps an optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Count, CountOrZero, Fraction, Gt, Le, Positive, Probability, Weight
from tokenrl_cli.interfaces import Finding, UserError

Schedule = Callable[[int], float]  # step of the stage, from 0 -> factor of the learning rate


# The largest sum of the norms of all parameters. No network learns beyond it, and the product of five larger norms
# overflows float32.
LARGEST = 1e9
MASTER = "master"  # names the float32 copy of a parameter in saved state


class NonFinite(UserError):
    """An infinite value or NaN in a loss, a gradient, a parameter or a probability: the training step in which it arose
    must not count. `step` is the step of the run where an evaluation after it found the value, else None."""

    step: int | None = None

    def __init__(self, problem: str) -> None:
        super().__init__("the policy", problem)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters whose learning rate is `lr_factor` times the one that the optimiser's schedule gives.

    For heads: a step of Adam is about as long as the learning rate, however large the gradient is, so a head whose
    values are far from where they start needs a larger rate than the network below it.
    """

    parameters: Sequence[nn.Parameter]
    lr_factor: float


Learning = Iterable[nn.Parameter | ParameterGroup]  # what an optimiser is made for; a lone parameter has the factor 1


def torch_groups(parameters: Learning, weight_decay: float) -> list[dict[str, Any]]:
    """Returns the groups that a torch optimiser is made of: a dictionary for each pair of learning-rate factor and
    weight decay that occurs, with "params", "numbers", "lr_factor" and "weight_decay", but no "lr", which
    `Optimizer.step` sets. `parameters` holds parameters, with the factor 1, and `ParameterGroup`s.

    Only parameters of two and more dimensions (matrices, embeddings, stacks of matrices) decay. Biases, and the gains
    of normalisation layers, do not: pulling those towards 0 restricts a layer and regularises nothing. Parameters that
    require no gradient are left out. "numbers" holds the index of each parameter among all that were given, those left
    out included: saved state is named by it, so it does not depend on factors, decay or freezing. Raises UserError
    where no parameter requires a gradient.
    """
    given = [
        (parameter, each.lr_factor if isinstance(each, ParameterGroup) else 1.0)
        for each in parameters
        for parameter in (each.parameters if isinstance(each, ParameterGroup) else [each])
    ]
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for number, (parameter, lr_factor) in enumerate(given):
        if parameter.requires_grad:
            decay = weight_decay if parameter.dim() > 1 else 0.0
            empty = {"params": [], "numbers": [], "lr_factor": lr_factor, "weight_decay": decay}
            group = groups.setdefault((lr_factor, decay), empty)
            group["params"].append(parameter)
            group["numbers"].append(number)
    if not groups:
        raise UserError("model", "has no parameter that requires a gradient: there is nothing to learn")
    return list(groups.values())


class Optimizer:
    """A torch optimiser with gradient clipping and a learning-rate schedule. `steps` counts its steps: those of a
    stage, as each stage has its own.

    `clip_norm` bounds the L2 norm of the gradient of all parameters together (0: off). The learning rate of a step is
    `lr` times `schedule(steps)`, times the `lr_factor` of the group. The constructor raises UserError where `inner` was
    not made with `torch_groups`.

    Steps change a float32 copy of a parameter that is bfloat16 or float16, and the parameter is that copy, rounded
    (Micikevicius et al. 2018, arXiv:1710.03740, section 3.1). bfloat16 keeps 8 bits: a step below 1/512 of a weight
    would be rounded away, however often it is repeated. A weight that was changed otherwise since the last step, as
    where a checkpoint is loaded, counts as it is. The copies are made when they are first needed.
    """

    def __init__(self, inner: torch.optim.Optimizer, lr: float, clip_norm: float, schedule: Schedule) -> None:
        self.inner, self.lr, self.clip_norm, self.schedule = inner, lr, clip_norm, schedule
        groups = inner.param_groups
        if not all("numbers" in group for group in groups):
            problem = "its torch optimiser is not made for torch_groups(parameters, weight_decay)"
            raise UserError("optimizer", problem, "see adamw in tokenrl_cli/optim.py")
        self.parameters: dict[int, nn.Parameter] = {  # by number, in torch's order
            number: p for group in groups for number, p in zip(group["numbers"], group["params"], strict=True)
        }
        self.copies: dict[int, nn.Parameter] = {}  # of those that have fewer digits than float32
        self.steps = 0

    def zero_grad(self) -> None:
        """Removes the gradients of all parameters that are optimised: they are None afterwards."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def _make_copies(self) -> None:
        """Gives torch's optimiser a float32 copy of each parameter that has fewer digits, if it has none yet."""
        for group in self.inner.param_groups:
            for place, number in enumerate(group["numbers"]):
                parameter = self.parameters[number]
                if torch.finfo(parameter.dtype).bits < 32 and number not in self.copies:
                    self.copies[number] = group["params"][place] = nn.Parameter(parameter.detach().float())

    @torch.no_grad()
    def _begin_step(self) -> list[nn.Parameter]:
        """Gives the float32 copies the gradients of their parameters, and their values where these have changed.
        Returns what torch's optimiser changes."""
        self._make_copies()
        for number, copy in self.copies.items():
            weight = self.parameters[number]
            copy.copy_(torch.where(copy.to(weight.dtype) == weight, copy, weight.float()))
            copy.grad = None if weight.grad is None else weight.grad.float()
        return [self.copies.get(number, each) for number, each in self.parameters.items()]

    @torch.no_grad()
    def _end_step(self) -> None:
        """Rounds the float32 copies to their parameters."""
        for number, copy in self.copies.items():
            self.parameters[number].copy_(copy)
            copy.grad = None

    def step(self) -> dict[str, float]:
        """Takes one step with the gradients that are there: clips them in place (float32 copies have their own), sets
        the learning rate, changes the parameters and counts the step. The gradients stay until `zero_grad`. Returns
        grad_norm (before clipping), grad_clipped (0 or 1; its mean is the fraction of clipped steps) and lr (without
        the factors of groups).

        Raises NonFinite for an infinite or NaN gradient, before any parameter has changed; and right after the change,
        without counting the step, where the norms of the parameters add up to LARGEST (1e9) or more, or to NaN.
        """
        parameters = self._begin_step()
        norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if not math.isfinite(norm):
            raise NonFinite(f"the norm of the gradient is {norm}")
        clipped = 0 < self.clip_norm < norm
        if clipped:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, torch.tensor(norm))
        lr = self.lr * self.schedule(self.steps)
        for group in self.inner.param_groups:
            group["lr"] = lr * group["lr_factor"]
        self.inner.step()
        self._end_step()
        _require_finite(parameters, lr)
        torch.clear_autocast_cache()  # in mixed precision the next forward would read the weights as they were
        self.steps += 1
        return {"grad_norm": norm, "grad_clipped": float(clipped), "lr": lr}

    def state_dict(self) -> dict[str, Any]:
        """Returns a flat dictionary: "steps", and "<number>.<name>" for each value that the torch optimiser stores of a
        parameter, such as "3.exp_avg"; <number> is the index of the parameter among all that `torch_groups` was given,
        frozen ones included. "<number>.master" is its float32 copy, where there is one. The tensors, shaped like the
        parameter or [], are not copied. Settings, such as learning rate and weight decay, are not in it."""
        numbers, kept = list(self.parameters), self.inner.state_dict()["state"]
        masters = {f"{number}.{MASTER}": copy.detach() for number, copy in self.copies.items()}
        moments = {f"{numbers[place]}.{name}": value for place, of in kept.items() for name, value in of.items()}
        return {"steps": self.steps} | masters | moments

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, its tensors perhaps shared with `state`; the present settings (learning
        rate, decay ...) stay. Raises ValueError for the number of a parameter that is not optimised here, or a tensor
        of another shape than its parameter, and changes nothing; KeyError without "steps", with all else restored."""
        kept: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            text, dot, name = key.partition(".")
            if dot:
                kept.setdefault(int(text), {})[name] = value
        for number, of in kept.items():
            if number not in self.parameters:
                raise ValueError(f"the optimiser has no parameter {number}")
            for name, value in of.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != self.parameters[number].shape:
                    raise ValueError(f"{number}.{name} of the optimiser has the shape {list(value.shape)}")
        self._make_copies()
        for number, of in kept.items():
            master = of.pop(MASTER, None)
            if number in self.copies and master is not None:
                self.copies[number].data.copy_(master)
        kept = {number: of for number, of in kept.items() if of}
        places = {number: place for place, number in enumerate(self.parameters)}
        self.inner.load_state_dict(
            self.inner.state_dict() | {"state": {places[number]: of for number, of in kept.items()}}
        )
        self.steps = state["steps"]


@torch.no_grad()
def _require_finite(parameters: list[nn.Parameter], lr: float) -> None:
    """Raises NonFinite where the norms of the parameters after a step add up to LARGEST or more, or to NaN. Costs one
    pass over the parameters."""
    size = sum(torch.stack(torch._foreach_norm(parameters)).tolist())  # type: ignore[arg-type]
    if not size < LARGEST:
        raise NonFinite(f"with a learning rate of {lr:g} the norms of the parameters add up to {size:g}")


class Rows(Protocol):
    """What `gradient_step` can split into parts: a Rollout, or an object with further values for each of its rows."""

    def __len__(self) -> int: ...

    def rows(self, index: slice) -> Any:
        """Returns the rows of a slice, as a new object of the same kind."""


R = TypeVar("R", bound=Rows)


def gradient_step(
    optimizer: Optimizer, rollout: R, loss: Callable[[R], tuple[Tensor, dict[str, Tensor]]], micro_batches: int
) -> dict[str, float]:
    """Takes one optimiser step on all B rows, at least one, in `micro_batches` parts or fewer whose gradients are added
    up; earlier gradients are removed first. Returns the metrics of the loss, summed over the parts, and those of
    `Optimizer.step`: grad_norm, grad_clipped and lr. The mode of the model is not changed.

    `loss(rows)` returns a scalar, [], whose gradient is computed here, and a dictionary of metrics, each [], without
    gradient. Loss and metrics must be sums over the part divided by the denominators of the *whole* rollout: then the
    number of parts changes no result. Raises NonFinite: for a loss or a gradient before any parameter has changed, for
    a parameter right after.
    """
    optimizer.zero_grad()
    size = math.ceil(len(rollout) / micro_batches)
    totals: dict[str, Tensor] = {}
    for start in range(0, len(rollout), size):
        part = rollout if size >= len(rollout) else rollout.rows(slice(start, start + size))
        value, metrics = loss(part)
        if not bool(value.isfinite()):
            raise NonFinite(f"the loss is {value.item()}")
        value.backward()
        for name, metric in metrics.items():
            totals[name] = totals[name] + metric if name in totals else metric
    return {name: float(total) for name, total in totals.items()} | optimizer.step()


def over_steps(name: str, seen: Sequence[float]) -> float:
    """Combines the values `seen` that several steps logged under one name: their mean, or for a name that ends in /min
    or /max the least or the greatest.

    Steps in which the value was NaN (such as the mean of no number) are left out; NaN where it was NaN in all of them,
    or there are none.
    """
    seen = [each for each in seen if not math.isnan(each)] or [math.nan]
    match name.rpartition("/")[2]:
        case "min":
            return min(seen)
        case "max":
            return max(seen)
    return sum(seen) / len(seen)


def horizon_findings(stage: str, schedule: Mapping[str, Any], steps: int) -> list[Finding]:
    """Returns a list with one note if the `horizon` of a learning-rate schedule, the step at which the rate has reached
    its lowest value, is not `steps`, the number of steps of the stage; else [], as for a schedule without `horizon` and
    a stage of 0 steps.

    `schedule` is the block of the schedule in the config, `stage` the key of the algorithm that has it, "algorithm" or
    "warm_start". A schedule does not follow `steps` by itself: else a run that is continued for more steps would differ
    from one of that length from the start.
    """
    horizon = schedule.get("horizon")
    if horizon is None or horizon == steps or steps == 0:
        return []
    key = f"{stage}.optimizer.schedule.horizon"
    end = "the learning rate does not fall to its end" if horizon > steps else "the rest has the lowest learning rate"
    return [Finding("horizon", "note", 0, f"{key}={horizon} is not the {steps} steps of its stage: {end}", key)]


Epsilon = Annotated[float, Gt(0), Le(1)]  # beside gradients of order 1 and less


def adam(
    parameters: Learning,
    lr: Positive,
    betas: tuple[Fraction, Fraction],
    eps: Epsilon,
    clip_norm: Weight,
    schedule: Schedule,
) -> Optimizer:
    """Returns an Optimizer with Adam (Kingma & Ba 2015, arXiv:1412.6980), without weight decay. `parameters` holds
    those to train, or groups of them with a learning-rate factor (`ParameterGroup`); those that require no gradient are
    left out. `betas` and `eps` are Adam's. The learning rate of a step is `lr` times `schedule(steps so far)`, and
    `clip_norm` bounds the L2 norm of the whole gradient (0: off). Raises UserError where no parameter requires a
    gradient."""
    inner = torch.optim.Adam(torch_groups(parameters, 0.0), lr, (betas[0], betas[1]), eps)
    return Optimizer(inner, lr, clip_norm, schedule)


def adamw(
    parameters: Learning,
    lr: Positive,
    betas: tuple[Fraction, Fraction],
    eps: Epsilon,
    weight_decay: Weight,
    clip_norm: Weight,
    schedule: Schedule,
) -> Optimizer:
    """Returns an Optimizer with AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): Adam with decoupled weight decay.
    Only parameters of two and more dimensions decay (see `torch_groups`). `parameters` holds those to train, or groups
    of them with a learning-rate factor (`ParameterGroup`); those that require no gradient are left out. `betas` and
    `eps` are Adam's. The learning rate of a step is `lr` times `schedule(steps so far)`, and `clip_norm` bounds the L2
    norm of the whole gradient (0: off). Raises UserError where no parameter requires a gradient."""
    inner = torch.optim.AdamW(torch_groups(parameters, weight_decay), lr, (betas[0], betas[1]), eps)
    return Optimizer(inner, lr, clip_norm, schedule)


def sgd(
    parameters: Learning,
    lr: Positive,
    momentum: Fraction,
    weight_decay: Weight,
    clip_norm: Weight,
    schedule: Schedule,
) -> Optimizer:
    """Returns an Optimizer with stochastic gradient descent with momentum; weight decay is an L2 penalty, only on
    parameters of two and more dimensions (see `torch_groups`). `parameters` holds those to train, or groups of them
    with a learning-rate factor (`ParameterGroup`); those that require no gradient are left out. The learning rate of a
    step is `lr` times `schedule(steps so far)`, and `clip_norm` bounds the L2 norm of the whole gradient (0: off).
    Raises UserError where no parameter requires a gradient."""
    inner = torch.optim.SGD(torch_groups(parameters, weight_decay), lr, momentum)
    return Optimizer(inner, lr, clip_norm, schedule)


def constant(step: int, warmup_steps: CountOrZero) -> float:
    """Returns the learning-rate factor 1 from step `warmup_steps` on (0: no warm-up); before it a linear warm-up,
    (step + 1) / (warmup_steps + 1). `step` counts the optimiser's steps from 0."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def linear(step: int, warmup_steps: CountOrZero, horizon: Count, final_fraction: Probability) -> float:
    """Returns a learning-rate factor that rises in a linear warm-up, (step + 1) / (warmup_steps + 1), is 1 at step
    `warmup_steps`, then falls in a straight line to `final_fraction` at step `horizon`, and stays there. With a
    `horizon` that is not beyond the warm-up the factor falls to `final_fraction` in the one step after the warm-up.
    `step` counts the optimiser's steps from 0."""
    done = min(1.0, max(0.0, (step - warmup_steps) / max(1, horizon - warmup_steps)))
    return constant(step, warmup_steps) * (1 - (1 - final_fraction) * done)


def cosine(step: int, warmup_steps: CountOrZero, horizon: Count, final_fraction: Probability) -> float:
    """Returns a learning-rate factor that rises in a linear warm-up, (step + 1) / (warmup_steps + 1), is 1 at step
    `warmup_steps`, then falls along half a cosine to `final_fraction` at step `horizon`, and stays there. With a
    `horizon` that is not beyond the warm-up the factor falls to `final_fraction` in the one step after the warm-up.
    `step` counts the optimiser's steps from 0. Loshchilov & Hutter 2017 (arXiv:1608.03983)."""
    done = min(1.0, max(0.0, (step - warmup_steps) / max(1, horizon - warmup_steps)))
    return constant(step, warmup_steps) * (final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * done)) / 2)


def inverse_sqrt(step: int, warmup_steps: CountOrZero) -> float:
    """Returns a learning-rate factor that rises in a linear warm-up, (step + 1) / (warmup_steps + 1), is 1 at step
    `warmup_steps`, then falls as sqrt((warmup_steps + 1) / (step + 1)), without an end. `step` counts the optimiser's
    steps from 0. Vaswani et al. 2017 (arXiv:1706.03762), section 5.3."""
    return min((step + 1) / (warmup_steps + 1), math.sqrt((warmup_steps + 1) / (step + 1)))
