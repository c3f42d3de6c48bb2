"""Whole runs from pretrained checkpoints, through the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.test_pretrained import saved
from tests.running import QUICK, TINY, lines, tokenrl, train, weights
from tokenrl_cli.config import extras

pytest.importorskip("transformers")

MODULE = '''
from tokenrl_cli.tokenizer.word import Word


class OfCheckpoint(Word):
    """Words as the ids of a checkpoint from 3 on; EOS is 2."""

    @property
    def theirs(self) -> list[int]:
        return [2, *range(4, 3 + self.size)]
'''
WORDS = "imports=[of_checkpoint]"
OWN = ["tokenizer=word", "tokenizer._target_=of_checkpoint.OfCheckpoint", "tokenizer.vocabulary_size=15"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_checkpoint.py").write_text(MODULE)
    return tmp_path


def rest() -> list[str]:
    """TINY without what belongs to its model."""
    return [each for each in TINY if not each.startswith("model")]


def test_bert_trains_at_once_without_any_checkpoint(home: Path) -> None:
    sizes = ["model=bert", "model.new.width=16", "model.new.heads=2", "model.new.feedforward=32", "reward=bleu"]
    assert train(home / "run", *rest(), *sizes, *QUICK, "trainer.monitor=bleu", tiny=False) == 0
    assert max(line["step"] for line in lines(home / "run")) == 4


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hf_causal", "gpt2"),
        pytest.param("hf_seq2seq", "t5", marks=pytest.mark.slow),
        pytest.param("hf_encoder_decoder", "bert", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_from_a_checkpoint_goes_on_with_the_same_bits(home: Path, kind: str, name: str) -> None:
    """Through the warm start, which has dropout, and RL with a reference; then it is evaluated and generates."""
    line = [*rest(), f"model={kind}", f"model.path={saved(home, name)}", WORDS, *OWN, "algorithm.kl_coef=0.05"]
    line += ["trainer.warm_start_steps=2", "trainer.eval_every=2", "algorithm.optimizer.lr=1e-3"]
    whole, further = home / "whole", home / "further"
    assert train(whole, *line, "trainer.steps=4", tiny=False) == 0
    assert train(further, *line, "trainer.steps=2", tiny=False) == 0
    assert tokenrl("train", f"resume={further}", "trainer.steps=4", WORDS) == 0
    assert weights(further) == weights(whole)
    assert lines(further)[-3:] == lines(whole)[-3:]
    assert tokenrl("eval", f"ckpt={further}", WORDS, "decode.beam_size=2") == 0
    (home / "in.txt").write_text("a b\n")
    assert tokenrl("generate", f"ckpt={further}", WORDS, "input=in.txt", "output=out.txt") == 0
    assert len((home / "out.txt").read_text().splitlines()) == 1


def test_a_wrong_path_is_one_clear_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, said in [
        (["model=hf_causal"], "model.path: is missing: give model.path=VALUE"),
        (["model=hf_causal", "model.path=./none"], "model.path: there is no directory ./none"),
        (["model=hf_causal", "model.path=./none", "tokenizer=pretrained"], "model.path: there is no directory ./none"),
        (
            ["model=hf_causal", f"model.path={saved(home, 'gpt2')}", "tokenizer=pretrained"],
            f"model.path: {saved(home, 'gpt2')} has no tokenizer",
        ),
        (
            ["model=hf_causal", f"model.path={saved(home, 'gpt2')}", "tokenizer=pretrained", "tokenizer.path=./none"],
            "tokenizer.path: there is no directory ./none",
        ),
        (["model=hf_causal", f"model.path={saved(home, 't5')}"], "use model=hf_seq2seq"),
        (["model=hf_causal", f"model.path={saved(home, 'gpt2')}"], "use source_tokenizer=pretrained"),
        (["model=hf_encoder_decoder", "model.path=null"], "is null, and so is model.new"),
        (["model=bert", "model.new.heads=3"], "model.new.width: must be a multiple of the 3 heads, got 128"),
        (["model=bert", "model.new.heads=0"], "model.new.heads=0: must be at least 1"),
    ]:
        assert train(home / "run", *rest(), "tokenizer=word", *line, *QUICK, tiny=False) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert "Traceback" not in shown


def test_without_the_extra_the_error_names_the_model_and_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert train(home / "run", *rest(), "model=hf_causal", "model.path=gpt2", tiny=False) == 2
    told = "model.path: needs the package transformers, which is not installed\n  pip install 'tokenrl[hf]'"
    assert told in capsys.readouterr().err
