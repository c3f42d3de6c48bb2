"""The words that a shell is offered when the user presses Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import tokenrl

Capture = pytest.CaptureFixture[str]


def offered(line: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, shell: str = "bash") -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    capsys.readouterr()
    assert tokenrl("-sc", f"query={shell}") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.split("\n" if shell == "fish" else None)


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("tokenrl ", {"train", "eval", "generate", "list", "validate", "copy"}),
        ("tokenrl tr", {"train"}),
        ("tokenrl train mod", {"model", "model."}),  # model=, model/adapter= and model.path= may follow
        ("tokenrl train cred", {"credit="}),
        ("tokenrl train model=l", {"model=lstm"}),
        ("tokenrl train model=gru model.h", {"model.hidden="}),
        ("tokenrl train seed=2 trainer.", {"trainer.steps=", "trainer.batch_size="}),
        ("tokenrl train algorithm/baseline=g", {"algorithm/baseline=greedy"}),
        ("tokenrl -m train algorithm=r", {"algorithm=reinforce", "algorithm=rloo"}),
        ("tokenrl validate cre", {"credit="}),
        ("tokenrl eval decode=b", {"decode=beam"}),
        ("tokenrl generate out", {"output="}),
        ("tokenrl list rew", {"reward"}),
        ("tokenrl copy model/l", {"model/lstm"}),
    ],
)
def test_what_may_follow(line: str, some: set[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    found = offered(line, capsys, monkeypatch)
    assert some <= set(found)
    begun = line.rpartition(" ")[2]
    assert all(each.startswith(begun) for each in found)


def test_fish_gets_one_a_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "train" in offered("tokenrl t", capsys, monkeypatch, "fish")
    assert {"model=gru", "model=lstm"} <= set(offered("tokenrl train model=", capsys, monkeypatch, "fish"))


def test_a_line_that_is_wrong_already_offers_nothing_and_says_nothing(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offered("tokenrl train model=nothing_like_it tra", capsys, monkeypatch) in ([], ["trainer="])
    assert offered("tokenrl trian mod", capsys, monkeypatch) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shells_function_is_printed(shell: str, capsys: Capture) -> None:
    assert tokenrl("-sc", f"install={shell}") == 0
    assert "complet" in capsys.readouterr().out
    assert tokenrl("-sc", f"uninstall={shell}") == 0


@pytest.mark.parametrize("words", [["-sc"], ["-sc", "install=tcsh"], ["-sc", "instal=bash"]])
def test_a_wrong_request_is_told(words: list[str], capsys: Capture) -> None:
    assert tokenrl(*words) == 2
    assert 'eval "$(tokenrl -sc install=bash)"' in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_function_works_in_a_real_bash(tmp_path: Path) -> None:
    (tmp_path / "tokenrl").write_text(f'#!/bin/sh\nexec {sys.executable} -m tokenrl_cli "$@"\n')
    (tmp_path / "tokenrl").chmod(0o755)
    script = (
        'eval "$(tokenrl -sc install=bash)"; COMP_LINE="tokenrl train model="; COMP_POINT=${#COMP_LINE}; '
        'COMP_CWORD=2; hydra_bash_completion; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert "model=lstm" in done.stdout.split()
