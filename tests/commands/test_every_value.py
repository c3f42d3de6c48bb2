"""Every value of every config is replaced by an absurd one, which must be accepted or refused in one clear line."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest
import yaml

from tests.test_house import composed
from tokenrl_cli.commands.keys import Eval, Generate, Train, require_keys
from tokenrl_cli.commands.validate import assembled
from tokenrl_cli.config.build import _value, build, check, locate, parameter_slot
from tokenrl_cli.config.options import conf_dir, options
from tokenrl_cli.config.types import parameters_of
from tokenrl_cli.interfaces import Algorithm, Model, Reward, UserError

ODD = (-1, 0, 1e30, math.nan, "", None, [], {})
HUGE = 10**18
SAMPLE = 120  # of the whole, which `make prove` goes through


class Vocabulary:
    """A tokenizer of which only the size is looked at."""

    size, eos_id, unknown_id = 8, 0, 1


Path = tuple[str, ...]
Case = tuple[dict[str, Any], Path, Any]


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """The keys of all values of a config, lists as a whole included, and of all blocks."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))


def changed(config: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(config)
    inner: Any = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = copy.deepcopy(value)
    return whole


def cases(config: dict[str, Any]) -> list[Case]:
    return [(config, path, value) for path in leaves(config) for value in ODD]


@cache
def train() -> dict[str, Any]:
    return composed("train", "dataset.val_size=8", "dataset.test_size=8")


def require_valid(config: dict[str, Any]) -> None:
    require_keys(config, Train)
    assembled(config, None)


def told(config: dict[str, Any], path: Path, value: Any, judge: Any) -> str:
    """The message about a value, "" if it is accepted. Only a UserError that names the key is allowed."""
    try:
        judge(changed(config, path, value))
        return ""
    except UserError as error:
        if path[0] not in str(error) and path[-1] not in str(error):
            pytest.fail(f"{path} = {value!r}: {error}")
        return str(error)
    except Exception as error:
        raise AssertionError(f"{'.'.join(path)} = {value!r}") from error


def judged(every: list[Case], judge: Any) -> dict[str, str]:
    return {f"{'.'.join(path)}={value!r}": told(config, path, value, judge) for config, path, value in every}


def require_known(found: dict[str, str]) -> None:
    """Fails if a value that can never be valid was accepted."""
    taken = [key for key, said in found.items() if not said]
    assert not [key for key in taken if key.endswith(("=nan", "=''"))], taken


@pytest.mark.slow
def test_a_sample_of_the_values_of_train() -> None:
    require_known(judged(Random(1).sample(cases(train()), SAMPLE), require_valid))


@pytest.mark.slow
def test_every_value_of_train() -> None:
    found = judged(cases(train()), require_valid)
    require_known(found)
    assert sum(not said for said in found.values()) < 0.2 * len(found)


def algorithms(config: dict[str, Any]) -> None:
    facts: dict[str, Any] = {"tokenizer": Vocabulary(), "source_tokenizer": Vocabulary(), "seed": 1, "max_length": 40}
    build(config["algorithm"], Algorithm, [], model=policy(), device="cpu", **facts)


@cache
def policy() -> Any:
    block = train()["model"] | {"hidden": 4, "embedding": 4}
    vocabulary = Vocabulary()
    return build(block, Model, [], tokenizer=vocabulary, source_tokenizer=vocabulary)


def of_presets(names: list[str]) -> list[Case]:
    """The cases made from the block of each preset."""
    every = []
    for name in names:
        block = {"algorithm": composed("train", f"algorithm={name}")["algorithm"]}
        every += [case for case in cases(block) if len(case[1]) > 1]
    return every


def rewards(config: dict[str, Any]) -> None:
    build(config["reward"], Reward, [], tokenizer=Vocabulary(), seed=1, device="cpu", frozen=None)


def test_a_sample_of_the_values_of_algorithms_and_rewards() -> None:
    random = Random(2)
    require_known(
        judged(
            random.sample(of_presets(random.sample(list(options([conf_dir()], "algorithm")), 4)), SAMPLE), algorithms
        )
    )


@pytest.mark.slow
def test_every_value_of_every_algorithm() -> None:
    require_known(judged(of_presets(list(options([conf_dir()], "algorithm"))), algorithms))


RANGES = {
    "algorithm.parts.exploration.Boltzmann": "temperature=0",
    "algorithm.parts.acting.Tilted": "beta=-1",
    "algorithm.parts.exploration.WarmStart": "start=1.1 end=-0.1 steps=0",
    "algorithm.actor_critic.ActorCritic": "samples_per_source=0 target_rate=0 target_rate=1.1 critic_steps=-1 "
    "critic_lr_scale=0 value_penalty=-1 nll_mix=-0.1 micro_batches=0",
    "algorithm.dqn.Dqn": "samples_per_source=0 horizon=0 conservatism=-1 micro_batches=0",
    "algorithm.parts.data.Experience": "minibatch_size=0 updates=0 fresh=1.1 demonstrated=-0.1 capacity=0 priority=-1 "
    "correction=2",
    "algorithm.gold.Gold": "suffix=-1 least=-0.1 floor=1.1 sync_every=0 micro_batches=0",
    "algorithm.parts.head.Linear": "count=0 layer=-1 lr_factor=0",
    "algorithm.parts.head.Logits": "lr_factor=0",
    "algorithm.ilql.Ilql": "beta=-1 expectile=0 expectile=1 value_lr_factor=0 conservatism=-1 behaviour_coef=-1 "
    "advantage_beta=-1 advantage_limit=0.5",
    "algorithm.mle.Mle": "label_smoothing=1 label_smoothing=-0.1 micro_batches=0",
    "algorithm.ocd.Ocd": "samples_per_source=0 temperature=0 tau=0 micro_batches=0",
    "algorithm.parts.critic.Continuations": "continuations=0 stride=0",
    "algorithm.parts.baseline.MovingAverage": "decay=1 decay=-0.1",
    "algorithm.parts.critic.ValueHead": "coef=-1 clip=-1 lr_factor=0",
    "algorithm.parts.state_value.Head": "lr_factor=0",
    "algorithm.path_consistency.PathConsistency": "samples_per_source=0 temperature=0 micro_batches=0",
    "algorithm.policy_gradient.PolicyGradient": "samples_per_source=0 temperature=0 top_k=-1 top_p=0 top_p=1.1 "
    "epsilon=2 overlong_share=1 epochs=0 minibatches=0 kl_coef=-1 kl_target=-1 kl_rate=-1 kl_loss_coef=-1 nll_mix=-1 "
    "micro_batches=0",
    "algorithm.raml.Raml": "tau=0 label_smoothing=1",
    "algorithm.soft_q.SoftQ": "temperature=0",
    "dataset.grammar.Grammar": "val_size=0 test_size=0 max_source_length=0",
    "dataset.jsonl.Jsonl": "path='' source_column='' rl_share=1 rl_share=-0.1 rl_share=nan max_source_length=0",
    "dataset.parallel.Parallel": "path='' source_suffix='' rl_share=1 rl_share=-0.1 rl_split=''",
    "dataset.sequence_task.SequenceTask": "symbols=1 min_symbols=0 corruption=1.1 corruption=-0.1 val_size=0 "
    "test_size=0 max_source_length=0",
    "dataset.text.Text": "path='' piece_words=-1 prompt_words=-1 rl_share=1 rl_share=-0.1 overlong=cut",
    "dataset.walks.Walks": "nodes=2 degree=0 limit=0 train_size=0 val_size=0 test_size=0 max_source_length=0",
    "functional.schedules.annealed": "start=-1 increment=-1 every=0",
    "functional.schedules.linear": "final=1.1 over=0",
    "functional.schedules.moving_average": "rate=2 rate=-0.1",
    "functional.schedules.periodic": "every=0",
    "functional.consistency.path": "span=0",
    "functional.returns.lambda_returns": "gae_lambda=1.1",
    "functional.surrogates.clipped_ratio": "clip_low=-0.1 clip_high=-0.1",
    "model.recurrent.Recurrent": "embedding=0 hidden=0 layers=0 dropout=1 dropout=-0.1",
    "model.transformer.Transformer": "width=0 heads=0 feedforward=0 layers=0 dropout=1",
    "model.gpt.Gpt": "width=0 heads=0 feedforward=0 layers=0 dropout=1",
    "optim.adam": "lr=0 lr=-1 betas=[0.9] betas=[0.9,1.0] eps=0 eps=-1 eps=2 clip_norm=-0.1",
    "optim.adamw": "lr=0 betas=[] eps=0 weight_decay=-1 clip_norm=-0.1",
    "optim.cosine": "warmup_steps=-1 horizon=0 final_fraction=1.1",
    "optim.sgd": "lr=0 momentum=1 weight_decay=-1 clip_norm=-0.1",
    "reward.adequacy.Adequacy": "cached_sources=0",
    "reward.bleu.Bleu": "max_order=0 smoothing_value=0 smoothing_value=inf",
    "reward.callable.UserFunction": "function='' timeout=0 timeout=inf timeout=nan workers=-1 on_error=skip "
    "max_failed_fraction=0 max_failed_fraction=1.1",
    "reward.chrf.Chrf": "char_order=0 word_order=-1 beta=0",
    "reward.classifier.Classifier": "path='' output=odds temperature=0 reads=both max_tokens=0 batch_size=0",
    "reward.constant.Constant": "value=inf value=nan",
    "reward.distinct.Distinct": "order=0",
    "reward.embedding_similarity.EmbeddingSimilarity": "path='' pooling=max scale=log max_tokens=0 batch_size=0",
    "reward.likelihood.Likelihood": "temperature=0 temperature=inf checkpoint='' path='' batch_size=0",
    "reward.mixture.Mixture": "scales={x:.inf} weights={x:.nan}",
    "reward.repetition.Repetition": "order=0",
    "episodes.sampling.Decoding": "max_length=0 temperature=-1 top_k=-1 top_p=0 epsilon=1.5 beam_size=0 "
    "length_penalty=11 forbidden=[-1]",
    "tokenizer.word.Word": "vocabulary_size=0 min_count=0",
}


def refused(target: str, key: str, value: Any) -> bool:
    slot = parameter_slot(parameters_of(locate(f"tokenrl_cli.{target}", []))[0][key].annotation, key, "")
    return bool(list(_value(value, key, [], slot)))


@pytest.mark.parametrize("target", RANGES)
def test_a_value_outside_its_range_is_refused(target: str) -> None:
    for pair in RANGES[target].split():
        key, _, text = pair.partition("=")
        value = yaml.safe_load(text.replace("inf", ".inf") if text in ("inf",) else text.replace(":", ": "))
        assert refused(target, key, math.nan if value == "nan" else value), f"{target}.{pair} is taken"


@pytest.mark.slow
def test_every_value_of_every_reward() -> None:
    for name in options([conf_dir()], "reward"):
        if name != "callable":
            block = {"reward": composed("train", f"reward={name}")["reward"]}
            require_known(judged([case for case in cases(block) if len(case[1]) > 1], rewards))


@pytest.mark.parametrize("schema", [Eval, Generate])
def test_every_value_of_eval_and_generate(schema: Any) -> None:
    known = train() | {
        "ckpt": "run", "split": "test", "examples": 0, "batch_size": 1, "device": "cpu", "precision": "fp32",
        "input": None, "output": None, "samples": None, "against": None, "features": None,
    }  # fmt: skip
    config = {name: known[name] for name in schema.__dataclass_fields__}
    own = [case for case in cases(config) if len(case[1]) == 1 or case[1][0] == "decode"]
    require_known(judged(own, lambda changed: require_keys(changed, schema)))


@pytest.mark.parametrize(
    "path", ["model.hidden", "model.layers", "trainer.batch_size", "algorithm.samples_per_source", "dataset.val_size"]
)
def test_an_absurd_size_is_refused_before_any_memory_is_taken(path: str) -> None:
    said = told(train(), tuple(path.split(".")), HUGE, require_valid)
    assert said.startswith(f"{path}={HUGE}: must be at least 1 and at most 1000000")


def test_a_model_that_no_memory_holds_is_refused_before_it_is_built() -> None:
    said = told(train(), ("model", "hidden"), 10**6, require_valid)
    assert said.startswith("model: its parameters need ")
    assert "GiB, and cpu has" in said


def test_check_alone_refuses_imports_that_are_no_list() -> None:
    for odd in ODD:
        with pytest.raises(UserError, match="reward"):
            check({"reward": {"_target_": "os.system"}}, odd)  # type: ignore[arg-type]
