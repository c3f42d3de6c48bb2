"""Checkpoints are written whole, verified when loaded, and an error names the damaged file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.world import Letters
from tokenrl_cli.files import disk, records
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.run import checkpoint, directory, recorder
from tokenrl_cli.tokenizer.word import Word

STATE: dict[str, Any] = {"stage": "train", "score": 0.1 + 0.2, "window": {"a": [1e-300, math.pi]}}


class Tied(nn.Module):
    """A model whose input and output embeddings are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


ALGORITHM: dict[str, Any] = {
    "optimizer.0.exp_avg": torch.ones(3), "policy.weight": torch.ones(2), "replay.kept": torch.arange(4), "average": 0.1
}  # fmt: skip


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
    checkpoint.set_link(run, "last", path)
    return path


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    loaded = checkpoint.load(saved(tmp_path))
    assert loaded.step == 1
    assert loaded.config == {"seed": 1}
    assert loaded.state["window"] == STATE["window"]
    assert loaded.algorithm["baseline.average"] == 0.1
    assert math.isnan(loaded.algorithm["none"])
    assert loaded.algorithm["replay.kept"].dtype == torch.int64
    assert torch.equal(loaded.algorithm["optimizer.0.exp_avg"], torch.ones(3))
    assert loaded.algorithm["optimizer.steps"] == 1
    names = {path.name for path in loaded.path.iterdir()}
    assert names == {
        "model.safetensors", "optimizer.safetensors", "algorithm.safetensors", "state.json", "config.yaml",
        "tokenizer", "manifest.json",
    }  # fmt: skip


def test_tied_tensors_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
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
    path = saved(tmp_path)
    file = path / name
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UserError, match=name):
        checkpoint.load(path)
    file.unlink()
    with pytest.raises(UserError, match=name):
        checkpoint.load(path)


def tidied(run: Path) -> checkpoint.Checkpoint | None:
    """The checkpoint that a new process resumes from, after it has removed leftovers and set the links."""
    with directory.locked(run):
        found = checkpoint.newest(run, fallback=False)
        if found is not None:
            checkpoint.restore_links(run, found)
    return found


def whole(run: Path) -> dict[str, int]:
    """The name and step of every checkpoint of a run; each is loaded, which verifies it."""
    folder = run / "checkpoints"
    return {name: checkpoint.load(folder / name).step for name in directory.checkpoint_names(folder)}


BEST = {1: 1, 2: 2, 3: 2, 4: 4}  # step -> the best so far


def told(step: int) -> dict[str, Any]:
    """The state of a run whose warm start ended at step 2."""
    score = float(BEST[step] == step) + step / 100
    state = STATE | {"best": {"step": BEST[step]}, "warm_start": 2 if step > 2 else None}
    return state | {"evaluated": {"score": score, "step": step}}


def goes_on(run: Path, start: int, end: int) -> None:
    """Saves checkpoints as a run does: writes each, sets the links, and removes old ones."""
    for step in range(start, end + 1):
        if step == 3:
            directory.set_link(run, "warm_start", "000002")
        path = checkpoint.save(run, step, Tied(), ALGORITHM, told(step), {"seed": step}, {"target": Word(100, 1)})
        checkpoint.set_link(run, "last", path)
        if BEST[step] == step:
            checkpoint.set_link(run, "best", path)
        checkpoint.prune(run, keep_last=2, keep_best=1)


def test_a_kill_before_any_change_on_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed before any one of its changes on disk leaves only whole checkpoints and valid links, loses
    none that was complete, and the resumed run ends in the same state as one that was never killed."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and a process that is killed loses nothing by it
    goes_on(tmp_path / "never", 1, 4)
    end = {name: os.readlink(tmp_path / "never" / "checkpoints" / name) for name in directory.LINKS}
    real = disk.change
    for last in range(1000):
        run, count = tmp_path / f"{last}", 0

        def dies(operation: Any, *operands: Any, last: int = last) -> Any:
            nonlocal count
            count += 1
            if count > last:
                raise KeyboardInterrupt
            return real(operation, *operands)

        run.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(disk, "change", dies)
            try:
                goes_on(run, 1, 4)
                break
            except KeyboardInterrupt:
                pass
        before = whole(run)
        links = {link: directory.link_target(run / "checkpoints", link) for link in directory.LINKS}
        assert all(name in before for name in links.values() if name), links
        found = tidied(run)
        assert (found.step if found else 0) == max(before.values(), default=0)
        assert whole(run) == before, "putting things in order takes nothing that is whole"
        assert not list((run / "checkpoints").rglob(".*"))
        if found is not None:
            folder, state = run / "checkpoints", found.state
            assert os.readlink(folder / "best") == f"{state['best']['step']:06d}"
            assert state["warm_start"] is None or os.readlink(folder / "warm_start") == "000002"
            assert set(found.algorithm) == set(ALGORITHM)
        goes_on(run, (found.step if found else 0) + 1, 4)
        assert {name: os.readlink(run / "checkpoints" / name) for name in directory.LINKS} == end
    assert last > 40, "a run changes its directory more often than this"


def test_what_the_run_goes_on_from_is_named_where_it_is_damaged(tmp_path: Path) -> None:
    goes_on(tmp_path, 1, 4)
    folder = tmp_path / "checkpoints"
    (folder / "000004" / "manifest.json").unlink()
    for place in (tmp_path, folder / "best"):
        with pytest.raises(UserError, match=r"000004/manifest.json: is missing"):
            checkpoint.load(checkpoint.find(place, ("last",)))
    with pytest.raises(UserError, match=r"000004/manifest.json: is missing(.|\n)*fallback=true"):
        checkpoint.newest(tmp_path, fallback=False)
    older = checkpoint.newest(tmp_path, fallback=True)
    assert older is not None
    assert older.step == 3
    assert set(older.algorithm) == set(ALGORITHM)
    checkpoint.restore_links(tmp_path, older)
    assert not (folder / "000004").exists()
    assert os.readlink(folder / "best") == "000002"
    for each in (folder / "000003").glob("optimizer*"):
        each.write_bytes(b"")
    with pytest.raises(UserError, match="no other is whole"):  # the others are kept for evaluation only
        checkpoint.newest(tmp_path, fallback=True)


def test_a_last_that_is_gone_is_no_reason_to_take_another_one_silently(tmp_path: Path) -> None:
    first, second = saved(tmp_path, 1), saved(tmp_path, 2)
    assert os.readlink(tmp_path / "checkpoints" / "last") == "000002"
    disk.discard(second)
    for look in (lambda: checkpoint.newest(tmp_path, fallback=False), lambda: checkpoint.find(tmp_path)):
        with pytest.raises(UserError, match=r"000002/manifest.json"):
            look()
    (tmp_path / "checkpoints" / "last").unlink()
    assert checkpoint.find(tmp_path) == first.resolve()
    with pytest.raises(UserError, match="no complete checkpoint"):
        checkpoint.find(tmp_path / "nowhere")


def test_the_same_step_again_gets_a_name_of_its_own(tmp_path: Path) -> None:
    first, again = saved(tmp_path, 1, score=0.5), saved(tmp_path, 1, score=0.7)
    assert (first.name, again.name) == ("000001", "000001-2")
    assert checkpoint.load(first).step == 1
    found = checkpoint.newest(tmp_path, fallback=False)
    assert found is not None
    assert found.path == again.resolve()


# ------------------------------------------------------------------------------------------------ a run of a stranger's


def seal(path: Path, **files: dict[str, Any]) -> None:
    """Writes a manifest with the correct digest of every file, as somebody could who has tampered with them."""
    (path / "manifest.json").unlink()
    checkpoint._seal(path)
    written = json.loads((path / "manifest.json").read_text())
    written["files"] |= files
    (path / "manifest.json").write_text(json.dumps(written))


@pytest.mark.parametrize("target", ["../../elsewhere", "/etc", "000001/../../x", "latest", ""])
def test_no_link_of_a_run_leads_out_of_it(target: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved(run)
    if target:
        disk.discard(run / "checkpoints" / "last")
        (run / "checkpoints" / "last").symlink_to(target)
    else:
        (run / "checkpoints").rename(tmp_path / "away")
        (run / "checkpoints").symlink_to("../away")
    for look in (lambda: checkpoint.newest(run, False), lambda: checkpoint.find(run, ("last",)), lambda: tidied(run)):
        with pytest.raises(UserError, match=r"last: points to|checkpoints: is a link to"):
            look()


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "model.safetensors/../../../secret", "a\0b"])
def test_a_manifest_names_nothing_outside_its_checkpoint(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    (tmp_path / "secret").write_text("x")
    seal(path, **{name: {"sha256": "0"}})
    with pytest.raises(UserError, match="lies outside its checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer/target/vocabulary.json", "tokenizer", "state.json"])
def test_no_file_of_a_checkpoint_is_a_link(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    (path / name).rename(tmp_path / "away")
    (path / name).symlink_to(tmp_path / "away")
    with pytest.raises(UserError, match=r"does not belong to the checkpoint|lies outside|is a link"):
        checkpoint.load(path)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.json", DEEP), ("manifest.json", '{"a":' * 200 + "1" + "}" * 200), ("manifest.json", "[]"),
        ("manifest.json", '{"format": 1, "files": {"a": 1}}'), ("manifest.json", " " * 2**22 + "1"),
        ("state.json", DEEP), ("state.json", '{"step": "x", "run": {}, "algorithm": {}}'), ("state.json", "1" * 5000),
        ("config.yaml", DEEP), ("config.yaml", "a: &a [1]\nb: [*a, *a]\n"),
        ("config.yaml", "a: !!python/name:os.system"),
        ("config.yaml", "a: " + "x" * 2**20), ("config.yaml", "1: 2"), ("config.yaml", "a: 2020-01-01"),
        ("model.safetensors", "\xff" * 8 + "{}"), ("model.safetensors", ""), ("algorithm.safetensors", "\0" * 7),
    ],
)  # fmt: skip
def test_absurd_files_are_refused_in_one_line(name: str, text: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    (path / name).write_text(text, "latin-1")
    if name != "manifest.json":
        seal(path)
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    assert name in caught.value.where
    assert len(str(caught.value)) < 500
    assert "Traceback" not in str(caught.value)


def test_old_ones_go_and_the_best_stay_without_what_only_resuming_needs(tmp_path: Path) -> None:
    best = saved(tmp_path, 1, score=0.9)
    checkpoint.set_link(tmp_path, "best", best)
    for step in (2, 3, 4):
        saved(tmp_path, step, score=0.1 * step)
    checkpoint.prune(tmp_path, keep_last=1, keep_best=1)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "000004", "best", "last"]
    slim, last = checkpoint.load(best), checkpoint.load(checkpoint.find(tmp_path, ("last",)))
    tensors = {name for name, value in slim.algorithm.items() if isinstance(value, Tensor)}
    assert tensors == {"policy.weight"}
    assert "replay.kept" in last.algorithm


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
    package = Path(checkpoint.__file__).parents[1]
    own = package / "reward" / "workers.py"  # what goes to and from the processes that a run has started itself
    sources = "".join(file.read_text("utf-8") for file in package.rglob("*.py") if file != own)
    assert "torch.load" not in sources
    assert "import pickle" not in sources
    assert "torch.save" not in sources


def test_a_reference_of_a_model_with_tied_weights_is_saved_whole(tmp_path: Path) -> None:
    """The state of a moving reference has both names of the shared tensor, and loading restores both."""
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
    for value in (torch.full((5, 3), float("nan")), torch.zeros(5, 3, dtype=torch.int64)):
        bad = replace(loaded, model=loaded.model | {"embedding.weight": value})
        with pytest.raises(UserError, match=r"embedding.weight (holds|is torch.int64)"):
            checkpoint.restore(Tied(), bad)
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
    """safetensors makes files that only their owner can read, whatever the umask is."""
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
    assert modes == dict.fromkeys(modes, expected)
    assert slim == dict.fromkeys(slim, expected)
    assert set(modes) - set(slim) == {"algorithm.safetensors", "optimizer.safetensors"}


MONITORED: dict[str, Any] = {"value": 0.5, "better": 1, "score": 0.5, "step": 1, "reward": 0.5}
RECORDED: dict[str, Any] = {  # as Recorder.state returns it
    "stage": "warm_start", "step": 1, "stage_start": 0, "warm_start": None, "best": MONITORED, "evaluated": MONITORED,
    "stale": 0, "stopped": None, "tokens": 9, "unrewarded": 0, "window": {"loss": [0.1]},
    "spent": {"tokens": 0, "rollout": 0.0, "reward": 0.0, "update": 0.0}, "findings": [], "elapsed": 1.5,
    "journal": {"metrics.jsonl": 0, "samples.jsonl": 0},
}  # fmt: skip


def with_state(state: dict[str, Any]) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(Path("RUN"), 1, {}, state, {}, {}, Path("RUN/tokenizer"))


@pytest.mark.parametrize("key", [*RECORDED, "best.reward", "spent.update", "journal.samples.jsonl"])
def test_a_state_without_one_of_its_keys_is_refused(key: str) -> None:
    outer, _, inner = key.partition(".")
    missing = {name: value for name, value in RECORDED.items() if name != outer}
    if inner:
        missing[outer] = {name: value for name, value in RECORDED[outer].items() if name != inner}
    recorder.require_state(with_state(RECORDED))
    with pytest.raises(UserError, match=f"is not the state of a run: {key}: is missing"):
        recorder.require_state(with_state(missing))


@pytest.mark.parametrize("key", ["best", "evaluated", "warm_start", "stopped"])
def test_a_state_may_have_no_evaluation_no_start_of_rl_and_no_reason_to_stop(key: str) -> None:
    recorder.require_state(with_state(RECORDED | {key: None}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_a_run_measured_may_be_nan_or_infinite(value: float) -> None:
    """A batch or a split without any reward has a mean of NaN, and a perplexity may overflow."""
    measured = MONITORED | dict.fromkeys(("value", "score", "reward"), value)
    recorder.require_state(with_state(RECORDED | {"best": measured, "evaluated": measured, "window": {"a": [value]}}))
    with pytest.raises(UserError, match="is not the state of a run: elapsed: must be finite"):
        recorder.require_state(with_state(RECORDED | {"elapsed": value}))


@pytest.mark.parametrize("value", ["0.5", True, None, 2**70])
def test_what_is_no_number_is_refused_among_those_that_a_run_measured(value: Any) -> None:
    with pytest.raises(UserError, match=r"is not the state of a run: best\.value: must be"):
        recorder.require_state(with_state(RECORDED | {"best": MONITORED | {"value": value}}))
    with pytest.raises(UserError, match=r"is not the state of a run: window\.a: must be a list of numbers"):
        recorder.require_state(with_state(RECORDED | {"window": {"a": [0.5, value]}}))


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, '{"a": ' * 100 + "1" + "}" * 100, "[]", "{", "large", "link"])
def test_every_error_of_a_json_file_ends_with_the_remedy(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LARGEST", 1000)
    file = tmp_path / "state.json"
    file.write_text("1" * 2000 if text == "large" else text)
    if text == "link":
        file.unlink()
        file.symlink_to("elsewhere")
    with pytest.raises(UserError) as caught:
        records.read_json(file, "checkpoint", "take another one")
    assert caught.value.remedy == "take another one"


@pytest.mark.parametrize(
    "bases", ["tiny", {"path": "tiny"}, {"path": {"path": "tiny"}}, {"path": {"path": "a", "sha256": 1}}]
)
def test_a_damaged_entry_of_a_pretrained_model_is_refused(tmp_path: Path, bases: Any) -> None:
    path = saved(tmp_path)
    state = json.loads((path / "state.json").read_text("utf-8"))
    (path / "state.json").write_text(json.dumps(state | {"bases": bases}), "utf-8")
    seal(path)
    with pytest.raises(UserError, match=r"state.json: is damaged: each of bases must have a path and a sha256"):
        checkpoint.load(path)
