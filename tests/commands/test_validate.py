"""`tokenrl validate` prints what would run, and leaves no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import TINY, tokenrl


def test_it_names_every_part_and_the_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tokenrl("validate", *TINY, "trainer.steps=7", "+reward@metrics.extra=chrf") == 0
    shown = capsys.readouterr().out
    steps = "6 steps of warm start x 8 sources, then 7 steps of RL x 8"
    for line in ("model ", "warm_start ", "metrics.extra ", steps):
        assert line in shown
    assert "tokenrl_cli.reward.chrf.Chrf" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_whole_config_of_another_family_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "algorithm=scst", "credit=delta", "optimizer@algorithm.optimizer=sgd", "tokenizer=char"]
    schedule = ["optimizer/schedule@algorithm.optimizer.schedule=cosine", "tokenizer@source_tokenizer=bpe"]
    assert tokenrl("validate", *words, *schedule) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "tokenizer@source_tokenizer=bpe source_tokenizer.vocabulary_size=10",
            "source_tokenizer.vocabulary_size=10: must",
        ),
        ("metrics.bleu.smoothing_value=0.1", "metrics.bleu.smoothing_value: exp takes none"),
        (
            "algorithm@warm_start=dqn algorithm/exploration@warm_start.exploration=none",
            "algorithm/exploration@warm_start.exploration=none: the best token of a new head",
        ),
        ("algorithm=dqn algorithm/exploration=none", "algorithm/exploration=none: the best token of a new head"),
    ],
)
def test_a_mistake_is_told_with_the_key_as_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tokenrl("validate", *TINY, *words.split()) == 2
    assert capsys.readouterr().err.startswith(f"tokenrl: {told}"), "the same class stands at several keys"
