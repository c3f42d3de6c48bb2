"""A stopped run is the run that never stopped; looking at it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.running import lines, tokenrl, train, weights
from tokenrl_cli.recorder import Recorder

ALGORITHMS = {
    "mle": ["algorithm=mle"],
    "reinforce": ["algorithm=reinforce", "algorithm.kl_coef=0.05", "credit=delta"],
    "rloo": ["algorithm=rloo", "algorithm.nll_mix=0.1", "algorithm.entropy_coef=0.01"],
    "scst": ["algorithm=scst", "credit=delta"],
    "double_dqn": ["algorithm=double_dqn", "algorithm/data=prioritised", "algorithm.target.every=5"],
    "soft_q": ["algorithm=soft_q", "credit=delta", "algorithm.data.capacity=300"],
    "tba": ["algorithm=tba"],
    "ilql": ["algorithm=ilql", "algorithm/data=mixed", "algorithm.advantage_beta=1"],
}


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """As if Ctrl-C had been pressed during step `at`."""
    step = Recorder.step

    def interrupted(self: Recorder, stage: Any, done: int, *rest: Any) -> bool:
        if done == at:
            self.signal = 2
        return step(self, stage, done, *rest)

    monkeypatch.setattr(Recorder, "step", interrupted)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stopping_and_going_on_gives_the_same_bits(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 35, all logged metrics and all tensors: inside the warm start (4), at the switch (6), inside RL (9)."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *ALGORITHMS[algorithm]) == 0
    for at in (4, 6, 9):
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            if at == 4:
                assert train(stopped, *ALGORITHMS[algorithm]) == 130
            else:
                assert tokenrl("train", f"resume={stopped}") == 130
        assert not (stopped / "results.json").exists()
    assert tokenrl("train", f"resume={stopped}") == 0
    assert lines(stopped) == lines(whole)
    assert weights(stopped) == weights(whole)
    assert weights(stopped, "best") == weights(whole, "best")
    same = [json.loads((run / "results.json").read_text())["test"] for run in (whole, stopped)]
    assert same[0] == same[1]


def test_a_finished_run_can_be_taken_further(tmp_path: Path) -> None:
    """3 steps, then resumed to 6, is 6: no schedule knows where the run ends."""
    whole, further = tmp_path / "whole", tmp_path / "further"
    assert train(whole) == 0
    assert train(further, "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={further}", "trainer.steps=6") == 0
    assert weights(further) == weights(whole)
    assert lines(further)[-3:] == lines(whole)[-3:]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    """Trap 38: the seed fixes initial weights, batches, samples and dropout."""
    runs = [tmp_path / name for name in "abc"]
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        assert train(run, f"seed={seed}") == 0
    assert weights(runs[0]) == weights(runs[1]) and lines(runs[0]) == lines(runs[1])
    assert weights(runs[0]) != weights(runs[2])
    said = [(run / "samples.jsonl").read_text("utf-8") for run in runs]
    assert said[0] == said[1] != said[2]


def test_looking_more_often_changes_no_training_number(tmp_path: Path) -> None:
    """Trap 37."""
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    assert train(often, "trainer.eval_every=1", "trainer.warm_start_patience=0") == 0
    assert train(seldom, "trainer.eval_every=6", "trainer.warm_start_patience=0") == 0
    # the RL stage starts from the best evaluation of the warm start, so compare up to the switch ...
    numbers = [[r for r in lines(run) if r["split"] == "train" and r["step"] <= 6] for run in (often, seldom)]
    assert numbers[0] == numbers[1] and numbers[0]
    # ... and after it where there is only one to start from
    for run, every in ((tmp_path / "often2", 1), (tmp_path / "seldom2", 6)):
        assert train(run, f"trainer.eval_every={every}", "trainer.warm_start_steps=0") == 0
    numbers = [[r for r in lines(tmp_path / name) if r["split"] == "train"] for name in ("often2", "seldom2")]
    assert numbers[0] == numbers[1] and numbers[0]


def test_micro_batches_change_no_result_beyond_rounding(tmp_path: Path) -> None:
    """Trap 9: denominators are those of the whole step."""
    metrics = []
    for parts in (1, 2, 4):
        run = tmp_path / str(parts)
        split = [f"algorithm.micro_batches={parts}", f"warm_start.micro_batches={parts}"]
        once = ["trainer.warm_start_steps=1", "trainer.steps=1", "trainer.log_every=1"]
        assert train(run, *split, *once, "model.dropout=0", "algorithm.nll_mix=0.5") == 0
        logged = [record for record in lines(run) if record["split"] == "train"]
        metrics.append({(r["stage"], name): v for r in logged for name, v in r["metrics"].items()})
    for other in metrics[1:]:
        assert other == pytest.approx(metrics[0], rel=1e-4, abs=1e-6)


def test_an_earlier_run_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run) == 0
    before = (run / "metrics.jsonl").read_bytes()
    assert train(run) == 2
    assert (run / "metrics.jsonl").read_bytes() == before
    assert "finished" in capsys.readouterr().err


def test_the_loss_may_not_choose_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 36."""
    assert train(tmp_path / "run", "trainer.monitor=loss/policy") == 2
    assert "trainer.monitor" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_with_step_and_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["algorithm=mle", "algorithm.optimizer.lr=1e30", "algorithm.optimizer.clip_norm=0"]
    assert train(tmp_path / "run", *wild) == 2
    said = capsys.readouterr().err
    assert "step 7, batch 7" in said and "checkpoints/000006" in said and "Traceback" not in said
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_warm_start_below_its_gate_is_a_finding(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "trainer.gate=0.99") == 0
    findings = json.loads((tmp_path / "run" / "results.json").read_text())["findings"]
    assert any(finding["rule"] == "gate" and finding["severity"] == "warning" for finding in findings)
