"""A stopped and resumed run equals one that was never stopped, and evaluating or logging changes no training number."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.running import QUICK, TINY, acting, lines, tokenrl, train, weights
from tokenrl_cli.commandline.earlier_run import refuse_changes
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.run.evaluation import evaluate
from tokenrl_cli.run.recorder import Recorder

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
    """Acts as if Ctrl-C had been pressed during step `at`."""
    step = Recorder.step

    def interrupted(self: Recorder, stage: Any, done: int, *rest: Any) -> bool:
        if done == at:
            self.signal = 2
        return step(self, stage, done, *rest)

    monkeypatch.setattr(Recorder, "step", interrupted)


@pytest.mark.sample(2)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stopping_and_going_on_gives_the_same_bits(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All logged metrics and all tensors are equal after a stop in the warm start (4), at the switch (6) or in RL
    (9)."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *ALGORITHMS[algorithm]) == 0
    stops = (4, 6, 9) if algorithm in ("rloo", "soft_q") else (9,)  # the warm start of all is the same
    for at in stops:
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            if at == stops[0]:
                assert train(stopped, *ALGORITHMS[algorithm]) == 130
            else:
                assert tokenrl("train", f"resume={stopped}") == 130
        assert not (stopped / "results.json").exists()
    assert tokenrl("train", f"resume={stopped}") == 0
    assert lines(stopped) == lines(whole)
    assert weights(stopped) == weights(whole)
    assert acting(stopped, "best") == acting(whole, "best")
    same = [json.loads((run / "results.json").read_text())["test"] for run in (whole, stopped)]
    assert same[0] == same[1]


def test_a_finished_run_can_be_taken_further(tmp_path: Path) -> None:
    """A run of 3 RL steps that is resumed to 6 equals a run of 6: no schedule depends on the end of the run."""
    whole, further = tmp_path / "whole", tmp_path / "further"
    assert train(whole) == 0
    assert train(further, "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={further}", "trainer.steps=6") == 0
    assert weights(further) == weights(whole)
    assert lines(further)[-3:] == lines(whole)[-3:]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    """The seed determines initial weights, batches, samples and dropout."""
    runs = [tmp_path / name for name in "abc"]
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        assert train(run, f"seed={seed}") == 0
    assert weights(runs[0]) == weights(runs[1])
    assert lines(runs[0]) == lines(runs[1])
    assert weights(runs[0]) != weights(runs[2])
    said = [(run / "samples.jsonl").read_text("utf-8") for run in runs]
    assert said[0] == said[1] != said[2]


def test_looking_more_often_changes_no_training_number(tmp_path: Path) -> None:
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    assert train(often, "trainer.eval_every=1", "trainer.warm_start_patience=0") == 0
    assert train(seldom, "trainer.eval_every=6", "trainer.warm_start_patience=0") == 0
    # the RL stage starts from the best evaluation of the warm start, so compare up to the switch ...
    numbers = [[r for r in lines(run) if r["split"] == "train" and r["step"] <= 6] for run in (often, seldom)]
    assert numbers[0] == numbers[1]
    assert numbers[0]
    # ... and after it where there is only one to start from
    for run, every in ((tmp_path / "often2", 1), (tmp_path / "seldom2", 6)):
        assert train(run, f"trainer.eval_every={every}", "trainer.warm_start_steps=0") == 0
    numbers = [[r for r in lines(tmp_path / name) if r["split"] == "train"] for name in ("often2", "seldom2")]
    assert numbers[0] == numbers[1]
    assert numbers[0]


@pytest.mark.slow
def test_micro_batches_change_no_result_beyond_rounding(tmp_path: Path) -> None:
    """The denominators of all means are those of the whole optimiser step, not of the micro-batch."""
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
    assert train(tmp_path / "run", "trainer.monitor=loss/policy") == 2
    assert "trainer.monitor" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_with_step_and_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["algorithm=mle", "algorithm.optimizer.lr=1e30", "algorithm.optimizer.clip_norm=0"]
    assert train(tmp_path / "run", *wild) == 2
    said = capsys.readouterr().err
    assert "step 7 of seed 1" in said
    assert "checkpoints/000006" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_warm_start_below_its_gate_is_a_finding(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "trainer.gate=0.99") == 0
    findings = json.loads((tmp_path / "run" / "results.json").read_text())["findings"]
    assert any(finding["rule"] == "gate" and finding["severity"] == "warning" for finding in findings)


# ----------------------------------------------------------------------------------- which checkpoint a run stands for


def on_val(run: Path, stage: str) -> list[tuple[int, dict[str, Any]]]:
    """Step and metrics of every evaluation of a stage on val, in order."""
    return [(r["step"], r["metrics"]) for r in lines(run) if r["split"] == "val" and r["stage"] == stage]


def step_of(run: Path, name: str) -> int:
    return int((run / "checkpoints" / name).resolve().name)


LONGER = ["trainer.warm_start_steps=12", "trainer.eval_every=2", "trainer.keep_last=9"]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "pick"), [("nll", min), ("policy/target_rank", min), ("token_accuracy", max)])
def test_the_warm_start_is_chosen_by_its_own_monitor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, pick: Any
) -> None:
    run = tmp_path / "run"
    assert train(run, f"trainer.warm_start_monitor={name}", *LONGER) == 0
    seen = on_val(run, "warm_start")
    wanted = pick(metrics[name] for _, metrics in seen)
    first = next(step for step, metrics in seen if metrics[name] == wanted)
    assert step_of(run, "warm_start") == first
    end = "lowest" if pick is min else "highest"
    assert f"step {first} of the warm start, the {end} {name} ({wanted:.4g})" in capsys.readouterr().err


@pytest.mark.slow
def test_rl_may_start_from_the_last_step_and_then_looking_changes_nothing(tmp_path: Path) -> None:
    numbers = []
    for name, every in (("often", 1), ("seldom", 6)):
        assert train(tmp_path / name, "trainer.warm_start_from=last", f"trainer.eval_every={every}") == 0
        assert step_of(tmp_path / name, "warm_start") == 6
        numbers.append([r for r in lines(tmp_path / name) if r["split"] == "train"])
    assert numbers[0] == numbers[1]
    assert numbers[0]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "pick"), [("policy/target_rank", min), ("token_accuracy", max), ("nll", min)])
def test_the_best_of_the_run_is_where_its_monitor_is_best(tmp_path: Path, name: str, pick: Any) -> None:
    run = tmp_path / "run"
    assert train(run, f"trainer.monitor={name}", *LONGER, "algorithm.optimizer.lr=0.02") == 0
    seen = [m[name] for step, m in on_val(run, "warm_start") if step == step_of(run, "warm_start")]
    seen += [metrics[name] for _, metrics in on_val(run, "train")]
    assert json.loads((run / "results.json").read_text())["objective"] == pick(seen)


def test_a_checkpoint_is_decoded_once_on_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often the best checkpoint is the one that RL starts from or ends with, and a large model decodes for minutes."""
    decoded: list[str] = []

    def counted(policy: Any, task: Any, split: str, *rest: Any) -> Any:
        decoded.append(split)
        return evaluate(policy, task, split, *rest)

    monkeypatch.setattr("tokenrl_cli.run.recorder.evaluate", counted)
    for name, best, more in (("last", 4, ["trainer.monitor=nll", "algorithm=mle"]), ("none", 2, ["trainer.steps=0"])):
        decoded.clear()
        assert train(tmp_path / name, *QUICK, *more) == 0
        results = json.loads((tmp_path / name / "results.json").read_text("utf-8"))
        assert results["steps"]["best"] == best
        assert results["test"]["best"] == results["test"]["final" if name == "last" else "warm_start"]
        assert decoded.count("test") == 2
        tested = [line["stage"] for line in lines(tmp_path / name) if line["split"] == "test"]
        assert tested == ["final", "warm_start", "best"], "the journal has all three"


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", ["entropy", "policy/mode_prob", "completions/mean_length", "bleuu", "loss/nll"])
@pytest.mark.parametrize("key", ["monitor", "warm_start_monitor"])
def test_a_number_that_knows_no_better_cannot_choose_and_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, key: str
) -> None:
    assert tokenrl("validate", *TINY, f"trainer.{key}={name}") == 2
    assert f"trainer.{key}" in (said := capsys.readouterr().err)
    assert "Traceback" not in said


def test_patience_counts_evaluations_by_the_warm_starts_monitor(tmp_path: Path) -> None:
    """With a learning rate of almost 0 no evaluation improves on the first."""
    run = tmp_path / "run"
    stuck = ["warm_start.optimizer.lr=1e-12", "warm_start.optimizer.schedule.warmup_steps=0"]
    assert (
        train(run, *LONGER, *stuck, "trainer.warm_start_patience=2", "trainer.warm_start_monitor=token_accuracy") == 0
    )
    assert [step for step, _ in on_val(run, "warm_start")] == [2, 4, 6]


def test_the_warm_start_ends_at_a_reward_or_a_time_and_says_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any reward is above -9: the first evaluation, after two steps, ends it. A limit of time too short for a step ends
    it after the first, which is evaluated."""
    reached, late = tmp_path / "reached", tmp_path / "late"
    assert train(reached, *LONGER, "trainer.warm_start_until=-9") == 0
    assert [step for step, _ in on_val(reached, "warm_start")] == [2]
    said = capsys.readouterr().err
    assert "warm start ends at step 2, its reward on val is" in said
    assert "trainer.warm_start_until=-9 is reached" in said
    assert train(late, *LONGER, "trainer.warm_start_max_time=1e-9") == 0
    assert [step for step, _ in on_val(late, "warm_start")] == [1]
    assert "trainer.warm_start_max_time=1e-09 seconds is reached" in capsys.readouterr().err
    assert on_val(late, "train")  # RL goes on


def test_nll_is_the_mean_over_the_tokens_of_the_references(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run) == 0
    saved = checkpoint.load(checkpoint.find(run, ("last",)))
    task = assembly.task_of(saved.config, [], torch.device("cpu"), torch.float32, 1, saved.tokenizer_dir)
    policy = assembly.policy_of(saved, saved.config, [], task)
    total = count = 0.0
    for i in range(16):
        example = task.dataset.example("test", i)
        source = torch.tensor([task.source_reader.encode(example.source)])
        ids = torch.tensor([[*task.tokenizer.encode(example.references[0]), task.tokenizer.eos_id]])
        logprobs = policy(source, torch.ones_like(source, dtype=torch.bool), ids).logits.detach().log_softmax(-1)
        total -= float(logprobs[0, range(ids.shape[1]), ids[0]].sum())
        count += ids.shape[1]
    final = json.loads((run / "results.json").read_text())["test"]["final"]
    assert final["nll"] == pytest.approx(total / count, rel=1e-5)
    assert final["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


# ------------------------------------------------------------------------------------------------ values and a resume


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two interrupted runs: one whose last checkpoint is of the warm start, one whose last checkpoint is of RL."""
    home = tmp_path_factory.mktemp("stopped")
    for name, steps in (("warm_start", 0), ("train", 6)):
        assert train(home / name, f"trainer.steps={steps}", "algorithm/baseline=moving_average") == 0
        (home / name / "results.json").unlink()
    return home


ACTS_NO_MORE = ["trainer.warm_start_steps=200", "warm_start.optimizer.lr=1e-4", "trainer.warm_start_batch_size=9"]
ACTS_NO_MORE += ["trainer.gate=0.1", "trainer.warm_start_from=last", "warm_start.label_smoothing=0.2"]
CHANGES_MEANING = ["trainer.monitor=sampled_reward", "trainer.warm_start_monitor=reward", "trainer.eval_examples=4"]
CHANGES_MEANING += ["dataset.test_size=3", "dataset.symbols=4", "metrics.bleu.lowercase=true", "decode.max_length=5"]
CHANGES_MEANING += ["~metrics.bleu"]  # what is taken away
CHANGES_MEANING += ["decode.temperature=0.5", "seed=9", "model.tied=false", "init_from=there", "tokenizer.min_count=2"]


@pytest.mark.sample(2)
@pytest.mark.parametrize("override", [*ACTS_NO_MORE, *CHANGES_MEANING])
def test_what_can_act_no_more_is_refused_on_resume(
    stopped: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    run = stopped / "train"
    before = (run / "config.yaml").read_bytes()
    assert tokenrl("train", f"resume={run}", override) == 2
    said = capsys.readouterr().err
    assert override.partition("=")[0].lstrip("+~") in said, said
    assert "cannot be changed on resume" in said, said
    assert (run / "config.yaml").read_bytes() == before
    assert not (run / "results.json").exists()


@pytest.mark.parametrize("override", ACTS_NO_MORE)
def test_during_the_warm_start_its_values_may_change(stopped: Path, override: str) -> None:
    saved = checkpoint.load(checkpoint.find(stopped / "warm_start", ("last",)))
    key, _, value = override.partition("=")
    changed = copy.deepcopy(saved.config)
    *parents, last = key.split(".")
    block = changed
    for parent in parents:
        block = block[parent]
    block[last] = value
    refuse_changes(saved.config, "warm_start", changed)
    with pytest.raises(UserError, match="the warm start is over"):
        refuse_changes(saved.config, "train", changed)


def test_where_the_data_lie_may_change_on_resume() -> None:
    before = {"data_root": "/old", "dataset": {"path": "/old/set"}, "algorithm": {"optimizer": {"lr": 1.0}}}
    now = {"data_root": "new", "dataset": {"path": "new/set"}, "algorithm": {"optimizer": {"lr": 2.0}}}
    refuse_changes(before, "train", now)
    with pytest.raises(UserError, match=r"dataset.path=.*other"):
        refuse_changes(before, "train", now | {"dataset": {"path": "new/other"}})


@pytest.mark.sample(1)
@pytest.mark.parametrize(("horizon", "said"), [(9, "does not fall to its end"), (4, "has the lowest"), (6, "")])
def test_a_horizon_that_is_not_its_stages_length_is_said(tmp_path: Path, horizon: int, said: str) -> None:
    assert train(tmp_path / "run", f"warm_start.optimizer.schedule.horizon={horizon}", "trainer.steps=0") == 0
    findings = json.loads((tmp_path / "run" / "results.json").read_text())["findings"]
    found = [finding for finding in findings if finding["rule"] == "horizon"]
    assert [said in finding["text"] and finding["severity"] == "note" for finding in found] == ([True] if said else [])


@pytest.mark.parametrize("key", ["kl_coef", "kl_loss_coef"])
def test_kl_cannot_be_switched_on_by_a_resume(stopped: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    """The reference is a copy of the policy at the switch, which a run without KL has not kept."""
    assert tokenrl("train", f"resume={stopped / 'train'}", f"algorithm.{key}=0.05", "trainer.steps=8") == 2
    assert "has kept no reference" in (said := capsys.readouterr().err)
    assert "Traceback" not in said
