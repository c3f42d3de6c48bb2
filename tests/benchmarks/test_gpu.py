"""The proof on a GPU: a check that fails is seen and hides no other, and all of it runs, small, on the CPU."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import ON_CPU, Failure, Proof, difference, gap, line, prove, same_bits, summary, within
from tests.running import train
from tokenrl_cli.checkpoint import find


def proof(folder: Path, limit: float = 300.0) -> Proof:
    return Proof(torch.device("cpu"), ON_CPU, folder, limit)


def fails(proof: Proof, reason: str) -> gpu.Numbers:
    raise Failure(reason, {"largest": 0.5})


def test_a_check_that_fails_is_kept_with_its_numbers_and_hides_no_other(tmp_path: Path) -> None:
    made = proof(tmp_path)
    made.check("first", fails, "too large")
    made.check("second", lambda proof: 1 // 0)
    made.check("third", lambda proof: {"mean": 0.0})
    assert made.failed == ["first", "second"]
    assert made.checks["first"] | {"seconds": 0} == {
        "passed": False,
        "seconds": 0,
        "reason": "too large",
        "largest": 0.5,
    }
    assert made.checks["second"]["reason"].startswith("ZeroDivisionError: ") and made.checks["third"]["passed"]
    assert summary(made)["failed"] == ["first", "second"]
    assert line("third", made.checks["third"]).startswith("ok") and "mean 0.0" in line("third", made.checks["third"])


def test_what_has_no_time_left_is_stopped_or_not_run_and_counts_as_failed(tmp_path: Path) -> None:
    made = proof(tmp_path, 0.2)
    began = time.monotonic()
    made.check("first", lambda proof: time.sleep(60) or {})
    made.check("second", lambda proof: {})
    assert time.monotonic() - began < 30
    assert made.checks["first"]["reason"] == "stopped: the time was over"
    assert made.checks["second"]["reason"] == "not run: no time was left"
    assert made.failed == ["first", "second"]


def test_gaps_are_taken_over_real_tokens_and_nan_is_one() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    one = torch.tensor([[0.0, 1.0], [2.0, 99.0]])
    largest, mean = gap(one, one + torch.tensor([[0.0, 0.3], [0.0, 5.0]]), mask)
    assert (largest, mean) == pytest.approx((0.3, 0.1))
    assert not within(*gap(one, one * torch.nan, mask), torch.float32)
    assert within(9e-5, 1e-5, torch.float32) and not within(2e-4, 1e-5, torch.float32)
    assert within(0.4, 0.04, torch.bfloat16) and not within(0.4, 0.06, torch.bfloat16)


def test_bits_are_compared_and_not_values() -> None:
    zero = torch.tensor([0.0])
    assert same_bits(torch.tensor([torch.nan]), torch.tensor([torch.nan])) and not same_bits(zero, -zero)
    assert not same_bits(zero, zero.double()) and not same_bits(zero, torch.zeros(1, 1)) and not same_bits(zero, None)
    assert same_bits(3, 3) and not same_bits(3, 4) and not same_bits(1, True)
    assert same_bits(torch.tensor(2), torch.tensor(2)) and not same_bits(torch.tensor(2), torch.tensor(3))


def test_two_runs_that_learned_otherwise_differ(tmp_path: Path) -> None:
    for seed in (1, 2):
        train(tmp_path / str(seed), f"seed={seed}", "trainer.warm_start_steps=1", "trainer.steps=1")
    assert difference(tmp_path / "1", tmp_path / "1") == []
    differing = difference(tmp_path / "1", tmp_path / "2")
    assert "bias" in differing and any(name.startswith("optimizer.") for name in differing)
    assert find(tmp_path / "1", ("last",)).name == "000002"


def test_the_models_are_as_large_as_is_said_and_the_time_as_short() -> None:
    assert gpu.LIMIT <= 360 and 0 < gpu.SPARE < 60
    sizes = {name: sum(each.numel() for each in _parameters(name)) / 1e6 for name in gpu.ON_GPU.sizes}
    assert sizes["lstm"] == pytest.approx(25, abs=1) and sizes["gpt"] == pytest.approx(124, abs=1)
    assert gpu.ON_GPU.sources * gpu.ON_GPU.samples == 512 and gpu.ON_GPU.tokens == 128


def _parameters(name: str) -> list[torch.nn.Parameter]:
    with torch.device("meta"):
        return list(gpu.large_model(name, gpu.ON_GPU).parameters())


def test_all_of_it_runs_on_the_cpu(tmp_path: Path) -> None:
    made = proof(tmp_path)
    prove(made)
    assert {name: made.checks[name]["reason"] for name in made.failed} == {}
    kinds = {name.split()[0] for name in made.checks}
    assert kinds == {"no", "logprobs", "preset", "resume", "speed", "transformers", "demo"}
