"""Settings without effect: refused if typed, noted if they come from a preset or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import TINY, tokenrl, train

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("idle") / "run"
    assert train(run, "trainer.warm_start_steps=1", "trainer.steps=0") == 0
    return run


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("decode=beam decode.beam_size=1 decode.length_penalty=0.6", "decode.length_penalty=0.6: compares hypotheses"),
        ("algorithm/reference=periodic", "algorithm/reference=periodic: "),
        ("algorithm/reference=periodic algorithm.reference.every=3", "algorithm/reference=periodic: "),
        ("algorithm/divergence=k3", "algorithm/divergence=k3: "),
        ("algorithm/divergence=k3 algorithm.kl_coef=0.1", "algorithm/divergence=k3: "),
        ("algorithm.kl_coef=0.1 algorithm.kl_rate=0.2", "algorithm.kl_rate=0.2: "),
        ("algorithm=ppo algorithm.kl_coef=0 algorithm.kl_target=3", "algorithm.kl_target=3: has nothing to adapt"),
        (
            "algorithm@warm_start=rloo algorithm/reference@warm_start.reference=periodic",
            "warm_start.reference=periodic",
        ),
    ],
)
def test_what_was_typed_and_does_nothing_is_refused(words: str, told: str, capsys: Capture) -> None:
    assert tokenrl("validate", *TINY, *words.split()) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "words",
    [
        "decode=beam decode.beam_size=1",
        "algorithm=ppo algorithm.kl_coef=0",
        "algorithm/reference=periodic algorithm.kl_coef=0.1",
        "algorithm/divergence=k3 algorithm.kl_loss_coef=0.1",
        "algorithm.kl_target=3 algorithm.kl_coef=0.1 algorithm.kl_rate=0.2",
    ],
)
def test_what_a_preset_has_is_no_mistake_of_the_line(words: str, capsys: Capture) -> None:
    assert tokenrl("validate", *TINY, *words.split()) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_reaches_one_beam_too(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """A beam of 1 is greedy search. The length penalty comes from the preset, not from the line, so it is only
    noted."""
    line = ["-m", f"ckpt={run}", "decode=beam", "decode.beam_size=1,2", f"out={tmp_path}"]
    assert tokenrl("eval", *line, f"hydra.sweep.dir={tmp_path / 'jobs'}") == 0
    printed = capsys.readouterr().err
    assert printed.count("note: decode.length_penalty=1.0 compares hypotheses") == 1, printed


def test_generate_says_what_does_nothing(run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in.txt").write_text("1 2\n")
    line = [f"ckpt={run}", f"input={tmp_path / 'in.txt'}", "decode=beam", "decode.beam_size=1"]
    assert tokenrl("generate", *line) == 0
    assert "decode.length_penalty=1.0 compares hypotheses" in capsys.readouterr().err
    assert tokenrl("generate", *line, "decode.length_penalty=2") == 2


def test_train_says_it_once(tmp_path: Path, capsys: Capture) -> None:
    words = ["decode=beam", "decode.beam_size=1", "trainer.warm_start_steps=1", "trainer.steps=0"]
    assert train(tmp_path / "run", *words) == 0
    assert "decode.length_penalty=1.0 compares hypotheses" in (tmp_path / "run" / "results.json").read_text()
