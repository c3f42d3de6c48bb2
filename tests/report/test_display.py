"""Both displays of a run: the progress bar on a terminal, and plain lines in a pipe."""

from __future__ import annotations

import io
import math
import os
import pty
import re
import termios
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.display import Display, choose_display
from tokenrl_cli.report.live_display import RL_WEIGHT, LiveDisplay
from tokenrl_cli.report.plain_display import QUIET, PlainDisplay
from tokenrl_cli.report.results_table import final_table
from tokenrl_cli.report.run_header import RunHeader

METRICS = {"bleu": 43.2, "validity": 0.5, "reward": 0.41, "sampled_reward": 0.44, "completions/mean_length": 12.25}
NEXT = ["tokenrl eval ckpt=outputs/run", "tokenrl generate ckpt=outputs/run"]
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
    """Everything that a short run prints, on a terminal of a width or, with None, to a pipe."""
    stream = io.StringIO()
    screen: Display = PlainDisplay(stream)
    if width is not None:
        live = LiveDisplay(stream)
        live.console = live.progress.live.console = Console(file=stream, width=width, highlight=False)
        screen = live
    screen.start("outputs/run", [("warm_start", 4), ("train", 2)], 0)
    for step in range(1, 7):
        screen.step("warm_start" if step < 5 else "train", step, {"reward": 0.25, "tokens_per_second": 20000.0})
    screen.evaluation(EVALUATION, 1)
    screen.message("a [message] of one line")
    screen.final(RESULTS, "outputs/run", NEXT)
    screen.close()
    return stream.getvalue()


def test_a_terminal_gets_the_live_display_and_a_pipe_plain_lines() -> None:
    assert isinstance(choose_display(Terminal()), LiveDisplay)
    assert isinstance(choose_display(io.StringIO()), PlainDisplay)


def test_plain_lines_have_no_escapes_and_are_not_wrapped() -> None:
    text = shown(None)
    assert "\x1b" not in text
    assert "a [message] of one line\n" in text
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
    assert "rollout 21,000 tokens/s" in text
    assert "840 MB" in text
    if width is not None:
        assert "[bold]sehr[/bold]" in text
        assert "[x] y" in text
        assert "[src]" in text
        assert all(len(line) <= width for line in text.splitlines())


def test_the_time_left_weighs_both_stages_by_their_own_pace() -> None:
    live = LiveDisplay(io.StringIO())
    live.left, live.pace = {"warm_start": 10, "train": 4}, {"warm_start": 1.0}
    assert live.remaining() == f"0:00:{int(10 + 4 * RL_WEIGHT)} left"
    live.pace["train"] = 100.0
    assert live.remaining() == "0:06:50 left"


def test_a_resumed_run_starts_where_it_stood() -> None:
    live = LiveDisplay(io.StringIO())
    live.start("run", [("warm_start", 10), ("train", 5)], 12)
    assert live.left == {"warm_start": 0, "train": 3}
    live.close()


# ------------------------------------------------------------------------------------------- evaluations and samples

FACTS = RunHeader(
    1_240_000, 1_240_000, 3000, 2500, "data/e2e", 1000, (("warm_start", 40, 100), ("train", 0, 32)), "cpu", "fp32", 7
)


def live_of(width: int) -> tuple[LiveDisplay, io.StringIO]:
    stream = io.StringIO()
    live = LiveDisplay(stream)
    live.console = live.progress.live.console = Console(file=stream, width=width, highlight=False)
    return live, stream


def moved(evaluation: Evaluation, step: int, **metrics: float) -> Evaluation:
    return replace(evaluation, step=step, metrics=evaluation.metrics | metrics)


def test_an_evaluation_shows_what_changed_since_the_last_of_its_stage_split_and_decoding() -> None:
    for screen, stream in (live_of(120), (PlainDisplay(out := io.StringIO()), out)):
        screen.evaluation(moved(EVALUATION, 100, bleu=39.9, validity=math.nan), 0)
        screen.evaluation(replace(moved(EVALUATION, 200, bleu=12.0), decode="beam"), 0)
        screen.evaluation(replace(moved(EVALUATION, 200, bleu=13.0), stage="train"), 0)
        assert "(" not in stream.getvalue()
        screen.evaluation(moved(EVALUATION, 200, bleu=41.2), 0)
        text = stream.getvalue()
        assert re.search(r"bleu +41.20 +\(\+1.30\)", text)
        assert re.search(r"reward +0.410 +\(\+0.000\)", text)
        assert re.search(r"validity +nan", text)
        assert len(re.findall(r"validity +0.500", text)) == 3
        assert "warm start step 200, val, greedy" in text
        assert "RL step 200" in text


def test_the_same_evaluation_is_named_and_not_shown_twice() -> None:
    for screen, stream in (live_of(80), (PlainDisplay(out := io.StringIO()), out)):
        screen.evaluation(moved(EVALUATION, 100, bleu=39.91, validity=math.nan), 2)
        screen.evaluation(moved(EVALUATION, 200, bleu=41.22), 2)
        screen.evaluation(replace(moved(EVALUATION, 200, bleu=39.91, validity=math.nan), stage="train"), 2)
        text = stream.getvalue()
        assert text.count("39.91") == text.count("41.22") == 1
        assert text.count("[x] y") == 2
        assert "RL step 200, val, greedy: the same as warm start step 100, val, greedy" in text


def test_the_last_evaluations_are_left_to_the_table_but_for_samples_of_the_last_policy() -> None:
    for screen, stream in (live_of(80), (PlainDisplay(out := io.StringIO()), out)):
        for stage in ("final", "warm_start", "best"):
            screen.evaluation(replace(EVALUATION, split="test", stage=stage), 2)
        screen.final(RESULTS, "outputs/run", NEXT)
        screen.close()
        text = stream.getvalue()
        assert text.count("12.25") == 3
        assert text.count("[x] y") == 1
        screen.evaluation(replace(EVALUATION, split="test", stage="eval"), 2)
        assert "12.25" in stream.getvalue()[len(text) :]


WILD = ["中文測試" * 30, "हिन्दी में " * 20, "👨‍👩‍👧‍👦" * 30, "a\tb\nc\x1b[31m\r\u202e" * 9, "[bold]x[/bold] " * 30]


@pytest.mark.parametrize("width", [40, 80, 120, 160])
def test_two_samples_stand_on_one_line_each_whatever_they_hold(width: int) -> None:
    for text in WILD:
        live, stream = live_of(width)
        each = replace(
            EVALUATION, sources=[text] * 3, hypotheses=[text] * 3, references=[[text]] * 3, scores=[0.5, 0.25, 1.0]
        )
        live.evaluation(each, 2)
        lines = stream.getvalue().splitlines()
        assert all(cell_len(line) <= width for line in lines)
        assert "\x1b" not in stream.getvalue()
        at = next(i for i, line in enumerate(lines) if line.split() == ["source", "hypothesis", "reference", "score"])
        assert [line.split()[-1] for line in lines[at + 1 :]] == ["0.500", "0.250"]
        assert all(line.count("…") == 3 for line in lines[at + 1 :])


@pytest.mark.parametrize("width", [0, 1, 10, 40, 80, 120, 160, 10_000])
def test_a_terminal_of_any_size_shows_the_results_legibly(width: int) -> None:
    text = shown(width)
    for piece in ("43.20", "61.98", "62.00", "0.001", "+18.78", "sampled_reward", "tokenrl eval ckpt=outputs/run"):
        assert piece in text, piece
    lines = text.splitlines()
    assert all(len(line) <= max(width, 80 if width == 0 else 40) for line in lines)
    assert max(map(len, lines)) <= 240
    words = re.findall(r"[a-z_]+", text.lower())
    assert {"warm", "start", "final", "best", "mean_length", "validity"} <= set(words)


def everything(above: int) -> str:
    """All that was written to a terminal."""
    os.set_blocking(above, False)
    parts = []
    with suppress(BlockingIOError), open(above, "rb", buffering=0) as file:
        while part := file.read(1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("size", [(0, 0), (0, 80), (24, 0), (24, 1), (24, 10), (1, 120), (24, 80), (50, 160)])
def test_the_size_that_a_terminal_reports_decides_on_the_bar_and_never_on_what_is_said(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    above, below = pty.openpty()
    termios.tcsetwinsize(below, size)
    with open(below, "w", encoding="utf-8") as stream:
        screen = choose_display(stream)
        assert isinstance(screen, LiveDisplay) == (size[0] >= 3 and size[1] >= 40)
        screen.evaluation(EVALUATION, 2)
        screen.final(RESULTS, "outputs/run", NEXT)
        screen.close()
        stream.flush()
        text = everything(above)
    assert all(piece in text for piece in ("43.20", "61.98", "+18.78", "mean_length", "outputs/run"))


@pytest.mark.parametrize("columns", ["0", "1", "x", "10000"])
def test_what_the_environment_says_of_the_width_is_not_believed_blindly(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    stream = Terminal()
    screen = choose_display(stream)
    screen.final(RESULTS, "outputs/run", NEXT)
    assert "61.98" in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) in range(40, 241)


# ----------------------------------------------------------------------------------------------------- the final table


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_headers_of_the_final_table_carry_the_steps_and_break_at_spaces_alone(width: int) -> None:
    live, stream = live_of(width)
    live.final(RESULTS | {"steps": {"warm_start": 400, "final": 550, "best": 500}}, "outputs/run", NEXT)
    text = stream.getvalue()
    for word in ("(400)", "(550)", "(500)", "warm", "final", "best", "greedy", "+18.78", "[+14.60,", "+22.50]"):
        assert f" {word}" in text.replace("\n", " "), word
    assert all(len(line) <= width for line in text.splitlines())


def test_one_policy_has_one_column_however_many_names_it_has() -> None:
    steps = {"warm_start": 400, "final": 400, "best": 400}
    same = RESULTS | {"test": dict.fromkeys(steps, METRICS | {"validity": math.nan}), "steps": steps}
    header, *rows = final_table(same)
    assert header == ["test, greedy", "warm start = final = best (400)"]
    assert ["validity", "nan"] in rows
    other = final_table(RESULTS | {"test": RESULTS["test"] | {"best": RESULTS["test"]["final"]}})
    assert other[0] == ["test, greedy", "warm start", "final = best", "final - warm start", "p"]
    apart = final_table(same | {"steps": steps | {"best": 300}})
    assert apart[0][1:3] == ["warm start = final (400)", "best (300)"]
    assert len(apart[0]) == 3


def test_a_change_of_nothing_has_no_sign() -> None:
    tiny = {"mean": -0.0001, "low": -0.0002, "high": 0.0003, "p": 1.0}
    table = final_table(RESULTS | {"difference": {"validity": tiny}})
    assert [row[-2] for row in table if row[0] == "validity"] == ["+0.000 [+0.000, +0.000]"]


# ------------------------------------------------------------------------------------------------ start and progress


def test_a_run_begins_with_one_line_of_what_it_is_made_of() -> None:
    line = (
        "1.24 M parameters, vocabulary 3,000 (sources 2,500), data/e2e: 1,000 examples, "
        "warm start 40 steps = 4 epochs, no RL, cpu, fp32, seed 7"
    )
    assert FACTS.line() == line
    for screen, stream in (live_of(200), (PlainDisplay(out := io.StringIO()), out)):
        screen.start("outputs/run", [("warm_start", 40), ("train", 0)], 0, FACTS)
        screen.close()
        assert line in stream.getvalue().splitlines()
    endless = replace(FACTS, examples=None, source_vocabulary=None, parameters=999, stages=(("train", 1500, 8),))
    assert (
        endless.line()
        == "999 parameters, vocabulary 3,000, data/e2e: unlimited examples, RL 1,500 steps, cpu, fp32, seed 7"
    )
    assert replace(FACTS, parameters=999_999).line().startswith("1 M p")
    assert replace(FACTS, learning=24_400).line().startswith("1.24 M parameters of which 24.4 k learn, vocabulary")


def test_an_evaluation_under_way_says_what_is_evaluated_and_how_far_it_is() -> None:
    live, _ = live_of(80)
    live.start("run", [("warm_start", 10), ("train", 5)], 10)
    live.step("warm_start", 10, {"reward": 0.5})
    before = live.line()
    live.evaluating("best", "test", 7, 256, 1000)
    assert live.line().startswith("evaluating test, best step 7 ")
    assert " 256/1,000" in live.line()
    live.evaluation(replace(EVALUATION, split="test", stage="best"), 0)
    assert live.line() == before
    assert before.startswith("warm start ")
    assert "10/15" in before
    live.close()


def test_a_log_says_what_is_evaluated_at_the_end_and_goes_on_saying_so_while_it_takes_long() -> None:
    stream = io.StringIO()
    plain = PlainDisplay(stream)
    now = [0.0]
    plain.clock = lambda: now[0]
    plain.printed = 0.0
    plain.evaluating("warm_start", "val", 5, 0, 256)
    assert stream.getvalue() == ""
    for done in range(0, 1001, 100):
        plain.evaluating("final", "test", 9, done, 1000)
        now[0] += QUIET / 4
    said = stream.getvalue().splitlines()
    assert said == [f"evaluating test, final step 9: {done}/1,000 examples" for done in (0, 400, 800)]
    now[0] += QUIET
    plain.evaluating("warm_start", "val", 5, 128, 256)
    assert stream.getvalue().endswith("evaluating val, warm start step 5: 128/256 examples\n")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_the_line_of_the_bar_fits_and_leaves_out_whole_pieces(width: int) -> None:
    live, _ = live_of(width)
    live.start("run", [("warm_start", 1000), ("train", 150)], 0)
    live.step("warm_start", 1, {})
    for step in (2, 999):
        metrics = {"reward": 0.2512, "loss/nll": math.nan, "loss/td": -0.0001, "tokens_per_second": 21_345.6}
        live.step("warm_start", step, metrics)
        line = live.line()
        assert len(line) < width
        assert f"{step:>5}/1,150" in line
        pieces = re.split(r"  +", line)
        assert {"reward  0.251", "nll    nan", "td  0.000", "tokens/s 21,346"} >= set(
            re.findall(r"(?:reward|nll|td|tokens/s) +\S+", line)
        )
        assert len(pieces) >= 2
    assert ("21,346" in line) == (width >= 120)
    assert ("left" in line) == (width >= 60)
    live.close()


def test_a_command_to_copy_is_not_broken_and_a_message_moves_no_cursor() -> None:
    live, stream = live_of(40)
    command = "go on with: tokenrl train resume=" + "a long name " * 9
    live.message(command)
    live.message("bad \x1b[2J \u202e text")
    assert stream.getvalue() == command + "\n" + "bad \\x1b[2J \\u202e text\n"


def test_no_bar_is_left_above_the_final_table() -> None:
    above, below = pty.openpty()
    termios.tcsetwinsize(below, (24, 80))
    with open(below, "w", encoding="utf-8") as stream:
        screen = LiveDisplay(stream)
        screen.start("outputs/run", [("warm_start", 4), ("train", 2)], 0)
        screen.step("train", 5, {"reward": 0.25})
        screen.message("the bar is drawn below")
        screen.final(RESULTS, "outputs/run", NEXT)
        stream.flush()
        text = everything(above)
    drawn, _, rest = text.partition("61.98")
    assert "━" in drawn
    assert "━" not in rest
    assert "\x1b[2K" in drawn[drawn.rindex("━") :], "the bar that was drawn last is not erased"
