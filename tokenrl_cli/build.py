"""Config block -> object: allow-list, signature check, did-you-mean. Knows plain dictionaries, never Hydra.

A block is a dictionary with `_target_`. Nothing is called, or even imported, unless it is defined in tokenrl_cli or in
a module the user named in `imports=` on this command line: a config may come with somebody else's checkpoint.
`check` reads signatures and lists every mistake at once; ranges are the constructors' affair.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tokenrl_cli import imports
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.typecheck import Slot, describe, mismatch, parameters_of

PACKAGE = "tokenrl_cli"
RUNTIME = frozenset(
    ("model", "tokenizer", "source_tokenizer", "max_length", "device", "seed", "frozen", "eos_id", "trust")
)  # what only a running program knows: never in a config, so never missing from it
SPECIAL = ("_target_", "_partial_")

Block = dict[str, Any]
Problem = tuple[str, str]  # where, what


def hint(name: str, options: Iterable[str]) -> str:
    """ " (did you mean 'bleu'?)", or nothing."""
    import difflib  # here: only mistakes pay for it

    close = difflib.get_close_matches(name, list(options), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def is_block(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


# ---------------------------------------------------------------------------------------------------- the allow-list


def trusted(path: str, trust: Sequence[str]) -> bool:
    """Whole components count: `tokenrl_cli_evil` is not under `tokenrl_cli`."""
    return imports.holds((PACKAGE, *trust), path)


def locate(path: Any, trust: Sequence[str]) -> Callable[..., Any]:
    """The class or function that a `_target_` names, defined under `tokenrl_cli` or `trust`; else UserError.

    Asked twice: of the path before anything is imported, and of the module that really defines what was found.
    Otherwise `trusted_module.os.system` would do.
    """
    if not isinstance(path, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", path):
        raise UserError(f"_target_={path!r}", "must be a dotted name, module.Name")
    module_name, name = path.rsplit(".", 1)
    if not trusted(module_name, trust) and not imports.file_of(module_name, trust):
        remedy = f"if you trust that module, add 'imports=[{module_name}]'"
        raise UserError(f"_target_={path}", f"{module_name} is neither {PACKAGE} nor in imports", remedy)
    module = _module(path, module_name, trust)
    if not hasattr(module, name):
        raise UserError(f"_target_={path}", f"{module_name} has no {name!r}{hint(name, _public(module))}")
    found = getattr(module, name)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise UserError(f"_target_={path}", f"is a {type(found).__name__}, must be a class or a function")
    if not trusted(found.__module__, trust):
        raise UserError(f"_target_={path}", f"is defined in {found.__module__}, neither {PACKAGE} nor in imports")
    return found


def _public(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _module(path: str, name: str, trust: Sequence[str]) -> Any:
    """That of the user's file of this name, if `trust` has one; else the module that Python calls so."""
    where = f"_target_={path}"
    file = imports.file_of(name, trust)
    return imports.loaded(file, where) if file else imports.imported(name, where)


# ---------------------------------------------------------------------------------------------------------- the check


def check(config: dict[str, Any], trust: Sequence[str], schema: Any = None) -> None:
    """Every block against the signature of its target, nested ones too; all mistakes in one UserError.

    With `schema` (a dataclass) the keys of the root are checked against its fields as well, and every module that
    `trust` names is imported.
    """
    problems = list(_signature(config, schema, "", trust, frozenset())) if schema else list(_walk(config, "", trust))
    if len(problems) == 1:
        raise UserError(*problems[0])
    if problems:
        listed = "\n".join(f"  {where}: {what}" for where, what in problems)
        raise UserError("config", f"{len(problems)} mistakes\n{listed}")
    if schema is not None:
        imports.import_all(trust)


def _walk(value: Any, where: str, trust: Sequence[str]) -> Iterator[Problem]:
    """Blocks below `value`, where no signature says what is expected."""
    if is_block(value):
        yield from _block(value, where, trust, Slot(Any))
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(item, f"{where}.{key}" if where else str(key), trust)
    elif value == "???":
        yield where, f"is missing: give {where}=VALUE"


def _block(block: Block, where: str, trust: Sequence[str], slot: Slot) -> Iterator[Problem]:
    try:
        target = locate(block["_target_"], trust)
    except UserError as error:
        yield f"{where}.{error.where}", error.problem + (f"; {error.remedy}" if error.remedy else "")
        return
    partial = block.get("_partial_", False)
    if not isinstance(partial, bool):
        yield f"{where}._partial_", f"must be true or false, got {partial!r}"
        return
    if refused := slot.refuses(target, partial):
        yield where, refused
        return
    owed = slot.owed(target, block) if partial else ()
    yield from _signature(block, target, where, trust, RUNTIME.union(owed))


def _signature(block: Block, target: Any, where: str, trust: Sequence[str], later: frozenset[str]) -> Iterator[Problem]:
    """Unknown keys, missing ones (but those that come `later`), and values of a wrong type."""
    parameters, open_ended = parameters_of(target)
    prefix = f"{where}." if where else ""
    name = getattr(target, "__qualname__", str(target))
    for key, value in block.items():
        if key in SPECIAL and where:
            continue
        if key in parameters:
            yield from _value(value, f"{prefix}{key}", trust, Slot(parameters[key].annotation))
        elif open_ended:
            yield from _walk(value, f"{prefix}{key}", trust)
        else:
            owner = f"{name} has no {key!r}" if where else f"there is no key {key!r}"
            yield f"{prefix}{key}", owner + hint(key, [p for p in parameters if p not in later])
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in block and key not in later:
            yield f"{prefix}{key}", f"is missing; {name} needs {describe(parameter.annotation)}"


def _value(value: Any, where: str, trust: Sequence[str], slot: Slot) -> Iterator[Problem]:
    if value == "???":
        yield where, f"is missing: give {where}=VALUE"
    elif is_block(value):
        yield from _block(value, where, trust, slot)
    elif isinstance(value, dict) and slot.record is not None:
        yield from _signature(value, slot.record, where, trust, frozenset())
    elif problem := mismatch(value, slot.annotation):
        yield f"{where}={value}" if isinstance(value, str | int | float) else where, problem
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _value(item, f"{where}.{key}", trust, slot.item)


# ----------------------------------------------------------------------------------------------------------- building


def build(block: Any, kind: Any, trust: Sequence[str], /, **runtime: Any) -> Any:
    """The object of a block: a class with the methods of `kind` (a protocol, or a class), or a function that takes
    what `kind.__call__` is given, its other arguments bound (`_partial_: true`).

    Nested blocks are built first. `runtime` facts, and `trust`, go to whatever has a parameter of that name.
    """
    if not is_block(block):
        raise UserError("config", f"a {describe(kind)} must be a block with _target_, got {block!r}")
    built = _built(block, Slot(kind), trust, runtime | {"trust": trust})
    if inspect.isclass(kind) and not isinstance(built, kind):
        lacking = sorted(name for name in getattr(kind, "__annotations__", {}) if not hasattr(built, name))
        raise UserError(f"_target_={block['_target_']}", f"is not a {kind.__name__}: it has no {', '.join(lacking)}")
    return built


def _built(block: Block, slot: Slot, trust: Sequence[str], runtime: dict[str, Any]) -> Any:
    where = f"_target_={block['_target_']}"
    target = locate(block["_target_"], trust)
    partial = bool(block.get("_partial_", False))
    if refused := slot.refuses(target, partial):
        raise UserError(where, refused)
    parameters, open_ended = parameters_of(target)
    given = {
        key: _filled(value, Slot(parameters[key].annotation) if key in parameters else Slot(Any), trust, runtime)
        for key, value in block.items()
        if key not in SPECIAL
    }
    unknown = [] if open_ended else sorted(set(given) - set(parameters))
    facts = {name: value for name, value in runtime.items() if name in parameters}
    if both := sorted(set(given) & set(facts)):
        raise UserError(where, f"{', '.join(both)} comes from the program, not from a config")
    given |= facts
    missing = [key for key, each in parameters.items() if each.default is each.empty and key not in given]
    if unknown or (missing and not partial):
        raise UserError(where, f"unknown keys: {unknown}; missing keys: {missing}")
    return functools.partial(target, **given) if partial else target(**given)


def _filled(value: Any, slot: Slot, trust: Sequence[str], runtime: dict[str, Any]) -> Any:
    if is_block(value):
        return _built(value, slot, trust, runtime)
    if isinstance(value, dict):
        return {key: _filled(item, slot.item, trust, runtime) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, slot.item, trust, runtime) for item in value]
    return value
