"""`tokenrl copy`: the copied option can be used from its directory, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.running import TINY, tokenrl
from tokenrl_cli.config.options import conf_dir

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_option_copied_into_a_directory_is_chosen_by_its_new_name(capsys: Capture) -> None:
    assert tokenrl("copy", "reward/bleu", "mine") == 0
    assert "tokenrl train --config-dir mine reward=bleu" in capsys.readouterr().out
    copied = Path("mine/reward/bleu.yaml")
    assert copied.read_bytes() == (conf_dir() / "reward" / "bleu.yaml").read_bytes()
    edited = copied.with_name("my_bleu.yaml")
    edited.write_text(copied.read_text("utf-8").replace("max_order: 4", "max_order: 2"), "utf-8")
    assert tokenrl("train", "--config-dir", "mine", "reward=my_bleu", "--cfg", "job", "-p", "reward") == 0
    assert yaml.safe_load(capsys.readouterr().out)["max_order"] == 2


def test_a_sub_group_keeps_its_folders() -> None:
    assert tokenrl("copy", "algorithm/baseline/greedy", "mine") == 0
    assert Path("mine/algorithm/baseline/greedy.yaml").is_file()
    assert tokenrl("validate", *TINY, "--config-dir", "mine", "algorithm/baseline=greedy") == 0


def test_a_copy_may_name_its_file(capsys: Capture) -> None:
    assert tokenrl("copy", "model/lstm.yaml", "here.yaml") == 0
    assert Path("here.yaml").is_file()
    assert "put it into DIR/model/" in capsys.readouterr().out
    assert tokenrl("copy", "model/lstm", "mine/model/big.yaml") == 0
    assert "tokenrl train --config-dir mine model=big" in capsys.readouterr().out


def test_nothing_is_overwritten(capsys: Capture) -> None:
    Path("mine.yaml").write_text("precious")
    assert tokenrl("copy", "model/lstm", "mine.yaml") == 2
    assert "mine.yaml: exists already" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == "precious"
