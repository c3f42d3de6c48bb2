"""JSON and YAML that may be somebody else's: plain values of a size and a depth that records have, or one line that
names the file. No alias of YAML is followed: a few of them can stand for more than there is memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import UserError

LARGEST = 64 * 2**20  # bytes of a state: a long window of numbers may stand in it
LARGEST_CONFIG = 2**20
DEEPEST = 60  # lists and dictionaries in each other
EXPONENT = r"(?:[eE][-+]?\d+)?"
NUMBER = re.compile(
    rf"(?:[-+]?(?:\d[\d_]*\.?[\d_]*{EXPONENT}|\.\d[\d_]*{EXPONENT}|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))$"
)


def read_json(path: Path, what: str, remedy: str = "") -> dict[str, Any]:
    """An object of JSON. UserError where it is not there, unreadable, or something else."""
    try:
        content = json.loads(disk.read(path, LARGEST))
    except FileNotFoundError:
        raise UserError(str(path), f"is missing: this is no {what}", remedy) from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", remedy) from None
    except RecursionError:
        raise UserError(str(path), f"is no record of a run: more than {DEEPEST} levels deep", remedy) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise UserError(str(path), f"is damaged: {error}", remedy) from None
    if not isinstance(content, dict):
        raise UserError(str(path), f"is damaged: holds a {type(content).__name__}, must be an object", remedy)
    _check(content, path, "")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and plain values of a config. UserError where it is not there, unreadable, or something else."""
    import yaml

    try:
        text = disk.read(path, LARGEST_CONFIG).decode()
        content = yaml.load(text, _loader())  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise UserError(str(path), f"is no config of a run: more than {DEEPEST} levels deep") from None
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UserError(str(path), f"cannot be read: {said}") from None
    if not isinstance(content, dict):
        raise UserError(str(path), "must hold keys and values")
    _check(content, path, "")
    return content


def yaml_text(content: dict[str, Any]) -> str:
    """What `read_yaml` reads the same values from, and every other reader of YAML."""
    import yaml

    text: str = yaml.dump(content, Dumper=_dumper(), sort_keys=False, allow_unicode=True)
    return text


def _check(value: Any, path: Path, where: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise UserError(str(path), f"is no record of a run: more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(str(path), f"{where or 'the root'} holds the key {key!r}, must be text")
            _check(item, path, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, path, where, depth + 1)
    elif not (value is None or isinstance(value, str | int | float)):
        raise UserError(str(path), f"{where} is a {type(value).__name__}, must be text, a number or a truth value")


def _loader() -> Any:
    """Safe, without aliases; 1e-3 is a number, as in a config."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise yaml.YAMLError(
                    f"line {event.start_mark.line + 1}: an alias (*{event.anchor}), which no run writes"
                )
            return super().compose_node(parent, index)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789."))
    return Loader


def _dumper() -> Any:
    """Quotes a text that some reader would take for a number; repeats a list that stands in two places."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789."))
    return Dumper
