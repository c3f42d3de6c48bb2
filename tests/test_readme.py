"""Every example of the README's section on adding parts is written down as it stands there, and run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.running import tokenrl

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
SECTION = README.split("## Adding a part")[1].split("\n## ")[0]
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
