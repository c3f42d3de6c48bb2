"""Parts that are given facts by name: they get each one that their slot declares, and no other can be asked for."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from omegaconf import OmegaConf
from torch import Tensor

from tests.presets import composed
from tests.world import REWARDS, WORLD, Letters, TableReward, TabularPolicy, batch_of
from tokenrl_cli.algorithm import facts
from tokenrl_cli.config.build import build
from tokenrl_cli.config.types import parameters_of
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Algorithm, UserError

SEEN: set[str] = set()


def returns(rewards: Tensor, mask: Tensor, values: Tensor, fresh: Tensor) -> Tensor:
    SEEN.add("returns")
    return rewards * mask + 0 * values * fresh


def baseline(
    returns: Tensor,
    values: Tensor,
    valid: Tensor,
    scores: Tensor,
    companion: Tensor,
    mask: Tensor,
    likelihoods: Tensor,
) -> Tensor:
    SEEN.add("baseline")
    assert valid.shape == scores.shape == likelihoods.shape == returns.shape[:2]
    assert values.shape == mask.shape == returns.shape
    assert companion.dim() == 2
    return 0 * returns


def normalisation(
    advantages: Tensor,
    returns: Tensor,
    values: Tensor,
    valid: Tensor,
    scores: Tensor,
    mask: Tensor,
    likelihoods: Tensor,
) -> Tensor:
    SEEN.add("normalisation")
    return advantages


def surrogate(logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    SEEN.add("surrogate")
    return logprobs * advantages + 0 * sampled_logprobs, mask & False


def aggregation(mask: Tensor, max_length: int) -> Tensor:
    SEEN.add("aggregation")
    return mask / max_length


def divergence(logprobs: Tensor, reference_logprobs: Tensor, logits: Tensor, reference_logits: Tensor) -> Tensor:
    SEEN.add("divergence")
    assert logits.shape == reference_logits.shape
    return logprobs - reference_logprobs


def consistency(
    values: Tensor, rewards: Tensor, log_ratios: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    SEEN.add("consistency")
    residual = (values[:, :-1] - rewards + temperature * log_ratios) * mask
    return residual.square(), residual


def backup(target: Tensor, online: Tensor, policy: Tensor) -> Tensor:
    SEEN.add("backup")
    return (target * policy).sum(-1).amin(0) + 0 * online.amin((0, -1))


GRADIENT = ("returns", "baseline", "normalisation", "surrogate", "aggregation", "divergence")
SLOTS = {**dict.fromkeys(GRADIENT, "ppo"), "consistency": "pcl", "backup": "dqn"}


def block_with(name: str, *parts: str) -> dict[str, Any]:
    more = ("algorithm.kl_loss_coef=0.1",) if name == "ppo" else ()
    block: Any = OmegaConf.to_container(composed((f"algorithm={name}", *more)).algorithm, resolve=True)
    for part in parts:
        block[part] = {"_target_": f"{__name__}.{part}", "_partial_": True}
    return dict(block)


def built(block: dict[str, Any]) -> Any:
    policy = TabularPolicy(WORLD["policy_logits"])
    known: dict[str, Any] = {"model": policy, "tokenizer": Letters(), "source_tokenizer": Letters(), "max_length": 3}
    return build(block, Algorithm, [__name__], device="cpu", seed=0, **known)


@pytest.mark.parametrize("slot", SLOTS)
def test_the_parts_here_ask_for_every_fact_that_their_slot_declares(slot: str) -> None:
    asked = set(parameters_of(globals()[slot])[0])
    assert asked == set(get_args(vars(facts)[slot.title()])[1].names)


def test_a_policy_gradient_gives_its_parts_all_that_it_declares() -> None:
    SEEN.clear()
    algorithm = built(block_with("ppo", *GRADIENT))
    learn(algorithm)
    assert set(GRADIENT) == SEEN


@pytest.mark.parametrize("slot", ["consistency", "backup"])
def test_a_value_method_gives_its_part_all_that_it_declares(slot: str) -> None:
    SEEN.clear()
    learn(built(block_with(SLOTS[slot], slot)))
    assert {slot} == SEEN


def learn(algorithm: Any) -> None:
    batch = batch_of(2)
    algorithm.update(judge(algorithm.collect(batch), batch, Letters(), TableReward(dict(REWARDS)), Terminal())[0])


def near(valuess: Tensor, mask: Tensor, horizon: float) -> Tensor:
    return valuess


class Remembering:
    def __call__(self, return_: Tensor) -> Tensor:
        return return_


def test_a_part_that_asks_for_what_its_slot_never_gives_is_refused_with_what_is_near() -> None:
    block = block_with("ppo")
    block["returns"] = {"_target_": f"{__name__}.near", "_partial_": True, "horizon": 1}
    said = r"algorithm.returns: .*near asks for 'valuess'.*\(did you mean 'values'\?\); there are rewards, mask, values"
    with pytest.raises(UserError, match=said):
        built(block)
    block["returns"] = {"_target_": f"{__name__}.returns", "_partial_": True}
    block["baseline"] = {"_target_": f"{__name__}.Remembering"}
    with pytest.raises(UserError, match=r"algorithm.baseline: .*Remembering asks for 'return_'.*'returns'"):
        built(block)
    block["baseline"] = {"_target_": f"{__name__}.baseline", "_partial_": True, "returns": 1}
    block["surrogate"] = {"_target_": f"{__name__}.divergence", "_partial_": True}
    with pytest.raises(UserError, match=r"algorithm.surrogate: .*divergence asks for 'reference_logprobs'"):
        built(block)
