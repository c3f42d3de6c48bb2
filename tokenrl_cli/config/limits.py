"""Reads which values the keys of an option may have from the source of its class or function, without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from tokenrl_cli.config import ranges
from tokenrl_cli.config.options import options, target_in
from tokenrl_cli.config.types import is_union, ranges_of

BOUNDS = (ranges.Le(ranges.MANY), ranges.Le(ranges.WIDE))  # far above every sensible value
WITHOUT_TARGET = {"trainer": "tokenrl_cli.run.recorder.Trainer"}  # a group whose options name no class
DEFINED = (ast.ClassDef, ast.FunctionDef)
NAMES = vars(ranges) | {"Annotated": Annotated, "int": int, "float": float, "str": str}


def target_of(file: Path, places: Sequence[Path], group: str) -> str:
    """Returns the `_target_` that the YAML file of an option of `group` stands for: its own; for the group "trainer",
    whose options name no class, that of Trainer; else that of the option that it extends, the first of its defaults if
    it is of the same group, which may extend another in turn; else "", as where options extend each other in a circle.
    `places` are the roots that have a folder for each group, as `options.roots` returns them. Raises OSError or
    UnicodeDecodeError if a file cannot be read."""
    known, seen = options(places, group), list[Path]()
    while file not in seen:
        if own := target_in(file) or WITHOUT_TARGET.get(group, ""):
            return own
        seen.append(file)
        base = re.search(r"^defaults:\n  - (\w+)$", file.read_text("utf-8"), re.MULTILINE)
        file = known.get(base[1], file) if base else file
    return ""


def limits(path: str) -> dict[str, str]:
    """Returns the allowed range of each parameter that declares one, in words, such as {"lr": "above 0"}; `path` is the
    dotted name of a class or function of this package. Read from its source without importing it: parameters of the
    function or of the class's own `__init__`, or else the fields of the class. Bounds far above every sensible value
    are left out. {} for anything of another package."""
    package, *inner, name = path.split(".") if path.count(".") > 1 else ("", "")
    source = Path(__file__).parents[1].joinpath(*inner).with_suffix(".py")
    if package != __name__.split(".")[0] or not source.is_file():
        return {}
    tree = ast.parse(source.read_text("utf-8"))
    names = dict(NAMES)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = _read(node.value, names)
    owner = next((node for node in tree.body if isinstance(node, DEFINED) and node.name == name), None)
    return {key: said for key, node in _annotations(owner) if (said := _said(_read(node, names)))}


def _annotations(owner: Any) -> list[tuple[str, Any]]:
    """Of the parameters of a function or a constructor, or of the fields of a dataclass."""
    if isinstance(owner, ast.ClassDef):
        made = [node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        if made:
            return _annotations(made[0])
        return [(node.target.id, node.annotation) for node in owner.body
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]  # fmt: skip
    return [(each.arg, each.annotation) for each in owner.args.args] if isinstance(owner, ast.FunctionDef) else []


def _read(node: Any, names: dict[str, Any]) -> Any:
    """An annotation made of ranges and plain types; None for any other."""
    try:
        return eval(compile(ast.Expression(node), "annotation", "eval"), names)  # of the package's own source
    except Exception:
        return None


def _said(annotation: Any) -> str:
    for kind in get_args(annotation) if is_union(annotation) else (annotation,):
        if shown := [each for each in ranges_of(kind) if each not in BOUNDS]:
            return " and ".join(map(ranges.described, shown))
    return ""
