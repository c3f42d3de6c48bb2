"""A run that was killed, damaged, or is somebody else's: what `resume=` and `eval` make of it."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import TINY, lines, tokenrl, train, weights
from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import Texts
from tokenrl_cli.reward.token_accuracy import TokenAccuracy
from tokenrl_cli.run import directory
from tokenrl_cli.run.directory import CONFIG
from tokenrl_cli.run.recorder import Recorder

Capture = pytest.CaptureFixture[str]
SHORT = ["trainer.warm_start_steps=3", "trainer.steps=3", "trainer.checkpoint_every=1", "trainer.eval_every=3",
         "trainer.log_every=1", "trainer.samples=1"]  # fmt: skip


def mistake(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    status = tokenrl(*words)
    printed = capsys.readouterr().err
    assert status == 2, printed
    assert "Traceback" not in printed, printed
    return printed[printed.rindex("tokenrl: ") :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run, *SHORT) == 0
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that is not finished."""
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    (run / "results.json").unlink()
    return run


def the_same(run: Path, whole: Path) -> None:
    assert lines(run) == lines(whole)
    for link in directory.LINKS:
        assert weights(run, link) == weights(whole, link)
    tests = [json.loads((each / "results.json").read_text())["test"] for each in (run, whole)]
    assert tests[0] == tests[1]


# ------------------------------------------------------------------------------------------------------------ killed


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("at", [1, 4, 60, 100])
def test_a_killed_run_goes_on_to_the_same_bits(
    at: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """At some of the changes on disk: before the first checkpoint, in the warm start, at the switch, in RL; and once
    more while it is put in order again. Where nothing was saved it begins again, and says so."""
    real, run, count = disk.change, tmp_path / "run", 0

    def dies(*words: Any) -> Any:
        nonlocal count
        count += 1
        if count > at:
            raise Killed
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "change", dies)
        with pytest.raises(Killed):
            train(run, *SHORT)
        count = at - 2
        if (run / CONFIG).exists():
            with pytest.raises(Killed):
                tokenrl("train", f"resume={run}")
    capsys.readouterr()
    if not (run / CONFIG).exists():  # not even begun: the same line again
        assert at == 1
        assert "is not a run" in mistake(capsys, "train", f"resume={run}")
        assert train(run, *SHORT) == 0
    else:
        saved = directory.checkpoint_names(run / "checkpoints")
        assert tokenrl("train", f"resume={run}") == 0
        assert ("the run starts again" in capsys.readouterr().err) == (not saved)
    the_same(run, whole)


def test_a_run_that_stops_after_a_batch_without_any_reward_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 5 is the first after a log line: its NaN are in the checkpoint, to be logged with step 6."""
    stops, rewarded = False, TokenAccuracy.__call__

    def none_in_step_5(reward: TokenAccuracy, texts: Texts) -> Any:
        if texts.step == 4 and stops:  # counted from 0
            os.kill(os.getpid(), signal.SIGINT)
        return rewarded(reward, texts) * (math.nan if texts.step == 4 else 1.0)

    monkeypatch.setattr(TokenAccuracy, "__call__", none_in_step_5)
    assert train(tmp_path / "whole", *SHORT, "trainer.log_every=2") == 0
    stops = True
    assert train(tmp_path / "run", *SHORT, "trainer.log_every=2") == 128 + signal.SIGINT
    state = json.loads((tmp_path / "run" / "checkpoints" / "000005" / "state.json").read_text("utf-8"))["run"]
    assert math.isnan(state["window"]["reward"][0])
    assert tokenrl("train", f"resume={tmp_path / 'run'}") == 0
    the_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_in_the_last_evaluation_promises_no_stop_after_a_step(
    signals: int, whole: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The first lets the run end, the second stops it; it can be resumed then."""
    real, sent = Recorder.evaluate, 0

    def signalled(recorder: Recorder, policy: Any, split: str, *rest: Any) -> Any:
        nonlocal sent
        if split == "test" and sent < signals:
            sent += 1
            os.kill(os.getpid(), signal.SIGINT)
        return real(recorder, policy, split, *rest)

    monkeypatch.setattr(Recorder, "evaluate", signalled)
    assert tokenrl("train", f"resume={run}") == (0 if signals == 1 else 128 + signal.SIGINT)
    told = capsys.readouterr().err
    assert "SIGINT: the run ends with the evaluation on test; a second signal stops it at once" in told
    assert "after this step" not in told
    if signals == 2:
        assert not (run / "results.json").exists()
        assert tokenrl("train", f"resume={run}") == 0
    the_same(run, whole)


def test_a_signal_that_no_step_follows_stops_the_run_before_the_last_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    real = Recorder.begin_rl

    def signalled(recorder: Recorder, start: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(recorder, start)

    words = [*SHORT, "trainer.steps=0"]
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "begin_rl", signalled)
        assert train(tmp_path / "run", *words) == 128 + signal.SIGTERM
    assert f"saved; resume with: tokenrl train resume={tmp_path / 'run'}" in capsys.readouterr().err
    assert tokenrl("train", f"resume={tmp_path / 'run'}") == 0
    assert train(tmp_path / "whole", *words) == 0
    the_same(tmp_path / "run", tmp_path / "whole")


def test_a_process_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    """The lock is the kernel's, and ends with its process."""
    code = (
        "import os, signal, sys; from pathlib import Path; from tokenrl_cli.run.directory import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with directory.locked(tmp_path):
        assert (tmp_path / directory.LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_second_writer_is_refused_by_name(run: Path, capsys: Capture) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    with directory.locked(run):
        told = mistake(capsys, "train", f"resume={run}")
    assert f"{run}: process {os.getpid()} on " in told
    assert "is writing to this run" in told
    assert (run / "metrics.jsonl").read_bytes() == before


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(directory.fcntl, "flock", without)
    with directory.locked(tmp_path):
        assert "cannot be locked on this file system" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- damaged


def test_a_damaged_checkpoint_is_named_and_an_older_one_taken_when_asked(
    run: Path, whole: Path, capsys: Capture
) -> None:
    (run / "checkpoints" / "000006" / "manifest.json").unlink()
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    told = mistake(capsys, "train", f"resume={run}")
    assert "000006/manifest.json: is missing" in told
    assert "fallback=true" in told
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    assert "000006/manifest.json: is missing" in mistake(capsys, "eval", f"ckpt={run / 'checkpoints' / 'last'}")
    assert tokenrl("train", f"resume={run}", "fallback=true") == 0
    the_same(run, whole)
    assert yaml.safe_load((run / CONFIG).read_text())["fallback"] is False
    assert "fallback=true: goes with resume=RUN" in mistake(capsys, "train", *TINY, "fallback=true", f"out={run}-2")


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stage", "other"),
        ("step", -1),
        ("step", 5),
        ("stage_start", 7),
        ("best", {}),
        ("findings", [1]),
        ("window", {"a": ["x"]}),
        ("journal", {}),
    ],
)
def test_a_state_that_is_none_is_refused(key: str, value: Any, run: Path, capsys: Capture) -> None:
    from tokenrl_cli.run.checkpoint import _seal

    folder = run / "checkpoints" / "000006"
    state = json.loads((folder / "state.json").read_text())
    state["run"][key] = value
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "manifest.json").unlink()
    _seal(folder)
    told = mistake(capsys, "train", f"resume={run}")
    assert "state.json: is not the state of a run: " in told
    assert key in told


@pytest.mark.parametrize("how", ["lacks one", "another shape"])
def test_a_state_of_another_algorithm_is_refused(how: str, run: Path, capsys: Capture) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from tokenrl_cli.run.checkpoint import _seal

    folder = run / "checkpoints" / "000006"
    tensors = load_file(folder / "optimizer.safetensors")
    name = sorted(tensors)[-1]
    changed = {"lacks one": {}, "another shape": {name: torch.zeros(3, 1, 7)}}[how]
    save_file({key: value for key, value in tensors.items() if key != name} | changed, folder / "optimizer.safetensors")
    (folder / "manifest.json").unlink()
    _seal(folder)
    assert "000006: its state is of another algorithm: " in mistake(capsys, "train", f"resume={run}")


def test_numbers_that_are_none_stop_the_step_they_arise_in(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    told = mistake(capsys, "train", *TINY, *SHORT, "algorithm.optimizer.lr=1e30", f"out={run}")
    assert "step 4 of seed 1: with a learning rate of 1e+30" in told
    assert "checkpoints/000003" in told
    assert f"tokenrl train resume={run} algorithm.optimizer.lr=" in told
    assert directory.checkpoint_names(run / "checkpoints")[-1] == "000003"


# ------------------------------------------------------------------------------------------------------- a stranger's


def test_files_of_a_run_are_not_written_through_links(run: Path, tmp_path: Path, capsys: Capture) -> None:
    for name in ("metrics.jsonl", "samples.jsonl", "train.log", "results.json", CONFIG):
        kept = (run / name).read_bytes() if (run / name).exists() else None
        (run / name).unlink(missing_ok=True)
        (tmp_path / "precious").write_bytes(kept or b"mine")
        (run / name).symlink_to(tmp_path / "precious")
        if name == "results.json":  # written whole beside the link, which it replaces
            assert tokenrl("train", f"resume={run}") == 0
            assert not (run / name).is_symlink()
            (run / name).unlink()
        else:
            assert f"{name}: is a link to " in mistake(capsys, "train", f"resume={run}")
            (run / name).unlink()
        assert (tmp_path / "precious").read_bytes() == (kept or b"mine")
        if kept is not None:
            (run / name).write_bytes(kept)


def test_no_checkpoint_of_a_run_is_a_link(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """Neither the one that is read, nor an older one, which would be made smaller where it really lies."""
    folder = run / "checkpoints"
    for name in ("000006", "000003"):
        away = tmp_path / f"theirs-{name}"
        (folder / name).rename(away)
        (folder / name).symlink_to(away)
        before = sorted(path.name for path in away.iterdir())
        commands = [("train", f"resume={run}"), ("eval", f"ckpt={run}"), ("eval", f"ckpt={folder / name}")]
        for words in [*commands, ("generate", f"ckpt={folder / 'last'}", "samples=1")]:
            assert f"{folder / name}: is a link to {away}" in mistake(capsys, *words)
        assert sorted(path.name for path in away.iterdir()) == before
        (folder / name).unlink()
        away.rename(folder / name)


def test_a_run_that_saved_nothing_begins_from_a_strangers_weights_only_if_they_are_named(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.rmtree(run / "checkpoints")
    config = yaml.safe_load((run / CONFIG).read_text())
    (run / CONFIG).write_text(yaml.safe_dump(config | {"init_from": str(whole)}))
    told = mistake(capsys, "train", f"resume={run}")
    assert f"init_from={whole}: lies outside" in told
    assert f"name it on the command line: init_from={whole}" in told
    assert tokenrl("train", f"resume={run}", f"init_from={whole}") == 0
    capsys.readouterr()
    assert tokenrl("train", f"resume={run}") == 0  # its weights are its own by now
    printed = capsys.readouterr().err
    assert f"tokenrl eval ckpt={run}\n" in printed


def test_results_of_an_evaluation_may_be_anything(run: Path, capsys: Capture) -> None:
    folder = run / "eval" / "test-greedy"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "results.json")  # whose reading would wait for ever
    assert tokenrl("eval", f"ckpt={run}") == 0
    assert f"written to {folder}-2" in capsys.readouterr().err


@pytest.mark.sample(1)
@pytest.mark.parametrize("command", ["resume", "eval"])
def test_data_outside_are_read_only_if_they_are_named_again(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """And a relative path that is missing is named with the folder that the run was started in."""
    secret = tmp_path / "secret"
    secret.mkdir()
    from tokenrl_cli.run.checkpoint import _seal

    block: dict[str, Any] = {"_target_": "tokenrl_cli.dataset.jsonl.Jsonl", "reverse": False, "overlong": "truncate"}
    block |= {"splits": {}, "rl_share": 0.0, "rl_split": None, "detokenize": False}
    block |= {"source_column": "source", "reference_column": "references", "max_source_length": 64}
    words = ["train", f"resume={run}"] if command == "resume" else ["eval", f"ckpt={run / 'checkpoints' / 'last'}"]

    def with_path(path: str) -> None:
        for place in (run, run / "checkpoints" / "000006"):
            config = yaml.safe_load((place / CONFIG).read_text())
            (place / CONFIG).write_text(yaml.safe_dump(config | {"dataset": block | {"path": path}}))
        (run / "checkpoints" / "000006" / "manifest.json").unlink()
        _seal(run / "checkpoints" / "000006")

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "link").symlink_to(secret)
    for path in (str(secret), "../secret", "link"):
        with_path(path)
        told = mistake(capsys, *words)
        assert f"dataset.path={path}: lies outside data_root and the current directory" in told
        assert f"dataset.path={path}" in told.splitlines()[1]
        assert ".jsonl" in mistake(capsys, *words, f"dataset.path={path}")  # there is none
    with_path("data/x")
    started_in = yaml.safe_load((run / CONFIG).read_text())["started_in"]
    assert f"dataset.path=data/x: is not here; the run was started in {started_in}" in mistake(capsys, *words)
