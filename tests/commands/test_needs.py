"""Commands build and open only what they need, before any work, and leave only whole files."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.running import TINY, tokenrl
from tokenrl_cli.commands import generate

Capture = pytest.CaptureFixture[str]
MODULE = """
import numpy as np

class Mine:
    def __call__(self, texts):
        return np.array([float(len(text.split())) for text in texts.hypotheses])

def silent(hypothesis):
    raise ValueError("no")

class Own:
    needs_prefixes = False

    def __call__(self, scores, mask, ended):
        last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
        return last * scores[:, None]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a reward and a credit of the user's, in a directory whose name needs quotes."""
    home = tmp_path_factory.mktemp("needs")
    (home / "needed.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "path", [*sys.path, str(home)])
        patch.setattr(sys, "stderr", (home / "said").open("w", encoding="utf-8"))
        own = ["~reward", "+reward={_target_: needed.Mine}", "~credit", "+credit={_target_: needed.Own}"]
        line = [*TINY, *own, "imports=[needed]", "trainer.monitor=reward", "out='a b/run=1'"]
        assert tokenrl("train", *line) == 0
        sys.stderr.close()
    return home


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [*sys.path, str(home)])


RUN = "ckpt='a b/run=1'"


def test_the_commands_that_a_run_ends_with_can_be_pasted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (home / "said").read_text("utf-8").splitlines()[-2:]
    evaluate, decode = (shlex.split(line) for line in said)
    assert evaluate[:2] == ["tokenrl", "eval"]
    assert decode[:2] == ["tokenrl", "generate"]
    assert tokenrl(*evaluate[1:]) == 0
    (home / "in.txt").write_text("a b\n")
    assert tokenrl(*decode[1:], "input=in.txt", "output=pasted.txt") == 0
    assert (home / "pasted.txt").read_text("utf-8").count("\n") == 1


def test_generate_needs_neither_reward_nor_credit_nor_data(home: Path, capsys: Capture) -> None:
    (home / "in.txt").write_text("a b\n")
    assert tokenrl("generate", RUN, "input=in.txt") == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("\n") == 1


def test_eval_needs_the_reward_and_no_credit(home: Path, capsys: Capture) -> None:
    assert tokenrl("eval", RUN) == 2
    assert "needed" in capsys.readouterr().err
    assert tokenrl("eval", RUN, "reward=token_accuracy", "examples=4") == 0, capsys.readouterr().err


def test_a_generate_that_fails_leaves_nothing_in_the_way(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "in.txt").write_text("a b\n" * 3)
    words = [RUN, "input=in.txt", "output=out.txt", "batch_size=1"]
    decoded, left = generate.decoded, sorted(os.listdir(home))

    def failing(*given: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if given[3] == 1 else KeyError("ours")

    for last in (1, 0):  # the machine's at the second line; ours at the first
        monkeypatch.setattr(generate, "decoded", lambda *g, last=last: failing(*g) if g[3] == last else decoded(*g))
        assert tokenrl("generate", *words) == (2 if last else 1)
        assert sorted(os.listdir(home)) == left
        printed = capsys.readouterr().err
        assert ("out.txt: " + os.strerror(errno.ENOSPC) in printed) == bool(last)
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert tokenrl("generate", *words) == 0
    assert (home / "out.txt").read_text("utf-8").count("\n") == 3
    assert tokenrl("generate", *words) == 2
    assert "exists already" in capsys.readouterr().err
    (home / "link.txt").symlink_to("elsewhere.txt")
    assert tokenrl("generate", *words, "output=none/out.txt") == 2
    assert "there is no folder none" in capsys.readouterr().err
    assert tokenrl("generate", *words, "output=link.txt") == 2
    assert not (home / "elsewhere.txt").exists()


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_command_that_is_stopped_leaves_nothing_half_written(
    name: str, status: int, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal arrives in the work itself, and in the user's code that it calls."""

    def stopped(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.Signals[name])

    (home / "in.txt").write_text("a b\n")
    left = sorted(os.listdir(home))
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    monkeypatch.setattr(generate, "decoded", stopped)
    assert tokenrl("generate", RUN, "input=in.txt", "output=stopped.txt") == status
    assert sorted(os.listdir(home)) == left
    monkeypatch.setattr(import_module("needed").Mine, "__call__", stopped)
    assert tokenrl("eval", RUN, "imports=[needed]", f"out={home / 'results'}") == status
    assert not (home / "results").exists()
    printed = capsys.readouterr().err
    assert printed.count("tokenrl: interrupted\n") == 2, printed
    assert "Traceback" not in printed, printed
    assert before == {each: signal.getsignal(each) for each in before}


def test_a_hang_up_that_is_ignored_stops_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "in.txt").write_text("a b\n")
    decoded = generate.decoded

    def hung_up(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGHUP)
        return decoded(*given)

    monkeypatch.setattr(generate, "decoded", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert tokenrl("generate", RUN, "input=in.txt") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_evaluation_that_fails_while_it_writes_leaves_no_part_of_itself(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("tokenrl_cli.metrics.saved_statistics.save", full)
        assert tokenrl("eval", RUN, "reward=token_accuracy", "examples=4", "out=scores") == 2
    assert "scores: " + os.strerror(errno.ENOSPC) in capsys.readouterr().err
    assert not [*Path("scores").rglob("*.*")]


def test_an_evaluation_follows_no_link_of_a_run(home: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(home / "a b" / "run=1", tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("eval"))
    (tmp_path / "run" / "eval").symlink_to(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    words = [f"ckpt={tmp_path / 'run'}", "reward=token_accuracy", "examples=4"]
    assert tokenrl("eval", *words) == 2
    assert "is a link to" in capsys.readouterr().err
    assert not os.listdir(tmp_path / "mine")


# ------------------------------------------------------------------------------------- before the first step


def data(folder: Path, *splits: str) -> list[str]:
    folder.mkdir()
    for split in splits:
        lines = [json.dumps({"src": f"a {i}", "refs": [f"b {i}"]}) for i in range(3)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    columns = ["dataset=jsonl", "dataset.source_column=src", "dataset.reference_column=refs"]
    kept = [word for word in TINY if not word.startswith("dataset")]
    return [*columns, f"dataset.path={folder}", *kept]


def test_what_the_end_needs_is_missed_before_the_first_step(tmp_path: Path, capsys: Capture) -> None:
    words = data(tmp_path / "data", "train", "val")
    for command in ("validate", "train"):
        assert tokenrl(command, *words, f"out={tmp_path / 'run'}") == 2
        assert "test.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "words",
    [
        ["reward=callable", "reward.function=needed:absent", "imports=[needed]"],  # while it is built
        ["reward=callable", "reward.function=needed:silent", "imports=[needed]"],  # in the rehearsal
        ["algorithm.samples_per_source=1"],
        ["trainer.monitor=absent"],
        ["algorithm/baseline=leave_one_out", "algorithm.samples_per_source=1"],
    ],
    ids=" ".join,
)
def test_a_mistake_before_the_first_step_leaves_nothing(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    assert tokenrl("train", *TINY, *words, f"out={run}") == 2
    printed = capsys.readouterr().err
    assert "resume=" not in printed, printed
    assert not run.exists(), printed


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert tokenrl("train", *TINY, "trainer.monitor=absent", f"out={tmp_path}") == 2
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_validate_reads_the_data_and_says_how_much_there_is(tmp_path: Path, capsys: Capture) -> None:
    words = data(tmp_path / "data", "train", "val", "test")
    assert tokenrl("validate", *words) == 0, capsys.readouterr().err
    assert "train 3, val 3, test 3" in capsys.readouterr().out
    (tmp_path / "data" / "val.jsonl").write_text('{"src": 1}\n')
    assert tokenrl("validate", *words) == 2
    assert "val.jsonl, line 1" in capsys.readouterr().err


def test_validate_looks_at_the_place_of_the_run_and_leaves_it_as_it_is(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    for place in ("link/run", "file/run", "file"):
        assert tokenrl("validate", *TINY, f"out={tmp_path / place}") == 2, place
        assert str(tmp_path / place.split("/")[0]) in capsys.readouterr().err
    assert tokenrl("validate", *TINY, f"out={tmp_path / 'a' / 'b'}") == 0
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]
    assert tokenrl("validate", *TINY, "init_from=nowhere") == 2
    assert "nowhere" in capsys.readouterr().err
