"""`tokenrl COMMAND [overrides] [-m] [Hydra flags]`. The only place where errors become messages and exit codes.

0 done; 1 our fault, with a traceback; 2 a mistake of the user's or of the machine, in one line; 129, 130 and 143
interrupted by a signal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tokenrl_cli import __version__
from tokenrl_cli.commandline.arguments import Arguments, parse
from tokenrl_cli.config.build import hint
from tokenrl_cli.interfaces import UserError

COMMANDS = {  # name -> what it does; each is a module of commands/
    "train": "warm start, then RL; -m sweeps a grid",
    "eval": "scores a split with a saved policy",
    "generate": "decodes a file or standard input, one line in, one line out",
    "list": "what can be chosen: list [GROUP]",
    "validate": "checks train's config and prints what would run",
    "copy": "copies a recipe or an option to edit: copy GROUP/NAME DEST",
}
PLAIN = ("list", "copy")  # without a config
PRIMARY = {"train": "train", "validate": "train", "eval": "eval", "generate": "generate"}  # command -> conf/*.yaml
RESUMED = "_config_of_a_run"  # the name of the config that a resume starts from; no file has it
SAVED = ("eval", "generate")  # start from ckpt=
FILED = ("train", "eval")  # what they are for is written to files, not to standard output


class Failed(BaseException):
    """Carries what a task raised past Hydra, which would print it in its own words."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Stopped(KeyboardInterrupt):
    """A signal came that ends a process, where nobody else heeds it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Signals that would end the process at once raise Stopped, so that what is half-written goes; so does Ctrl-C,
    which is then told from a KeyboardInterrupt that a user's module raises. One that somebody handles, or that is
    ignored (nohup), stays as it is; and only the main thread is told of any."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    usual: dict[int, Any] = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number, handler in usual.items() if main and signal.getsignal(number) is handler]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, usual[number])


def main() -> None:
    """The process: its streams as the commands expect them, and an exit code that they do not change."""
    from tokenrl_cli.report.safe_output import flush_streams, prepare_streams

    prepare_streams()
    try:
        code = status(sys.argv[1:])
    finally:
        flush_streams()
    sys.exit(code)


def status(words: Sequence[str]) -> int:
    """Runs a command line; -> exit code."""
    from tokenrl_cli.report.safe_output import OutputClosed, standard_streams

    with standard_streams(), _stoppable():
        try:
            dispatch(parse(words))
            sys.stdout.flush()
            return 0
        except UserError as error:
            return _say(error)
        except KeyboardInterrupt as stop:
            print("tokenrl: interrupted", file=sys.stderr)
            return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
        except OutputClosed:  # the reader, `head` say, has seen enough
            return 0
        except Failed as failed:
            return _ours(failed.error)
        except Exception as error:
            return _ours(error)


def _say(error: UserError) -> int:
    print(f"tokenrl: {error}", file=sys.stderr)
    return 2


def _ours(error: BaseException) -> int:
    import traceback

    traceback.print_exception(error)
    return 1


def dispatch(arguments: Arguments) -> None:
    command = arguments.command
    if "--version" in arguments.flags:
        print(f"tokenrl {__version__}")
    elif "--shell-completion" in arguments.flags:
        from tokenrl_cli.commandline.shell_completion import complete

        complete(arguments, list(COMMANDS), PRIMARY, _hydra)
    elif command is None and not arguments.rest:
        print(overview())
    elif command not in COMMANDS:
        asked = command or arguments.rest[0]
        remedy = "tokenrl --help shows the commands"
        raise UserError(asked, f"there is no such command{hint(asked, COMMANDS)}", remedy)
    elif "--help" in arguments.flags:
        from tokenrl_cli.commands.list import fitted, page

        print(fitted(page(command, COMMANDS[command], arguments)))
    elif command in PLAIN:
        try:
            _module(command).run(arguments)
        except OSError as error:
            from tokenrl_cli.commandline.mistakes import of_the_machine

            raise of_the_machine(error) or error from None
    else:
        _run(arguments)


def overview() -> str:
    lines = [f"  {name:<9} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            f"tokenrl {__version__}: train sequence models on token-level rewards",
            "",
            "tokenrl COMMAND [key=value ...] [-m] [flags]",
            "",
            *lines,
            "",
            "  tokenrl train model=lstm reward=bleu      choose parts",
            "  tokenrl train trainer.steps=400 seed=2    change values",
            "  tokenrl train --cfg job                   print the config, run nothing",
            "  tokenrl COMMAND --help                    groups, values and flags of a command",
            '  eval "$(tokenrl -sc install=bash)"        shell completion',
        ]
    )


def _run(arguments: Arguments) -> None:
    from tokenrl_cli.commandline.earlier_run import one_directory, resumed

    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the current directory", str(error.strerror), "go to another one") from None
    if (mode := arguments.value("hydra.mode")) is not None:
        raise UserError(f"hydra.mode={mode}", "is chosen by the flag -m", "add -m for a sweep, or leave both out")
    if arguments.command in FILED and arguments.runs:
        from tokenrl_cli.report.safe_output import ignore_output_errors

        ignore_output_errors()
    if arguments.command == "train":
        one_directory(arguments)
    if arguments.command == "train" and arguments.flags.get("--cfg") == "job" and "--package" not in arguments.flags:
        from tokenrl_cli.commands.list import origins

        if not arguments.value("resume") and (said := origins(arguments)):
            print(said, flush=True)
    if arguments.command == "validate":
        _hydra(arguments.with_overrides("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=console"))
    elif arguments.command == "train":
        _hydra(*resumed(arguments))
    else:
        _hydra(arguments)


def _module(command: str) -> Any:
    import importlib

    return importlib.import_module(f"tokenrl_cli.commands.{command}")


# ----------------------------------------------------------------------------------------------------- inside Hydra


def _hydra(arguments: Arguments, primary: dict[str, Any] | None = None) -> None:
    """Composes the config and runs the command's task on it, or shows what was asked for. `primary` is the config to
    start from where it is not the command's own."""
    from tokenrl_cli.config.options import conf_dir, require_small, roots

    command = arguments.command or "train"
    places = roots(arguments.flags.get("--config-dir"))
    require_small((arguments.value("hydra.searchpath") or "").strip("[]").split(","))
    _register(arguments, primary)
    task = _told(_module(command).run, arguments)
    name = PRIMARY[command] if primary is None else RESUMED
    try:
        with _as_typed(arguments), _strict_search_path():
            from hydra import main as hydra_main

            hydra_main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(task)()
    except (Failed, Exception) as raised:
        from tokenrl_cli.commandline.explanations import explained
        from tokenrl_cli.commandline.mistakes import before_the_work, of_the_machine

        error = raised.error if isinstance(raised, Failed) else raised
        if not isinstance(raised, Failed) and (mistake := of_the_machine(error, _place(arguments))):
            raise mistake from None
        if mistake := explained(error, places, command, arguments.rest):
            raise mistake from None
        if not isinstance(raised, Failed) and (mistake := before_the_work(error)):
            raise mistake from None
        raise


def _told(task: Callable[[Any], Any], arguments: Arguments) -> Callable[[Any], Any]:
    """The task with its errors told apart: what is not ours leaves it as a UserError.

    Those of a single task leave Hydra as they are. A sweep's go through Hydra: the other jobs must run.
    """
    from functools import wraps

    alone = arguments.runs and "--multirun" not in arguments.flags

    @wraps(task)  # Hydra names the job by the task's module
    def run(config: Any) -> Any:
        try:
            return task(config)
        except BaseException as error:  # a user's module may raise any
            from tokenrl_cli.commandline.mistakes import mistake

            found = error if isinstance(error, UserError) else mistake(error, *_surroundings(arguments, config))
            if not isinstance(error, Exception) and found is None:
                raise  # an interrupted run, or a pipe that nobody reads
            if alone:
                raise Failed(found or error) from None
            if found is None or found is error:
                raise
            raise found from error

    return run


def _place(arguments: Arguments) -> str:
    """Where a command line says that something is written, before it was read."""
    keys = ("out", "output", "hydra.run.dir", "hydra.sweep.dir", "resume", "ckpt")
    return next((found for key in keys if (found := arguments.value(key))), "outputs")


def _surroundings(arguments: Arguments, config: Any) -> tuple[list[str], str, str]:
    """The user's modules, where a command writes, and the command that goes on after an error."""
    from pathlib import Path

    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from tokenrl_cli.commandline.earlier_run import go_on
    from tokenrl_cli.run.directory import CONFIG

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # that is the error itself
        return [], "", ""
    imports = [str(each) for each in plain["imports"]] if isinstance(plain["imports"], list) else []
    if arguments.command != "train":
        return imports, str(plain.get("output") or plain.get("out") or plain.get("ckpt") or ""), ""
    from hydra.core.hydra_config import HydraConfig

    run = Path(HydraConfig.get().runtime.output_dir)
    return imports, str(run), go_on(run, plain) if (run / CONFIG).is_file() else ""


@contextmanager
def _as_typed(arguments: Arguments) -> Iterator[None]:
    """Hydra reads sys.argv, and prints errors in its own way unless this variable is set."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [before[0], *arguments.line()]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


@contextmanager
def _strict_search_path() -> Iterator[None]:
    """A misspelt hydra.searchpath is only a warning of Hydra's; its groups would be missed later."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "provider=.*is not available", UserWarning)
        yield


def _named(out: str | None, otherwise: str) -> str:
    """The directory of a run that is only shown."""
    return out or otherwise


def _register(arguments: Arguments, primary: dict[str, Any] | None) -> None:
    """What config files refer to by name: directories of runs, and the blocks of a checkpoint."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from tokenrl_cli.commandline.earlier_run import checkpoint_dir, checkpoint_nodes, directory, fresh, unused

    shown = not arguments.runs  # then nothing is made on disk
    OmegaConf.register_new_resolver("tokenrl.fresh", str if shown else fresh, replace=True, use_cache=True)
    chosen = _named if shown else directory
    OmegaConf.register_new_resolver("tokenrl.directory", chosen, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("tokenrl.unused", unused, replace=True)
    if primary is not None:
        ConfigStore.instance().store(RESUMED, OmegaConf.create(primary), provider="tokenrl")
    if arguments.command in SAVED:
        completing = "--shell-completion" in arguments.flags
        groups = ("dataset", "reward", "algorithm", "")
        nodes = dict.fromkeys(groups, {}) if completing else checkpoint_nodes(checkpoint_dir(arguments))
        for group, node in nodes.items():
            ConfigStore.instance().store("checkpoint", OmegaConf.create(node), group or None, "_global_", "tokenrl")
