"""Every value of every config, replaced by what nobody should give it: it is taken, or refused in one clear line."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest

from tests.test_house import composed
from tokenrl_cli.build import build, check
from tokenrl_cli.commands.keys import Eval, Generate
from tokenrl_cli.commands.validate import Vocabulary, require_valid
from tokenrl_cli.interfaces import Algorithm, Model, Reward, UserError
from tokenrl_cli.recipes import conf_dir, options

ODD = (-1, 0, 1e30, math.nan, "", None, [], {})
HUGE = 10**18
SAMPLE = 120  # of the whole, which `make prove` goes through

Path = tuple[str, ...]
Case = tuple[dict[str, Any], Path, Any]


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of all values, of lists as a whole, too, and of blocks."""
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
    return composed("train")


def told(config: dict[str, Any], path: Path, value: Any, judge: Any) -> str:
    """What is said of the value, "" where it is taken. Nothing but a UserError that names the key may come of it."""
    try:
        judge(changed(config, path, value))
        return ""
    except UserError as error:
        assert path[-1] in str(error) or path[-2:-1] and path[-2] in str(error), f"{path} = {value!r}: {error}"
        return str(error)
    except Exception as error:
        raise AssertionError(f"{'.'.join(path)} = {value!r}") from error


def judged(every: list[Case], judge: Any) -> dict[str, str]:
    return {f"{'.'.join(path)}={value!r}": told(config, path, value, judge) for config, path, value in every}


def require_known(found: dict[str, str]) -> None:
    """What is never a setting must not have been taken."""
    taken = [key for key, said in found.items() if not said]
    assert not [key for key in taken if key.endswith(("=nan", "=''"))], taken


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
    """Of each preset's own block."""
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


@pytest.mark.slow
def test_every_value_of_every_reward() -> None:
    for name in options([conf_dir()], "reward"):
        if name != "callable":
            block = {"reward": composed("train", f"reward={name}")["reward"]}
            require_known(judged([case for case in cases(block) if len(case[1]) > 1], rewards))


@pytest.mark.parametrize("schema", [Eval, Generate])
def test_every_value_of_eval_and_generate(schema: Any) -> None:
    from tokenrl_cli.commands.keys import require_keys

    known = train() | {
        "ckpt": "run", "split": "test", "examples": 0, "batch_size": 1, "device": "cpu", "precision": "fp32",
        "input": None, "output": None,
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
    assert said.startswith("model: its parameters need ") and "GiB, and cpu has" in said


def test_check_alone_refuses_imports_that_are_no_list() -> None:
    for odd in ODD:
        with pytest.raises(UserError, match="reward"):
            check({"reward": {"_target_": "os.system"}}, odd)  # type: ignore[arg-type]
