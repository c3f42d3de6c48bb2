"""The house of the design: floors, groups that never meet, YAML that mirrors constructors, one place for Hydra."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokenrl_cli
from tokenrl_cli.commands.list import listed
from tokenrl_cli.config.build import PACKAGE, RUNTIME, check, declared, is_block, locate
from tokenrl_cli.config.options import BRINGS, about, brought, choices, conf_dir, groups, options, roots
from tokenrl_cli.config.types import parameters_of

HOME = Path(tokenrl_cli.__file__).parent
GROUPS = ("model", "dataset", "features", "tokenizer", "reward", "credit", "algorithm", "tracker")
FLOORS = (  # from the ground up; a module imports from its own floor or from below
    ("interfaces", "streams", "config", "usercode", "files", "hub"),
    ("functional", "metrics", "tasks"),
    ("parallel", "optim", "data", "episodes"),
    GROUPS,
    ("report",),
    ("run",),
    ("commandline", "commands"),
    ("", "cli", "api", "__main__"),  # "": the package itself, which hands on what `api` has
)
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}
MODULES = sorted(HOME.rglob("*.py"))


def part_of(module: str) -> str:
    """ "tokenrl_cli.model.lstm" -> "model", what has a floor."""
    return ".".join(module.split(".")[1:2])


def name_of(file: Path) -> str:
    return ".".join([PACKAGE, *file.relative_to(HOME).with_suffix("").parts]).removesuffix(".__init__")


@cache
def imports_of(file: Path) -> tuple[str, ...]:
    """Every module that a file imports, inside functions and for type checkers too."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            base = node.module or ""
            found += [f"{base}.{alias.name}" if base == PACKAGE else base for alias in node.names]
    return tuple(found)


def ours(file: Path) -> list[str]:
    return [name for name in imports_of(file) if name == PACKAGE or name.startswith(f"{PACKAGE}.")]


# ------------------------------------------------------------------------------------------------------- the floors


def test_every_module_stands_on_a_floor() -> None:
    missing = {part_of(name_of(file)) for file in MODULES} - LEVEL.keys()
    assert not missing, f"name the floor of {missing} in FLOORS"


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_point_down(file: Path) -> None:
    own = part_of(name_of(file))
    for imported in ours(file):
        other = part_of(imported)
        if other.startswith("__version__"):
            continue
        assert LEVEL[other] <= LEVEL[own], f"{name_of(file)} imports {imported}, which stands above it"


@pytest.mark.parametrize("file", [file for file in MODULES if part_of(name_of(file)) in GROUPS], ids=name_of)
def test_two_groups_never_import_each_other(file: Path) -> None:
    own = part_of(name_of(file))
    met = {part_of(imported) for imported in ours(file)} & set(GROUPS)
    assert met <= {own}


def test_modules_of_one_floor_do_not_import_in_a_circle() -> None:
    edges = {name_of(file): {name for name in ours(file) if name != name_of(file)} for file in MODULES}
    while leaves := [name for name, others in edges.items() if not others & edges.keys()]:
        for name in leaves:
            del edges[name]
    assert not edges, f"a circle among {sorted(edges)}"


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_the_command_knows_hydra(file: Path) -> None:
    if part_of(name_of(file)) not in ("cli", "commands", "commandline"):
        assert not [name for name in imports_of(file) if name.split(".")[0] in ("hydra", "hydra_plugins")]


@pytest.mark.parametrize("file", sorted(HOME.rglob("__init__.py")), ids=name_of)
def test_init_files_are_empty(file: Path) -> None:
    """That of the package is the way in from Python: it imports nothing but Python's own until something is used."""
    if file.parent == HOME:
        statements = [each for each in ast.parse(file.read_text("utf-8")).body if isinstance(each, ast.ImportFrom)]
        assert {each.module for each in statements} <= {"types", "typing"}
    else:
        assert file.read_text("utf-8").strip() == ""


LONGEST = 60  # lines of a function
MOST = 12  # parameters of a constructor


def test_an_algorithm_is_made_of_pieces_that_can_be_read_at_once() -> None:
    """A preset's class alone may take more parameters: the keys of its block, which it hands on to parts."""
    of_presets = declared("algorithm")
    for file in sorted((HOME / "algorithm").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
        for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
            assert (function.end_lineno or 0) - function.lineno < LONGEST, f"{name_of(file)}.{function.name} is long"
        for owner in (node for node in nodes if isinstance(node, ast.ClassDef)):
            made = [node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
            if f"{name_of(file)}.{owner.name}" not in of_presets:
                assert all(len(each.args.args) - 1 <= MOST for each in made), f"{owner.name} takes too much"


@pytest.mark.parametrize("group", [group for group in GROUPS if (conf_dir() / group).is_dir()])
def test_a_group_has_a_folder_in_conf_and_in_the_package(group: str) -> None:
    assert (HOME / group / "__init__.py").is_file()


# -------------------------------------------------------------------------------------------------- the mirror rule

PLACES = roots(None)
OPTIONS = [(group, name) for group in groups(PLACES) for name in options(PLACES, group)]
MIRRORED = [(group, name) for group, name in OPTIONS if group in GROUPS]
BLOCKS = [(group, name) for group, name in OPTIONS if group.split("/")[0] in (*GROUPS, "optimizer", "decode")]


@cache
def composed(command: str, *overrides: str) -> dict[str, Any]:
    """The config of a command line, resolved but for what only a run knows."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, list(overrides))
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return plain


def together(parts: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Command lines in which each option of each key stands at least once: composing one takes a third of a second."""
    most = max(map(len, parts.values()))
    return [tuple(f"{key}={names[i % len(names)]}" for key, names in parts.items()) for i in range(most)]


CHOICES = {key: list(options(PLACES, key.partition("@")[0])) for key in choices(conf_dir() / "train.yaml")}
WHOLE = together({key: names for key, names in CHOICES.items() if key != "experiment"})


def block_of(group: str, name: str) -> dict[str, Any]:
    """An option as it stands in a whole config, its sub-groups and its optimiser included."""
    block: dict[str, Any] = composed("train", *next(line for line in WHOLE if f"{group}={name}" in line))[group]
    return block


def filled(value: Any) -> Any:
    """With something for what the user must give, so that its type alone is not judged."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    return "given" if value == "???" else value


@pytest.mark.parametrize(("group", "name"), MIRRORED)
def test_the_target_lies_in_the_folder_of_its_group(group: str, name: str) -> None:
    assert block_of(group, name)["_target_"].startswith(f"{PACKAGE}.{group}.")


@pytest.mark.parametrize(("group", "name"), MIRRORED)
def test_the_keys_are_the_constructors_parameters(group: str, name: str) -> None:
    block = block_of(group, name)
    target = locate(block["_target_"], [])
    parameters, open_ended = parameters_of(target)
    assert not open_ended, "a constructor that takes anything is not checked"
    keys = set(block) - {"_target_", "_partial_"}
    assert keys <= set(parameters)
    assert set(parameters) - keys <= RUNTIME
    assert not keys & RUNTIME


@pytest.mark.parametrize(("group", "name"), BLOCKS)
def test_values_live_in_yaml_alone(group: str, name: str) -> None:
    raw = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text("utf-8"))
    if is_block(raw):
        signature = inspect.signature(locate(raw["_target_"], []))
        defaults = [each.name for each in signature.parameters.values() if each.default is not each.empty]
        assert not defaults


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_value_has_a_comment(group: str, name: str) -> None:
    lines = (conf_dir() / group / f"{name}.yaml").read_text("utf-8").splitlines()
    if group != "experiment":  # those repeat keys that are explained where they belong
        bare = [line for line in _values(lines) if "#" not in line]
        assert not bare


def _values(lines: list[str]) -> list[str]:
    """The lines `key: value` at any depth, less those for Hydra."""
    found: list[str] = []
    section = ""
    for line in lines:
        section = line.split(":")[0] if line[:1].isalpha() or line[:1] == "_" else section
        if section not in ("defaults", "_target_", "_partial_", "hydra") and re.match(r" *\w+: *[^ #]", line):
            found.append(line)
    return found


def test_every_value_of_a_primary_config_has_a_comment() -> None:
    for file in conf_dir().glob("*.yaml"):
        lines = file.read_text("utf-8").splitlines()
        assert lines[0].startswith("# ")
        assert not [line for line in _values(lines) if "#" not in line], file


PLACED = re.compile(r"(model|dataset|features|tokenizer|reward|credit|algorithm)[./]")
ALWAYS_THERE = {  # file: what says so where no builder is near, of a part that stands in one place alone
    "dataset/text.py": "dataset.shares",
    "algorithm/gradient/estimator.py": "algorithm.critic",
    "algorithm/gradient/reference.py": "algorithm.kl_coef",
}


@pytest.mark.parametrize("file", [file for file in MODULES if part_of(name_of(file)) in GROUPS], ids=name_of)
def test_a_part_does_not_say_where_its_block_stands(file: Path) -> None:
    """The same class may be the warm start, a metric, or the critic of an algorithm: SettingError has relative keys."""
    called = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
    errors = [node for node in called if isinstance(node.func, ast.Name) and node.func.id.endswith("Error")]
    wheres = [ast.unparse(node.args[0]).lstrip("f'\"") for node in errors if node.args]
    usual = ALWAYS_THERE.get(str(file.relative_to(HOME)), "nowhere")
    assert not [where for where in wheres if PLACED.match(where) and not where.startswith(usual)]


# ------------------------------------------------------------------------------------------------- whole configs


def whole(config: dict[str, Any]) -> None:
    from tokenrl_cli.commands.keys import Train

    check(filled(config), [], Train)


@pytest.mark.sample(16)
@pytest.mark.parametrize("line", [*WHOLE, *((f"experiment={name}",) for name in CHOICES["experiment"])], ids=" ".join)
def test_every_option_of_train_composes_and_checks(line: tuple[str, ...]) -> None:
    read = [key for key in ("tokenizer", "source_tokenizer") if any(f"{key}=pretrained" in word for word in line)]
    whole(composed("train", *line, *(f"{key}.path=x" for key in read)))  # else that of the model, which may be null


def having(group: str) -> list[str]:
    """The presets of an algorithm that choose from a sub-group."""
    files = {name: (conf_dir() / "algorithm" / f"{name}.yaml").read_text("utf-8") for name in CHOICES["algorithm"]}
    return [name for name, text in files.items() if f"- {group.partition('/')[2]}:" in text]


PARTS = [group for group in groups(PLACES) if group.startswith("algorithm/")]


@pytest.mark.sample(1)
@pytest.mark.parametrize("preset", {having(group)[0]: None for group in PARTS})
def test_every_part_composes_and_checks_in_every_preset_that_chooses_from_its_group(preset: str) -> None:
    chosen = {group: list(options(PLACES, group)) for group in PARTS if having(group)[0] == preset}
    for line in together(chosen):
        config = composed("train", f"algorithm={preset}", *line)
        whole(config)
        for group in chosen:
            inner = group.partition("/")[2]
            for other in having(group)[1:]:
                block = block_of("algorithm", other)
                whole(config | {"algorithm": block | {inner: config["algorithm"][inner]}})


@pytest.mark.parametrize("name", options(PLACES, "optimizer/schedule"))
def test_every_schedule_composes_and_checks(name: str) -> None:
    whole(composed("train", f"optimizer/schedule@algorithm.optimizer.schedule={name}"))


@pytest.mark.parametrize("name", options(PLACES, "experiment"))
def test_an_experiment_begins_with_its_command(name: str) -> None:
    assert about(conf_dir() / "experiment" / f"{name}.yaml").startswith(f"tokenrl train experiment={name}")


# --------------------------------------------------------------------------- what a model or a data set brings along

BROUGHT = [(group, name) for group in GROUPS for name in options(PLACES, f"{BRINGS}/{group}")]


@pytest.mark.sample(5)
@pytest.mark.parametrize(("group", "name"), BROUGHT)
def test_what_an_option_brings_is_in_the_config_and_in_the_list(group: str, name: str) -> None:
    assert name in options(PLACES, group), "it belongs to an option of its group"
    config = composed("train", f"{group}={name}")
    for line in brought(PLACES, group, name):
        key, _, rest = line.partition(": ")
        value, comment = rest.split(" # ")
        found: Any = config
        for part in key.split("."):
            found = found[part]
        assert found == yaml.safe_load(value)
        assert comment
        assert f"  {line}" in listed(group, PLACES).splitlines()


def test_what_is_brought_wins_over_the_primary_config_and_loses_to_the_rest(tmp_path: Path) -> None:
    def rate(*words: str) -> tuple[float, str]:
        optimizer = composed("train", *words)["warm_start"]["optimizer"]
        return optimizer["lr"], optimizer["schedule"]["_target_"].rpartition(".")[2]

    assert rate("model=transformer") == (2e-3, "inverse_sqrt")
    assert rate("model=lstm") == (8e-3, "cosine")
    assert rate("experiment=e2e_lstm_rloo") == (3e-3, "cosine")
    assert rate("experiment=e2e_lstm_rloo", "model=transformer")[0] == 3e-3, "a recipe wins"
    assert rate("model=transformer", "warm_start.optimizer.lr=1") == (1, "inverse_sqrt")
    schedule = "optimizer/schedule@warm_start.optimizer.schedule=linear"
    assert rate("model=transformer", schedule) == (2e-3, "linear"), "the command line wins"
    critic = ["algorithm=actor_critic", "model@algorithm.critic=transformer"]
    assert rate("model=gru", *critic) == rate("model=gru"), "only the policy's model brings anything"
    (tmp_path / BRINGS / "model").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# mine\ndefaults:\n  - gru\n  - _self_\n")
    (tmp_path / BRINGS / "model" / "mine.yaml").write_text("warm_start:\n  optimizer:\n    lr: 7 # mine\n")
    assert rate("model=mine", f"hydra.searchpath=[file://{tmp_path}]") == (7, "cosine")
    assert composed("train")["trainer"]["gate"]
    assert composed("train", "dataset=copy")["trainer"]["gate"] is None


def test_one_place_alone_gets_a_policy_from_an_algorithm() -> None:
    """There it is switched to evaluation mode; an algorithm itself may ask its own."""
    asking = {
        name_of(file)
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "policy"
        and not node.args
    }
    assert {name for name in asking if part_of(name) != "algorithm"} == {f"{PACKAGE}.run.evaluation"}


# ------------------------------------------------------------------------------- nothing is found by asking attributes

PROBES = {  # file: {what is asked: why no protocol of interfaces.py can say it}
    "config/build.py": {"hasattr(module, name)": "the name of a _target_, in a module of the user's"},
    "config/types.py": {"hasattr(built, name)": "what an object lacks of the protocol of its slot, for the error"},
    "usercode/values.py": {"hasattr(value, 'tolist')": "arrays and numbers of any library"},
    "usercode/modules.py": {
        "getattr(parent, '__path__', [])": "a package of the user's; a plain module has none",
        "getattr(module, '__file__', None)": "a module of the user's; one that is built in has none",
    },
    "reward/calls.py": {
        "getattr(found, '__file__', '')": "a module that a user's name leads to",
        "hasattr(parent, '__path__')": "a package that a user's name leads to",
        "getattr(found, '__dict__', {})": "any object that can be called",
        "getattr(found, '__module__', '')": "any object that can be called",
        "getattr(found, name, None)": "what a partial, a method or a decorated function wraps",
    },
}


def probes(source: str) -> list[str]:
    """Calls of hasattr, and those of getattr that have a default or a name written out."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (
            node.func.id == "hasattr"
            or (node.func.id == "getattr" and (len(node.args) > 2 or isinstance(node.args[1], ast.Constant)))
        )
    ]


def test_attributes_are_asked_for_only_where_a_reason_is_given() -> None:
    assert probes("hasattr(a, 'b'); getattr(a, 'b'); getattr(a, b, None); getattr(a, b)") == [
        "hasattr(a, 'b')",
        "getattr(a, 'b')",
        "getattr(a, b, None)",
    ]
    found = {str(file.relative_to(HOME)): probes(file.read_text("utf-8")) for file in MODULES}
    assert {name: sorted(asked) for name, asked in found.items() if asked} == {
        name: sorted(reasons) for name, reasons in PROBES.items()
    }, "what a part may have is a protocol of interfaces.py: isinstance asks for it"
