"""Builds objects from the blocks of a config, after checking them against an allow-list and their signatures. Knows
plain dictionaries, never Hydra.

A block is a dictionary with `_target_`, the dotted name of a class or function. A config may come with a stranger's
checkpoint, so nothing is called, or even imported, unless it may be chosen where the block stands: a target of this
package must be named by an option of that group of conf/, any other must be defined in a module that the user lists in
`imports=` on this command line. `check` reads signatures, types and declared ranges, and lists every mistake at once.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from tokenrl_cli.config.options import conf_dir, groups, options, target_in
from tokenrl_cli.config.types import LONG, Slot, describe, is_part, is_protocol, lacks, mismatch, parameters_of, shown
from tokenrl_cli.interfaces import SettingError, UserError
from tokenrl_cli.usercode import modules

PACKAGE = "tokenrl_cli"
RUNTIME = frozenset(
    ("model", "tokenizer", "source_tokenizer", "features", "max_length", "device", "seed", "frozen", "trust", "here")
)  # what only a running program knows: never in a config, so never missing from it
SPECIAL = ("_target_", "_partial_")
HYDRAS = ("_args_", "_convert_", "_recursive_", "_kwargs_", "_mode_")  # keys of a block that Hydra knows, and we do not
FEW = 8  # choices that an error lists
DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)+"

Block = dict[str, Any]
Problem = tuple[str, str]  # where, what


def hint(name: str, options: Iterable[str]) -> str:
    """Returns the end of an error message, such as " (did you mean 'bleu'?)", with the one of `options` that is spelt
    most like `name`; "" if none is similar."""
    import difflib  # here: only mistakes pay for it

    close = difflib.get_close_matches(name, list(options), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def is_block(value: Any) -> bool:
    """Returns whether a value of a config is a block: a dictionary with `_target_`."""
    return isinstance(value, dict) and "_target_" in value


# ---------------------------------------------------------------------------------------------------- the allow-list


@cache
def declared(group: str) -> tuple[str, ...]:
    """Returns the targets of this package, sorted, that the options of a group of conf/ name; those of its sub-groups
    are left out. "" stands for all groups. An option of `--config-dir` declares nothing, for it may be a stranger's."""
    root = conf_dir()
    where = [root / group] if group else [root / name for name in groups([root])]
    found = {target_in(file) for folder in where for file in folder.glob("*.yaml")}
    return tuple(sorted(found - {""}))


def group_of(slot: Slot, target: str = "") -> str:
    """Returns the group of conf/ whose options name what of this package may stand in a slot: for a protocol in its
    annotation the group of that name (a Reward anywhere is of "reward"), else `slot.group`, else the first group, in
    alphabetical order, of which an option names `target`; "" if there is none."""
    protocols = [kind.__name__.lower() for kind in slot.kinds if is_protocol(kind)]
    known = [name for name in (*protocols, slot.group) if name and declared(name)]
    return next(iter(known), "") or (_having(target) if target else "")


@cache
def _having(target: str) -> str:
    return next((name for name in groups([conf_dir()]) if target in declared(name)), "")


def choices(slot: Slot) -> tuple[str, ...]:
    """Returns the targets of this package that may stand in a slot, sorted: those of its group (see `group_of`). If it
    has none, those of the classes in its annotation that any option names; if there is no such class in it, everything
    that is declared."""
    if group := group_of(slot):
        return declared(group)
    asked = {f"{kind.__module__}.{kind.__qualname__}" for kind in slot.kinds if is_part(kind)}
    return tuple(sorted(asked.intersection(declared("")))) if asked else declared("")


def parameter_slot(annotation: Any, key: str, group: str) -> Slot:
    """Returns the slot of the parameter `key`, annotated with `annotation`, of something that stands in `group`. The
    slot's own group is the sub-group of that name (baseline of "algorithm": "algorithm/baseline"), else the group of
    that name (optimizer: "optimizer"), else ""."""
    inner = f"{group}/{key}" if group else key
    return Slot(annotation, next((each for each in (inner, key) if declared(each)), ""))


def locate(path: Any, trust: Sequence[str], slot: Slot | None = None) -> Callable[..., Any]:
    """Imports and returns the class or function that a `_target_` names: one that is declared for the slot, or one that
    a module of `trust` defines. Without a slot it may be declared for any. Raises UserError for everything else, and if
    the import fails.

    The path is checked before anything is imported, and then the module that really defines what was found. Otherwise
    `trusted_module.os.system` would pass.
    """
    if not isinstance(path, str) or not re.fullmatch(DOTTED, path):
        raise UserError(f"_target_={path!r}", "must be a dotted name, module.Name")
    module_name, name = path.rsplit(".", 1)
    if within(path, PACKAGE):
        _require_declared(path, slot or Slot(Any))
    elif not trusted(module_name, trust) and not modules.file_of(module_name, trust):
        remedy = f"if you trust that module, add 'imports=[{module_name}]'"
        raise UserError(f"_target_={path}", f"{module_name} is neither {PACKAGE} nor in imports", remedy)
    module = _module(path, module_name, trust)
    if name.startswith("_") or not hasattr(module, name):
        raise UserError(f"_target_={path}", f"{module_name} has no public {name!r}{hint(name, _public(module))}")
    found: Callable[..., Any] = getattr(module, name)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise UserError(f"_target_={path}", f"is a {type(found).__name__}, must be a class or a function")
    if not within(path, PACKAGE) and not trusted(found.__module__, trust):
        raise UserError(f"_target_={path}", f"is defined in {found.__module__}, which is not in imports")
    return found


def _require_declared(path: str, slot: Slot) -> None:
    import difflib

    known = choices(slot)
    if path in known:
        return
    names = {each.rpartition(".")[2]: each for each in known}
    near = difflib.get_close_matches(path.rpartition(".")[2], names, n=1)
    close = f" (did you mean {names[near[0]]!r}?)" if near else ""
    listed = f"there are {', '.join(known)}" if 0 < len(known) <= FEW else ""
    shown = f"tokenrl list {group_of(slot)}".rstrip() + " shows what can be chosen"
    raise UserError(f"_target_={path}", f"cannot be chosen here{close}", listed or shown)


def trusted(module: str, trust: Sequence[str]) -> bool:
    """Returns whether the user listed a module, or a package around it, in `trust`. Whole components of its name count,
    so that `mine` does not stand for `mine2`. Never true for a module of this package."""
    return not within(module, PACKAGE) and modules.holds(trust, module)


def within(module: str, parent: str) -> bool:
    """Returns whether the dotted name `module` is `parent`, or that of something inside it: a submodule, a class or a
    function. Compares the names alone and imports nothing."""
    return module == parent or module.startswith(f"{parent}.")


def _public(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _module(path: str, name: str, trust: Sequence[str]) -> Any:
    """That of the user's file of this name, if `trust` has one; else the module that Python calls so."""
    where = f"_target_={path}"
    file = modules.file_of(name, trust)
    return modules.loaded(file, where) if file else modules.imported(name, where)


# ---------------------------------------------------------------------------------------------------------- the check


def check(config: dict[str, Any], trust: Sequence[str], schema: Any = None) -> None:
    """Checks every block of a config, nested ones too, against the signature of its target. Raises one UserError that
    lists all mistakes. Builds nothing, but imports the modules of the targets.

    `trust` lists the user's modules whose classes and functions a `_target_` may name. With `schema` (a dataclass) the
    keys of the root are checked against its fields as well, and every module that `trust` names is imported.
    """
    named = isinstance(trust, list | tuple) and all(isinstance(each, str) for each in trust)
    trust = trust if named else []  # the check of `imports` says what is wrong with it
    _report(_signature(config, schema, "", trust, frozenset(), "") if schema else _value(config, "", trust, Slot(Any)))
    if schema is not None:
        modules.import_all(trust)


def _report(found: Iterable[Problem]) -> None:
    problems = list(found)
    if len(problems) == 1:
        raise UserError(*problems[0])
    if problems:
        listed = "\n".join(f"  {where}: {what}" for where, what in problems)
        raise UserError("config", f"{len(problems)} mistakes\n{listed}")


def _block(block: Block, where: str, trust: Sequence[str], slot: Slot) -> Iterator[Problem]:
    try:
        target = locate(block["_target_"], trust, slot)
    except UserError as error:
        yield f"{where}.{error.where}", error.problem + (f"; {error.remedy}" if error.remedy else "")
        return
    partial = block.get("_partial_", False)
    if not isinstance(partial, bool):
        yield f"{where}._partial_", f"must be true or false, got {partial!r}"
        return
    if refused := slot.refuses(target, partial) or slot.unknown_fact(target, block):
        yield where, refused
        return
    owed = slot.owed(target, block) if partial else ()
    group = group_of(slot, block["_target_"])
    yield from _signature(block, target, where, trust, RUNTIME.union(owed), group)


def _signature(
    block: Block, target: Any, where: str, trust: Sequence[str], later: frozenset[str], group: str
) -> Iterator[Problem]:
    """Unknown keys, missing ones (but those that come `later`), and values of a wrong type."""
    parameters, open_ended = parameters_of(target)
    prefix = f"{where}." if where else ""
    name = target.__qualname__
    for key, value in block.items():
        if key in SPECIAL and where:
            continue
        if key in HYDRAS:
            yield f"{prefix}{key}", "is a key of Hydra's instantiate, which is not used here: leave it out"
        elif key in parameters:
            yield from _value(value, f"{prefix}{key}", trust, parameter_slot(parameters[key].annotation, key, group))
        elif open_ended:
            yield from _value(value, f"{prefix}{key}", trust, Slot(Any))
        else:
            owner = f"{name} has no {key!r}" if where else f"there is no key {key!r}"
            yield f"{prefix}{key}", owner + hint(str(key), [p for p in parameters if p not in later])
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in block and key not in later:
            needed = f"; {name} needs {describe(parameter.annotation)}"
            if inner := group_of(parameter_slot(parameter.annotation, key, group)):
                needed = f": one of {', '.join(options([conf_dir()], inner))}"
            yield f"{prefix}{key}", f"is missing{needed}"


def _value(value: Any, where: str, trust: Sequence[str], slot: Slot) -> Iterator[Problem]:
    if value == "???":
        yield where, f"is missing: give {where}=VALUE"
    elif is_block(value):
        yield from _block(value, where, trust, slot)
    elif isinstance(value, dict) and (misplaced := [key for key in (*SPECIAL, *HYDRAS) if key in value]):
        yield f"{where}.{misplaced[0]}", "belongs to a block with _target_, and there is none"
    elif isinstance(value, dict) and slot.record is not None:
        yield from _signature(value, slot.record, where, trust, frozenset(), "")
    elif problem := mismatch(value, slot.annotation):
        yield f"{where}={_short(value)}" if isinstance(value, str | int | float) else where, problem
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            path = f"{where}.{key}" if where else str(key)
            if isinstance(value, dict) and not isinstance(key, str):
                yield path, f"must have a text for its key, got {shown(key)}"
            yield from _value(item, path, trust, slot.item)


def _short(value: str | int | float) -> str:
    """As it is typed, where it can be repeated in one line."""
    text = value if isinstance(value, str) else shown(value, typed=False)
    return text if len(text) <= LONG and text.isprintable() else "..."


# ----------------------------------------------------------------------------------------------------------- building


def build(block: Any, kind: Any, trust: Sequence[str], where: str = "", /, **runtime: Any) -> Any:
    """Builds the object that a block describes: an instance of a class that has the methods of `kind` (a protocol or a
    class), or, with `_partial_: true`, a function with the parameters of `kind.__call__` and its other arguments bound.

    The block is checked, and nested ones are built first. `trust` lists the user's modules whose classes and functions
    a `_target_` may name. `where` is the key of the block in the config, which errors name, by default the name of
    `kind` in lower case. Each of the `runtime` facts goes to every constructor, nested ones too, that has a parameter
    of that name; so do `trust` and `here`, the key of the block itself. Raises UserError for a wrong block, for one
    that sets a fact itself, for a parameter that neither it nor the facts give, and if a constructor refuses its
    settings by a SettingError; other exceptions of constructors are raised as they are.
    """
    where = where or describe(kind).lower()
    if not is_block(block):
        raise UserError(where, f"must be a block with _target_, got {shown(block)}")
    slot = Slot(kind)
    _report(_block(block, where, trust, slot))
    return _built(block, where, slot, trust, runtime | {"trust": trust})


def _built(block: Block, where: str, slot: Slot, trust: Sequence[str], runtime: dict[str, Any]) -> Any:
    target = locate(block["_target_"], trust, slot)
    group = group_of(slot, block["_target_"])
    parameters, _ = parameters_of(target)
    facts = {name: value for name, value in (runtime | {"here": where}).items() if name in parameters}
    what = f"{where}._target_={block['_target_']}"
    if both := sorted(set(block) & set(facts)):
        raise UserError(what, f"{', '.join(both)} comes from the program, not from a config")
    given = facts | {
        key: _filled(value, f"{where}.{key}", parameter_slot(_annotation(parameters, key), key, group), trust, runtime)
        for key, value in block.items()
        if key not in SPECIAL
    }
    if block.get("_partial_", False):
        built: Any = functools.partial(target, **given)
    elif missing := [key for key, each in parameters.items() if each.default is each.empty and key not in given]:
        raise UserError(what, f"asks for {', '.join(missing)}, which is not known here")
    else:
        try:
            built = target(**given)
        except SettingError as error:
            raise error.placed(where, group) from None
    if lacking := lacks(built, slot):
        raise UserError(what, f"is not a {describe(slot.annotation)}: it has no {lacking}")
    return built


def _annotation(parameters: dict[str, inspect.Parameter], key: str) -> Any:
    return parameters[key].annotation if key in parameters else Any


def _filled(value: Any, where: str, slot: Slot, trust: Sequence[str], runtime: dict[str, Any]) -> Any:
    if is_block(value):
        return _built(value, where, slot, trust, runtime)
    if isinstance(value, dict):
        return {key: _filled(item, f"{where}.{key}", slot.item, trust, runtime) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, f"{where}.{i}", slot.item, trust, runtime) for i, item in enumerate(value)]
    return value
