"""Checks whether a value of a config fits a parameter, by the annotation of the parameter alone.

An annotation that cannot be read, such as a name imported only for type checkers, accepts everything; the constructor
may then refuse the value.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache
from itertools import takewhile
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tokenrl_cli.config.ranges import Infinite, Range, described, holds

BITS, LONG = 63, 80  # of an integer, beside its sign; characters of a value that an error shows
SCALARS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}


@cache
def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Returns the parameters of a function, or of the constructor of a class (without self), by name, with their
    annotations as objects (Any for one that cannot be read), and whether it takes any further keyword (`**kwargs`).
    `*args` and `**kwargs` are not listed. The result is cached: do not change it."""
    module = vars(sys.modules[target.__module__])
    parameters = {}
    open_ended = False
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            parameters[name] = parameter.replace(annotation=_read(parameter.annotation, module))
    return parameters, open_ended


def _read(annotation: Any, names: dict[str, Any]) -> Any:
    """`from __future__ import annotations` leaves text; names imported for type checkers alone stay unread."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # of the target's own source, which is trusted
    except Exception:
        return Any


def is_union(annotation: Any) -> bool:
    """Returns whether an annotation is a union, Union[A, B] or A | B."""
    return get_origin(annotation) in (Union, types.UnionType)


def plain(annotation: Any) -> Any:
    """Returns an annotation without what Annotated adds to it, such as ranges; any other annotation as it is. A union
    is not entered."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def ranges_of(annotation: Any) -> tuple[Range, ...]:
    """Returns the ranges that an annotation declares by Annotated, in their order; () if it declares none. A union is
    not entered."""
    declared = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return tuple(each for each in declared if isinstance(each, Range))


def is_part(annotation: Any) -> bool:
    """Returns whether an annotation is a class whose objects only a block can give: any class, of this package or not,
    except those of builtins, typing and collections.abc."""
    return inspect.isclass(annotation) and annotation.__module__ not in ("builtins", "collections.abc", "typing")


def is_protocol(annotation: Any) -> bool:
    """Returns whether an annotation is a protocol itself, not a class that implements one."""
    return inspect.isclass(annotation) and typing.Protocol in annotation.__bases__


def describe(annotation: Any) -> str:
    """Returns an annotation in words, for messages: "float, at least 0 and below 1", "one of word, char", "int or
    null"."""
    if limits := ranges_of(annotation):
        return f"{describe(plain(annotation))}, {' and '.join(map(described, limits))}"
    annotation = plain(annotation)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if is_union(annotation):
        listed = [describe(each) for each in get_args(annotation)]
        return (", or " if any("," in each for each in listed) else " or ").join(listed)
    if annotation is type(None) or annotation is None:
        return "null"
    if inspect.isclass(annotation) and not get_args(annotation):
        return str(annotation.__name__)
    return str(annotation).replace("collections.abc.", "").replace("typing.", "")


def mismatch(value: Any, annotation: Any, infinite: bool = False) -> str:
    """Says why a value that is no block does not fit an annotation; "" if it does. An int is accepted for a float, a
    bool for neither; a float must be finite unless the annotation has the range Infinite, or `infinite` is True; an
    integer has at most 64 bits. The items of a list or dictionary are not checked, but the length of a tuple is."""
    if get_origin(annotation) is Annotated:
        limits = [each for each in ranges_of(annotation) if not isinstance(each, Infinite)]
        return mismatch(value, plain(annotation), Infinite() in ranges_of(annotation)) or _outside(value, limits)
    if is_union(annotation):
        if all(mismatch(value, each) for each in get_args(annotation)):
            return f"must be {describe(annotation)}, got {shown(value)}"
        return ""
    if annotation is None or annotation is type(None):
        return "" if value is None else f"must be null, got {shown(value)}"
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return _literal(value, get_args(annotation))
    if origin in SCALARS:
        accepted = isinstance(value, SCALARS[origin]) and (origin is bool or not isinstance(value, bool))
        if not accepted:
            return f"must be {origin.__name__}, got {shown(value)}{_quoted(value, origin)}"
        return unusable(value, infinite)
    if origin is Callable or is_part(origin):
        return f"must be a block with _target_ ({describe(annotation)}), got {shown(value)}"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "" if isinstance(value, dict) else f"must be a dictionary, got {shown(value)}"
    if (inspect.isclass(origin) and issubclass(list, origin)) or origin in (tuple, set, frozenset):
        return _sequence(value, annotation, origin)
    return unusable(value, False)


def unusable(value: Any, infinite: bool) -> str:
    """Says why a number or text can be no setting, whatever the annotation: NaN, infinity (unless `infinite`), an
    integer of more than 64 bits, a zero byte; "" for any other value."""
    if isinstance(value, float) and not (math.isfinite(value) or (infinite and not math.isnan(value))):
        return f"must be {'a number' if infinite else 'finite'}, got {value}"
    if isinstance(value, int) and value.bit_length() > BITS:
        return f"must be an integer of 64 bits, got {shown(value)}"
    return "must not hold a zero byte" if isinstance(value, str) and "\0" in value else ""


def _outside(value: Any, limits: Sequence[Range]) -> str:
    if all(holds(each, value) for each in limits):
        return ""
    if value in ("", [], {}):
        return "must not be empty"
    return f"must be {' and '.join(map(described, limits))}, got {shown(value, typed=False)}"


def _literal(value: Any, options: tuple[Any, ...]) -> str:
    if any(value == option and type(value) is type(option) for option in options):
        return ""
    from difflib import get_close_matches

    close = get_close_matches(str(value), [str(option) for option in options], n=1)
    return f"must be one of {', '.join(map(str, options))}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _sequence(value: Any, annotation: Any, origin: Any) -> str:
    if origin is object:
        return ""
    if not isinstance(value, list):
        return f"must be a list, got {shown(value)}"
    items = get_args(annotation)
    if origin is tuple and items and Ellipsis not in items and len(items) != len(value):
        return f"must be a list of {len(items)}, got {len(value)}"
    return ""


def shown(value: Any, typed: bool = True) -> str:
    """Returns a value as an error message shows it: its repr, after the name of its type if `typed`. A repr of more
    than LONG (80) characters is cut there and gets "..."; of a very long integer only the number of bits is shown. None
    is "null"."""
    if value is None:
        return "null"
    if isinstance(value, int) and value.bit_length() > 3 * LONG:
        return f"one of {value.bit_length()} bits"  # Python refuses to write out what is much longer
    text = repr(value)
    text = text if len(text) <= LONG else f"{text[:LONG]}..."
    return f"{type(value).__name__} {text}" if typed else text


def _quoted(value: Any, wanted: type) -> str:
    number = wanted is str and isinstance(value, int | float)
    return f""" (quote it twice, as in '"{value}"', to mean the text)""" if number else ""


class Facts:
    """The names of the arguments with which a component is called, in an annotation: `Annotated[Callable[..., Tensor],
    Facts("rewards", "mask")]`. The component gets those of them that are among its parameters. Its other parameters
    must be settings, which its block gives, or have a default."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def unknown(self, target: Callable[..., Any], given: Container[str]) -> str:
        """Says which parameter of `target` is neither one of these facts nor one of `given`, the keys of its block, and
        has no default; "" if there is none. Of a class the parameters of its `__call__` are checked."""
        called = target if inspect.isfunction(target) else vars_of(target).get("__call__", target)
        for name, parameter in parameters_of(called)[0].items():
            setting = name == "self" or name in given or parameter.default is not parameter.empty
            if not setting and name not in self.names:
                from difflib import get_close_matches

                close = get_close_matches(name, self.names, n=1)
                near = f" (did you mean {close[0]!r}?)" if close else ""
                asks = f"{target.__module__}.{target.__qualname__} asks for {name!r}"
                return f"{asks}, which its block does not give and nobody here{near}; there are {', '.join(self.names)}"
        return ""


def vars_of(target: Any) -> dict[str, Any]:
    """Returns the attributes of a class by name, including inherited ones, as `vars` gives them: a method is a plain
    function."""
    return {name: value for each in reversed(target.__mro__) for name, value in vars(each).items()}


@dataclasses.dataclass(frozen=True)
class Slot:
    """A parameter, or an item of one, that a value of the config goes to: its annotation, and the group of conf/ whose
    options may stand there."""

    annotation: Any
    group: str = ""  # of conf/, whose options may stand here; "" where its key is no group's

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that may stand here, without their ranges: the members of a union, or the annotation alone."""
        annotation = plain(self.annotation)
        return tuple(map(plain, get_args(annotation))) if is_union(annotation) else (annotation,)

    @property
    def record(self) -> Any:
        """The dataclass among the kinds, whose fields a dictionary without `_target_` must have; None if there is
        none."""
        return next((kind for kind in self.kinds if dataclasses.is_dataclass(kind)), None)

    @property
    def item(self) -> Slot:
        """The slot of each item of a list, or of each value of a dictionary: of list[Reward] and dict[str, Reward] that
        of a Reward. Any if the annotation does not say. Its group is that of this slot."""
        for kind in self.kinds:
            elements = [each for each in get_args(kind) if each is not Ellipsis]
            if elements and get_origin(kind) is not Callable:
                return Slot(elements[-1], self.group)
        return Slot(Any, self.group)

    def refuses(self, target: Callable[..., Any], partial: bool) -> str:
        """Says why `target`, of a block with or without `_partial_: true`, cannot stand here: it is not a class of the
        right kind, lacks a method of the protocol, or is partial where it must not be; "" if it can. Of a union one
        kind is enough; else the reason for the first one is given."""
        reasons = [_refusal(target, partial, kind) for kind in self.kinds]
        return "" if not all(reasons) else reasons[0]

    def unknown_fact(self, target: Callable[..., Any], given: Container[str]) -> str:
        """Says why `target`, of a block with the keys `given`, cannot be called with the `Facts` that this slot
        declares; "" if it can, or if the slot declares none."""
        declared = get_args(self.annotation)[1:] if get_origin(self.annotation) is Annotated else ()
        told = [each.unknown(target, given) for each in declared if isinstance(each, Facts)]
        return next(filter(None, told), "")

    def owed(self, target: Callable[..., Any], given: Container[str]) -> tuple[str, ...]:
        """Returns the names of the arguments that the owner of this slot will pass when it calls `target`, of a block
        with `_partial_: true`, so that the config need not give them. Those of `__call__` if the slot is a protocol
        with no other method; the first n parameters of `target` for Callable[[n types], ...]; else all parameters
        before the first one that is in `given`, the keys of the block, or all if none is."""
        names = list(parameters_of(target)[0])
        for kind in self.kinds:
            if called := _call_of(kind):
                return tuple(called)
            arguments = get_args(kind)[:1] if get_origin(kind) is Callable else ()
            if arguments and isinstance(arguments[0], list):
                return tuple(names[: len(arguments[0])])
        return tuple(takewhile(lambda name: name not in given, names))


def methods_of(kind: Any) -> list[str]:
    """Returns the names of the methods that a protocol defines itself, `__call__` and those without a leading
    underscore. Inherited ones are left out."""
    named = (name for name, value in vars(kind).items() if inspect.isfunction(value))
    return [name for name in named if name == "__call__" or not name.startswith("_")]


def lacks(built: Any, slot: Slot) -> str:
    """Returns the names of the methods and attributes of the slot's protocol, and of those that it extends, which an
    object does not have, joined by commas; "" if it has all, or if the slot has no protocol. Of a union one member
    is enough; else the names for the first one are given."""
    found = [[name for name in _members(kind) if not hasattr(built, name)] for kind in slot.kinds]
    return ", ".join(found[0]) if found and all(found) else ""


def _members(kind: Any) -> list[str]:
    """What a protocol demands, and those that it extends."""
    protocols = [each for each in kind.__mro__ if is_protocol(each)] if is_protocol(kind) else []
    return [name for each in protocols for name in (*inspect.get_annotations(each), *methods_of(each))]


def _call_of(kind: Any) -> list[str]:
    """The argument names of a protocol that is a function in a class's clothes."""
    if not is_protocol(kind) or methods_of(kind) != ["__call__"]:
        return []
    return list(inspect.signature(kind.__call__).parameters)[1:]


def _refusal(target: Callable[..., Any], partial: bool, kind: Any) -> str:
    name = f"{target.__module__}.{target.__qualname__}"
    if kind is Any or isinstance(kind, typing.TypeVar):
        return "" if inspect.isclass(target) or partial else f"{name} is a function: add _partial_: true"
    if get_origin(kind) is Callable or kind is Callable:
        if inspect.isclass(target) and not partial:
            return "" if _has(target, "__call__") else f"{name} cannot be called: it has no __call__"
        return "" if partial else f"{name} is a function, which its owner calls: add _partial_: true"
    if not is_part(kind):
        return f"must be {describe(kind)}, not a block ({name})"
    if not inspect.isclass(target):
        return _function_refusal(target, partial, kind, name)
    if partial:
        return f"{name} is a class: remove _partial_"
    if not is_protocol(kind):
        return "" if issubclass(target, kind) else f"{name} is not a {kind.__name__}"
    lacking = [method for method in methods_of(kind) if not _has(target, method)]
    return f"{name} is not a {kind.__name__}: it has no {', '.join(lacking)}" if lacking else ""


def _function_refusal(target: Callable[..., Any], partial: bool, kind: Any, name: str) -> str:
    called = _call_of(kind)
    if not called:
        return f"{name} is a function, and a {kind.__name__} must be a class"
    if list(parameters_of(target)[0])[: len(called)] != called:
        return f"{name} is not a {kind.__name__}: its first parameters must be {', '.join(called)}"
    return "" if partial else f"{name} is a function: add _partial_: true"


def _has(target: type, method: str) -> bool:
    """In the class itself: every class object has a __call__, that of its type."""
    return any(method in vars(each) for each in target.__mro__)
