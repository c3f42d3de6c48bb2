"""tokenrl: train sequence models on token-level rewards. For use from Python: `import tokenrl_cli as tokenrl`.

`tokenrl.train(overrides)` trains, `tokenrl.load(path)` opens a run, `tokenrl.reward(name)` scores texts without any
run; docs/python.md shows them. All of it is imported when it is first used: importing this package loads no torch.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenrl_cli.api import Evaluated as Evaluated
    from tokenrl_cli.api import Hypothesis as Hypothesis
    from tokenrl_cli.api import PrefixScores as PrefixScores
    from tokenrl_cli.api import RewardFunction as RewardFunction
    from tokenrl_cli.api import Run as Run
    from tokenrl_cli.api import UserError as UserError
    from tokenrl_cli.api import load as load
    from tokenrl_cli.api import reward as reward
    from tokenrl_cli.api import train as train

__version__ = "0.1.0"

PUBLIC = (
    "Evaluated",
    "Hypothesis",
    "PrefixScores",
    "RewardFunction",
    "Run",
    "UserError",
    "load",
    "reward",
    "train",
)  # names of tokenrl_cli.api that can be had from the package itself


def __getattr__(name: str) -> Any:
    """A name of `PUBLIC`, imported now."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tokenrl_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})


class _Package(ModuleType):
    """The class of this package. Python puts every imported submodule in place of an attribute of the package with the
    same name: importing the folder `reward` would hide the function `reward`. Such a module is made callable, so that
    `tokenrl_cli.reward("bleu")` and `tokenrl_cli.reward.bleu.Bleu` both work, in any order."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in PUBLIC and isinstance(value, ModuleType):
            value.__class__ = _Callable
        super().__setattr__(name, value)


class _Callable(ModuleType):
    """A module that can be called as the function of the same name in `tokenrl_cli.api`."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return __getattr__(self.__name__.rpartition(".")[2])(*arguments, **named)


sys.modules[__name__].__class__ = _Package
