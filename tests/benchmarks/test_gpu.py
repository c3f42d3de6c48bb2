"""The proof on a GPU: a check that fails is seen and hides no other, and all of it runs, small, on the CPU."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import ON_CPU, Failure, Proof, Scale, difference, gap, line, prove, same_bits, summary, within
from tokenrl_cli.run import checkpoint


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
    assert made.checks["second"]["reason"].startswith("ZeroDivisionError: ")
    assert made.checks["third"]["passed"]
    assert summary(made)["failed"] == ["first", "second"]
    assert line("third", made.checks["third"]).startswith("ok")
    assert "mean 0.0" in line("third", made.checks["third"])


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
    assert within(9e-5, 1e-5, torch.float32)
    assert not within(2e-4, 1e-5, torch.float32)
    assert within(0.4, 0.04, torch.bfloat16)
    assert not within(0.4, 0.06, torch.bfloat16)


def test_bits_are_compared_and_not_values() -> None:
    zero = torch.tensor([0.0])
    assert same_bits(torch.tensor([torch.nan]), torch.tensor([torch.nan]))
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.double())
    assert not same_bits(zero, torch.zeros(1, 1))
    assert not same_bits(zero, None)
    assert same_bits(3, 3)
    assert not same_bits(3, 4)
    assert not same_bits(1, True)
    assert same_bits(torch.tensor(2), torch.tensor(2))
    assert not same_bits(torch.tensor(2), torch.tensor(3))


def saved(folder: Path, weight: float, moment: float, average: float) -> Path:
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, weight)
    torch.nn.init.constant_(model.bias, 0.0)
    algorithm = {"optimizer.0.exp_avg": torch.tensor([moment]), "baseline.average": average}
    checkpoint.set_link(folder, "last", checkpoint.save(folder, 3, model, algorithm, {}, {}, {}))
    return folder


def test_two_runs_differ_where_a_weight_a_moment_or_a_memory_does(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", 1.0, 0.5, 0.25)
    assert difference(one, saved(tmp_path / "same", 1.0, 0.5, 0.25)) == []
    others = ((1.0 + 1e-7, 0.5, 0.25), (1.0, 0.5 + 1e-7, 0.25), (1.0, 0.5, 0.25 + 1e-16))
    found = [difference(one, saved(tmp_path / f"{number}", *values)) for number, values in enumerate(others)]
    assert found == [["weight"], ["optimizer.0.exp_avg"], ["baseline.average"]]


def test_bits_that_differ_fail_and_an_operation_without_an_order_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def compared(proof: Proof, folder: Path, model: str, name: str) -> list[str]:
        said.append(folder.name)
        if folder.name == "strict" and name == "ppo":
            raise Failure("RuntimeError: some_cuda does not have a deterministic implementation")
        return ["weight"] if name == "dqn" else []

    monkeypatch.setattr(gpu, "compared", compared)
    made = proof(tmp_path)
    for name in ("rloo", "ppo", "dqn"):
        made.check(name, gpu.resume, "lstm", name)
    assert said == ["strict", "strict", "lenient", "strict"]
    assert made.failed == ["dqn"]
    assert made.checks["rloo"]["deterministic"] == "all"
    assert "some_cuda" in made.checks["ppo"]["deterministic"]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_the_models_are_as_large_as_is_said_and_the_time_as_short() -> None:
    assert gpu.LIMIT <= 360
    assert 0 < gpu.SPARE < 60
    sizes = {name: sum(each.numel() for each in _parameters(name)) / 1e6 for name in gpu.ON_GPU.sizes}
    assert sizes["lstm"] == pytest.approx(25, abs=1)
    assert sizes["gpt"] == pytest.approx(124, abs=1)
    assert gpu.ON_GPU.sources * gpu.ON_GPU.samples == 512
    assert gpu.ON_GPU.tokens == 128


def _parameters(name: str) -> list[torch.nn.Parameter]:
    with torch.device("meta"):
        return list(gpu.large_model(name, gpu.ON_GPU).parameters())


FEW = replace(ON_CPU, presets=[("soft_q", "fp32"), ("rloo", "bf16")], resumed=[("gpt", "rloo")])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [FEW, pytest.param(ON_CPU, marks=pytest.mark.slow)], ids=["few", "all"])
def test_all_of_it_runs_on_the_cpu(scale: Scale, tmp_path: Path) -> None:
    made = Proof(torch.device("cpu"), scale, tmp_path, 300.0)
    prove(made)
    assert {name: made.checks[name]["reason"] for name in made.failed} == {}
    kinds = {name.split()[0] for name in made.checks}
    assert kinds == {"no", "logprobs", "preset", "resume", "speed", "transformers", "demo"}
