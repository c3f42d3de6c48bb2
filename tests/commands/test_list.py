"""`tokenrl list` shows what is in the YAML files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from tests.presets import composed
from tests.running import tokenrl
from tokenrl_cli.commands.list import hung
from tokenrl_cli.config.options import about, choices, conf_dir, groups, options, parts, roots

Capture = pytest.CaptureFixture[str]
EVERY = [(group, name) for group in groups(roots(None)) for name in options(roots(None), group)]


def test_every_group_and_option_is_listed_with_its_first_comment(capsys: Capture) -> None:
    assert tokenrl("list") == 0
    shown = capsys.readouterr().out
    for group, name in EVERY:
        assert f"  {name:<22} {about(conf_dir() / group / f'{name}.yaml')}" in shown
    assert "hydra" not in shown


@pytest.mark.sample(60)
@pytest.mark.parametrize(("group", "name"), EVERY)
def test_every_option_says_what_it_is_and_shows_all_its_keys(group: str, name: str, capsys: Capture) -> None:
    file = conf_dir() / group / f"{name}.yaml"
    assert about(file), f"{file} must begin with a comment"
    assert tokenrl("list", f"{group}/{name}") == 0
    shown = capsys.readouterr().out
    for key in yaml.safe_load(file.read_text("utf-8")) or {}:
        assert (f"\n  {key}:" in shown) == (key not in ("defaults", "_target_", "_partial_")), key


def test_a_users_group_is_listed_too(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "mine.yaml").write_text("# a reward of mine\nscale: 2 # times\n")
    assert tokenrl("list", "reward", "--config-dir", str(tmp_path)) == 0
    assert "reward=mine  # a reward of mine\n  scale: 2 # times" in capsys.readouterr().out


def test_options_that_include_each_other_are_shown_as_they_are(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "reward").mkdir()
    for name, other in (("aa", "bb"), ("bb", "aa")):
        (tmp_path / "reward" / f"{name}.yaml").write_text(f"# one of two\ndefaults:\n  - {other}\nscale: 2 # times\n")
    assert tokenrl("list", "reward/aa", "--config-dir", str(tmp_path)) == 0
    assert "reward=aa  # one of two\n  as reward=bb, with\n  scale: 2 # times" in capsys.readouterr().out


def test_the_groups_of_a_command_are_those_of_its_defaults_list() -> None:
    for command in ("train", "eval", "generate"):
        listed = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text("utf-8"))["defaults"]
        pairs = {key: value for entry in listed if isinstance(entry, dict) for key, value in entry.items()}
        expected = {
            key: str(value or "null") for key, value in pairs.items() if not key.startswith(("override", "optional"))
        }
        assert choices(conf_dir() / f"{command}.yaml") == expected


def test_listing_takes_no_library_but_pythons_own() -> None:
    program = (
        "import sys; from tokenrl_cli.cli import status; status(['list', 'model']); sys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_a_preset_shows_the_parts_it_is_made_of(capsys: Capture) -> None:
    assert tokenrl("list", "algorithm/dueling_dqn") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:] == ["  as algorithm=double_dqn, with", "  algorithm/head=dueling"]
    assert tokenrl("list", "algorithm/mc_q") == 0
    assert "  algorithm/acting=tilted\n" in capsys.readouterr().out
    assert tokenrl("list", "algorithm/grpo") == 0
    shown = [line for line in capsys.readouterr().out.splitlines()[1:] if "#" not in line]
    chosen = (
        "baseline=group_mean normalisation=group_std surrogate=clipped_ratio aggregation=sequence_mean divergence=k3"
    )
    assert shown == ["  as algorithm=rloo, with", *(f"  algorithm/{part}" for part in chosen.split())], (
        "a comment holds no part"
    )
    assert tokenrl("list", "experiment/e2e_lstm_rloo") == 0
    assert "\n  dataset=e2e_nlg\n" in capsys.readouterr().out


MADE_OF_PARTS = [each for each in EVERY if parts(options(roots(None), each[0])[each[1]], each[0])]


@pytest.mark.sample(7)
@pytest.mark.parametrize(
    ("group", "name"),  # a third of them always: each takes two compositions
    [each if i % 3 == 0 else pytest.param(*each, marks=pytest.mark.slow) for i, each in enumerate(MADE_OF_PARTS)],
)
def test_parts_are_shown_as_they_are_typed(group: str, name: str) -> None:
    shown = [line for line in parts(options(roots(None), group)[name], group) if not line.startswith("as ")]
    shown = [line for line in shown if not line.endswith("=null")]  # a part left out, as ~GROUP is typed
    place = {"optimizer": "optimizer@algorithm.optimizer"}.get(group, group)
    chosen = composed((f"{place}={name}",))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert compose("train", [f"{place}={name}", *shown]) == chosen


@pytest.mark.sample(2)
@pytest.mark.parametrize("columns", ["0", "1", "40", "80", "120"])
def test_on_a_terminal_long_lines_hang_under_their_column(
    columns: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["list"], ["list", "algorithm"], ["list", "optimizer"], ["train", "--help"]):
        monkeypatch.undo()
        assert tokenrl(*words) == 0
        whole = capsys.readouterr().out
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        assert tokenrl(*words) == 0
        shown = capsys.readouterr().out
        assert shown.split() == whole.split()
        width = {"0": 80, "1": 40}.get(columns, int(columns))
        for line in shown.splitlines():
            assert len(line) <= width or len(line.split()) <= 2, line


def test_a_line_hangs_under_its_comment_or_its_second_column() -> None:
    assert hung("  name      one two three four", 25) == ["  name      one two three", "            four"]
    assert hung("  a_long_name_of_it  one two", 25) == ["  a_long_name_of_it  one", "    two"]
    assert hung("  lr: 1 # of the rate x", 21) == ["  lr: 1 # of the rate", "          x"]
    assert hung("  a b c", 80) == ["  a b c"]


def test_the_range_of_a_value_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for group, line in (
        ("optimizer/adam", "  lr: 5.0e-4 # learning rate (above 0)"),
        (
            "optimizer/adam",
            "  eps: 1.0e-8 # added to the denominator, against division by zero (above 0 and at most 1)",
        ),
        ("algorithm/ppo", "  kl_coef: 0.01 # reward taken for a nat of KL to the reference (at least 0)"),
        ("decode/beam", "  beam_size: 5 # hypotheses of beam search; 1 is no beam search (at least 1)"),
        ("algorithm/dqn", "  samples_per_source: 2 # episodes acted for each source (at least 1)"),
        ("trainer", "  batch_size: 32 # sources per step of RL (at least 1)"),
    ):
        assert tokenrl("list", group) == 0
        assert line in capsys.readouterr().out.splitlines()
