"""What a run shows, on a terminal and in a pipe."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.live import RL_WEIGHT, Live
from tokenrl_cli.report.plain import Plain
from tokenrl_cli.report.terminal import Display, display

METRICS = {"bleu": 43.2, "validity": 0.5, "reward": 0.41, "sampled_reward": 0.44, "completions/mean_length": 12.25}
RESULTS: dict[str, Any] = {
    "decode": "greedy",
    "test": {"warm_start": METRICS, "final": METRICS | {"bleu": 61.98}, "best": METRICS | {"bleu": 62.0}},
    "difference": {"bleu": {"mean": 18.78, "low": 14.6, "high": 22.5, "p": 0.001}},
    "wall_time_s": 92.4,
    "tokens_per_second": {"rollout": 21000.0, "update": None},
    "peak_memory_mb": 840,
    "findings": [{"rule": "gate", "severity": "warning", "step": 3, "text": "the warm start is [weak]", "key": None}],
}
LONG = "ein [bold]sehr[/bold] langer Satz " * 20
EVALUATION = Evaluation(100, "warm_start", "val", "greedy", METRICS, {}, [LONG], [["[x] y"]], ["[src]"], [0.5])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(width: int | None) -> str:
    """Everything a run shows; no width: through a pipe."""
    stream = io.StringIO()
    screen: Display = Plain(stream)
    if width is not None:
        live = Live(stream)
        live.console = live.progress.live.console = Console(file=stream, width=width, highlight=False)
        screen = live
    screen.start("outputs/run", [("warm_start", 4), ("train", 2)], 0)
    for step in range(1, 7):
        screen.step("warm_start" if step < 5 else "train", step, {"reward": 0.25, "tokens_per_second": 20000.0})
    screen.evaluation(EVALUATION, 1)
    screen.message("a [message] of one line")
    screen.final(RESULTS, "outputs/run")
    screen.close()
    return stream.getvalue()


def test_a_terminal_gets_the_live_display_and_a_pipe_plain_lines() -> None:
    assert isinstance(display(Terminal()), Live) and isinstance(display(io.StringIO()), Plain)


def test_plain_lines_have_no_escapes_and_are_not_wrapped() -> None:
    text = shown(None)
    assert "\x1b" not in text and "a [message] of one line\n" in text
    assert any(len(line) > 110 for line in text.splitlines())


@pytest.mark.parametrize("width", [None, 60, 120])
def test_the_table_says_what_was_gained_and_brackets_stay_text(width: int | None) -> None:
    text = shown(width)
    for piece in (
        "warm",
        "final",
        "best",
        "43.20",
        "61.98",
        "62.00",
        "0.001",
        "12.25",
        "tokenrl eval ckpt=outputs/run",
    ):
        assert piece in text
    assert "warning: the warm start is [weak]" in " ".join(text.split())
    assert "rollout 21,000 tokens/s" in text and "840 MB" in text
    if width is not None:
        assert "[bold]sehr[/bold]" in text and "[x] y" in text and "[src]" in text
        assert all(len(line) <= width for line in text.splitlines())


def test_the_time_left_weighs_both_stages_by_their_own_pace() -> None:
    live = Live(io.StringIO())
    live.left, live.pace = {"warm_start": 10, "train": 4}, {"warm_start": 1.0}
    assert live.remaining() == f"0:00:{int(10 + 4 * RL_WEIGHT)} left"
    live.pace["train"] = 100.0
    assert live.remaining() == "0:06:50 left"


def test_a_resumed_run_starts_where_it_stood() -> None:
    live = Live(io.StringIO())
    live.start("run", [("warm_start", 10), ("train", 5)], 12)
    assert live.left == {"warm_start": 0, "train": 3}
    live.close()
