"""The README's examples are written down as they stand there, and run; what it says of rewards is so."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.reward.said import texts
from tests.running import tokenrl
from tokenrl_cli.config.options import options, roots
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.error_rate import ErrorRate

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
REWARDS, SECTION = (
    README.split(f"## {title}")[1].split("\n## ")[0] for title in ("Rewards and credit", "Adding a part")
)
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL)
FILES = {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in BLOCKS if kind in ("python", "yaml")}
COMMANDS = [shlex.split(text.strip())[1:] for kind, text in BLOCKS if kind == "sh"]
SHORT = (
    "trainer.warm_start_steps=2 trainer.steps=2 trainer.batch_size=4 trainer.warm_start_batch_size=4 "
    "trainer.eval_every=2 trainer.checkpoint_every=2 trainer.eval_examples=8 trainer.device=cpu decode.max_length=8"
)


def test_there_is_an_example_of_each_kind() -> None:
    words = [word for command in COMMANDS for word in command]
    for group in ("reward=callable", "dataset=", "model=", "algorithm="):
        assert any(word.startswith(group) for word in words)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-2])
def test_the_examples_run(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    small = SHORT.split() + ([] if "model=bag" in command else ["model=gru", "model.hidden=16", "model.embedding=16"])
    small += [] if "dataset=doubling" in command else ["dataset.val_size=8", "dataset.test_size=8"]
    try:
        assert tokenrl(*command, *small, "hydra.run.dir=run") == 0
    finally:
        for name in ("my_parts", "my_data", "my_model", "my_algorithm"):
            sys.modules.pop(name, None)
    assert json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["format"] == 1


def test_every_algorithm_is_in_the_table_and_is_described() -> None:
    section = README.split("\n## Algorithms\n")[1].split("\n## ")[0]
    described = {
        name for line in section.splitlines() if line.startswith("* **") for name in _named(line.split("(")[0])
    }
    tabled = {name for line in section.splitlines() if line.startswith("| `") for name in _named(line.split(" | ")[0])}
    known = set(options(roots(None), "algorithm"))
    assert known == described == tabled


def _named(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


def test_the_table_of_rewards_has_all_of_them_and_every_command_composes() -> None:
    rows = re.findall(r"^\| (`.+?) \| .+ \| `(tokenrl .+)` \|$", REWARDS, re.MULTILINE)
    named = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert named == set(options(roots(None), "reward"))
    for _, command in rows:
        words = [word.replace("DIR", "here") for word in shlex.split(command)[1:] if word != "-m"]
        assert (
            tokenrl(*(word.split(",")[0] if word.startswith("reward=") else word for word in words), "--cfg", "job")
            == 0
        )


def test_the_worked_example_of_credit_is_so() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in REWARDS.splitlines() if " | the" in line]
    said = [row[1] for row in rows]
    seen = texts([(said[-1], ["the cat sat on the mat"])])
    wer = ErrorRate("words")
    found = [
        Bleu(4, "exp", None, True, "13a", False).prefix_scores(seen, [["", *said]])[0],
        wer.prefix_scores(seen, [["", *said]])[0],
        wer.completion_scores(seen, [["", *said]])[0],
    ]
    assert len(rows) == 7
    for t, row in enumerate(rows, 1):
        numbers = [float(cell.replace("\u2212", "-")) for cell in row[2:]]
        expected = [number for scores in found for number in (scores[t], scores[t] - scores[t - 1])]
        assert numbers == pytest.approx(expected, abs=6e-4), row


def test_the_reward_of_ten_lines_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, command = re.findall(r"```\w+\n(.*?)```", REWARDS, re.DOTALL)[:2]
    (tmp_path / "my_reward.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    small = [
        *SHORT.split(),
        "model=gru",
        "model.hidden=16",
        "model.embedding=16",
        "dataset.val_size=8",
        "dataset.test_size=8",
    ]
    assert tokenrl(*shlex.split(command.strip())[1:], *small, "hydra.run.dir=run") == 0
    logged = [json.loads(line)["metrics"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("rewards/callable/brevity" in metrics and metrics["rewards/callable/failed"] == 0 for metrics in logged)
