"""Config blocks become objects only through the allow-list and the signature check."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

import pytest

from tests import parts
from tokenrl_cli.config.build import (
    RUNTIME,
    build,
    check,
    choices,
    declared,
    group_of,
    hint,
    locate,
    parameter_slot,
    trusted,
)
from tokenrl_cli.config.limits import limits
from tokenrl_cli.config.options import conf_dir, groups
from tokenrl_cli.config.ranges import Ge, Infinite, Le, Lt, MinLen, Text
from tokenrl_cli.config.types import Slot, describe, mismatch, parameters_of
from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.interfaces import Credit, Dataset, Model, Reward, SettingError, UserError
from tokenrl_cli.run.recorder import Trainer

TRUST = ["tests.parts"]
LENGTH = {"_target_": "tests.parts.Length", "scale": 2, "unit": "word", "limit": None, "weights": [1.0, 2]}
SCHEDULE = {"_target_": "tests.parts.constant", "_partial_": True, "factor": 0.5}
DESCENT = {"_target_": "tests.parts.descent", "_partial_": True, "lr": 0.1, "schedule": SCHEDULE}
LEARNER = {
    "_target_": "tests.parts.Learner",
    "optimizer": DESCENT,
    "baseline": {"_target_": "tests.parts.mean", "_partial_": True},
    "pair": [0.9, 0.999],
    "options": {"a": 1},
    "shuffle": True,
    "name": "x",
}


def message(config: dict[str, Any], trust: list[str] = TRUST, schema: Any = None) -> str:
    with pytest.raises(UserError) as raised:
        check(config, trust, schema)
    return str(raised.value)


# ------------------------------------------------------------------------------------------------------ what is trusted


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.call",
        "builtins.eval",
        "distutils.spawn.spawn",
        "torch.load",
        "torch.hub.load",
        "pathlib.Path.write_text",
        "logging.os.system",
        "tokenrl_cli_evil.Thing",
        "tokenrl_clix.build.locate",
        "tests.parts.Length",
        "tests.Length",
    ],
)
def test_a_target_outside_the_package_is_refused_before_anything_is_imported(target: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"neither tokenrl_cli nor in imports|cannot be chosen here"):
        locate(target, [])
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "target",
    [
        "tokenrl_cli.config.build.importlib.import_module",  # through a module that one of ours imports
        "tokenrl_cli.reward.bleu.BLEU",  # a class that one of ours imports
        "tokenrl_cli.config.build.functools.partial",
        "tests.parts.os.system",
        "tests.parts.system",
        "tests.parts.build",
        "tests.parts.VALUE",
        "tests.parts._hidden",
        "tokenrl_cli.config.build.PACKAGE",
        "tokenrl_cli.config.build",
        "tokenrl_cli.config.types._read",
        "tokenrl_cli.cli.main",
        "tokenrl_cli.run.checkpoint.save",
        "tokenrl_cli.reward.workers.Processes",  # in the folder of a group, and nothing that its options name
        "tokenrl_cli.functional.kl._ratio",
        "tokenrl_cli.functional.masking.masked_sum",
        "tokenrl_cli.commands.sweep.Failures",  # Hydra's own part of a config names it
    ],
)
def test_what_can_merely_be_imported_cannot_be_chosen(target: str) -> None:
    for slot in (None, Slot(Any), Slot(Reward), Slot(Callable[..., Any], "algorithm/divergence")):
        with pytest.raises(UserError, match="_target_="):
            locate(target, [*TRUST, "tokenrl_cli", "tokenrl_cli.cli"], slot)


def test_every_target_of_a_group_can_be_chosen_there_and_nowhere_else() -> None:
    names = [group for group in groups([conf_dir()]) if declared(group)]
    assert {"reward", "optimizer/schedule", "algorithm/surrogate", "decode"} <= set(names)
    for group in names:
        for target in declared(group):
            assert locate(target, [], Slot(Any, group)).__name__ == target.rpartition(".")[2]
    with pytest.raises(UserError, match=r"tokenrl_cli.model.gpt.Gpt: cannot be chosen here\n .*tokenrl list reward"):
        locate("tokenrl_cli.model.gpt.Gpt", [], Slot(Reward))
    with pytest.raises(
        UserError, match=r"mean 'tokenrl_cli.optim.cosine'\?\)\n  there are tokenrl_cli.optim.constant,"
    ):
        locate("tokenrl_cli.optim.cosin", [], Slot(Any, "optimizer/schedule"))


def test_a_slot_takes_what_its_protocol_its_key_or_its_class_says() -> None:
    assert group_of(Slot(Reward | None, "model")) == "reward"
    assert group_of(parameter_slot(Callable[..., Any], "optimizer", "algorithm")) == "optimizer"
    assert group_of(parameter_slot(Callable[..., Any], "target", "algorithm")) == "algorithm/target"
    assert group_of(parameter_slot(Model, "critic", "algorithm")) == "model"
    assert group_of(Slot(dict[str, Reward]).item) == "reward"
    assert choices(Slot(Decoding)) == ("tokenrl_cli.episodes.sampling.Decoding",)
    assert choices(Slot(Any)) == declared("")
    assert choices(Slot(Trainer)) == ()


def test_every_function_that_a_part_of_ours_takes_has_a_group() -> None:
    """Otherwise whatever is declared anywhere could stand there."""
    for group in groups([conf_dir()]):
        for target in declared(group):
            for key, parameter in parameters_of(locate(target, []))[0].items():
                if get_origin(parameter.annotation) is Callable and key not in RUNTIME:
                    assert parameter_slot(parameter.annotation, key, group).group, f"{target}, {key}"


def test_trust_counts_whole_components() -> None:
    assert trusted("mine.rewards", ["mine"])
    assert trusted("mine", ["mine"])
    assert not trusted("mine_evil", ["mine"])
    assert not trusted("mine", ["mine.rewards"])
    assert not trusted("tokenrl_cli.cli", ["tokenrl_cli"])


@pytest.mark.parametrize(
    "target", ["", "x", "a b.c", "tokenrl_cli..x", "tokenrl_cli.config.build.", "__import__('os').x", 3, None]
)
def test_a_target_is_a_dotted_name(target: Any) -> None:
    with pytest.raises(UserError, match="must be a dotted name"):
        locate(target, TRUST)


def test_a_module_named_in_imports_is_found_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_the_user.py").write_text("class Mine:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert locate("of_the_user.Mine", ["of_the_user"]).__name__ == "Mine"
    del sys.modules["of_the_user"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import surely_not_installed\n", "failed: ModuleNotFoundError: No module named 'surely_not_installed'"),
        ("def f(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_goes_wrong_in_the_users_module_is_told_with_its_place(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_the_user.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="of_the_user") as raised:
        locate("of_the_user.Mine", ["of_the_user"])
    assert told in str(raised.value)


def test_a_misspelt_module_or_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(UserError, match=r"no module tests.part \(did you mean 'parts'\?\)"):
        locate("tests.part.Length", ["tests.part"])
    with pytest.raises(UserError, match=r"did you mean 'tokenrl_cli.reward.bleu.Bleu'\?"):
        locate("tokenrl_cli.reward.blue.Bleu", [])
    with pytest.raises(UserError, match=r"has no public 'Lenght' \(did you mean 'Length'\?\)"):
        locate("tests.parts.Lenght", TRUST)
    assert hint("zzz", ["bleu"]) == ""


# -------------------------------------------------------------------------------------------------------- the check


def test_a_good_config_has_nothing_to_say() -> None:
    check({"reward": LENGTH, "algorithm": LEARNER, "seed": 1, "nested": [{"deep": LENGTH}]}, TRUST)


def test_all_mistakes_are_listed_at_once_with_their_keys() -> None:
    config = {
        "reward": LENGTH | {"scael": 1, "unit": "chars"},
        "algorithm": LEARNER | {"optimizer": DESCENT | {"lr": "x"}, "name": 3},
        "seed": "???",
    }
    told = message(config)
    assert told.startswith("config: 5 mistakes")
    assert "reward.scael: Length has no 'scael' (did you mean 'scale'?)" in told
    assert "reward.unit=chars: must be one of word, char (did you mean 'char'?)" in told
    assert "algorithm.optimizer.lr=x: must be float, got str 'x'" in told
    assert "algorithm.name=3: must be str, got int 3" in told
    assert "seed: is missing: give seed=VALUE" in told


def test_a_missing_key_is_told_with_its_type() -> None:
    config = {key: value for key, value in LENGTH.items() if key != "unit"}
    assert message({"reward": config}) == "reward.unit: is missing; Length needs one of word, char"


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", 1), ("scale", 0.5), ("limit", None), ("limit", 3), ("weights", []), ("weights", [1, 2.5])],
)
def test_values_that_python_would_take_are_taken(key: str, value: Any) -> None:
    check({"reward": LENGTH | {key: value}}, TRUST)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("scale", True, "must be float, got bool True"),
        ("scale", None, "must be float, got null"),
        ("scale", [1.0], "must be float, got list [1.0]"),
        ("limit", 1.5, "must be int or null, got float 1.5"),
        ("limit", False, "must be int or null, got bool False"),
        ("weights", "abc", "must be a list, got str 'abc'"),
        ("weights", [1.0, "x"], "reward.weights.1=x: must be float, got str 'x'"),
        ("unit", None, "must be one of word, char"),
        ("scale", {"a": 1}, "must be float, got dict"),
    ],
)
def test_a_value_of_a_wrong_type_is_told(key: str, value: Any, told: str) -> None:
    assert told in message({"reward": LENGTH | {key: value}})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("pair", [0.9], "must be a list of 2, got 1"),
        ("pair", 0.9, "must be a list, got float 0.9"),
        ("options", [1], "must be a dictionary, got list [1]"),
        ("options", {"a": "b"}, "algorithm.options.a=b: must be int"),
        ("shuffle", 1, "must be bool, got int 1"),
        ("name", 3, "quote it twice"),
        ("optimizer", "adam", "must be a block with _target_"),
        ("optimizer", None, "must be a block with _target_"),
    ],
)
def test_containers_and_functions_are_checked_too(key: str, value: Any, told: str) -> None:
    assert told in message({"algorithm": LEARNER | {key: value}})


def test_what_only_the_running_program_knows_is_not_missing() -> None:
    check({"algorithm": LEARNER, "reward": {"_target_": "tests.parts.Mixture", "parts": [LENGTH], "named": {}}}, TRUST)


def test_nested_blocks_are_checked_in_lists_and_dictionaries() -> None:
    bad = LENGTH | {"limit": "x"}
    told = message({"reward": {"_target_": "tests.parts.Mixture", "parts": [LENGTH, bad], "named": {"b": bad}}})
    assert "reward.parts.1.limit=x" in told
    assert "reward.named.b.limit=x" in told


def test_a_nested_target_from_elsewhere_is_refused() -> None:
    evil = {"_target_": "distutils.spawn.spawn", "cmd": ["touch", "x"]}
    mixture = {"_target_": "tests.parts.Mixture", "parts": [evil], "named": {}}
    assert "reward.parts.0._target_=distutils.spawn.spawn" in message({"reward": mixture})
    for target in ("subprocess.call", "tokenrl_cli.cli.main", "tokenrl_cli.config.types._read", "tests.parts.build"):
        for anything in ({"_target_": target}, [{"a": {"_target_": target, "_partial_": True}}]):
            assert f"_target_={target}" in message({"reward": {"_target_": "tests.parts.Open", "anything": anything}})
            with pytest.raises(UserError, match=f"_target_={target}"):
                build({"_target_": "tests.parts.Open", "anything": anything}, parts.Open, TRUST)
    assert "seed._target_=os.system" in message({"seed": {"_target_": "os.system", "command": "x"}})


@pytest.mark.parametrize("key", ["_args_", "_convert_", "_recursive_", "_kwargs_"])
def test_hydras_own_keys_of_a_block_are_refused(key: str) -> None:
    for block in (LENGTH, {"_target_": "tests.parts.Open"}, {"_target_": "tests.parts.length", "_partial_": True}):
        assert f"reward.{key}: is a key of Hydra's" in message({"reward": block | {key: ["x"]}})
    assert f"a.{key}: belongs to a block" in message({"a": {key: ["x"]}})
    assert "a._partial_: belongs to a block" in message({"a": {"_partial_": True}})


def test_a_partial_owes_only_what_its_owner_gives() -> None:
    short = {key: value for key, value in DESCENT.items() if key != "lr"}
    assert message({"algorithm": LEARNER | {"optimizer": short}}).startswith("algorithm.optimizer.lr: is missing")
    loose = {"_target_": "tests.parts.constant", "_partial_": True}
    assert "schedule.factor: is missing" in message(
        {"algorithm": LEARNER | {"optimizer": DESCENT | {"schedule": loose}}}
    )


def test_a_function_for_its_owner_to_call_must_be_partial() -> None:
    whole = {key: value for key, value in DESCENT.items() if key != "_partial_"}
    assert "add _partial_: true" in message({"algorithm": LEARNER | {"optimizer": whole}})
    assert "must be true or false" in message({"algorithm": LEARNER | {"optimizer": whole | {"_partial_": "yes"}}})


def test_a_block_where_a_number_is_due_is_refused() -> None:
    assert "must be float, not a block" in message({"reward": LENGTH | {"scale": LENGTH}})


def test_a_target_that_takes_any_keyword_is_not_checked() -> None:
    check({"x": {"_target_": "tests.parts.Open", "a": 1}}, TRUST)
    assert build({"_target_": "tests.parts.Open", "a": 1}, parts.Open, TRUST).anything == {"a": 1}


# --------------------------------------------------------------------------------------------------------- the root


@dataclass
class Inner:
    steps: int
    gate: float | None


@dataclass
class Root:
    reward: Reward
    metrics: dict[str, Reward]
    trainer: Inner
    seed: int
    second: Reward | None = None


GOOD = {"reward": LENGTH, "metrics": {"a": LENGTH}, "trainer": {"steps": 1, "gate": 2}, "seed": 1}


def test_the_root_is_checked_against_a_schema() -> None:
    check(GOOD, TRUST, Root)
    check(GOOD | {"second": LENGTH}, TRUST, Root)
    told = message(GOOD | {"sede": 2, "trainer": {"stpes": 3, "gate": None}, "seed": "x"}, TRUST, Root)
    assert "sede: there is no key 'sede' (did you mean 'seed'?)" in told
    assert "trainer.stpes: Inner has no 'stpes' (did you mean 'steps'?)" in told
    assert "trainer.steps: is missing; Inner needs int" in told
    assert "seed=x: must be int, got str 'x'" in told


def test_a_part_of_another_kind_is_refused_by_the_check() -> None:
    model = {"_target_": "tests.parts.Learner"}
    told = message(GOOD | {"reward": model, "metrics": {"b": model}}, TRUST, Root)
    assert "reward: tests.parts.Learner is not a Reward: it has no __call__" in told
    assert "metrics.b: tests.parts.Learner is not a Reward" in told


# ---------------------------------------------------------------------------------------------------------- building


def test_a_class_is_built_with_its_values() -> None:
    built = build(LENGTH, Reward, TRUST)
    assert isinstance(built, parts.Length)
    assert (built.scale, built.unit, built.limit, built.weights) == (2, "word", None, [1.0, 2])


def test_nested_blocks_are_built_first_and_runtime_facts_go_where_they_are_asked_for() -> None:
    block = {"_target_": "tests.parts.Mixture", "parts": [LENGTH, LENGTH], "named": {"a": LENGTH}}
    built = build(block, Reward, TRUST, seed=7, tokenizer="unused")
    assert [type(part) for part in built.parts] == [parts.Length, parts.Length]
    assert isinstance(built.named["a"], parts.Length)
    assert (built.seed, built.trust) == (7, TRUST)


def test_a_partial_is_finished_by_its_owner() -> None:
    built = build(LEARNER, parts.Learner, TRUST, model="m")
    assert built.optimizer == {"parameters": [1, 2], "lr": 0.1, "rate": 0.5}
    assert isinstance(built.baseline, functools.partial)


def test_a_function_stands_for_a_part_that_is_only_called() -> None:
    block = {"_target_": "tests.parts.length", "_partial_": True, "scale": 2.0}
    check(GOOD | {"reward": block}, TRUST, Root)
    texts: Any = type("T", (), {"hypotheses": ["ab"]})
    assert build(block, Reward, TRUST)(texts) == [4.0]


@pytest.mark.parametrize(
    ("block", "kind", "told"),
    [
        (LENGTH, Model, "tests.parts.Length is not a Model: it has no start, step"),
        (LENGTH, Dataset, "is not a Dataset: it has no size, example"),
        (LENGTH, parts.Mixture, "tests.parts.Length is not a Mixture"),
        (DESCENT, Model, "is a function, and a Model must be a class"),
        ({"_target_": "tests.parts.Unsure"}, Credit, "is not a Credit: it has no needs_prefixes"),
        (
            {"_target_": "tests.parts.other", "_partial_": True, "scale": 1},
            Reward,
            "its first parameters must be texts",
        ),
        ({"_target_": "tests.parts.length", "scale": 1}, Reward, "add _partial_: true"),
        (LENGTH | {"_partial_": True}, Reward, "is a class: remove _partial_"),
        ({"scale": 1}, Reward, "must be a block with _target_"),
        (None, Reward, "must be a block with _target_"),
        (LENGTH | {"scael": 1}, Reward, "reward.scael: Length has no 'scael'"),
        ({"_target_": "tests.parts.Length"}, Reward, "reward.scale: is missing"),
        ({"_target_": "tests.parts.Mixture", "parts": [], "named": {}}, Reward, "asks for seed, which is not known"),
        ({"_target_": "os.system", "command": "x"}, Reward, "neither tokenrl_cli nor in imports"),
    ],
)
def test_building_refuses_what_does_not_fit(block: Any, kind: Any, told: str) -> None:
    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        build(block, kind, TRUST)


def test_an_attribute_a_protocol_asks_for_may_be_the_classs() -> None:
    assert isinstance(build({"_target_": "tests.parts.Spread"}, Credit, TRUST), parts.Spread)


def test_a_fact_of_the_program_cannot_come_from_a_config() -> None:
    block = {"_target_": "tests.parts.Mixture", "parts": [], "named": {}, "seed": 3}
    with pytest.raises(UserError, match="seed comes from the program"):
        build(block, Reward, TRUST, seed=7)


def test_a_range_is_declared_with_the_type_and_what_is_outside_is_refused() -> None:
    for value, told in (
        (-1, "reward.scale=-1: must be above 0, got -1"),
        (0.0, "reward.scale=0.0: must be above 0, got 0.0"),
        (math.nan, "reward.scale=nan: must be finite, got nan"),
        (math.inf, "reward.scale=inf: must be finite, got inf"),
        (10**30, f"reward.scale={10**30}: must be an integer of 64 bits, got int {10**30}"),
        (1 << 60000, "reward.scale=one of 60001 bits: must be an integer of 64 bits, got one of 60001 bits"),
    ):
        assert message({"reward": LENGTH | {"scale": value}}) == told
        with pytest.raises(UserError, match=r"reward.scale"):
            build(LENGTH | {"scale": value}, Reward, TRUST)
    assert message({"reward": LENGTH | {"weights": [1, math.nan]}}) == "reward.weights.1=nan: must be finite, got nan"
    assert "must be finite" in message({"reward": {"_target_": "tests.parts.Open", "x": {"y": [math.nan]}}})
    assert "zero byte" in message({"algorithm": LEARNER | {"name": "a\0b"}})


def test_a_float_may_be_infinite_where_that_is_declared() -> None:
    assert mismatch(math.inf, Annotated[float, Infinite()]) == ""
    assert mismatch(math.nan, Annotated[float, Infinite()]) == "must be a number, got nan"
    assert mismatch(math.inf, Annotated[float, Infinite(), Le(3)]) == "must be at most 3, got inf"


def test_ranges_are_described() -> None:
    assert describe(Annotated[float, Ge(0), Lt(1)]) == "float, at least 0 and below 1"
    assert describe(Annotated[int, Ge(1)] | None) == "int, at least 1, or null"
    assert mismatch(0, Annotated[int, Ge(1)] | None) == "must be int, at least 1, or null, got int 0"
    assert mismatch("", Text) == "must not be empty" == mismatch([], Annotated[list[str], MinLen(1)])


def test_every_data_set_and_tokenizer_declares_its_limits() -> None:
    """Their constructors do not check again."""
    for path in declared("dataset"):
        parameters = parameters_of(locate(path, []))[0]
        assert describe(parameters["max_source_length"].annotation).startswith("int, at least 1 "), path
        assert describe(parameters["overlong"].annotation) == "one of truncate, drop", path
    learned = [path for path in declared("tokenizer") if "vocabulary_size" in limits(path)]  # not a checkpoint's
    smallest = {path.rpartition(".")[2]: limits(path)["vocabulary_size"] for path in learned}
    assert smallest == {"Word": "above 2", "Char": "above 2", "Bpe": "at least 257"}
    assert message({"x": {"_target_": learned[0], "vocabulary_size": 2, "min_count": 1}}, [])


# ---------------------------------------------------------------------------------------------- errors of constructors


class Grumbler:
    """Refuses itself, as a part does whose settings do not go together."""

    def __init__(self, where: str, inner: Any, several: list[Any], here: str) -> None:
        self.here, self.inner, self.several = here, inner, several
        if where:
            raise SettingError(where, "is odd beside {here}.inner", "{here}/kind=other or {here}.where=''")

    def __call__(self, texts: Any) -> Any:
        """Never called."""


GRUMBLER = {"_target_": f"{__name__}.Grumbler", "where": "", "inner": None, "several": []}


def refusal(block: dict[str, Any], where: str = "") -> UserError:
    with pytest.raises(UserError) as raised:
        build(block, Reward, [__name__], where)
    assert not isinstance(raised.value, SettingError)
    return raised.value


def test_the_error_of_a_constructor_names_the_key_at_which_its_block_stands() -> None:
    said = refusal(GRUMBLER | {"where": "where=x"})
    assert said.where == "reward.where=x", "without a key it is that of the kind"
    assert said.problem == "is odd beside reward.inner"
    assert said.remedy == "reward/kind=other or reward.where=''"
    assert refusal(GRUMBLER | {"where": "where=x"}, "metrics.mine").where == "metrics.mine.where=x"
    inner = refusal(GRUMBLER | {"inner": GRUMBLER | {"where": "where"}}, "metrics.mine")
    assert inner.where == "metrics.mine.inner.where"
    assert inner.problem == "is odd beside metrics.mine.inner.inner"
    listed = refusal(GRUMBLER | {"several": [GRUMBLER, {"a": GRUMBLER | {"where": "where"}}]})
    assert listed.where == "reward.several.1.a.where"


def test_an_option_in_an_error_is_told_as_it_is_typed_for_that_place() -> None:
    head = SettingError("/head=logits", "is none", "{here}/head=linear {here}.tau=1, or other {here}/data")
    assert str(head.placed("algorithm", "algorithm")) == (
        "algorithm/head=logits: is none\n  algorithm/head=linear algorithm.tau=1, or other algorithm/data"
    )
    assert str(head.placed("warm_start", "algorithm")) == (
        "algorithm/head@warm_start.head=logits: is none\n  algorithm/head@warm_start.head=linear warm_start.tau=1, "
        "or other algorithm/data@warm_start.data"
    )
    assert SettingError("", "is one too many").placed("algorithm.head", "algorithm/head").where == "algorithm.head"
    assert str(head) == "/head=logits: is none\n  head=linear tau=1, or other data", "where nothing is known of a place"


def test_a_part_may_ask_for_the_key_at_which_it_stands() -> None:
    built = build(GRUMBLER | {"inner": GRUMBLER}, Reward, [__name__], "metrics.mine")
    assert (built.here, built.inner.here) == ("metrics.mine", "metrics.mine.inner")


def test_building_needs_no_torch() -> None:
    import subprocess

    program = "import sys, tokenrl_cli.config.build; sys.exit(bool({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
