"""The command `tokenrl COMMAND [overrides] [-m] [Hydra flags]`. Only here do errors become messages and exit codes.

0: done. 1: a bug of this package, with a traceback. 2: a mistake of the user's or a failure of the machine, as one
message. 128 + the number of the signal (129, 130, 143): interrupted.
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

COMMANDS = {  # name -> what it does; each is a module in commands/
    "train": "trains: a warm start by imitation, then RL; -m sweeps a grid",
    "eval": "scores a split with a saved policy, or with a pretrained model",
    "generate": "decodes a file or standard input, one line in, one line out",
    "export": "writes the model of a run as a directory of transformers, or as safetensors",
    "list": "shows what can be chosen: list [GROUP]",
    "validate": "checks the config of train and prints what would run",
    "copy": "copies a recipe or an option to edit: copy GROUP/NAME DEST",
}
WITHOUT_CONFIG = ("list", "copy")  # commands that take no config
PRIMARY = {  # command -> conf/*.yaml
    "train": "train",
    "validate": "train",
    "eval": "eval",
    "generate": "generate",
    "export": "export",
}
WITHOUT_RUN = "eval_model"  # the config and the module of eval where there is no ckpt=
RESUMED_CONFIG = "_config_of_a_run"  # name of the config of a run that is resumed; there is no such file
FROM_CHECKPOINT = ("eval", "generate", "export")  # commands that start from ckpt=
BLOCKS_OF_A_CHECKPOINT = ("dataset", "reward", "algorithm")  # groups that get an option `checkpoint` by ckpt=
EXPORTED = ("model", "data_root")  # what export takes of a checkpoint's config
WRITES_FILES = ("train", "eval", "export")  # commands whose result is in files, not on standard output


class Failed(BaseException):
    """Carries an exception of a command through Hydra, which would otherwise print it in its own way. `error` is that
    exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Stopped(KeyboardInterrupt):
    """Raised where a signal that ends the process arrives, if no command handles it itself. `number` is that of the
    signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """While the block runs, SIGTERM, SIGHUP and Ctrl-C raise Stopped instead of ending the process at once, so that
    unfinished files are removed.

    Ctrl-C raises it, too, to be distinguished from a KeyboardInterrupt that a module of the user's raises. Signals that
    have a handler already, or are ignored (nohup), stay as they are. Does nothing outside the main thread, the only one
    that receives signals.
    """

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    usual: dict[int, Any] = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    main = threading.current_thread() is threading.main_thread()
    replaced = [number for number, handler in usual.items() if main and signal.getsignal(number) is handler]
    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, usual[number])


def main() -> None:
    """Runs the command line of this process, sys.argv, and exits with its exit code (see `status`): always raises
    SystemExit. First sets up the standard streams of the process for good, as UTF-8 (`prepare_streams`)."""
    from tokenrl_cli.report.safe_output import flush_streams, prepare_streams

    prepare_streams()
    try:
        code = status(sys.argv[1:])
    finally:
        flush_streams()
    sys.exit(code)


def status(words: Sequence[str]) -> int:
    """Runs a command line, the words after `tokenrl`, and returns its exit code: 0, 1, 2 or 128 + the number of a
    signal, as in the module's docstring; 0, too, where the reader of standard output has closed it. Prints all errors
    to standard error. Handles SIGTERM, SIGHUP and Ctrl-C meanwhile.

    Raises SystemExit, with the exit code, if a signal stopped a training run, whose checkpoint is then saved, and where
    Hydra exits by itself, as with --hydra-help.
    """
    from tokenrl_cli.report.safe_output import OutputClosed, standard_streams

    with standard_streams(), _stoppable():
        try:
            dispatch(parse(words))
            sys.stdout.flush()
            return 0
        except UserError as error:
            return _report_mistake(error)
        except KeyboardInterrupt as stop:
            print("tokenrl: interrupted", file=sys.stderr)
            return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
        except OutputClosed:  # the reader of standard output, `head` say, has closed it
            return 0
        except Failed as failed:
            return _report_bug(failed.error)
        except Exception as error:
            return _report_bug(error)


def _report_mistake(error: UserError) -> int:
    """Prints a mistake of the user's and returns the exit code."""
    print(f"tokenrl: {error}", file=sys.stderr)
    return 2


def _report_bug(error: BaseException) -> int:
    """Prints a traceback and returns the exit code."""
    import traceback

    traceback.print_exception(error)
    return 1


def dispatch(arguments: Arguments) -> None:
    """Runs the command of a parsed command line, or prints its help, the version or the shell completion. Raises
    UserError for a mistake of the user's, Failed around any other exception of a command with a config; all are turned
    into exit codes by `status`."""
    command = arguments.command
    if "--version" in arguments.flags:
        print(f"tokenrl {__version__}")
    elif "--shell-completion" in arguments.flags:
        from tokenrl_cli.commandline.shell_completion import complete

        complete(arguments, list(COMMANDS), PRIMARY, _hydra)
    elif command is None and not arguments.rest:
        print(overview())
    elif command not in COMMANDS:
        typed = command or arguments.rest[0]
        remedy = "tokenrl --help shows the commands"
        raise UserError(typed, f"there is no such command{hint(typed, COMMANDS)}", remedy)
    elif "--help" in arguments.flags:
        from tokenrl_cli.commands.list import fitted, page

        print(fitted(page(command, COMMANDS[command], arguments)))
    elif command in WITHOUT_CONFIG:
        try:
            _module(command).run(arguments)
        except OSError as error:
            from tokenrl_cli.commandline.mistakes import machine_error

            raise machine_error(error) or error from None
    else:
        _run(arguments)


def overview() -> str:
    """Returns the text of `tokenrl --help`: the commands, and a few command lines as examples."""
    lines = [f"  {name:<9} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            f"tokenrl {__version__}: train sequence models on token-level rewards",
            "",
            "tokenrl COMMAND [key=value ...] [-m] [flags]",
            "",
            *lines,
            "",
            "  tokenrl train model=lstm reward=bleu      choose components",
            "  tokenrl train trainer.steps=400 seed=2    change values",
            "  tokenrl train --cfg job                   print the config, run nothing",
            "  tokenrl COMMAND --help                    show the groups, values and flags of a command",
            '  eval "$(tokenrl -sc install=bash)"        complete words in the shell',
        ]
    )


def call(command: str, words: Sequence[str], task: Callable[[Any], Any]) -> Any:
    """Runs `task` on the composed config of a command line, a DictConfig whose ${...} are resolved when they are read,
    for a caller in Python, and returns the result of `task`. `command` is one with a config, such as "train"; `words`
    are the overrides, KEY=VALUE; no flags. For "train" makes the directory of the run first.

    Raises UserError for a flag or a mistake in the words, and in place of an exception of `task` whose cause is the
    machine or a module of the user's; other exceptions of `task` are raised as they are. If a signal stopped a run,
    which is then saved, raises KeyboardInterrupt for Ctrl-C and SystemExit for any other. Restores the handlers of
    logging, the standard streams and the state of Hydra, which belong to the caller's process.
    """
    from functools import wraps

    from tokenrl_cli.report.safe_output import standard_streams

    arguments = parse([command, *words])
    if arguments.flags:
        remedy = "leave it out; hydra.searchpath=[file:///DIR] adds option groups of your own"
        raise UserError(next(iter(arguments.flags)), "is a flag of the command line, expected KEY=VALUE alone", remedy)
    found: list[Any] = []

    @wraps(_module(command).run)  # Hydra names the job by its module
    def store(config: Any) -> None:
        found.append(task(config))

    with standard_streams(), _as_before():
        try:
            _run(arguments, store)
        except Failed as failed:
            raise failed.error from None
        except SystemExit as stop:
            if stop.code == 130:
                raise KeyboardInterrupt from None
            raise
    return found[0]


def composed(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Returns the resolved config of a command line, `command` (one with a config, such as "eval") and its overrides
    `words`, as a dictionary of plain values; its keys and types are not checked (`commands.keys.require_keys` does
    that). Runs nothing, but for "train" makes the directory that it would write to, with .hydra and train.log in it.
    Raises UserError for a flag or a mistake in the words, and if that directory cannot be made."""

    def plain(config: Any) -> Any:
        from omegaconf import OmegaConf

        return OmegaConf.to_container(config, resolve=True)

    found: dict[str, Any] = call(command, words, plain)
    return found


@contextmanager
def _as_before() -> Iterator[None]:
    """Restores, after the block, the handlers of logging and the Hydra that the process may use itself, and removes the
    options `checkpoint`, which belong to one command line only."""
    import logging

    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    root, hydra = logging.getLogger(), GlobalHydra.instance()
    before, handlers, level = hydra.hydra, root.handlers[:], root.level
    hydra.hydra = None
    # Hydra configures logging anew, which closes every handler in this list. A closed file takes no line any more (mode
    # "w") or is opened again and never closed (mode "a").
    registered: list[Any] = logging._handlerList  # type: ignore[attr-defined]
    opened = registered[:]
    registered.clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, known = before, ConfigStore.instance().repo
        for options in (known, *(known.get(group, {}) for group in BLOCKS_OF_A_CHECKPOINT)):
            options.pop("checkpoint.yaml", None)
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        registered[:0] = opened


def _run(arguments: Arguments, task: Callable[[Any], Any] | None = None) -> None:
    """Runs a command that has a config, after the checks that need no config; `task` replaces the function of the
    command. Raises UserError."""
    from tokenrl_cli.commandline.earlier_run import refuse_two_directories, resumed_run

    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the current directory", str(error.strerror), "change to another one") from None
    if (mode := arguments.value("hydra.mode")) is not None:
        raise UserError(
            f"hydra.mode={mode}", "cannot be set: the flag -m chooses it", "add -m for a sweep, or leave both out"
        )
    if arguments.command in WRITES_FILES and arguments.runs:
        from tokenrl_cli.report.safe_output import ignore_output_errors

        ignore_output_errors()
    if arguments.command == "train":
        refuse_two_directories(arguments)
    if arguments.command == "train" and arguments.flags.get("--cfg") == "job" and "--package" not in arguments.flags:
        from tokenrl_cli.commands.list import origins

        if not arguments.value("resume") and (comments := origins(arguments)):
            print(comments, flush=True)
    if arguments.command == "validate":
        without_files = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=console")
        _hydra(arguments.with_overrides(*without_files), None, task)
    elif arguments.command == "train":
        _hydra(*resumed_run(arguments), task)
    else:
        _hydra(arguments, None, task)


def _module(command: str) -> Any:
    """The module of a command."""
    import importlib

    return importlib.import_module(f"tokenrl_cli.commands.{command}")


# ----------------------------------------------------------------------------------------------------- inside Hydra


def _hydra(
    arguments: Arguments, primary: dict[str, Any] | None = None, instead: Callable[[Any], Any] | None = None
) -> None:
    """Lets Hydra compose the config and run the command on it, or `instead` of it another function, or print what a
    flag such as --cfg selects.

    `primary` is the config to start from, None for that of the command. Raises UserError for a mistake of the user's,
    Failed for anything else that a single run raises.
    """
    from tokenrl_cli.config.options import conf_dir, require_small, roots

    command = arguments.command or "train"
    places = roots(arguments.flags.get("--config-dir"))
    require_small((arguments.value("hydra.searchpath") or "").strip("[]").split(","))
    _register(arguments, primary)
    name = _config_of(arguments) if primary is None else RESUMED_CONFIG
    task = _with_user_errors(instead or _module(name if name == WITHOUT_RUN else command).run, arguments)
    try:
        with _as_typed(arguments), _strict_search_path():
            from hydra import main as hydra_main

            hydra_main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(task)()
    except (Failed, Exception) as raised:
        from tokenrl_cli.commandline.explanations import explain
        from tokenrl_cli.commandline.mistakes import config_error, machine_error

        error = raised.error if isinstance(raised, Failed) else raised
        if not isinstance(raised, Failed) and (mistake := machine_error(error, _place(arguments))):
            raise mistake from None
        if mistake := explain(error, places, command, arguments.rest):
            raise mistake from None
        if not isinstance(raised, Failed) and (mistake := config_error(error)):
            raise mistake from None
        raise


def _config_of(arguments: Arguments) -> str:
    """The name of the config that a command starts from, a file in conf/."""
    from tokenrl_cli.commandline.earlier_run import needs_checkpoint

    return PRIMARY[arguments.command or "train"] if needs_checkpoint(arguments) else WITHOUT_RUN


def _with_user_errors(task: Callable[[Any], Any], arguments: Arguments) -> Callable[[Any], Any]:
    """The task with its exceptions turned into UserErrors, unless they are bugs of this package.

    Those of a single run are raised inside Failed, so that Hydra does not touch them. Those of a sweep's job are left
    to Hydra, which goes on with the other jobs.
    """
    from functools import wraps

    single = arguments.runs and "--multirun" not in arguments.flags

    @wraps(task)  # Hydra names the job by the task's module
    def run(config: Any) -> Any:
        try:
            return task(config)
        except BaseException as error:  # a user's module may raise any
            from tokenrl_cli.commandline.mistakes import as_user_error

            found = error if isinstance(error, UserError) else as_user_error(error, *_surroundings(arguments, config))
            if not isinstance(error, Exception) and found is None:
                raise  # an interrupted run, or a closed pipe
            if single:
                raise Failed(found or error) from None
            if found is None or found is error:
                raise
            raise found from error

    return run


def _place(arguments: Arguments) -> str:
    """The path that a command writes to, judging by the command line alone: for errors that arise before the config
    exists."""
    keys = ("out", "output", "to", "hydra.run.dir", "hydra.sweep.dir", "resume", "ckpt")
    return next((found for key in keys if (found := arguments.value(key))), "outputs")


def _surroundings(arguments: Arguments, config: Any) -> tuple[list[str], str, str]:
    """For the message of an error: the user's modules, the path that the command writes to, and the command to continue
    with afterwards ("" if there is none)."""
    from pathlib import Path

    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from tokenrl_cli.commandline.earlier_run import resume_command
    from tokenrl_cli.run.directory import CONFIG

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # the config is what is wrong
        return [], "", ""
    imports = [str(each) for each in plain["imports"]] if isinstance(plain["imports"], list) else []
    if arguments.command != "train":
        return imports, str(plain.get("output") or plain.get("out") or plain.get("to") or plain.get("ckpt") or ""), ""
    from hydra.core.hydra_config import HydraConfig

    run = Path(HydraConfig.get().runtime.output_dir)
    return imports, str(run), resume_command(run, plain) if (run / CONFIG).is_file() else ""


@contextmanager
def _as_typed(arguments: Arguments) -> Iterator[None]:
    """Puts the command line into sys.argv, where Hydra reads it, and sets HYDRA_FULL_ERROR, without which Hydra prints
    errors itself and exits."""
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
    """Turns Hydra's warning about a missing folder in hydra.searchpath into an error: its groups would be missing
    later."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "provider=.*is not available", UserWarning)
        yield


def _named(out: str | None, otherwise: str) -> str:
    """The directory of a run whose config is only printed: nothing is made on disk."""
    return out or otherwise


def _register(arguments: Arguments, primary: dict[str, Any] | None) -> None:
    """Registers what conf/*.yaml refer to: the resolvers ${tokenrl....} for directories of runs, the config of a run
    that is resumed, and the option `checkpoint` of eval, generate and export."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from tokenrl_cli.commandline.earlier_run import (
        checkpoint_dir,
        checkpoint_options,
        needs_checkpoint,
        new_directory,
        require_unused,
        run_directory,
    )

    printed = not arguments.runs  # then no directory is made
    # conf/eval_model.yaml extends that of train: merging the two resolves the directories of train, too
    extends = not needs_checkpoint(arguments)
    unused = str if printed or (extends and "--multirun" not in arguments.flags) else new_directory
    OmegaConf.register_new_resolver("tokenrl.new_directory", unused, replace=True, use_cache=True)
    chosen = _named if printed or extends else run_directory
    OmegaConf.register_new_resolver("tokenrl.run_directory", chosen, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("tokenrl.require_unused", require_unused, replace=True)
    if primary is not None:
        ConfigStore.instance().store(RESUMED_CONFIG, OmegaConf.create(primary), provider="tokenrl")
    if arguments.command in FROM_CHECKPOINT and needs_checkpoint(arguments):
        completing = "--shell-completion" in arguments.flags
        nodes = (
            {group: {} for group in (*BLOCKS_OF_A_CHECKPOINT, "")}
            if completing
            else checkpoint_options(checkpoint_dir(arguments))
        )
        if arguments.command == "export":
            nodes = {"": {key: nodes[""][key] for key in EXPORTED if key in nodes[""]}}
        for group, node in nodes.items():
            ConfigStore.instance().store("checkpoint", OmegaConf.create(node), group or None, "_global_", "tokenrl")
