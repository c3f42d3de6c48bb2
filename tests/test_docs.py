"""What README.md, CONTRIBUTING.md and docs/ say is so: links lead somewhere, commands are valid, examples run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import tokenrl_cli
from tests.examples import BLOCK, ROOT
from tests.examples import FILES as EXAMPLES
from tests.pretrained import checkpoint
from tests.reward.said import error_rate, texts
from tests.running import QUICK, TINY, tokenrl, train
from tokenrl_cli.commands.keys import EvalModel, Train
from tokenrl_cli.config.build import check, locate
from tokenrl_cli.config.options import conf_dir, groups, options, roots
from tokenrl_cli.files import disk
from tokenrl_cli.reward.bleu import Bleu

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in FILES}
PLACES = roots(None)
HYDRA = ("defaults", "_target_", "_partial_")  # keys of a YAML that are no parameters


@cache
def generator() -> Any:
    """docs/tables.py as a module."""
    spec = spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page: str) -> str:
    """A page without its blocks of code and formulas."""
    return re.sub(r"\$\$.*?\$\$", "", BLOCK.sub("", PAGES[page]), flags=re.DOTALL)


def section(page: str, title: str) -> str:
    return re.split(r"\n##+ ", PAGES[page].split(f"# {title}\n")[1])[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a text, without their heads."""
    bodies = re.findall(r"^\|(?: ?-+ ?\|)+\n((?:\|.*\n?)*)", text, re.MULTILINE)
    lines = [line for body in bodies for line in body.splitlines()]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def coded(text: str) -> list[str]:
    """Everything in single backticks."""
    return re.findall(r"`([^`\n]+)`", text)


# ------------------------------------------------------------------------------------------- tables, links, formulas


def test_generated_tables_are_those_of_conf() -> None:
    pages = generator().pages()
    stale = [str(file.relative_to(ROOT)) for file, text in pages.items() if file.read_text("utf-8") != text]
    assert not stale, "make docs writes them anew"
    kept = {file for file in (ROOT / "docs" / "reference").glob("*.md") if file.name != "README.md"}
    assert kept == {ROOT / "docs" / "reference" / f"{group}.md" for group in groups(PLACES) if "/" not in group}


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            assert re.match(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.\S+)$", target), target
            continue
        file, _, anchor = target.partition("#")
        place = (ROOT / page).parent.joinpath(file).resolve() if file else ROOT / page
        name = place.relative_to(ROOT).as_posix()
        assert place.exists(), target
        if anchor and name in PAGES:
            assert anchor in anchors(name), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set[str](), ["README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page not in PAGES:
            continue
        reached.add(page)
        targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
        places = [(ROOT / page).parent.joinpath(target).resolve() for target in targets if ":" not in target]
        todo += [place.relative_to(ROOT).as_posix() for place in places]
    assert reached == PAGES.keys()


@pytest.mark.parametrize("page", PAGES)
def test_formulas_stand_between_double_dollars_on_lines_of_their_own(page: str) -> None:
    text = BLOCK.sub("", PAGES[page])
    lines = text.splitlines()
    marks = [number for number, line in enumerate(lines) if line == "$$"]
    assert len(marks) % 2 == 0
    for first, last in zip(marks[::2], marks[1::2], strict=True):
        formula = "\n".join(lines[first + 1 : last])
        assert formula.strip(), "a formula says something"
        assert "\n\n" not in formula, "an empty line would end it"
        assert re.sub(r"\\[{}]", "", formula).count("{") == re.sub(r"\\[{}]", "", formula).count("}"), formula
        assert lines[first - 1] == lines[last + 1] == "", "a formula needs an empty line before and after it"
    assert not re.search(r"\$(?!\{)", re.sub(r"^\$\$$", "", re.sub(r"`[^`]*`", "", text), flags=re.MULTILINE))
    assert not re.search(r"\\[(\[]", prose(page)), "a formula without its dollars"


def test_the_picture_of_the_house_shows_every_room() -> None:
    picture = next(block for kind, block in BLOCK.findall(PAGES["CONTRIBUTING.md"]) if kind == "text")
    home = Path(tokenrl_cli.__file__).parent
    rooms = {file.parent.name for file in home.glob("*/__init__.py")}
    groups_of_conf = {group for group in groups(PLACES) if "/" not in group}
    assert not (rooms | groups_of_conf) - set(re.findall(r"(\w+)/", picture))


ALGORITHMS = [page for page in PAGES if page.startswith("docs/algorithms/") and not page.endswith("README.md")]


@pytest.mark.parametrize("page", ALGORITHMS)
def test_a_page_of_a_family_has_all_its_parts(page: str) -> None:
    text = PAGES[page]
    assert "\n$$\n" in text, "the formula"
    assert "arxiv.org/abs/" in text, "its source"
    assert "<!-- table: code " in text, "the code beside it"
    for part in (
        "```text\n",
        "## Published settings, and ours",
        "## What is logged, and how to read it",
        "## Measured",
    ):
        assert part in text, part


def test_every_algorithm_is_on_one_page() -> None:
    tables = [rows(section(page, "Published settings, and ours")) for page in ALGORITHMS]
    found = [name for table in tables for row in table if len(row) == 4 for name in coded(row[0]) if "." not in name]
    assert sorted(found) == sorted(options(PLACES, "algorithm"))
    listed = [name for row in rows(PAGES["docs/algorithms/README.md"]) for name in coded(row[1])]
    assert sorted(listed) == sorted(found)


# ------------------------------------------------------------------------------------------------------------ commands

FENCED = [(page, line) for page, text in PAGES.items() for kind, block in BLOCK.findall(text) if kind == "sh"
          for line in block.splitlines()]  # fmt: skip
INLINE = [(page, code) for page in PAGES if "/reference/" not in page for code in coded(BLOCK.sub("", PAGES[page]))]
KINDS = r"(?:PYTHON=\S+ )?(tokenrl|make|pip|python) "
LINES: dict[str, str] = {}  # a command without its comment -> the first page that has it
for where, command in [*FENCED, *INLINE]:
    if re.match(KINDS, command) and "GROUP" not in command:
        LINES.setdefault(shlex.join(shlex.split(command, comments=True)), where)
OURS = {line: shlex.split(line)[1:] for line in LINES if line.startswith("tokenrl ")}
COMPOSED = [line for line, words in OURS.items() if words[0] in ("train", "validate") and "=" in line]
PRETRAINED = [line for line, words in OURS.items() if words[0] == "eval" and "model.path=DIR" in words]
RUN = [
    line
    for line, words in OURS.items()
    if words[0] in ("eval", "generate", "export") and len(words) > 1 and line not in PRETRAINED
]
ADAPTED = [line for line in RUN if "ckpt=LORA" in OURS[line]]
SHOWN = [line for line, words in OURS.items() if words[0] in ("list", "copy") or words[-1].startswith("--")]


def roots_of(line: str) -> set[str]:
    """The parts of a config that a command sets; a data set has metrics, monitors and lengths of its own."""
    keys = [word.partition("=")[0].lstrip("+~") for word in OURS[line][1:] if "=" in word or word[0] == "~"]
    found = {re.split(r"[./]", key.partition("@")[2] or key)[0] for key in keys}
    return {"dataset" if root in ("metrics", "trainer") else root for root in found}


def packs() -> list[list[str]]:
    """Commands that set different parts of a config together: composing takes a third of a second."""
    found: list[tuple[set[str], list[str]]] = [(set(), []) for _ in COMPOSED]
    for line in COMPOSED:
        roots = roots_of(line)
        if "experiment" in roots:  # sets all of it
            roots |= {"dataset", "tokenizer", "model", "reward", "credit", "algorithm"}
        if "resume" in roots:  # starts from the config of the run: all of these can be composed together
            place = next(each for each in found if not each[0] or "resume" in each[0])
        else:
            place = next(each for each in found if not each[0] & roots and "resume" not in each[0])
        place[0].update(roots)
        place[1].append(line)
    return [lines for _, lines in found if lines]


def test_every_command_is_of_a_known_kind() -> None:
    """One command a line, its comment behind it; each is composed, run, or looked at."""
    fenced = {line for _, line in FENCED if line.strip()}
    assert [line for line in fenced if not re.match(KINDS, line)] == ['eval "$(tokenrl -sc install=bash)"']
    without_arguments = {"tokenrl train", "tokenrl validate", "tokenrl eval", "tokenrl generate", "tokenrl export"}
    assert {*OURS} - {*COMPOSED, *RUN, *PRETRAINED, *SHOWN} <= {*without_arguments, "tokenrl train --cfg job"}
    assert len(COMPOSED) > 30
    assert len(RUN) > 5


def test_commands_of_make_pip_and_python_name_what_is_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in LINES:
        words = [word for word in shlex.split(line) if not re.match(r"[A-Z]+=", word)]
        if words[0] == "make":
            assert len(words) == 2, line
            assert words[1] in targets, line
        elif words[:2] == ["python", "-m"]:
            assert words[2] == "build", line
        elif words[0] == "python":
            script = (ROOT / words[1]).read_text("utf-8")
            assert all(f'"{word}"' in script for word in words if word.startswith("--")), line
        elif words[0] == "pip":
            files = [words[i + 1] for i, word in enumerate(words) if word in ("-r", "-c")]
            assert all((ROOT / name).is_file() for name in files), line
            wheels = [word for word in words if word.endswith(".whl")]
            assert all(f"-{tokenrl_cli.__version__}-" in name for name in wheels), line


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every example file of docs/, and RUN, a run whose policy acts by values."""
    place = tmp_path_factory.mktemp("docs")
    for name, text in EXAMPLES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, "utf-8")
    (place / "source.txt").write_text("1 2\n\n3\n", "utf-8")
    (place / "myconf" / "experiment").mkdir()
    recipe = conf_dir() / "experiment" / "e2e_lstm_rloo.yaml"
    (place / "myconf" / "experiment" / "mine.yaml").write_text(recipe.read_text("utf-8"), "utf-8")
    assert train(place / "RUN", "algorithm=ilql", "dataset.val_size=8") == 0
    return place


@pytest.fixture
def inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The workspace as current directory."""
    monkeypatch.chdir(workspace)
    monkeypatch.syspath_prepend(str(workspace))
    yield workspace
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)


def values_of(word: str) -> list[str]:
    """ "algorithm=rloo,ppo" -> both overrides; a comma inside brackets or quotes divides nothing."""
    key, equals, value = word.partition("=")
    if not equals or re.search(r"[\[{'\"]", value):
        return [word]
    return [f"{key}={each}" for each in value.split(",")]


def filled(value: Any) -> Any:
    """With something for what the user must give."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    return "given" if value == "???" else value


@pytest.mark.sample(8)
@pytest.mark.parametrize("lines", packs(), ids=lambda lines: lines[0])
def test_every_shown_training_composes_and_checks(lines: list[str], inside: Path) -> None:
    words = [word for line in lines for word in OURS[line][1:] if word not in ("-m", "--cfg", "job")]
    if "resume=RUN" in words:
        assert tokenrl("train", *dict.fromkeys(words), "--cfg", "job") == 0
        return
    extra = [f"hydra.searchpath=[file://{inside / 'myconf'}]"] if "--config-dir" in words else []
    words = [word for word in words if word not in ("--config-dir", "myconf")]
    for word in words:
        for each in values_of(word)[1:]:
            group, _, option = each.partition("=")
            assert group not in groups(PLACES) or option in options(PLACES, group), each
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*(values_of(word)[0] for word in words), *extra])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    check(filled(plain), plain["imports"], Train)


@pytest.mark.sample(5)
@pytest.mark.parametrize("line", [line for line in RUN if line not in ADAPTED])
def test_every_shown_evaluation_and_generation_runs(line: str, inside: Path) -> None:
    words = [values_of(word)[0] for word in OURS[line] if word != "-m"]
    assert tokenrl(*words) == 0
    (inside / "target.txt").unlink(missing_ok=True)


@pytest.mark.slow
def test_every_shown_command_for_a_run_with_an_adapter_runs(inside: Path) -> None:
    """LORA is one that started from the checkpoint BASE."""
    checkpoint(inside / "BASE", "gpt2")
    own = [word for word in [*TINY, *QUICK] if not word.startswith("model")]
    lora = ["model=hf_causal", f"model.path={inside / 'BASE'}", "model/adapter=lora"]
    assert train(inside / "LORA", *own, *lora, tiny=False) == 0
    assert len(ADAPTED) > 3
    for line in ADAPTED:
        for name in ("exported", "adapter", "target.txt"):
            disk.discard(inside / name)
        assert tokenrl(*OURS[line]) == 0, line


@pytest.mark.parametrize("line", PRETRAINED)
def test_every_shown_evaluation_of_a_pretrained_model_composes_and_checks(line: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("eval_model", OURS[line][1:]), resolve=True)
    check(filled(plain), [], EvalModel)


def test_every_other_command_runs(inside: Path) -> None:
    for line in SHOWN:
        words = ["train" if word == "COMMAND" else word for word in OURS[line]]
        if words[0] == "copy":
            (inside / words[-1]).unlink(missing_ok=True)
        assert tokenrl(*words) == 0, line
    assert tokenrl("-sc", "install=bash") == 0
    assert 'eval "$(tokenrl -sc install=bash)"' in PAGES["docs/install.md"]


# ------------------------------------------------------------------------------------------------------------ examples

SHORT = (
    "trainer.warm_start_steps=1 trainer.steps=2 trainer.batch_size=4 trainer.warm_start_batch_size=4 "
    "trainer.eval_every=2 trainer.checkpoint_every=2 trainer.eval_examples=8 trainer.device=cpu decode.max_length=8"
).split()
TOY = [word for word in TINY if not word.startswith("reward=")]


def logged(run: Path) -> set[str]:
    """Every name in the metrics of a run."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return {name for line in lines for name in json.loads(line)["metrics"]}


def documented() -> list[str]:
    """Patterns of the names that docs/metrics.md explains."""
    names = [name for row in rows(PAGES["docs/metrics.md"]) for name in coded(row[0])]
    return [re.sub(r"<\w+>", "[^/]+", name) for name in names]


def test_the_parts_of_extending_learn_together(inside: Path) -> None:
    parts = ["dataset=doubling", "model=bag", "algorithm=best_of", "reward=callable"]
    own = ["reward.function=my_parts.overlap", "imports=[my_parts,my_data,my_model,my_algorithm]"]
    assert tokenrl("train", "--config-dir", "myconf", *parts, *own, *SHORT, "hydra.run.dir=together") == 0
    assert json.loads((inside / "together" / "results.json").read_text("utf-8"))["format"] == 1
    assert "rewards/callable/mean" in logged(inside / "together")


def test_the_reward_of_ten_lines_runs(inside: Path) -> None:
    command = next(block for kind, block in BLOCK.findall(section("docs/rewards.md", "Your own, in ten lines"))
                   if kind == "sh")  # fmt: skip
    assert tokenrl(*shlex.split(command)[1:], *TOY, "hydra.run.dir=short") == 0
    names = logged(inside / "short")
    assert {"rewards/callable/brevity", "rewards/callable/failed"} <= names
    require_documented(names)


def require_documented(names: set[str]) -> None:
    known = documented()
    corpus_metrics = {"exact_match", "token_accuracy"}  # "..." there: every metric may be among them
    assert not {name for name in names - corpus_metrics if not any(re.fullmatch(each, name) for each in known)}


def test_every_name_that_a_run_logs_is_explained(workspace: Path) -> None:
    names = logged(workspace / "RUN")
    assert {"adv/mean", "target_gap", "policy/target_rank"} <= names
    require_documented(names)


@cache
def nodes() -> list[ast.AST]:
    """The syntax of the whole package."""
    files = Path(tokenrl_cli.__file__).parent.rglob("*.py")
    return [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]


def test_every_name_that_the_code_logs_is_explained() -> None:
    kinds = {name.partition("/")[0] for name in documented() if "/" in name} - {"rewards"}
    name = re.compile(rf"({'|'.join(kinds)})/[a-z0-9_/]+[a-z0-9]")
    constants = {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    found = {value for value in constants if name.fullmatch(value)}
    assert "loss/policy" in found
    assert not found - set(documented())


def test_every_finding_is_explained() -> None:
    explained = {rule for row in rows(section("docs/troubleshooting.md", "Findings")) for rule in coded(row[0])}
    calls = [node for node in nodes() if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name)]
    rules = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Finding"]
    found = {rule.value for rule in rules if isinstance(rule, ast.Constant)}
    assert "dead_reward" in found
    assert not found - explained


def dataset(name: str, path: Path, **values: Any) -> Any:
    """A data set with the values of its YAML."""
    block = yaml.safe_load((conf_dir() / "dataset" / f"{name}.yaml").read_text("utf-8")) | values | {"path": str(path)}
    return locate(block["_target_"], [])(**{key: each for key, each in block.items() if key not in HYDRA})


def test_the_three_lines_of_every_format_are_read(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGES["docs/data.md"])
    json_lines = [text for kind, text in blocks if kind == "json"]
    texts_shown = [text for kind, text in blocks if kind == "text"]
    found = []
    for number, text in enumerate(json_lines):
        (tmp_path / f"{number}.jsonl").write_text(text, "utf-8")
        read = dataset("jsonl", tmp_path, splits={"train": f"{number}.jsonl"})
        assert read.size("train") == 3
        found += [(read.example("train", i).source != "", len(read.example("train", i).references)) for i in range(3)]
    assert found == [(True, 2), (True, 1), (True, 1), *[(False, 1)] * 3, *[(True, 0)] * 3]
    for end, text in zip(("src", "tgt"), texts_shown, strict=False):
        (tmp_path / f"train.{end}").write_text(text, "utf-8")
    assert dataset("parallel", tmp_path).example("train", 2).references == ["es regnet ."]
    (tmp_path / "plain.txt").write_text(texts_shown[2], "utf-8")
    plain = dataset("text", tmp_path, splits={"train": "plain.txt"}, prompt_words=1, blank_lines=True)
    assert [plain.example("train", i).source for i in range(plain.size("train"))] == ["Before", "Speak,"]


def test_the_table_of_rewards_has_all_of_them() -> None:
    table = rows(section("docs/rewards.md", "The rewards"))
    assert sorted(name for row in table for name in coded(row[0])) == sorted(options(PLACES, "reward"))


def test_the_worked_example_of_credit_is_so() -> None:
    table = [row for row in rows(section("docs/rewards.md", "Credit")) if len(row) == 8 and row[0]]
    said = [row[1] for row in table]
    seen = texts([(said[-1], ["the cat sat on the mat"])])
    wer = error_rate("words")
    found = [
        Bleu(4, "exp", None, True, "13a", False).prefix_scores(seen, [["", *said]])[0],
        wer.prefix_scores(seen, [["", *said]])[0],
        wer.completion_scores(seen, [["", *said]])[0],
    ]
    assert len(table) == 7
    for t, row in enumerate(table, 1):
        numbers = [float(cell.replace("\u2212", "-")) for cell in row[2:]]
        expected = [number for scores in found for number in (scores[t], scores[t] - scores[t - 1])]
        assert numbers == pytest.approx(expected, abs=6e-4), row


def test_numbers_of_the_readme_are_those_of_the_results() -> None:
    for number in ("42.5", "60.1", "+17.5 [+13.8, +21.6]", "99.4 %"):
        assert number in PAGES["README.md"]
        assert number in PAGES["docs/results.md"]
