"""`tokenrl generate`: its texts equal those that `tokenrl eval` scored, line by line."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import torch

import tokenrl_cli
from tests.running import TINY, tokenrl, train
from tests.stepwise import logprobs, policy_of
from tokenrl_cli.dataset.sequence_task import SequenceTask

SIZES = ["model.width=16", "model.heads=2", "model.feedforward=32", "model.layers=2"]
MODELS = {
    **{name: ["model.embedding=16", "model.hidden=24"] for name in ("rnn", "gru", "lstm")},
    **dict.fromkeys(("gpt", "transformer"), SIZES),
}
DECODES = {"greedy": ["decode=greedy"], "beam": ["decode=beam", "decode.beam_size=3"]}


def sources() -> list[str]:
    """The sources of the test split that TINY evaluates."""
    data = SequenceTask("reverse", 5, 2, 4, 0.0, 1, 200, 16, 64, "truncate")
    return [data.example("test", i).source for i in range(16)]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "model",
    [pytest.param(each, marks=pytest.mark.slow) if each in ("rnn", "lstm") else each for each in MODELS],
)
def test_generate_decodes_what_eval_decodes_in_any_batch_with_dropout_in_the_model(tmp_path: Path, model: str) -> None:
    run, lines = tmp_path / "run", tmp_path / "source.txt"
    plain = [each for each in TINY if not each.startswith("model")]
    steps = ["trainer.warm_start_steps=60", "trainer.steps=2", "trainer.eval_every=60"]
    rate = ["warm_start.optimizer.lr=8e-3", "warm_start.optimizer.schedule.warmup_steps=0"]  # quick: few steps
    chosen = [f"model={model}", *MODELS[model], "model.dropout=0.3", *steps, *rate]
    assert train(run, *plain, *chosen, tiny=False) == 0
    lines.write_text("".join(f"{source}\n" for source in sources()), "utf-8")
    opened = tokenrl_cli.load(run)
    for name, decode in DECODES.items():
        assert tokenrl("eval", f"ckpt={run}", f"out={tmp_path / 'eval'}", *decode) == 0
        folder = next(path for path in (tmp_path / "eval").iterdir() if name in path.name)
        scored = (folder / "hypotheses.txt").read_text("utf-8")
        assert len(set(scored.splitlines())) > 1, "a model that says one thing for everything shows no difference"
        for size in (3,):  # eval decodes all of them at once
            said = tmp_path / f"{name}-{size}.txt"
            given = [f"ckpt={run}", f"input={lines}", f"output={said}", f"batch_size={size}", *decode]
            torch.manual_seed(size)  # of the global generator, which dropout would draw from
            assert tokenrl("generate", *given) == 0
            assert said.read_text("utf-8") == scored, (name, size)
        said = opened.generate(sources(), name, batch_size=3, **{"beam": {"beam_size": 3}}.get(name, {}))
        assert [each.text for each in said] == scored.splitlines(), "from Python it is the same"
    assert opened.generate(["0 1"], max_length=9)[0].text, "another limit needs another policy"
    policy, task = policy_of(run)
    for source, each in zip(sources(), opened.score(sources(), sources(), batch_size=5), strict=True):
        assert each.logprobs == pytest.approx(logprobs(policy, task, source, source), abs=2e-4)


# --------------------------------------------------------------------------------------------- what it reads and writes

PAIRS = [("one two three", "a b c"), ("four five", "d e"), ("six", "f"), ("four two one", "d b a")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a word model, trained until it gives a different text for every source."""
    folder = tmp_path_factory.mktemp("words")
    texts = "".join(json.dumps({"src": source, "refs": [target]}) + "\n" for source, target in PAIRS)
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text(texts, "utf-8")
    plain = [each for each in TINY if not each.startswith(("dataset", "trainer.warm_start_steps"))]
    data = ["dataset=jsonl", f"dataset.path={folder}", "dataset.max_source_length=4", "tokenizer=word"]
    rate = ["warm_start.optimizer.lr=2e-2", "warm_start.optimizer.schedule.warmup_steps=0"]
    steps = ["trainer.warm_start_steps=60", "trainer.steps=0", "trainer.eval_every=60"]
    assert train(folder / "run", *plain, *data, *rate, *steps, tiny=False) == 0
    return folder / "run"


def generated(run: Path, content: bytes, *more: str) -> list[str]:
    """The lines that are written for an input file."""
    given, said = run / "given.txt", run / "said.txt"
    given.write_bytes(content)
    said.unlink(missing_ok=True)
    assert tokenrl("generate", f"ckpt={run}", f"input={given}", f"output={said}", *more) == 0
    text = said.read_bytes().decode()
    assert text.endswith("\n")
    return text[:-1].split("\n")


def piped(run: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, *more: str) -> int:
    """The exit status of a command that reads `content` from a pipe, in a locale without these letters."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), "ascii"))
    return tokenrl("generate", f"ckpt={run}", *more)


def test_a_line_is_the_same_text_with_or_without_a_mark_in_front_and_whatever_ends_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = generated(run, b"one two three\nfour five\n")
    assert wanted == ["a b c", "d e"]
    content = b"\xef\xbb\xbfone two three\r\nfour five"
    assert generated(run, content) == generated(run, gzip.compress(content)) == wanted
    capsys.readouterr()
    assert piped(run, monkeypatch, content) == 0
    assert capsys.readouterr() == ("a b c\nd e\n", "")


@pytest.mark.parametrize("size", [1, 2, 64])
def test_a_blank_line_gives_a_blank_line_and_the_others_are_what_they_are_without_it(run: Path, size: int) -> None:
    content = b"\none two three\n\n   \n\t\nsix"
    assert generated(run, content, f"batch_size={size}") == ["", "a b c", "", "", "", "f"]
    assert generated(run, b"\n\n", f"batch_size={size}") == ["", ""]


def test_wrong_bytes_on_standard_input_are_named_with_their_line_and_what_came_before_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(run, monkeypatch, b"six\nf\xfcnf\n", "batch_size=1") == 2
    out, err = capsys.readouterr()
    assert out == "f\n"
    assert "standard input: line 2 is not UTF-8: byte 0xfc" in err
    assert "Traceback" not in err


def test_what_the_model_could_not_read_is_counted_on_standard_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated(run, b"six\n\nsix six six six six\nseven six six\n")
    wanted = "1 of 3 sources was longer than 4 tokens and was cut; 1 of 8 source tokens (12.5 %) is unknown\n"
    assert capsys.readouterr() == ("", wanted)


@pytest.mark.parametrize("decode", ["greedy", "sample"])
def test_samples_are_texts_without_a_source(run: Path, capsys: pytest.CaptureFixture[str], decode: str) -> None:
    given = ["generate", f"ckpt={run}", f"decode={decode}", "samples=9"]
    assert tokenrl(*given, "batch_size=4") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 9
    assert (len(set(out.split("\n")[:9])) == 1) == (decode == "greedy")
    note = "greedy decoding gives the same text 9 times; decode=sample gives different ones\n"
    assert err == (note if decode == "greedy" else "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["samples=2", "input=x.txt"], "samples=2: cannot be given with input=x.txt"),
        (["samples=0"], "samples=0: must be int, at least 1"),
        (["input=nowhere.txt"], "input=nowhere.txt: there is no such file"),
        (["input=/"], "input=/: is a folder"),
    ],
)
def test_an_input_that_cannot_be_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert tokenrl("generate", f"ckpt={run}", *words) == 2
    assert said in capsys.readouterr().err


def test_a_closed_standard_input_is_said_before_anything_is_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert tokenrl("generate", f"ckpt={run}", f"output={tmp_path / 'said.txt'}") == 2
    assert "standard input: is closed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert tokenrl("generate", f"ckpt={run}", "samples=1") == 0


def test_an_evaluation_counts_what_the_model_could_not_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval", f"ckpt={run}", f"out={tmp_path / 'eval'}"]
    assert tokenrl(*given, f"dataset.path={run.parent}") == 0
    assert "unknown" not in capsys.readouterr().err
    texts = [{"src": "one two", "refs": ["a x", "b"]}, {"src": "one 2 three four five", "refs": ["c"]}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), "utf-8")
    assert tokenrl(*given, f"dataset.path={tmp_path}") == 0
    cut = "1 of 2 sources was longer than 4 tokens and was cut; 1 of 6 source tokens (16.7 %) is unknown"
    assert f"{cut}; 1 of 4 reference tokens (25.0 %) is unknown\n" in capsys.readouterr().err


def test_training_says_at_its_start_what_of_val_and_test_is_known(run: Path) -> None:
    found = json.loads((run / "results.json").read_text("utf-8"))["findings"]
    said = [(each["severity"], each["step"], each["text"]) for each in found if each["rule"] == "sources_in_train"]
    assert said == [("note", 0, f"4 of 4 sources of {split} stand in train") for split in ("val", "test")]
