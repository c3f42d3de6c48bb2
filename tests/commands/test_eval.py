"""`tokenrl eval`: its numbers equal those of the reference tools on the files that it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import pytest

from tests.running import QUICK, TINY, tokenrl, train
from tokenrl_cli.metrics.saved_statistics import load
from tokenrl_cli.run import checkpoint

FILES = [
    "dataset=jsonl",
    "dataset.source_column=src",
    "dataset.reference_column=refs",
    "trainer.monitor=sampled_reward",
]
METRICS = [
    f"+reward@metrics.{name}={name}" for name in ("rouge", "wer", "token_accuracy")
]  # besides its own bleu and chrf
SMALL = [
    "model=gru", "model.embedding=16", "model.hidden=24", "decode.max_length=8", "trainer.warm_start_steps=200",
    "trainer.steps=2", "trainer.batch_size=8", "trainer.warm_start_batch_size=8", "trainer.eval_every=100",
    "trainer.eval_examples=8", "trainer.device=cpu", "trainer.gate=null",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets TOKENRL_DATA to the directory of the data, so that `eval` may read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENRL_DATA", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on sentences with one, two and three references."""
    home = tmp_path_factory.mktemp("eval")
    words = "the small cat sat on a mat , and 5.3 dogs ran .".split()
    for split, size in (("train", 40), ("val", 8), ("test", 40)):
        rows = []
        for i in range(size):
            said = [words[(i * 5 + k * (1 + i % 3)) % len(words)] for k in range(3 + i % 4)]
            refs = [" ".join(said), " ".join(reversed(said)), " ".join(said[1:])][: 1 + i % 3]
            rows.append(json.dumps({"src": " ".join(said), "refs": refs}))
        (home / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    assert train(home / "run", *FILES, f"dataset.path={home}", *METRICS, *SMALL, tiny=False) == 0
    assert tokenrl("eval", f"ckpt={home / 'run'}", f"out={home / 'eval'}") == 0
    return home


def results(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "eval" / "test-greedy" / "results.json").read_text())
    return found


def results_at(folder: Path) -> dict[str, Any]:
    """The content of each results.json in a folder of evaluations, by the name of the evaluation's own folder."""
    return {each.name: json.loads((each / "results.json").read_text()) for each in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_sacrebleu_command_says_the_same_of_the_files(run: Path, name: str) -> None:
    folder = run / "eval" / "test-greedy"
    files = sorted(map(str, folder.glob("references.*.txt")))
    assert len(files) == 3
    command = [sys.executable, "-m", "sacrebleu", *files, "-i", str(folder / "hypotheses.txt"), "-m", name, "-w", "10"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = results(run)["metrics"][name]
    assert ours["value"] == pytest.approx(said["score"], abs=1e-9)
    assert ours["value"] > 1


def test_jiwer_says_the_same_of_the_files(run: Path) -> None:
    folder = run / "eval" / "test-greedy"
    text = (folder / "hypotheses.txt").read_text().splitlines()
    columns = [path.read_text().splitlines() for path in sorted(folder.glob("references.*.txt"))]
    best = [
        min((ref for ref in refs if ref), key=lambda ref, text=said: jiwer.wer(ref, text))  # type: ignore[misc]
        for said, refs in zip(text, zip(*columns, strict=True), strict=True)
    ]
    assert results(run)["metrics"]["wer"]["value"] == pytest.approx(jiwer.wer(best, text), abs=1e-12)


def test_every_metric_has_its_signature_and_an_interval_around_it(run: Path) -> None:
    found = results(run)["metrics"]
    assert set(found) == {"bleu", "chrf", "rouge", "wer", "token_accuracy", "reward"}
    for name, metric in found.items():
        assert metric["low"] <= metric["value"] <= metric["high"], name
        assert "version:" in metric["signature"]
    assert "nrefs:var" in found["bleu"]["signature"]


def test_an_error_rate_chooses_the_checkpoint_where_it_is_lowest(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "+reward@metrics.wer=wer", "trainer.monitor=wer", "trainer.eval_every=1") == 0
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    judged = [
        (line["metrics"]["wer"], line["step"])
        for line in logged
        if line["split"] == "val" and line["stage"] in ("warm_start", "train")
    ]
    lowest = min(value for value, _ in judged)
    chosen = int((tmp_path / "run" / "checkpoints" / "best").resolve().name)
    assert (lowest, chosen) in judged
    assert lowest < max(value for value, _ in judged)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["objective"] == lowest


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["credit=token"], "credit: token needs a reward of one number a token"),
        (["credit=delta_optimal"], "credit: needs completion_scores of the reward, which token_accuracy does not have"),
        (["reward=validity"], "validity: needs the column 'meaning'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], problem: str
) -> None:
    assert train(tmp_path / "run", *overrides) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.sample(1)
@pytest.mark.parametrize("credit", ["terminal", "delta", "delta_optimal"])
@pytest.mark.parametrize("algorithm", ["scst", "soft_q"])  # credit is given before an algorithm sees the rewards
def test_policy_gradients_and_values_go_with_every_credit(tmp_path: Path, algorithm: str, credit: str) -> None:
    assert train(tmp_path / "run", *QUICK, f"algorithm={algorithm}", f"credit={credit}", "reward=per") == 0


@pytest.mark.slow
def test_a_sweep_over_what_decoding_asks_keeps_every_result(tmp_path: Path) -> None:
    """beta acts in decoding alone, so that one run stands for several policies."""
    assert train(tmp_path / "run", "algorithm=ilql", "credit=delta", "algorithm.optimizer.lr=1e-2") == 0
    swept = ["--multirun", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert tokenrl("eval", *swept, f"ckpt={tmp_path / 'run'}", "decode.temperature=1", "algorithm.beta=0,4,100") == 0
    found = {
        folder.name: json.loads((folder / "results.json").read_text())["other"]["entropy"]
        for folder in (tmp_path / "run" / "eval").iterdir()
    }
    assert set(found) == {"test-sample", "test-sample-beta=0", "test-sample-beta=100"}
    assert found["test-sample-beta=100"] < found["test-sample"] < found["test-sample-beta=0"]


def test_evaluations_that_differ_in_anything_keep_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run, "dataset.test_size=40", "reward=wer") == 0
    done = json.loads((run / "results.json").read_text())
    assert {"wer", "reward", "token_accuracy"} <= done["difference"].keys()
    assert done["decode"] == "greedy"
    for name in ("wer", "reward"):
        assert done["test"]["final"][name] is not None
        assert (done["difference"][name]["p"] is None) == (done["difference"][name]["low"] is None)
    swept = ["--multirun", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    ckpt = f"ckpt={run}"
    for words in (
        [],
        [*swept, "decode=beam", "decode.beam_size=2,3"],
        ["decode=beam"],
        ["dataset.max_symbols=5"],
        ["examples=1"],
        ["+reward@metrics.length=length"],
        ["reward=token_accuracy"],
        ["split=val"],
        ["seed=5"],
        [],
    ):
        assert tokenrl("eval", ckpt, *words) == 0, words
    folders = {folder.name: json.loads((folder / "results.json").read_text()) for folder in (run / "eval").iterdir()}
    assert set(folders) == {
        "test-greedy", "test-beam-decode.beam_size=2", "test-beam-decode.beam_size=3", "test-beam",
        "test-greedy-dataset.max_symbols=5", "test-greedy-examples=1",
        "test-greedy-metrics.length=length", "test-greedy-reward=token_accuracy",
        "val-greedy", "test-greedy-seed=5",
    }  # fmt: skip
    assert folders["test-greedy"]["metrics"]["wer"]["value"] == done["test"]["best"]["wer"]
    (finding,) = folders["test-greedy-examples=1"]["findings"]
    assert (finding["rule"], finding["key"]) == ("few_sentences", "examples")
    assert "1 sentence has" in finding["text"]
    for metric in folders["test-greedy-examples=1"]["metrics"].values():
        assert metric["low"] is metric["high"] is None
        assert "nan" not in json.dumps(metric).lower()
    kept = load(run / "eval" / "test-greedy" / "statistics.npz")
    assert {name: score.value for name, score in kept.items()} == {
        name: metric["value"] for name, metric in folders["test-greedy"]["metrics"].items()
    }


@pytest.mark.slow
def test_checkpoints_of_a_run_keep_apart_and_the_warm_start_knows_no_algorithm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, "algorithm=ilql", "credit=delta", "algorithm.optimizer.lr=1e-2") == 0
    kept = run / "checkpoints"
    steps = {name: int((kept / name).resolve().name) for name in ("best", "last", "warm_start")}
    for name in steps:
        assert tokenrl("eval", f"ckpt={kept / name}") == 0
    expected = {f"test-greedy-step={step}" for step in steps.values() if step != steps["best"]} | {"test-greedy"}
    assert {folder.name for folder in (run / "eval").iterdir()} == expected
    assert len(expected) > 1
    before = results_at(run / "eval")
    for name in steps:  # what goes is not read by an evaluation
        checkpoint.slim((kept / name).resolve())
        assert tokenrl("eval", f"ckpt={kept / name}") == 0
    assert results_at(run / "eval") == before
    copied = tmp_path / "exported" / "mine"
    shutil.copytree((kept / "last").resolve(), copied)
    assert tokenrl("eval", f"ckpt={copied}", f"out={tmp_path / 'out'}") == 0
    assert (tmp_path / "out" / "test-greedy" / "results.json").is_file()
    capsys.readouterr()
    assert tokenrl("eval", f"ckpt={kept / 'warm_start'}", "algorithm.beta=2") == 2
    problem = "algorithm.beta=2: changes the algorithm of the RL stage, and this checkpoint is of the warm start"
    assert problem in capsys.readouterr().err


@pytest.mark.slow
def test_no_run_begins_from_half_of_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """init_from refuses a policy that acts by Q-values: it is more than its model. Others are accepted."""
    own = ["algorithm/head=logits", "algorithm/prior=uniform", "model.dropout=0.5"]
    for name, status, words in (("soft_q", 2, []), ("pcl", 0, []), ("its own logits", 0, own)):
        chosen = ["algorithm=soft_q" if words else f"algorithm={name}", *words]
        assert train(tmp_path / name, *QUICK, *chosen, "algorithm.optimizer.lr=1e-2") == 0
        capsys.readouterr()
        start = [f"init_from={tmp_path / name / 'checkpoints' / 'last'}", "trainer.warm_start_steps=0"]
        assert train(tmp_path / f"{name} again", *QUICK, *start, "model.dropout=0.5") == status
        said = capsys.readouterr().err
        assert status == 0 or "chooses tokens by learned values: its model alone is not the policy" in said
    start = [f"init_from={tmp_path / 'soft_q' / 'checkpoints' / 'warm_start'}", "trainer.warm_start_steps=0"]
    assert train(tmp_path / "from its warm start", *QUICK, *start) == 0


@pytest.mark.slow
def test_policy_gradients_and_values_go_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = ["--multirun", f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=${hydra.job.num}"]
    older = tmp_path / "older" / "checkpoints"  # a run that was there before, and an evaluation
    older.mkdir(parents=True)
    for folder in (older.parent, older.parent / "eval" / "test-greedy"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text("{}")
    os.utime(older.parent / "results.json", (0, 0))
    assert tokenrl("train", *swept, *TINY, *QUICK, "algorithm=rloo,soft_q,pcl,ilql") == 0
    ended = [json.loads((tmp_path / str(job) / "results.json").read_text())["test"]["final"] for job in range(4)]
    assert all("sampled_reward" in each for each in ended)
    table = capsys.readouterr().out.strip().splitlines()[-6:]
    assert table[0].startswith("test, greedy")
    assert table[5] == f"runs: {tmp_path}"
    column = table[0].split().index("sampled_reward") - 1  # the first has two words
    for name, line, each in zip(("rloo", "soft_q", "pcl", "ilql"), table[1:5], ended, strict=True):
        cells = line.split()
        assert cells[0] == f"algorithm={name}"
        assert cells[column] == f"{each['sampled_reward']:.3f}"


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("decode.forbidden=[9999]", "decode.forbidden: holds 9999, and the last token is"),
        ("decode=null", "decode=null: names no option"),
        ("decode=greedy decode.length_penalty=1", "decode.length_penalty=1: compares hypotheses"),
        ("batch_size=0", "batch_size=0: must be at least 1"),
        ("+lr=3", "lr: there is no such key or group"),
        ("imports=5", "imports=5: must be a list"),
    ],
)
def test_what_cannot_be_decoded_with_is_told_in_one_line(
    run: Path, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("eval", "generate"):
        assert tokenrl(command, f"ckpt={run / 'run'}", *words.split()) == 2
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error
