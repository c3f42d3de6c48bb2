"""Imports the user's modules, which a command line names in `imports`, with errors that name file and line.

An entry is a dotted name (`my_rewards`) or a file (`rewards/mine.py`). A file is registered in sys.modules under its
path, so that one called random.py does not replace a library; a target may name it by its stem. The current directory
is importable. While a module runs for the first time, process state that it changes is restored by
`isolation.process_restored`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import UserError
from tokenrl_cli.usercode.isolation import process_restored
from tokenrl_cli.usercode.values import writable

DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
PACKAGE = Path(__file__).parents[1]  # the folder tokenrl_cli


# ------------------------------------------------------------------------------------------------- what may be named


def file_of(name: str, imports: Sequence[str]) -> Path | None:
    """Returns the file among the entries of `imports` whose stem or absolute path is `name`, as an absolute path
    without links; None if there is none. Of several with this stem, the first."""
    for entry in imports:
        if entry.endswith(".py") and name in (Path(entry).stem, str(Path(entry).resolve())):
            return Path(entry).resolve()
    return None


def holds(imports: Sequence[str], module: str) -> bool:
    """Returns whether a module, by its name in sys.modules, is an entry of `imports` or a submodule of one. For an
    entry that is a file, the name in sys.modules is the file's absolute path."""
    files = [str(Path(entry).resolve()) for entry in imports if entry.endswith(".py")]
    return module in files or any(module == entry or module.startswith(f"{entry}.") for entry in imports)


def import_all(imports: Sequence[str]) -> None:
    """Imports every entry, which runs the modules that have not run in this process yet, so that a missing or failing
    one stops the command at its start. Raises UserError, which names the entry."""
    for entry in imports:
        if entry.endswith(".py"):
            loaded(Path(entry).resolve(), f"imports=[{entry}]")
        else:
            imported(entry, f"imports=[{entry}]")


# --------------------------------------------------------------------------------------------------------- importing


def imported(name: str, where: str) -> Any:
    """Imports and returns the module of a dotted name, which runs only if it was not imported before. Adds the current
    directory at the end of sys.path, if it is not there.

    Raises UserError with this `where` if the name is no module name, if there is no such module, if importing it fails,
    or if a library hides a file of the same name in the current directory. What a module of this package raises, other
    than a missing module, is raised as it is; so is a signal.
    """
    if not re.fullmatch(DOTTED, name):
        remedy = f"did you mean imports=[{name}.py]?" if Path(f"{name}.py").is_file() else ""
        raise UserError(where, f"{name!r} is neither a dotted name nor a file that ends in .py", remedy)
    ours = name.split(".")[0] == PACKAGE.name
    _add_here()
    if not ours:
        importlib.invalidate_caches()  # a file may have been written since the folder was looked at
    try:
        with nullcontext() if ours else _running(name, where):
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _is_of(error, name):  # a module that this package needs and that is not installed
            raise UserError(where, f"importing {name} failed: {error}") from error
        raise UserError(where, f"there is no module {name}{_near(name)}", "" if ours else _elsewhere(name)) from None
    _refuse_shadowed(name, module, where)
    return module


def loaded(path: Path, where: str) -> Any:
    """Imports and returns the module of the file `path`, which must be absolute and runs only at the first call; later
    calls return the same module. Adds the current directory at the end of sys.path, if it is not there. Raises
    UserError with this `where` if there is no such file or it fails; a file that failed runs again at the next call."""
    if not path.is_file():
        raise UserError(where, f"there is no file {path}")
    if str(path) in sys.modules:
        return sys.modules[str(path)]
    _add_here()  # the file may import others of the current directory
    spec = importlib.util.spec_from_file_location(str(path), path)
    assert spec, "a file that ends in .py has a loader"
    assert spec.loader, "and so has its description"
    module = importlib.util.module_from_spec(spec)
    sys.modules[str(path)] = module  # before it runs, as importlib does: pickle and dataclasses look it up there
    try:
        with _running(str(path), where):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(str(path), None)
        raise
    return module


def _add_here() -> None:
    """Appends the current directory to sys.path, if it is not there."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: a file of the user's must not hide a library


@contextmanager
def _running(name: str, where: str) -> Iterator[None]:
    """Context manager around the first run of the module `name`: as `process_restored`, with the module's name as
    sys.argv[0] and an empty standard input. What it raises becomes a UserError with file and line."""
    short = Path(name).name
    before, stdin = sys.argv, sys.stdin
    try:
        with process_restored() as interrupted, open(os.devnull) as nothing:
            sys.argv = [short, *before[1:]]  # an argument parser in the module names the module in its error
            sys.stdin = nothing
            yield
    except UserError:
        raise
    except SystemExit as stop:
        problem = f"{place_of_error(stop)}: {short} ended the program while it was imported ({error_line(stop)})"
        remedy = 'put what reads the command line, or runs something, under `if __name__ == "__main__":`'
        raise UserError(where, problem, remedy) from None
    except BaseException as error:
        if interrupted() or (isinstance(error, ModuleNotFoundError) and _is_of(error, name)):
            raise
        raise UserError(where, f"importing {short} failed: {error_line(error)} ({place_of_error(error)})") from error
    finally:
        sys.argv, sys.stdin = before, stdin


def _is_of(error: ModuleNotFoundError, name: str) -> bool:
    """Whether the missing module is `name` itself or a package that contains it, not one that `name` imports."""
    return error.name is not None and (name == error.name or name.startswith(f"{error.name}."))


def _near(name: str) -> str:
    """End of a message with a module of a similar name, beside the missing one; "" where there is none."""
    parent = sys.modules.get(name.rpartition(".")[0])
    folders = [Path(each) for each in getattr(parent, "__path__", [])] or [Path.cwd()]
    stems = [file.stem for folder in folders for file in folder.glob("*.py")]
    close = get_close_matches(name.rpartition(".")[2], stems, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _elsewhere(name: str) -> str:
    """Remedy for a missing module: a file of its name in a folder below, or how to name a file."""
    found = sorted(Path().glob(f"*/{name.rpartition('.')[2]}.py"))
    if found:
        return f"there is {found[0]}: name the file, imports=[{found[0]}]"
    return "a module that is not in the current directory is named by its file, imports=[FOLDER/NAME.py]"


def _refuse_shadowed(name: str, module: Any, where: str) -> None:
    """Raises UserError where a library was imported and the current directory has a file of the same name: libraries
    come first on sys.path, and the user may have meant the file."""
    here = [Path.cwd() / f"{name}.py", Path.cwd() / name / "__init__.py"]
    file = getattr(module, "__file__", None)
    for each in here:
        if each.is_file() and (file is None or not any(Path(file).resolve() == other.resolve() for other in here)):
            problem = f"{name} is a library ({file or 'a part of Python'}), and there is {each}, too"
            raise UserError(
                where, problem, f"rename the file, or name it as one: imports=[{each.relative_to(Path.cwd())}]"
            )


# ------------------------------------------------------------------------------------------------------------ messages


def place_of_error(error: BaseException) -> str:
    """Returns where an exception was raised, such as "mine.py, line 3": the innermost frame in the user's own files; if
    there is none, the innermost of all; "nowhere" for an exception that was not raised. Of a syntax error in the user's
    file, the line with the error."""
    if isinstance(error, SyntaxError) and error.filename and not _of_others(error.filename):
        return f"{_short(error.filename)}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _of_others(frame.filename)] or list(frames)
    return f"{_short(own[-1].filename)}, line {own[-1].lineno}" if own else "nowhere"


def _of_others(file: str) -> bool:
    """Whether a file belongs to a library, to this package or to Python itself, not to the user."""
    path = Path(file)
    return file.startswith("<") or path.is_relative_to(PACKAGE) or any(path.is_relative_to(each) for each in LIBRARIES)


def _short(file: str) -> str:
    """The path relative to the current directory, if it lies there."""
    with suppress(ValueError, OSError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


def error_line(error: BaseException) -> str:
    """Returns type and message of an exception in one line, such as "ValueError: math domain error"; of a syntax error
    without the quoted source. The lines of a message are joined by spaces; lone surrogates become escapes, so that it
    can be written as UTF-8."""
    line = " ".join("".join(traceback.format_exception_only(error)).split())
    if isinstance(error, SyntaxError):
        line = f"{type(error).__name__}: {error.msg}"
    return writable(line)
