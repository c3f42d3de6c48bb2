"""`tokenrl eval` of a run with error rates: the files, the tables and the comparison with another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.running import tokenrl, train

SMALL = [
    "dataset=jsonl", "model=gru", "model.embedding=16", "model.hidden=24", "decode.max_length=8", "reward=wer",
    "~metrics.bleu", "~metrics.chrf", "+reward@metrics.cer=cer",
    "trainer.warm_start_steps=8", "trainer.steps=2", "trainer.batch_size=8", "trainer.warm_start_batch_size=8",
    "trainer.eval_every=100", "trainer.eval_examples=8", "trainer.monitor=wer", "trainer.device=cpu",
    "trainer.gate=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of four speakers, and a run on them."""
    home = tmp_path_factory.mktemp("errors")
    words = "the small cat sat on a mat and five dogs ran".split()
    for split, size in (("train", 24), ("val", 8), ("test", 32)):
        rows = []
        for i in range(size):
            text = " ".join(words[(i * 5 + k * (1 + i % 3)) % len(words)] for k in range(3 + i % 4))
            rows.append(json.dumps({"id": f"{split}{i}", "src": text, "refs": [text], "speaker": f"s{i % 4}"}))
        (home / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENRL_DATA", str(home))
        assert train(home / "run", f"dataset.path={home}", *SMALL, tiny=False) == 0
    return home


@pytest.fixture(autouse=True)
def data_root(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENRL_DATA", str(home))


def test_errors_are_shown_written_and_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = home / "run"
    assert tokenrl("eval", f"ckpt={run}/checkpoints/warm_start", f"out={home / 'before'}") == 0
    shown = capsys.readouterr().err
    assert "wer, %  Utterances  Words  Corr" in shown
    assert "cer, %  Utterances  Characters  Corr" in shown
    assert "over 4 speakers" in shown
    (before,) = (home / "before").iterdir()
    results = json.loads((before / "results.json").read_text())
    assert set(results["errors"]) == {"wer", "cer"}
    for name in results["errors"]:
        row = results["errors"][name]["all"]
        assert row["errors"] / row["tokens"] == pytest.approx(results["metrics"][name]["value"], abs=1e-12)
        assert row["utterances"] == 32
        assert list(results["errors"][name]["speakers"]) == ["s0", "s1", "s2", "s3"]
        lines = [json.loads(line) for line in (before / name / "alignments.jsonl").read_text().splitlines()]
        assert [(each["id"], each["speaker"]) for each in lines] == [(f"test{i}", f"s{i % 4}") for i in range(32)]
    hypotheses = (before / "hypotheses.txt").read_text().splitlines()
    transcripts = (before / "wer" / "hypotheses.trn").read_text().splitlines()
    assert transcripts == [f"{text} (s{i % 4}-test{i})".lstrip() for i, text in enumerate(hypotheses)]

    assert tokenrl("eval", f"ckpt={run}/checkpoints/last", f"out={home / 'after'}", f"against={before}") == 0
    assert f"wer less that of {before}: " in capsys.readouterr().err
    (file,) = (home / "after").glob("*/against.json")
    found = json.loads(file.read_text())["metrics"]
    after = json.loads((file.parent / "results.json").read_text())["metrics"]
    for name in ("wer", "cer"):
        gap = after[name]["value"] - results["metrics"][name]["value"]
        assert found[name]["mean"] == pytest.approx(gap, abs=1e-12)
        assert found[name]["speakers"]["number"] == 4


def test_an_evaluation_to_compare_with_that_is_missing_is_one_error_before_decoding(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", f"ckpt={home / 'run'}", f"out={tmp_path / 'out'}", f"against={tmp_path / 'none'}"]
    assert tokenrl(*words) == 2
    assert f"against={tmp_path / 'none'}: has no evaluation of the split test" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
