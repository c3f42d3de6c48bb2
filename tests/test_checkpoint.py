"""A checkpoint is whole, verified, and names what is wrong with it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.world import Letters
from tokenrl_cli import checkpoint
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.tokenizer.word import Word

STATE: dict[str, Any] = {"stage": "train", "score": 0.1 + 0.2, "window": {"a": [1e-300, math.pi]}}


class Tied(nn.Module):
    """Input and output share one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


def saved(run: Path, step: int = 1, score: float | None = None) -> Path:
    algorithm = {
        "optimizer.0.exp_avg": torch.ones(3), "optimizer.steps": step, "policy.weight": torch.ones(2),
        "replay.kept": torch.arange(4), "baseline.average": 0.1, "none": math.nan,
    }  # fmt: skip
    torch.manual_seed(step)
    tokenizer = Word(100, 1)
    tokenizer.train(["a b c"])
    path = checkpoint.save(
        run,
        step,
        Tied(),
        algorithm,
        STATE | {"evaluated": score and {"score": score}},
        {"seed": step},
        {"target": tokenizer},
    )
    checkpoint.point(run, "last", path)
    return path


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    loaded = checkpoint.load(saved(tmp_path))
    assert loaded.step == 1 and loaded.config == {"seed": 1} and loaded.state["window"] == STATE["window"]
    assert loaded.algorithm["baseline.average"] == 0.1 and math.isnan(loaded.algorithm["none"])
    assert loaded.algorithm["replay.kept"].dtype == torch.int64
    assert (
        torch.equal(loaded.algorithm["optimizer.0.exp_avg"], torch.ones(3)) and loaded.algorithm["optimizer.steps"] == 1
    )
    names = {path.name for path in loaded.path.iterdir()}
    assert names == {
        "model.safetensors", "optimizer.safetensors", "algorithm.safetensors", "state.json", "config.yaml",
        "tokenizer", "manifest.json",
    }  # fmt: skip


def test_tied_tensors_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    """Trap 42."""
    loaded, model = checkpoint.load(saved(tmp_path)), Tied()
    assert list(loaded.model) == ["embedding.weight"]
    checkpoint.restore(model, loaded)
    assert model.output.weight.data_ptr() == model.embedding.weight.data_ptr()
    assert torch.equal(model.output.weight, loaded.model["embedding.weight"])


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "algorithm.safetensors", "state.json", "config.yaml",
             "tokenizer/target/vocabulary.json", "manifest.json"]
)  # fmt: skip
def test_a_damaged_or_missing_file_is_named(name: str, tmp_path: Path) -> None:
    """Trap 33."""
    path = saved(tmp_path)
    file = path / name
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UserError, match=name):
        checkpoint.load(path)
    file.unlink()
    with pytest.raises(UserError, match=name):
        checkpoint.load(path)


def test_a_save_killed_at_any_moment_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 34: whichever file operation is the last, the previous checkpoint is found and whole."""
    first = saved(tmp_path)
    real, rename = os.fsync, Path.rename
    for last in range(30):
        count = 0

        def dies(*_: object, last: int = last) -> None:
            nonlocal count
            count += 1
            if count > last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: (dies(), real(descriptor))[1])
            patch.setattr(Path, "rename", lambda self, target: (dies(), rename(self, target))[1])
            try:
                saved(tmp_path, 2)
            except KeyboardInterrupt:
                found = checkpoint.find(tmp_path, ("last",))
                assert checkpoint.load(found).step == 1 and found == first.resolve()
                continue
        break
    else:
        raise AssertionError("a save needs fewer operations than this")
    assert last > 8 and checkpoint.load(checkpoint.find(tmp_path, ("last",))).step == 2
    assert not list((tmp_path / "checkpoints").glob(".*part"))


def test_links_are_relative_and_a_dangling_one_falls_back_to_the_newest(tmp_path: Path) -> None:
    first, second = saved(tmp_path, 1), saved(tmp_path, 2)
    link = tmp_path / "checkpoints" / "last"
    assert os.readlink(link) == "000002" and checkpoint.find(tmp_path) == second.resolve()
    for path in sorted(second.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    second.rmdir()
    assert checkpoint.find(tmp_path) == first.resolve()
    with pytest.raises(UserError, match="no complete checkpoint"):
        checkpoint.find(tmp_path / "nowhere")


def test_old_ones_go_and_the_best_stay_without_what_only_resuming_needs(tmp_path: Path) -> None:
    best = saved(tmp_path, 1, score=0.9)
    checkpoint.point(tmp_path, "best", best)
    for step in (2, 3, 4):
        saved(tmp_path, step, score=0.1 * step)
    checkpoint.prune(tmp_path, keep_last=1, keep_best=1)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "000004", "best", "last"]
    slim, last = checkpoint.load(best), checkpoint.load(checkpoint.find(tmp_path, ("last",)))
    tensors = {name for name, value in slim.algorithm.items() if isinstance(value, Tensor)}
    assert tensors == {"policy.weight"} and "replay.kept" in last.algorithm


def test_what_could_run_code_or_is_of_another_time_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (path / "config.yaml").write_text(yaml.safe_dump({"x": "${oc.env:HOME}"}))
    (path / "manifest.json").unlink()
    checkpoint._seal(path)
    with pytest.raises(UserError, match="unresolved"):
        checkpoint.load(path)
    (path / "manifest.json").write_text('{"format": 99, "files": {}}')
    with pytest.raises(UserError, match="format 99"):
        checkpoint.load(path)
    sources = "".join(file.read_text("utf-8") for file in Path(checkpoint.__file__).parent.rglob("*.py"))
    assert "torch.load" not in sources and "import pickle" not in sources and "torch.save" not in sources


def test_a_reference_of_a_model_with_tied_weights_is_saved_whole(tmp_path: Path) -> None:
    """A moving reference keeps both names of the shared tensor, and reads both back."""
    reference, other = Tied(), Tied()
    state = {f"reference.{name}": value for name, value in reference.state_dict().items()}
    path = checkpoint.save(tmp_path, 1, Tied(), state, STATE, {}, {"target": Word(100, 1)})
    loaded = checkpoint.load(path).algorithm
    assert set(loaded) == {"reference.embedding.weight", "reference.output.weight"}
    other.load_state_dict({name.removeprefix("reference."): value for name, value in loaded.items()})
    assert torch.equal(other.output.weight, reference.embedding.weight)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    loaded = checkpoint.load(saved(tmp_path))
    with pytest.raises(UserError, match="another model"):
        checkpoint.restore(nn.Linear(2, 2), loaded)
    wide = Tied()
    wide.embedding = nn.Embedding(6, 3)
    wide.output.weight = wide.embedding.weight
    with pytest.raises(UserError, match=r"\[5, 3\] there, \[6, 3\] here"):
        checkpoint.restore(wide, loaded)


def test_one_tokenizer_is_saved_once(tmp_path: Path) -> None:
    tokenizer = Letters()
    both = {"target": tokenizer, "source": tokenizer}
    path = checkpoint.save(tmp_path, 1, Tied(), {}, STATE, {}, both)
    assert [p.name for p in (path / "tokenizer").iterdir()] == ["target"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_checkpoint_can_be_read_by_those_who_can_read_the_files_beside_it(mask: int, tmp_path: Path) -> None:
    """The library that writes tensors makes files for their owner alone, whatever the umask says."""
    before = os.umask(mask)
    try:
        (tmp_path / "beside").write_text("x")
        path = saved(tmp_path, 7)
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.rglob("*") if file.is_file()}
        checkpoint.slim(path)
        slim = {file.name: oct(file.stat().st_mode & 0o777) for file in path.rglob("*") if file.is_file()}
    finally:
        os.umask(before)
    expected = oct((tmp_path / "beside").stat().st_mode & 0o777)
    assert modes == dict.fromkeys(modes, expected) and slim == dict.fromkeys(modes, expected)
