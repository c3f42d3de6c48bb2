"""Where a user's callable is found, and what its parameters name: what it is called with."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tokenrl_cli.config.build import PACKAGE, hint
from tokenrl_cli.interfaces import Texts, UserError
from tokenrl_cli.usercode.copies import copied
from tokenrl_cli.usercode.isolation import process_restored
from tokenrl_cli.usercode.modules import error_line, file_of, holds, imported, loaded, place_of_error

Arguments = dict[str, Any]
ABSENT = object()
HARMLESS = (len, sum, max, min, any, all)  # of Python's own functions: a stranger may name them, too
METHOD = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)  # of Python, and of C
WRAP = "write a function of your own around it: def score(hypothesis): return ..."
OF_EACH = ("hypothesis", "reference", "references", "source", "tokens", "ended", "step")
OF_ALL = ("hypotheses", "references", "sources", "tokens", "ended", "step")
OF_TRL = ("prompts", "completions", "completion_ids", "trainer_state")  # as TRL's rewards are called, for all at once
ONE_FOR_ALL = ("step", "trainer_state")  # not a list with an item a sample
NOT_OURS = {
    "hypothesis": "it is given one sample at a time, with {here}.batched=false",
    "reference": "it is given one sample at a time, with {here}.batched=false",
    "source": "it is given one sample at a time, with {here}.batched=false",
    "hypotheses": "it is given with {here}.batched=true",
    "sources": "it is given with {here}.batched=true",
    "log_extra": "TRL's log_extra is not here: return a dictionary, {'reward': ..., 'name': ...}",
    "log_metric": "TRL's log_metric is not here: return a dictionary, {'reward': ..., 'name': ...}",
    "self": "it is a method of a class: name one of an object, `score = Class().method`",
}


# ------------------------------------------------------------------------------------------------------- finding it


def located(function: str, trust: Sequence[str], where: str) -> Callable[..., Any]:
    """Imports the module or the file that `function` names, so runs its code, and returns the callable there.
    `function` is "module.name" or "file.py:name", where the name may go on, as "name.method"; `module` may be the stem
    of a file. The module, a package that contains it, or the file must be listed in `trust`, the command line's
    `imports`.

    A config may come from someone else's checkpoint, and must reach nothing that the user did not write or list:
    `os.system` through a module that imports os, for example. Accepted is what a listed module defines, a method of a
    class that it defines, and an object of any class that it made. Refused is what is tokenrl's, what a listed module
    only imported from one that is not listed, except numpy's ufuncs and HARMLESS (len, sum, max, min, any, all), and a
    method that another module's class defines or passes on, such as the `unlink` of a path that a listed module holds.

    Raises UserError with this `where` for what is refused or not listed, where there is no such module, file or name,
    where importing or reading it fails, and where it is private (a name in "_"), a class, or not callable.
    """
    module, names = _in_file(function, trust, where) if ":" in function else _in_module(function, trust, where)
    found = module
    for name in names:
        if name.startswith("_") or not name.isidentifier():
            raise UserError(where, f"{name!r} is private, or no name")
        given = _attribute(found, name, where)
        if given is ABSENT:
            owner = found.__name__ if isinstance(found, type) else Path(getattr(found, "__file__", "")).name
            there = [key for key, each in vars(found).items() if callable(each) and key[0] != "_"] if names else []
            raise UserError(where, f"{owner or 'it'} has no {name!r}{hint(name, there)}")
        found = given
        if callable(found) or isinstance(found, types.ModuleType):
            _refuse_foreign(found, trust, where)
    if inspect.isclass(found):
        raise UserError(where, "is a class, must be something that gives a number", "name an object: score = Class()")
    if not callable(found):
        raise UserError(where, f"is {type(found).__name__}, which cannot be called")
    called: Callable[..., Any] = found
    return called


def _attribute(owner: Any, name: str, where: str) -> Any:
    """ABSENT where there is none. Raises UserError where the user's own code, a property, fails to give it."""
    try:
        with process_restored():
            return getattr(owner, name)
    except AttributeError:
        return ABSENT
    except BaseException as error:
        raise UserError(where, f"{name!r} cannot be read: {error_line(error)} ({place_of_error(error)})") from error


def _in_file(function: str, trust: Sequence[str], where: str) -> tuple[Any, list[str]]:
    file, _, name = function.rpartition(":")
    path = Path(file).resolve()
    if path not in [Path(each).resolve() for each in trust if each.endswith(".py")]:
        raise UserError(where, f"{file} is not in imports", f"if you trust that file, add 'imports=[{file}]'")
    return loaded(path, where), name.split(".")


def _in_module(function: str, trust: Sequence[str], where: str) -> tuple[Any, list[str]]:
    """The module, as deep as there are modules, and the names that follow it."""
    parts = function.split(".")
    if parts[0] == PACKAGE:
        remedy = "tokenrl's own rewards are chosen by name, reward=bleu; `tokenrl list reward` shows them"
        raise UserError(where, f"is of {PACKAGE}, must be of a module of your own", remedy)
    prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    named = next((each for each in prefixes if holds(trust, each) or file_of(each, trust)), None)
    if named is None:
        whole = prefixes[-1] if prefixes else function
        remedy = f"if you trust that module, add 'imports=[{whole}]'" if prefixes else "write it as module.name"
        raise UserError(where, f"{whole} is not in imports", remedy)
    file = file_of(named, trust)
    if file:
        return loaded(file, where), parts[named.count(".") + 1 :]
    module, depth = imported(named, where), named.count(".") + 1
    while depth < len(parts) - 1 and _is_module(".".join(parts[: depth + 1]), module):
        depth += 1
        module = imported(".".join(parts[:depth]), where)
    return module, parts[depth:]


def _is_module(name: str, parent: Any) -> bool:
    return hasattr(parent, "__path__") and importlib.util.find_spec(name) is not None


def _refuse_foreign(found: Any, trust: Sequence[str], where: str) -> None:
    """Raises UserError of what is tokenrl's, or was only imported from a module that `trust` does not name."""
    if any(home.split(".")[0] == PACKAGE for home in _homes(found)):
        raise UserError(where, f"comes from {PACKAGE}, must be your own", WRAP)
    if isinstance(found, types.ModuleType):
        raise UserError(where, f"leads into the module {found.__name__}, which is not in imports")
    if isinstance(found, METHOD) and not isinstance(found.__self__, types.ModuleType | None):
        # Whoever made its object, the code that runs is that of the class that defines it: a module that is trusted may
        # hold a path, and a stranger may name its method unlink.
        defines = str(found.__func__.__module__ if inspect.ismethod(found) else type(found.__self__).__module__)
        if not inspect.ismethod(found) or not holds(trust, defines):
            raise UserError(where, f"is a method that {defines} defines, which is not in imports", WRAP)
        return
    if isinstance(found, np.ufunc) or any(found is each for each in HARMLESS):
        return
    home = found.__module__ if inspect.isroutine(found) or inspect.isclass(found) else None
    home = home or getattr(found, "__dict__", {}).get("__module__") or type(found).__module__
    if holds(trust, str(home)):
        return
    if not ((inspect.isroutine(found) and found.__module__) or inspect.isclass(found)):
        home = _holder(found, trust)  # an object of a library's class: made here, or taken from there?
    if home:
        raise UserError(where, f"is defined in {home}, which is not in imports", WRAP)


def _homes(found: Any) -> Iterator[str]:
    """The modules that define a callable, or what it wraps."""
    yield str(getattr(found, "__module__", "") or "")
    if not inspect.isroutine(found) and not inspect.isclass(found):
        yield type(found).__module__
    for name in ("func", "__wrapped__", "__func__", "__self__"):
        inner = inspect.getattr_static(found, name, None) if name in ("func", "__wrapped__") else None
        inner = getattr(found, name, None) if name in ("__func__", "__self__") or inner is not None else None
        if callable(inner) and inner is not found and not isinstance(inner, types.ModuleType):
            yield from _homes(inner)


def _holder(found: Any, trust: Sequence[str]) -> str | None:
    """Another module from which the object could have been imported."""
    for name, module in list(sys.modules.items()):
        own = name == "__main__" or holds(trust, name)
        if not own and isinstance(module, types.ModuleType) and any(each is found for each in vars(module).values()):
            return name
    return None


# ------------------------------------------------------------------------------------------------- what it asks for


@dataclass(frozen=True)
class Parameters:
    """What the signature of a callable tells of how it must be called; `parameters_of` reads it."""

    places: tuple[str, ...]  # what its positional-only parameters get, in order
    needed: tuple[str, ...]  # without these it cannot be called
    taken: tuple[str, ...]  # all that it takes by name
    everything: bool  # it takes any other name, too
    batched: bool
    trl: bool  # its names are those of TRL's rewards

    def facts(self) -> tuple[str, ...]:
        """Returns the names of the arguments that tokenrl has for such a function, besides the columns of the data:
        those called with all texts if it is `batched`, else with one text, and before them TRL's names if it is
        `trl`."""
        return (OF_TRL if self.trl else ()) + (OF_ALL if self.batched else OF_EACH)

    def of(self, known: Arguments) -> Arguments:
        """Returns those of the arguments `known`, by name, that the function takes, for one call; all of them, but for
        TRL's names, if it takes any name (`everything`). A function that is not `trl` gets a TRL name only if it cannot
        be called without it."""
        known = {name: value for name, value in known.items() if self.trl or name not in OF_TRL or name in self.needed}
        return {name: value for name, value in known.items() if self.everything or name in self.taken + self.places}

    def lacks(self, columns: Collection[str]) -> str:
        """Returns an error message about the first parameter without a default that is neither an argument that tokenrl
        has (`facts()`) nor one of `columns`, with the names that are available; "" where every one is. {here} in it
        stands for the path of the reward's block, see `interfaces.placed`."""
        there = dict.fromkeys((*self.facts(), *columns))
        for name in self.needed:
            if name not in there:
                near = f"; {NOT_OURS[name]}" if name in NOT_OURS else hint(name, there)
                return f"needs {name!r}, which it will never get{near}; there are {', '.join(there)}"
        return ""


def parameters_of(function: Callable[..., Any], batched: bool, where: str) -> Parameters:
    """Reads the Parameters of a function from its signature; of a torch network from that of `forward`. `batched` is
    the setting, and is True in the result, too, for a function with TRL's names. A single required parameter that is
    positional-only, under a name of no argument, such as that of len, gets the hypothesis (all hypotheses, if batched).
    Raises UserError with this `where` where the signature cannot be read, and where it has only *args, which would get
    nothing."""
    try:
        read = function.forward if isinstance(function, nn.Module) else function
        parameters = list(inspect.signature(read).parameters.values())
    except (ValueError, TypeError):
        raise UserError(where, "its parameters cannot be read, so nobody knows what it needs", WRAP) from None
    if parameters and all(each.kind is each.VAR_POSITIONAL for each in parameters):
        raise UserError(where, f"takes no name, only *{parameters[0].name}: it would be called with nothing", WRAP)
    by_place = [each for each in parameters if each.kind is each.POSITIONAL_ONLY]
    by_name = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    names = {each.name for each in by_place + by_name}
    trl = bool(names & {*OF_TRL}) and not names & {"hypothesis", "hypotheses"}
    batched = batched or trl
    places = [each.name for each in by_place if each.default is each.empty]
    if len(places) == 1 and places[0] not in (*OF_EACH, *OF_ALL, *OF_TRL) and not _needed(by_name):
        places = ["hypotheses" if batched else "hypothesis"]  # len, a ufunc: one argument, whatever its name
    needed = [*places, *_needed(by_name)]
    everything = any(each.kind is each.VAR_KEYWORD for each in parameters)
    taken = tuple(each.name for each in by_name)
    return Parameters(tuple(places), tuple(needed), taken, everything, batched, trl)


def _needed(parameters: Iterable[inspect.Parameter]) -> list[str]:
    return [each.name for each in parameters if each.default is each.empty]


def is_async(function: Callable[..., Any]) -> bool:
    """Returns whether calling `function` gives an awaitable: True for a coroutine function, a partial of one, and an
    object whose __call__ is one. An ordinary function that returns an awaitable is not recognised."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def call(function: Callable[..., Any], places: tuple[str, ...], arguments: Arguments) -> Any:
    """Calls a user's function with `arguments`, name to value: those named in `places` by position, in that order, the
    others by name. Returns what it returns, for an async function an awaitable. Passes its exceptions on; raises
    KeyError for a place that is not among the arguments."""
    rest = {name: value for name, value in arguments.items() if name not in places}
    return function(*(arguments[name] for name in places), **rest)


def answer(
    function: Callable[..., Any], places: tuple[str, ...], run: Callable[[Any], Any], arguments: Arguments
) -> Any:
    """Calls a user's function with `arguments`, name to value, those named in `places` by position, and returns its
    result; an awaitable is given to `run`, as a coroutine, and the result is what `run` returns. Changes the working
    directory back if the function changed it. Passes exceptions on."""
    here = None
    with suppress(OSError):
        here = os.getcwd()
    try:
        given = call(function, places, arguments)
        return run(_awaited(given)) if inspect.isawaitable(given) else given
    finally:
        with suppress(OSError):
            if here and os.getcwd() != here:
                os.chdir(here)


async def _awaited(given: Any) -> Any:
    return await given


# ----------------------------------------------------------------------------------------------- what it is given


def of_all(texts: Texts) -> Arguments:
    """Returns the arguments that a batched function may have, by name: the columns of the data, hypotheses, references,
    sources, tokens (the real ones of each text's T ids) and ended, each a list with an item a text; step, a number; and
    the same under TRL's names. Mutable values are copied. A column with one of these names is left out."""
    tokens = [ids[real].tolist() for ids, real in zip(texts.actions, texts.mask, strict=True)]
    known = {
        "hypotheses": list(texts.hypotheses),
        "references": copied(texts.references),
        "sources": list(texts.sources),
        "tokens": tokens,
        "ended": texts.ended.tolist(),
        "step": texts.step,
    }
    state = types.SimpleNamespace(global_step=texts.step)
    trl = (list(texts.sources), list(texts.hypotheses), copied(tokens), state)
    columns: Arguments = copied(texts.columns)
    return columns | dict(zip(OF_TRL, trl, strict=True)) | known


def of_one(texts: Texts, row: int) -> Arguments:
    """Returns the arguments that a function called once a text may have, by name, for the text of one row: the columns
    of the data, hypothesis, reference (the first, or None), references, source, tokens (the real ones of its T ids),
    ended and step. Mutable values are copied. A column with the name of one of the others is left out."""
    references = copied(texts.references[row])
    return {
        **{name: copied(values[row]) for name, values in texts.columns.items()},
        "hypothesis": texts.hypotheses[row],
        "reference": references[0] if references else None,
        "references": references,
        "source": texts.sources[row],
        "tokens": texts.actions[row][texts.mask[row]].tolist(),
        "ended": bool(texts.ended[row]),
        "step": texts.step,
    }


def shares(known: Arguments, count: int, parts: int) -> list[tuple[int, Arguments]]:
    """Cuts the arguments of `count` samples, as `of_all` returns them, into `parts` (at least 1) of about the same
    size, in order. Returns for each the number of its samples, which may be 0, and its arguments; step and
    trainer_state are the same in all."""
    cuts = pairwise(count * i // parts for i in range(parts + 1))
    return [
        (end - start, {name: v if name in ONE_FOR_ALL else v[start:end] for name, v in known.items()})
        for start, end in cuts
    ]
