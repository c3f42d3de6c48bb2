"""Parts of an algorithm that are functions of named facts: which facts each kind may read, and the call with them.

A part reads the facts that its parameters name. The constructor of an algorithm annotates each such part with one of
the types below. The check of a config reads them, so a part with another parameter is refused before anything is built.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from torch import Tensor

from tokenrl_cli.config.types import Facts

# N sources, K samples of each, B = N * K episodes, T tokens, V vocabulary
Returns = Annotated[Callable[..., Tensor], Facts("rewards", "mask", "values", "fresh")]  # [B, T] each -> [B, T]
Baseline = Annotated[  # [N, K, T]; valid, scores and likelihoods [N, K]; companion [N, T] -> broadcasts to [N, K, T]
    Callable[..., Tensor], Facts("returns", "values", "valid", "scores", "companion", "mask", "likelihoods")
]
Normalisation = Annotated[  # as for a baseline, and the advantages [N, K, T] -> [N, K, T]
    Callable[..., Tensor],
    Facts("advantages", "returns", "values", "valid", "scores", "mask", "likelihoods"),
]
Surrogate = Annotated[  # [B, T] each -> what is maximised [B, T], and where its gradient is stopped [B, T] bool
    Callable[..., tuple[Tensor, Tensor]], Facts("logprobs", "sampled_logprobs", "advantages", "mask")
]
Aggregation = Annotated[Callable[..., Tensor], Facts("mask", "max_length")]  # [B, T], int -> weights [B, T]
Divergence = Annotated[  # [B, T], [B, T], [B, T, V], [B, T, V] -> [B, T]
    Callable[..., Tensor], Facts("logprobs", "reference_logprobs", "logits", "reference_logits")
]
Consistency = Annotated[  # [B, T]; values [B, T + 1]; a number -> error [B, T], residual [B, T]
    Callable[..., tuple[Tensor, Tensor]], Facts("values", "rewards", "log_ratios", "mask", "temperature")
]
Backup = Annotated[Callable[..., Tensor], Facts("target", "online", "policy")]  # [H, B, T, V] heads; policy [B, T, V]


def call_with_facts(part: Callable[..., Any], **known: Any) -> Any:
    """Calls `part` with those of the keyword arguments `known` whose names are among its parameters, and returns its
    result; the others are left out. A fact replaces a setting of the same name that is bound to `part` by keyword.

    Raises TypeError where `part` has a parameter without a default that is not among `known`.
    """
    return part(**{name: value for name, value in known.items() if name in needs(part)})


def function_of(part: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function behind a part that is a functools.partial, as the config builds a function with settings;
    any other part as it is."""
    return part.func if isinstance(part, functools.partial) else part


def needs(part: Callable[..., Any]) -> set[str]:
    """Returns the names of all parameters of a part: the facts that it reads, and its settings, also those that the
    config has bound by keyword."""
    return set(inspect.signature(part).parameters)
