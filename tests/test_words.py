"""Docstrings of the package: that there is one, that tensors have shapes, and that its words are those of the field."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenrl_cli

HOME = Path(tokenrl_cli.__file__).parent
FILES = sorted(HOME.rglob("*.py"))
EXAMPLES = [file for file in FILES if re.search(r"^\s*>>> ", file.read_text("utf-8"), re.MULTILINE)]

ARRAY = re.compile(r"\b(Tensor|ndarray)\b")
SHAPE = re.compile(r"\[[^\]]*\]|\bscalar\b|\ba number\b")  # [B, T], [], or in words
RIDDLES = {  # what readers misunderstood -> what to write instead
    r"mates?": "samples of the same source (a group)",
    r"told": "shown, named, reported: by what, to whom",
    r"apart": "the difference, the distance, separately",
    r"(un)?said": "generated, output, predicted",
    r"paid|earn(ed|s)?": "rewarded, the reward",
    r"ask(ed|s)?": "called with, reads the parameter",
    r"nobody|whoever|somebody": "what does it: a function, a user, a process",
    r"recit(e|ed|es|ing)": "a teacher-forced rollout of a demonstration",
    r"rehears(e|ed|es|al)": "a smoke test before training",
    r"judged": "rewarded, scored",
    r"weighs?": "has the weight",
    r"lessons?": "the output of a loss",
    r"equation of (its|their) own|compared with nothing|in the one half": "the quantity, the operation, the condition",
}


def public(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yields (dotted name, definition) of the public functions, classes and methods."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


def annotations(function: ast.FunctionDef) -> str:
    """The annotations of the arguments and of the result, as text."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    nodes = [each.annotation for each in arguments if each is not None] + [function.returns]
    return " ".join(ast.unparse(node) for node in nodes if node is not None)


def mistakes(source: str) -> list[str]:
    """What is wrong with the docstrings of a module, one line for each mistake."""
    tree = ast.parse(source)
    found = []
    for name, node in public(tree):
        text = ast.get_docstring(node)
        if not text:
            found.append(f"{name}: has no docstring")
        elif isinstance(node, ast.FunctionDef) and ARRAY.search(annotations(node)) and not SHAPE.search(text):
            found.append(f"{name}: names no shape of its tensors or arrays, such as [B, T]")
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            name = getattr(node, "name", "the module")
            for riddle, better in RIDDLES.items():
                if match := re.search(rf"\b({riddle})\b", text, re.IGNORECASE):
                    found.append(f"{name}: {match[0]!r}; better: {better}")
    return found


def test_every_docstring_is_there_has_shapes_and_no_riddle() -> None:
    found = [f"{file.relative_to(HOME)} {each}" for file in FILES for each in mistakes(file.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): ...", "f: has no docstring"),
        ("class A:\n    '''A.'''\n    def g(self): ...", "A.g: has no docstring"),
        ("def f(x: Tensor) -> int:\n    '''Sum.'''", "f: names no shape"),
        ("def f(*x: int) -> tuple[np.ndarray, int]:\n    '''Sum.'''", "f: names no shape"),
        ("'''What it is told.'''", "the module: 'told'"),
        ("def _f():\n    '''Its mates.'''", "_f: 'mates'"),
    ],
)
def test_each_kind_of_mistake_is_found(source: str, expected: str) -> None:
    assert [each[: len(expected)] for each in mistakes(source)] == [expected]


@pytest.mark.parametrize(
    "source",
    [
        "def _f(x: Tensor): ...",
        "def f(x: Tensor) -> float:\n    '''Sum. [B, T] -> a number.'''\n    def g(): ...",
        "class A:\n    '''Retold apartments.'''\n    def __call__(self, x: Tensor): ...",
    ],
)
def test_what_is_right_is_no_mistake(source: str) -> None:
    assert not mistakes(source)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_in_docstrings_are_right(file: Path) -> None:
    module = importlib.import_module(".".join(["tokenrl_cli", *file.relative_to(HOME).with_suffix("").parts]))
    assert doctest.testmod(module).failed == 0
