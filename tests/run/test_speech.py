"""Whole runs whose sources are recordings: every kind of algorithm learns from frames, and stops and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.run.test_loop import interrupt
from tests.running import lines, tokenrl, weights
from tokenrl_cli.data.batching import Batching
from tokenrl_cli.data.encoding import Frames
from tokenrl_cli.dataset.tones import Tones
from tokenrl_cli.features.logmel import LogMel
from tokenrl_cli.interfaces import Example, Recording, UserError
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.tokenizer.word import Word

HEARD = [
    "dataset=tones", "dataset.train_size=12", "dataset.val_size=4", "dataset.test_size=4", "model=speech_lstm",
    "model.embedding=8", "model.hidden=8", "reward=wer", "trainer.batch_size=4", "trainer.warm_start_batch_size=4",
    "trainer.warm_start_steps=3", "trainer.warm_start_until=null", "trainer.steps=3", "trainer.eval_every=2",
    "trainer.log_every=1", "trainer.checkpoint_every=100", "trainer.device=cpu",
    "warm_start.optimizer.schedule.horizon=10",
]  # fmt: skip
KINDS = {
    "rloo": ["credit=delta_optimal", "features.speeds=[0.9,1.0,1.1]"],
    "mwer": ["algorithm=mwer"],
    "ocd": ["algorithm=ocd", "features.speeds=[0.9,1.0,1.1]"],
    "double_dqn": ["algorithm=double_dqn", "credit=delta", "algorithm.data.minibatch_size=6"],
    "soft_q": ["algorithm=soft_q", "credit=delta", "algorithm.data.minibatch_size=6"],
}


def heard(run: Path, *overrides: str) -> int:
    return tokenrl("train", *HEARD, *overrides, f"hydra.run.dir={run}")


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_recordings_goes_on_with_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With masks over the frames and other speeds in the warm start, and a replay that reads its sources again."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert heard(whole, *KINDS[kind]) == 0
    for at in (2, 5):
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            code = heard(stopped, *KINDS[kind]) if at == 2 else tokenrl("train", f"resume={stopped}")
            assert code == 130
    assert tokenrl("train", f"resume={stopped}") == 0
    assert lines(stopped) == lines(whole)
    assert weights(stopped) == weights(whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("heard") / "run"
    assert heard(run, "features.normalisation=global", "algorithm=double_dqn", "credit=delta") == 0
    return run


def test_a_replay_holds_no_frame_and_the_checkpoint_holds_the_features(run: Path) -> None:
    """Of its eight texts or so the replay keeps the indices of their examples alone."""
    saved = checkpoint.load(checkpoint.find(run, ("last",)))
    kept = {name for name in saved.algorithm if "rings." in name or "table." in name}
    assert any(name.endswith("table.example") for name in kept)
    assert not any("source" in name for name in kept)
    stored = json.loads((saved.tokenizer_dir / "source" / "features.json").read_text())
    assert len(stored["mean"]) == 40


def test_an_evaluation_of_another_split_and_generated_texts_need_no_more_than_the_run(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert tokenrl("eval", f"ckpt={run}", "split=test_seen", f"out={tmp_path / 'seen'}") == 0
    errors = json.loads((tmp_path / "seen" / "test_seen-greedy" / "results.json").read_text())["errors"]["wer"]
    assert errors["all"]["utterances"] == 4
    noisy = ["dataset=tones", "dataset.noise=[0,0]", "dataset.test_size=3", f"out={tmp_path / 'noisy'}"]
    assert tokenrl("eval", f"ckpt={run}", *noisy) == 0
    capsys.readouterr()
    assert tokenrl("generate", f"ckpt={run}", "split=test") == 0
    from_split = capsys.readouterr().out.splitlines()
    assert len(from_split) == 4
    soundfile = pytest.importorskip("soundfile")
    data = tones()
    for i in range(4):
        source = data.example("test", i).source
        assert isinstance(source, Recording)
        sound: Any = source.read()
        soundfile.write(tmp_path / f"{i}.wav", sound.samples, sound.rate, subtype="FLOAT")
    (tmp_path / "list.txt").write_text("0.wav\n\n2.wav\n")
    assert tokenrl("generate", f"ckpt={run}", f"input={tmp_path}/*.wav") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert tokenrl("generate", f"ckpt={run}", f"input={tmp_path / 'list.txt'}") == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[1] == ""
    assert tokenrl("generate", f"ckpt={run}", f"input={tmp_path / '3.wav'}") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    (tmp_path / "sound").write_bytes((tmp_path / "3.wav").read_bytes())  # known by its content
    assert tokenrl("generate", f"ckpt={run}", f"input={tmp_path / 'sound'}") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_does_not_fit_recordings_is_one_error(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, wanted in (
        (["train", "dataset=tones", "model=lstm"], "model: reads token ids, and the sources of this data set are rec"),
        (["train", "dataset=reverse", "model=speech_lstm"], "model: reads frames, and features is null"),
        (["train", "dataset=reverse", "features=logmel", "model=speech_lstm"], "features: reads recordings, and"),
        (["train", "dataset=tones", "features=mfcc", "model=speech_lstm"], "is sound, and features=mfcc reads frames"),
        (["eval", f"ckpt={run}", "features=mfcc"], "features=mfcc: cannot be changed in an evaluation"),
        (["eval", f"ckpt={run}", "features.loudness=1"], "features"),
        (["generate", f"ckpt={run}", "samples=3"], "samples=3: is of models of unconditional text"),
        (["generate", f"ckpt={run}", "input=nothing.wav"], "input=nothing.wav: there is no such file"),
    ):
        capsys.readouterr()
        extra = ["trainer.steps=1", "out=" + str(run.parent / "refused")] if words[0] == "train" else []
        assert tokenrl(*words, *extra) == 2
        said = capsys.readouterr().err
        assert wanted in said
        assert "Traceback" not in said


def tones() -> Tones:
    return Tones([5.0, 20.0], 1, 12, 4, 4, 600, "truncate")


def logmel(*speeds: float) -> LogMel:
    return LogMel(8000, 25.0, 10.0, 8, 20.0, None, 0.97, 1.0, True, 0.1, "utterance", list(speeds), 1.0, 1.0)


def test_batches_hold_the_frames_of_their_recordings_and_read_them_again() -> None:
    """Right-padded, by similar length, each with the text of its own example; a function of the step alone."""
    data, features, tokenizer = tones(), logmel(1.0), Word(100, 1)
    tokenizer.train(text for i in range(12) for text in data.example("train", i).references)
    batching = Batching(data, "train", 4, features, tokenizer, 8, 1)
    batch = batching.batch(1)
    assert batch.source.shape == (*batch.source_mask.shape, 8)
    assert batch.source.dtype == torch.float32
    for row, index in enumerate(batch.example.tolist()):
        example = data.example("train", index)
        assert isinstance(example.source, Recording)
        frames = features.frames(example.source)
        assert np.array_equal(batch.source[row][batch.source_mask[row]].numpy(), frames)
        assert batch.source[row][~batch.source_mask[row]].abs().sum() == 0
        assert batch.sources[row] == example.source.name
        assert batch.references[row] == example.references
    again, mask = batch.read_sources(batch.example.flip(0))
    assert torch.equal(again, batch.source.flip(0))
    assert torch.equal(mask, batch.source_mask.flip(0))
    assert torch.equal(batching.batch(0).source, Batching(data, "train", 4, features, tokenizer, 8, 1).batch(0).source)


def test_stages_without_rewards_draw_a_speed_for_each_recording_anew_in_every_epoch() -> None:
    data, features, tokenizer = tones(), logmel(0.5, 2.0), Word(100, 1)
    tokenizer.train(["one"])
    plain, imitating = (
        Batching(data, "train", 12, features, tokenizer, 8, 1, varies_speed=varied) for varied in (False, True)
    )
    shares = []
    for epoch in range(4):
        pairs = zip(plain.batch(epoch).source_mask.sum(1), imitating.batch(epoch).source_mask.sum(1), strict=True)
        shares.append([round(float(ours / as_it_is), 1) for as_it_is, ours in pairs])
    assert all(0.4 <= share <= 0.6 or 1.9 <= share <= 2.1 for each in shares for share in each)
    assert len({share > 1 for share in shares[0]}) == 2
    assert len({tuple(share > 1 for share in each) for each in shares}) > 1
    replayed, _ = imitating.read_sources(plain.batch(0).example)
    assert torch.equal(replayed, plain.batch(0).source)


def test_a_recording_within_the_limit_stays_whole_where_it_is_played_slowly() -> None:
    """What is cut is cut at the same sound."""
    data, features = tones(), logmel(1.0)
    recordings = [data.example("train", i).source for i in range(12)]
    assert all(isinstance(each, Recording) for each in recordings)
    lengths = sorted(len(features.frames(each)) for each in recordings)  # type: ignore[arg-type]
    frames = Frames(features, recordings, lengths[5])  # type: ignore[arg-type]
    assert frames.overlong.sum() == 6
    _, mask = frames.padded(np.arange(12), np.full(12, 0.5))
    whole = np.array([len(features.frames(each, 0.5)) for each in recordings])  # type: ignore[arg-type]
    assert (mask.sum(1).numpy()[~frames.overlong] == whole[~frames.overlong]).all()
    assert (mask.sum(1).numpy()[frames.overlong] == 2 * lengths[5]).all()


class Mixed:
    """Texts and recordings in one data set."""

    max_source_length, overlong = 9, "truncate"

    def size(self, split: str) -> int | None:
        return 2

    def example(self, split: str, index: int) -> Example:
        return Example(str(index), tones().example("train", 0).source if index else "text", ["one"], ["one"], {})


def test_texts_and_recordings_in_one_data_set_are_refused() -> None:
    tokenizer = Word(100, 1)
    tokenizer.train(["one"])
    for reader in (tokenizer, logmel(1.0)):
        with pytest.raises(UserError, match="features"):
            Batching(Mixed(), "train", 1, reader, tokenizer, 8, 1)


def test_a_policy_decodes_the_same_from_its_checkpoint(run: Path) -> None:
    """The statistics of the features over train are those of the run, not of what is evaluated."""
    saved = checkpoint.load(checkpoint.find(run, ("last",)))
    numerics = torch.device("cpu"), torch.float32, 1
    task = assembly.task_of(saved.config, [], *numerics, saved.tokenizer_dir)
    other = assembly.generation_task_of(saved.config, [], *numerics, saved.tokenizer_dir)
    source = task.dataset.example("val", 0).source
    frames = [each.source_reader.frames(source) for each in (task, other)]  # type: ignore[union-attr, arg-type]
    assert np.array_equal(*frames)
    assert abs(float(frames[0].mean())) < 3
