"""Runs on data other than three files of pairs: other splits, prompts, empty sources, sources kept for RL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.running import TINY, lines, tokenrl, train
from tokenrl_cli.data.splits import kept_for_rl

SMALL = [each for each in TINY if not each.startswith(("dataset", "reward", "trainer.monitor"))]
NO_METRICS = ["~metrics.bleu", "~metrics.chrf"]
LETTERS = "a b c d e f g h i j k l m n o p".split()


def written(folder: Path, name: str, pairs: list[tuple[str, list[str]]]) -> None:
    rows = [json.dumps({"src": source, "refs": refs} if refs else {"src": source}) for source, refs in pairs]
    (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", "utf-8")


def pairs(start: int, count: int) -> list[tuple[str, list[str]]]:
    """Sources of three letters whose references follow no rule: they can be memorised, not learned."""
    found = []
    for i in range(start, start + count):
        source = f"{LETTERS[i % 16]} {LETTERS[i // 16 % 16]} {LETTERS[(i * 7) % 16]}"
        found.append((source, [f"{LETTERS[(i * 5 + 3) % 16]} {LETTERS[(i * 11 + i // 3) % 16]}"]))
    return found


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def findings(run: Path) -> dict[str, str]:
    return {each["rule"]: f"{each['key']}: {each['text']}" for each in results(run)["findings"]}


@pytest.fixture(autouse=True)
def _here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes into the directory of the data: files there may be read without being named again."""
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs to memorise and other pairs in val and test; a run that has memorised them, and RL on its share."""
    home = tmp_path_factory.mktemp("data")
    written(home, "train", pairs(0, 12))
    for name, start in (("val", 40), ("test", 80), ("other", 120)):
        written(home, name, pairs(start, 12))
    (home / "seen.py").write_text(
        "from pathlib import Path\n"
        "def half(source, step, reference=None, hypothesis=''):\n"
        "    if step:\n"
        "        with Path(__file__).with_name('seen.txt').open('a') as file:\n"
        "            file.write(source + '\\n')\n"
        "    return float(hypothesis == reference)\n"
    )
    learned = ["trainer.warm_start_steps=120", "trainer.steps=2", "trainer.eval_every=120", "decode.max_length=4"]
    rates = ["warm_start.optimizer.lr=2e-2", "warm_start.optimizer.schedule.warmup_steps=0", "trainer.eval_examples=0"]
    own = [f"imports=[{home / 'seen.py'}]", "reward=callable", f"reward.function={home / 'seen.py'}:half"]
    words = ["dataset=jsonl", f"dataset.path={home}", "+dataset.splits.test_other=[other,test]", *NO_METRICS]
    words += [*SMALL, *learned, *rates, "trainer.warm_start_from=last"]
    assert train(home / "all", *words, "reward=exact_match", tiny=False) == 0
    assert train(home / "share", *words, *own, "dataset.rl_share=0.5", tiny=False) == 0
    return home


def test_rl_on_sources_known_by_heart_is_a_finding(home: Path) -> None:
    found = findings(home / "all")["memorised_sources"]
    assert found.startswith("dataset.rl_share: greedy texts get a reward of ")
    assert "rl_share=0.2 keeps" in found


def test_rl_draws_its_share_of_train_alone(home: Path) -> None:
    seen = set((home / "seen.txt").read_text().splitlines())
    own = {source for i, (source, _) in enumerate(pairs(0, 12)) if kept_for_rl(source, i, 0.5)}
    assert seen
    assert seen <= own
    assert own != {source for source, _ in pairs(0, 12)}
    assert "memorised_sources" not in findings(home / "share")


def test_a_named_split_is_evaluated_and_its_sources_are_decoded_in_order(home: Path) -> None:
    assert tokenrl("eval", f"ckpt={home / 'all'}", "split=test_other") == 0
    folder = home / "all" / "eval" / "test_other-greedy"
    assert results(folder)["examples"] == 24
    assert results(folder)["split"] == "test_other"
    assert tokenrl("generate", f"ckpt={home / 'all'}", "split=test_other", f"output={home / 'said.txt'}") == 0
    assert (home / "said.txt").read_text() == (folder / "hypotheses.txt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "split=test_othr"], "split=test_othr: the data set has no such split (did you mean 'test_other'?)"),
        (["generate", "split=vall"], "split=vall: the data set has no such split (did you mean 'val'?)"),
        (["generate", "split=val", "input=x.txt"], "split=val: cannot be given with input=x.txt"),
    ],
)
def test_a_split_that_is_not_there_is_refused(
    home: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tokenrl(words[0], f"ckpt={home / 'all'}", *words[1:]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("prompts")
    for start, name in enumerate(("train", "val", "test")):
        written(home, name, [(source, []) for source, _ in pairs(40 * start, 12)])
    return home


def test_what_needs_references_is_refused_before_the_first_step(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset=jsonl", f"dataset.path={prompts}", *SMALL, "reward=bleu"]
    for command in ("train", "validate"):
        assert tokenrl(command, *words, f"out={tmp_path / 'run'}") == 2
        said = capsys.readouterr().err
        keys = "warm_start=mle, reward=bleu, metrics.bleu, metrics.chrf, trainer.warm_start_monitor=nll"
        assert f"{keys}: need references: {prompts / 'train.jsonl'}, line 1 has none, nor have 11 others" in said
        assert "~metrics.bleu; ~metrics.chrf" in said
        assert "trainer.warm_start_steps=0" in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_rl_learns_from_prompts_alone_and_evaluation_reports_what_it_can(prompts: Path, tmp_path: Path) -> None:
    words = ["dataset=jsonl", f"dataset.path={prompts}", *SMALL, "trainer.warm_start_steps=0", *NO_METRICS]
    assert train(tmp_path / "run", *words, "reward=repetition", tiny=False) == 0
    evaluated = [each["metrics"] for each in lines(tmp_path / "run") if each["split"] != "train"]
    assert evaluated
    assert all({"reward", "sampled_reward", "entropy", "completions/mean_length"} <= set(each) for each in evaluated)
    assert not any({"nll", "perplexity", "policy/target_rank", "bleu"} & set(each) for each in evaluated)
    assert "not_tried" in findings(tmp_path / "run")
    assert tokenrl("eval", f"ckpt={tmp_path / 'run'}") == 0
    folder = tmp_path / "run" / "eval" / "test-greedy"
    assert len((folder / "hypotheses.txt").read_text().splitlines()) == 12
    assert not list(folder.glob("references*"))
    again = ["reward=repetition", f"init_from={tmp_path / 'run'}", "trainer.steps=2"]
    assert train(tmp_path / "again", *words, *again, tiny=False) == 0


def test_texts_of_empty_sources_are_sampled_and_the_same_each_time(home: Path, tmp_path: Path) -> None:
    words = ["dataset=jsonl", f"dataset.path={home}", "dataset.source_column=null", *SMALL, "reward=repetition"]
    assert train(tmp_path / "run", *words, "dataset.rl_share=0.4", tiny=False) == 0
    evaluated = [each for each in lines(tmp_path / "run") if each["split"] != "train"]
    assert {each["decode"] for each in evaluated} == {"sample"}
    assert "nll" in evaluated[0]["metrics"]
    assert findings(tmp_path / "run")["empty_sources"].startswith("decode: all sources of val and test are empty")
    said = []
    for _ in range(2):
        assert tokenrl("eval", f"ckpt={tmp_path / 'run'}") == 0
        folder = tmp_path / "run" / "eval" / "test-sample"
        said.append((folder / "hypotheses.txt").read_text())
    assert said[0] == said[1]
    assert len(set(said[0].splitlines())) > 6
    found = results(folder)
    assert found["findings"][0]["rule"] == "empty_sources"
    assert found["decode"]["temperature"] == 1
