"""Reads the JSON and YAML files of a run, which may come from an untrusted source, and writes YAML.

Only plain values of limited size and depth are accepted; anything else is a UserError that names the file. YAML aliases
are refused: a few nested ones can expand to more than the memory holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import UserError

LARGEST = 64 * 2**20  # bytes of a JSON file: a state may hold many numbers not logged yet
LARGEST_CONFIG = 2**20  # bytes
DEEPEST = 60  # levels of nested lists and dictionaries
EXPONENT = r"(?:[eE][-+]?\d+)?"
# What a config calls a number; PyYAML alone would read 1e-3 as text.
NUMBER = re.compile(
    rf"(?:[-+]?(?:\d[\d_]*\.?[\d_]*{EXPONENT}|\.\d[\d_]*{EXPONENT}|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))$"
)


def read_json(path: Path, what: str, remedy: str = "") -> dict[str, Any]:
    """Returns the object in a JSON file, as a dictionary; NaN and Infinity are read as floats. Raises UserError if the
    file is missing, a link, unreadable, larger than LARGEST (64 MiB) or nested deeper than DEEPEST (60), or holds
    anything but an object. `what` names the thing that the file belongs to, such as "checkpoint", for the message that
    it is missing; `remedy` ends every message."""
    try:
        content = json.loads(disk.read(path, LARGEST))
        if not isinstance(content, dict):
            raise UserError(str(path), f"is damaged: holds a {type(content).__name__}, must be an object")
        _check(content, path, "")
    except UserError as error:
        raise UserError(error.where, error.problem, remedy) from None
    except FileNotFoundError:
        raise UserError(str(path), f"is missing: this is no {what}", remedy) from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", remedy) from None
    except RecursionError:
        raise UserError(str(path), f"is nested more than {DEEPEST} levels deep: no run writes that", remedy) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise UserError(str(path), f"is damaged: {error}", remedy) from None
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the keys and plain values in a YAML file, as a dictionary; 1e-3 is read as a number. Raises UserError if
    it is missing, a link, unreadable, larger than LARGEST_CONFIG (1 MiB) or nested deeper than DEEPEST (60), has an
    alias, a date or a key that is no text, or holds anything but keys and values."""
    import yaml

    try:
        content = _loaded(disk.read(path, LARGEST_CONFIG).decode())
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise UserError(str(path), f"is nested more than {DEEPEST} levels deep: no run writes that") from None
    except (yaml.YAMLError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise UserError(str(path), f"cannot be read: {cause}") from None
    if not isinstance(content, dict):
        raise UserError(str(path), "must hold keys and values")
    _check(content, path, "")
    return content


def yaml_text(content: dict[str, Any]) -> str:
    """Returns a dictionary of plain values as YAML text, in its order, from which `read_yaml` and other YAML readers
    restore the same values. Raises yaml.YAMLError for objects of other types."""
    import yaml

    text: str
    try:
        quick = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper
        text = yaml.dump(content, Dumper=_dumper(quick), sort_keys=False, allow_unicode=True)
    except UnicodeEncodeError:  # bytes that are no text, as in a path: PyYAML's own writer has an escape for them
        text = yaml.dump(content, Dumper=_dumper(yaml.SafeDumper), sort_keys=False, allow_unicode=True)
    return text


def _check_events(events: Iterator[Any]) -> None:
    """Raises for what would cost much memory or stack to load: YAMLError at an alias, RecursionError where lists and
    dictionaries are nested too deep."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: an alias (*{event.anchor}), which no run writes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError


def _check(value: Any, path: Path, where: str, depth: int = 0) -> None:
    """Raises UserError unless `value`, at the key `where` of a file, holds only plain values, text keys and few
    levels."""
    if depth > DEEPEST:
        raise UserError(str(path), f"is nested more than {DEEPEST} levels deep: no run writes that")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(str(path), f"{where or 'the root'} holds the key {key!r}, must be text")
            _check(item, path, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, path, where, depth + 1)
    elif not (value is None or isinstance(value, str | int | float)):
        raise UserError(str(path), f"{where} is a {type(value).__name__}, must be text, a number, true or false")


def _loaded(text: str) -> Any:
    """What a YAML text holds. It is read by libyaml, and where that refuses it by PyYAML's own reader, which is ten
    times slower: only that one reads the escapes of bytes that are no text, as a path may hold them."""
    import yaml

    for base in (yaml.CSafeLoader, yaml.SafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,):
        loader = _loader(base)
        try:
            _check_events(yaml.parse(text, loader))
            return yaml.load(text, loader)
        except yaml.YAMLError:
            if base is yaml.SafeLoader:
                raise
    raise AssertionError("the loop has returned or raised")


def _loader(base: Any) -> Any:
    """A class that reads as `base`, a SafeLoader, and takes 1e-3 as a number."""

    class Loader(base):  # type: ignore[misc]
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789."))
    return Loader


def _dumper(base: Any) -> Any:
    """A class that writes as `base`, a SafeDumper, quotes text which a reader might take for a number, and writes no
    aliases: a list used twice is written twice."""

    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789."))
    return Dumper
