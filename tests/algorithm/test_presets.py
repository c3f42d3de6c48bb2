"""What holds for every preset of the policy gradient, as its YAML composes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.presets import GRADIENTS, preset
from tests.running import QUICK, lines, tokenrl, train, weights
from tests.world import RECORDED, Capture, Letters, TableReward, TabularPolicy, batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Credit, Rollout
from tokenrl_cli.model.recurrent import Recurrent

TOKENIZER = Letters()
DRAWN = "hypotheses=samples"  # these settings are of samples, not of a beam search
SAMPLING = {  # a cut goes with no k3 in the loss
    "plain": [],
    "cold": ["temperature=0.7", DRAWN],
    "two": ["top_k=2", "kl_loss_coef=0", DRAWN],
    "nucleus": ["top_p=0.8", "temperature=1.3", "kl_loss_coef=0", DRAWN],
    "explored": ["epsilon=0.1", DRAWN],
    "all": ["top_k=2", "top_p=0.9", "temperature=0.8", "epsilon=0.05", "kl_loss_coef=0", DRAWN],
}
SEVERAL = ["reinforce", "scst", "remax", "mixer", "vine"]  # one sample a source, unless asked


def gru(dtype: torch.dtype = torch.float64) -> Recurrent:
    torch.manual_seed(3)
    return Recurrent(TOKENIZER, TOKENIZER, "gru", 5, 7, 1, 0.5, False, False).to(dtype)


def around(name: str, model: nn.Module, *overrides: str) -> Any:
    """The preset with a gradient that is kept instead of used, and every random draw of the first step."""
    words = [f"algorithm.{word}" for word in ("epochs=1", "minibatches=1", *overrides)]
    algorithm = preset(name, model, TOKENIZER, 3, *words)
    critic = getattr(algorithm.critic, "head", None)
    algorithm.optimizer = Capture([*model.parameters(), *(critic.parameters() if critic else ())])
    return algorithm


def collected(algorithm: Any, sources: int = 5, credit: Credit | None = None) -> Rollout:
    batch = batch_of(sources)
    table = TableReward(RECORDED.table)
    return judge(algorithm.collect(batch), batch, TOKENIZER, table, credit or Delta())[0]


def gradients(algorithm: Any) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in algorithm.optimizer.parameters]


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", GRADIENTS)
def test_through_a_network_the_gradient_is_that_of_the_table_pulled_back(name: str) -> None:
    """A GRU and a table with its logits, given the same episodes: d loss / d weights = d logits / d weights * table's.

    What the table's gradient is worth is told by enumeration elsewhere. Of KL, the reference is the policy itself.
    """
    network = gru()
    algorithm = around(name, network, "samples_per_source=3", "kl_loss_coef=0", "nll_mix=0")
    rollout = collected(algorithm, 4)
    algorithm.update(rollout)
    found = gradients(algorithm)[: len(list(network.parameters()))]

    one = torch.ones(len(RECORDED.states), 1, dtype=torch.int64)
    said = torch.tensor([[*prefix, 0, 0, 0][:3] for prefix in RECORDED.states])
    at = torch.tensor([len(prefix) for prefix in RECORDED.states])
    logits = network(one, one.bool(), said).logits[torch.arange(len(at)), at]
    table = TabularPolicy(logits.detach().tolist())
    around_table = around(name, table, "samples_per_source=3", "kl_loss_coef=0", "nll_mix=0")
    around_table.update(rollout)
    pulled = torch.autograd.grad(logits, list(network.parameters()), table.table.grad, allow_unused=True)
    assert max(float(g.abs().max()) for g in found) > 1e-6
    for ours, theirs in zip(found, pulled, strict=True):
        assert (ours - (0 if theirs is None else theirs)).abs().max() < 1e-10


@pytest.mark.sample(12)
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("name", GRADIENTS)
def test_the_first_ratio_is_1_however_it_was_sampled(name: str, sampling: str) -> None:
    """Traps 12 and 13: the scorer sees the distribution that was sampled from, dropout of 0.5 or not. The presets take
    the two precisions in turn."""
    turn = (list(GRADIENTS).index(name) + list(SAMPLING).index(sampling)) % 2
    dtype, tolerance = ((torch.float64, 1e-10), (torch.float32, 1e-4))[turn]
    algorithm = around(name, gru(dtype).train(), "samples_per_source=2", *SAMPLING[sampling])
    logged = algorithm.update(collected(algorithm))
    assert logged["sampling/logp_difference/max"] < tolerance
    assert logged["approx_kl"] < tolerance
    assert logged["clip_ratio/low"] == logged["clip_ratio/high"] == 0


@pytest.mark.sample(6)
@pytest.mark.parametrize(("parts", "dtype", "tolerance"), [(2, torch.float64, 1e-10), (4, torch.float32, 1e-4)])
@pytest.mark.parametrize("name", GRADIENTS)
def test_micro_batches_change_no_gradient(name: str, parts: int, dtype: torch.dtype, tolerance: float) -> None:
    """O29, trap 9: of ragged episodes, every term on."""
    terms = ["samples_per_source=3", "entropy_coef=0.1", "nll_mix=0.2", "kl_loss_coef=0.3"]
    found = []
    for micro_batches in (1, parts):
        algorithm = around(name, gru(dtype), *terms, f"micro_batches={micro_batches}")
        algorithm.update(collected(algorithm))
        found.append(gradients(algorithm))
    assert max(float((a - b).abs().max()) for a, b in zip(*found, strict=True)) < tolerance


def padded(rollout: Rollout, junk: int) -> Rollout:
    """Twice as wide; what is masked says `junk`, and was paid for it."""
    wide = {}
    for name in ("actions", "mask", "chosen", "logprobs", "rewards"):
        value = getattr(rollout, name)
        wide[name] = nn.functional.pad(value, (0, value.shape[1]))
    hidden = ~wide["mask"]
    wide["actions"] = wide["actions"].masked_fill(hidden, junk)
    wide["logprobs"] = wide["logprobs"].masked_fill(hidden, -7.0)
    wide["rewards"] = wide["rewards"].masked_fill(hidden, 9.0)
    return replace(rollout, support=None, **wide)


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", GRADIENTS)
def test_what_comes_after_the_end_counts_for_nothing(name: str) -> None:
    """O28, traps 2, 3, 4, 6 and 22: padding, what it says and what it would be paid change no number."""
    algorithm = around(name, gru(), "samples_per_source=3", "entropy_coef=0.1", "nll_mix=0.2", "kl_loss_coef=0.3")
    rollout = collected(algorithm)
    assert not bool(rollout.mask.all())
    logged, found = [], []
    for each in (rollout, padded(rollout, 1), padded(rollout, 2)):
        algorithm.updates = algorithm.rollouts = 0
        if hasattr(algorithm.baseline, "load_state_dict"):
            algorithm.baseline.load_state_dict({"average": 0.0, "weight": 0.0})
        algorithm.kl.coefficient = 0.01
        algorithm.reference.model = algorithm.reference.model or algorithm.model
        logged.append(algorithm.update(each))
        found.append(gradients(algorithm))
    for other_logged, other in zip(logged[1:], found[1:], strict=True):
        assert other_logged == pytest.approx(logged[0], abs=1e-12)
        assert max(float((a - b).abs().max()) for a, b in zip(found[0], other, strict=True)) < 1e-12


class Ambiguous(Letters):
    """Both letters are written "a": decoding and encoding again would not give the tokens back."""

    def decode(self, ids: Any) -> str:
        return super().decode(ids).replace("b", "a")


def test_trained_tokens_are_the_sampled_ones_whatever_their_text() -> None:
    """Trap 15."""
    algorithm, batch = around("rloo", gru()), batch_of(6)
    rollout = algorithm.collect(batch)
    table = TableReward({"a" * length: float(length) for length in range(4)})
    judged, _ = judge(rollout, batch, Ambiguous(), table, Terminal())
    assert torch.equal(judged.actions, rollout.actions)
    assert (judged.actions == 2).any()
    network = gru().eval()
    one = torch.ones(len(rollout), 1, dtype=torch.int64)
    logits = network(one, one.bool(), rollout.actions).logits.log_softmax(-1)
    taken = logits.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
    lengths = (rollout.mask & (rollout.actions != 0)).sum(-1).double().view(-1, 4)
    gains = (lengths - (lengths.sum(1, keepdim=True) - lengths) / 3).flatten().unsqueeze(-1)
    loss = -(gains * taken).masked_fill(~rollout.mask, 0.0).sum() / len(rollout)
    algorithm.update(judged)
    for ours, theirs in zip(gradients(algorithm), torch.autograd.grad(loss, list(network.parameters())), strict=True):
        assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_order_of_the_sources_changes_no_gradient(name: str) -> None:
    """O28."""
    algorithm = around(name, gru(), "samples_per_source=2", "nll_mix=0.2")
    rollout = collected(algorithm)
    algorithm.update(rollout)
    before = gradients(algorithm)
    order = (rollout.group.max() - rollout.group).argsort(stable=True)  # sources backwards
    place = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
    turned = replace(rollout.rows(order), parent=place[rollout.parent[order]], group=rollout.group)
    algorithm.updates = algorithm.rollouts = 0
    if hasattr(algorithm.baseline, "load_state_dict"):
        algorithm.baseline.load_state_dict({"average": 0.0, "weight": 0.0})
    algorithm.update(turned)
    assert max(float((a - b).abs().max()) for a, b in zip(before, gradients(algorithm), strict=True)) < 1e-12


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", GRADIENTS)
def test_every_preset_trains_and_its_first_ratio_is_1(name: str, tmp_path: Path) -> None:
    chosen = [f"algorithm={name}", "algorithm.epochs=2", "algorithm.minibatches=2", "credit=delta"]
    assert train(tmp_path / "run", *QUICK, *chosen) == 0
    logged = [
        line["metrics"] for line in lines(tmp_path / "run") if line["split"] == "train" and line["stage"] == "train"
    ]
    assert all(metrics["sampling/logp_difference/max"] < 1e-4 for metrics in logged)
    assert all(metrics["approx_kl"] >= 0 for metrics in logged)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "chosen",
    [
        ["algorithm=grpo", "algorithm.epochs=2", "algorithm.minibatches=3"],
        ["algorithm=ppo", "algorithm/reference=moving_average"],
        ["algorithm=vine", "algorithm/reference=periodic", "algorithm.kl_coef=0.1", "algorithm.reference.every=2"],
        ["algorithm=mixer", "algorithm.forced_prefix.every=2", "algorithm.forced_prefix.start=1"],
    ],
    ids=lambda chosen: chosen[0].split("=")[1],
)
def test_what_is_remembered_resumes_to_the_same_bits(chosen: list[str], tmp_path: Path) -> None:
    """Trap 35: the KL coefficient, the critic, the moved reference, the curriculum."""
    assert train(tmp_path / "whole", *chosen) == 0
    assert train(tmp_path / "part", *chosen, "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=6") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
