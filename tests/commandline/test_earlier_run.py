"""Directories of new runs, `resume=` and `ckpt=`. The runs are written by hand: only their files matter."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import TINY, tokenrl
from tokenrl_cli.commandline.arguments import command_line, override
from tokenrl_cli.commandline.earlier_run import new_directory, require_unused
from tokenrl_cli.interfaces import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENRL_DATA", raising=False)
    return tmp_path


def composed(capsys: Capture, *words: str) -> dict[str, Any]:
    """The config that a command line composes."""
    capsys.readouterr()
    status = tokenrl(*words, "--cfg", "job", "--resolve")
    printed = capsys.readouterr()
    assert status == 0, printed.err
    config: dict[str, Any] = yaml.safe_load(printed.out)
    return config


def mistake(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    status = tokenrl(*words)
    printed = capsys.readouterr()
    assert status == 2, printed.err
    assert "Traceback" not in printed.err
    return printed.err


@pytest.fixture
def run(elsewhere: Path, capsys: Capture) -> Path:
    """A run with one checkpoint, whose config differs from the current defaults."""
    config = composed(capsys, "train", *TINY, "model.hidden=77", "data_root=/old", "decode.max_length=9", "seed=5")
    run = elsewhere / "run=1, the first"  # a name that overrides cannot hold without quotes
    checkpoint = run / "checkpoints" / "000012"
    checkpoint.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"imports": ["of_somebody"], "started_in": "/nowhere"}))
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    (checkpoint / "manifest.json").write_text("{}")
    for name in ("last", "best"):
        (run / "checkpoints" / name).symlink_to("000012")
    return run


# ------------------------------------------------------------------------------------------------------ directories


def test_two_runs_of_the_same_second_get_two_directories(elsewhere: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(new_directory("outputs/12-00-00"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(["outputs/12-00-00"] + [f"outputs/12-00-00-{number}" for number in range(2, 9)])
    assert all(Path(path).is_dir() for path in made)


def test_a_finished_run_is_not_overwritten(run: Path, capsys: Capture) -> None:
    (run / "results.json").write_text("{}")
    before = (run / "config.yaml").read_bytes()
    assert "holds a finished run" in mistake(capsys, "train", *TINY, f"hydra.run.dir='{run}'")
    assert (run / "config.yaml").read_bytes() == before


def test_an_unfinished_run_is_not_overwritten_and_says_how_to_go_on(run: Path, capsys: Capture) -> None:
    before = (run / "config.yaml").read_bytes()
    told = mistake(capsys, "train", *TINY, f"hydra.run.dir='{run}'")
    assert "holds an unfinished run" in told
    assert command_line("train", override("resume", str(run))) in told
    assert (run / "config.yaml").read_bytes() == before


def test_a_sweep_overwrites_no_run_either(elsewhere: Path, capsys: Capture) -> None:
    (elsewhere / "sweep" / "1").mkdir(parents=True)
    (elsewhere / "sweep" / "1" / "results.json").write_text("{}")
    told = mistake(capsys, "train", "-m", *TINY, "hydra.sweep.dir=sweep", "model.hidden=0,abc")
    assert "holds a finished run" in told


def test_a_directory_without_a_run_may_be_used(elsewhere: Path) -> None:
    assert require_unused(str(elsewhere), ".hydra") == ".hydra"
    (elsewhere / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"not the config.yaml that is needed to resume it"):
        require_unused(str(elsewhere), ".hydra")


def test_what_is_not_the_programs_is_not_overwritten(elsewhere: Path, capsys: Capture) -> None:
    """A config of the user's is kept, and links through which Hydra or the log would write elsewhere are refused."""
    (elsewhere / "config.yaml").write_text("mine: 1\n")
    assert "holds a config.yaml that is not of a run" in mistake(capsys, "train", *TINY, "out=.")
    assert (elsewhere / "config.yaml").read_text() == "mine: 1\n"
    (elsewhere / "precious").mkdir()
    (elsewhere / "precious" / "config.yaml").write_text("mine: 1\n")
    for name, target in ((".hydra", "precious"), (".hydra/config.yaml", "precious/config.yaml"), ("train.log", "none")):
        place = elsewhere / f"run {name}".replace("/", "_")
        link = place / name
        link.parent.mkdir(parents=True)
        link.symlink_to(elsewhere / target)
        told = mistake(capsys, "train", *TINY, "model.hidden=0", f"out='{place}'")
        assert f"{name}: is a link to " in told
    assert [path.name for path in (elsewhere / "precious").iterdir()] == ["config.yaml"]
    assert (elsewhere / "precious" / "config.yaml").read_text() == "mine: 1\n"
    assert not (elsewhere / "none").exists()


@pytest.mark.sample(1)
@pytest.mark.parametrize("words", [[], ["out=outputs/x"], ["-m", "seed=1,2"]])
def test_what_is_in_the_way_of_a_directory_is_said(words: list[str], elsewhere: Path, capsys: Capture) -> None:
    link = elsewhere / ("multirun" if "-m" in words else "outputs")
    link.symlink_to("not/there")
    told = mistake(capsys, "train", *TINY, *words)
    assert f"{link.name} is a link to not/there, which is not there" in told
    link.unlink()
    link.write_text("")
    assert f"{link.name} is a file" in mistake(capsys, "train", *TINY, *words)


def test_out_names_the_directory_of_a_run_and_a_run_in_it_is_not_overwritten(run: Path, capsys: Capture) -> None:
    told = mistake(capsys, "train", *TINY, f"out='{run}'")
    assert f"out={run}: holds an unfinished run" in told
    assert command_line("train", override("resume", str(run))) in told
    (run / "results.json").write_text("{}")
    assert f"out={run}: holds a finished run" in mistake(capsys, "train", *TINY, f"out='{run}'")
    assert f"out={run}: holds a finished run" in mistake(capsys, "train", *TINY, f"hydra.run.dir='{run}'")


def test_with_a_sweep_out_is_the_directory_of_the_sweep(elsewhere: Path, capsys: Capture) -> None:
    (elsewhere / "sweep" / "1").mkdir(parents=True)
    (elsewhere / "sweep" / "1" / "results.json").write_text("{}")
    told = mistake(capsys, "train", "-m", *TINY, "out=sweep", "model.hidden=0,abc")
    assert "sweep/1: holds a finished run" in told
    assert not (elsewhere / "sweep" / "0").exists(), "a mistake leaves nothing of its job"
    assert sorted(path.name for path in elsewhere.iterdir()) == ["sweep"]


def test_without_out_a_run_gets_a_directory_of_its_own(
    elsewhere: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenrl_cli.run.directory.remove_traces", lambda run: None)
    assert "at least 1" in mistake(capsys, "train", *TINY, "model.hidden=0")
    assert "at least 1" in mistake(capsys, "train", *TINY, "model.hidden=0", "out=a/b")
    assert "at least 1" in mistake(capsys, "train", *TINY, "model.hidden=0", "hydra.run.dir=c")
    made = sorted(path.parent.relative_to(elsewhere).as_posix() for path in elsewhere.rglob("config.yaml"))
    made = [path for path in made if not path.endswith(".hydra")]
    assert made[:2] == ["a/b", "c"]
    assert made[2].startswith("outputs/")
    assert len(made) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["out=other", "resume=run"], "cannot be given with resume: a run is resumed in its own directory"),
        (["out=other", "hydra.run.dir=here"], "cannot be given with hydra.run.dir: both name the directory"),
        (
            ["-m", "out=other", "hydra.sweep.dir=here", "seed=1,2"],
            "cannot be given with hydra.sweep.dir: both name the directory",
        ),
        (["out=file"], "out=file: file is a file"),
        (["out=file/run"], "out=file/run: file is a file"),
    ],
)
def test_a_place_that_cannot_be_is_refused(words: list[str], told: str, elsewhere: Path, capsys: Capture) -> None:
    (elsewhere / "file").write_text("")
    assert told in mistake(capsys, "train", *TINY, *words)
    assert [path.name for path in elsewhere.iterdir()] == ["file"]


# ---------------------------------------------------------------------------------------------------------- resume=


def test_resume_takes_the_runs_own_config_with_single_values_changed(run: Path, capsys: Capture) -> None:
    config = composed(capsys, "train", f"resume={run}", "trainer.steps=99")
    assert config["model"]["hidden"] == 77
    assert config["trainer"]["steps"] == 99
    assert config["seed"] == 5
    assert config["resume"] == str(run)


def test_imports_of_a_run_are_not_trusted_on_resume(run: Path, capsys: Capture) -> None:
    assert composed(capsys, "train", f"resume={run}")["imports"] == []
    assert composed(capsys, "train", f"resume={run}", "imports=[mine]")["imports"] == ["mine"]


def test_a_resume_that_was_a_mistake_changes_nothing(run: Path, capsys: Capture) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.yaml")}
    assert "model.hidden=abc: must be int" in mistake(capsys, "train", f"resume={run}", "model.hidden=abc")
    assert {path: path.read_bytes() for path in run.rglob("*.yaml")} == before


def test_data_root_is_that_of_whoever_goes_on(run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["dataset"]["task"] = "${data_root}/set"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert composed(capsys, "train", f"resume={run}")["dataset"]["task"] == "/old/set"
    monkeypatch.setenv("TOKENRL_DATA", "/mine")
    assert composed(capsys, "train", f"resume={run}")["dataset"]["task"] == "/mine/set"
    assert composed(capsys, "train", f"resume={run}", "data_root=/new")["dataset"]["task"] == "/new/set"


def test_nothing_of_a_run_is_where_hydra_looks(run: Path, capsys: Capture) -> None:
    """Options, logging and launcher in a run could name code to execute; .hydra is only a record."""
    evil = "_target_: os.system\ncommand: touch evil\n"
    logging = "version: 1\nhandlers:\n  x:\n    (): os.mkdir\n    path: evil\nroot:\n  handlers: [x]\n"
    for root in (run, run / ".hydra"):
        for group in ("job_logging", "hydra_logging", "launcher", "sweeper", "callbacks", "output"):
            for name in ("run", "plain", "default", "basic", "none"):
                file = root / "hydra" / group / f"{name}.yaml"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(logging if group.endswith("logging") else evil)
        for name in ("hydra.yaml", "train.yaml", "_config_of_a_run.yaml", "overrides.yaml"):
            (root / name).write_text(evil)
        for name in ("model", "reward", "brings"):
            (root / name).mkdir()
    for path in (".hydra/config.yaml", ".hydra/resume-9/config.yaml"):
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text("seed: ${oc.env:HOME}\n")
    assert composed(capsys, "train", f"resume={run}")["seed"] == 5
    assert "checkpoint format None" in mistake(capsys, "train", f"resume={run}")  # the manifest is empty
    assert not Path("evil").exists()
    assert "evil" not in (run / "train.log").read_text()


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model=gru", "model=gru: cannot be changed on resume"),
        ("algorithm/baseline=none", "cannot be changed on resume"),
        ("optimizer@algorithm.optimizer=sgd", "cannot be changed on resume"),
        ("experiment=x", "cannot be changed on resume"),
        ("hydra.run.dir=elsewhere", "cannot be changed on resume"),
        ("out=elsewhere", "cannot be given with resume"),
        ("trainer.stpes=1", "did you mean 'trainer.steps'?"),
        ("modle=1", "did you mean 'model'?"),
        ("-m", "one run is resumed at a time"),
    ],
)
def test_parts_are_fixed_on_resume(override: str, told: str, run: Path, capsys: Capture) -> None:
    assert told in mistake(capsys, "train", f"resume={run}", override)


def test_what_is_no_run_is_not_resumed(run: Path, capsys: Capture) -> None:
    for word in ("--config-name=other", "--config-path=/"):
        assert "cannot be given with resume" in mistake(capsys, "train", f"resume={run}", word)
    (run / "config.yaml").unlink()
    assert "is not a run" in mistake(capsys, "train", f"resume={run}")
    assert "there is no such directory" in mistake(capsys, "train", "resume=nowhere")


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n      command: touch evil\n",
            "must not set 'hydra'",
        ),
        ("defaults:\n  - model: lstm\n", "must not set 'defaults'"),
        ("- a list\n", "must hold keys and values"),
        ("a: [1\n", "cannot be read"),
        ("a: " + "[" * 100_000, "levels deep"),
        ("a: &a [1]\nb: *a\n", "an alias"),
        ("reward:\n  name: ${oc.env:HOME}\n", "reward.name holds '${'"),
        ("reward:\n  name: [1, 'x ${data_root}/y']\n", "reward.name.1 holds '${'"),
        ("reward:\n  name: ${data_root}/${oc.env:HOME}\n", "reward.name holds '${'"),
        ("reward:\n  name: ${data_root}_/x\n", "reward.name holds '${'"),
        ("reward:\n  ${seed}: 1\n", "reward.${seed} holds '${'"),
        ("data_root: ${data_root}\n", "data_root holds '${'"),
    ],
)
def test_a_runs_config_is_plain_values(text: str, told: str, run: Path, capsys: Capture) -> None:
    (run / "config.yaml").write_text(text)
    said = mistake(capsys, "train", f"resume={run}", "--cfg", "job", "--resolve")
    assert "config.yaml" in said
    assert told in said
    assert not Path("evil").exists()
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to("/etc/hostname")
    assert "is a link to /etc/hostname" in mistake(capsys, "train", f"resume={run}")


def test_a_config_that_could_not_be_gone_on_with_is_refused_at_the_start(capsys: Capture) -> None:
    told = mistake(capsys, "train", "dataset=jsonl", "dataset.path=\\${x}/y", "out=run")
    assert "dataset.path holds '${'" in told
    assert not Path("run/config.yaml").exists()


# ------------------------------------------------------------------------------------------------------------ ckpt=


def test_eval_starts_from_the_checkpoints_blocks(run: Path, capsys: Capture) -> None:
    for named in (run, run / "checkpoints" / "best", run / "checkpoints" / "000012"):
        config = composed(capsys, "eval", f"ckpt='{named}'")
        saved = yaml.safe_load((run / "checkpoints" / "000012" / "config.yaml").read_text())
        for key in ("dataset", "reward", "algorithm", "metrics", "seed"):
            assert config[key] == saved[key]
        assert config["decode"] == saved["decode"]


def test_overrides_apply_to_the_checkpoints_blocks(run: Path, capsys: Capture) -> None:
    config = composed(
        capsys, "eval", f"ckpt='{run}'", "algorithm.temperature=0.7", "reward=bleu", "decode=beam", "decode.beam_size=3"
    )
    assert config["algorithm"]["temperature"] == 0.7
    assert config["reward"]["_target_"] == "tokenrl_cli.reward.bleu.Bleu"
    assert (config["decode"]["beam_size"], config["decode"]["max_length"]) == (3, 9)
    assert composed(capsys, "generate", f"ckpt='{run}'", "decode=sample")["decode"]["temperature"] == 1.0
    assert "did you mean 'algorithm.temperature'?" in mistake(capsys, "eval", f"ckpt='{run}'", "algorithm.temprature=1")
    assert "did you mean 'beam'?" in mistake(capsys, "generate", f"ckpt='{run}'", "decode=baem")


def test_another_data_set_brings_its_own_metrics(run: Path, capsys: Capture) -> None:
    config = composed(capsys, "eval", f"ckpt='{run}'", "dataset=e2e_nlg", "data_root=/new")
    assert config["dataset"]["path"] == "/new/e2e_nlg"
    assert config["metrics"].keys() == composed(capsys, "train", "dataset=e2e_nlg")["metrics"].keys()


def test_paths_of_a_checkpoint_follow_data_root(run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run / "checkpoints" / "000012" / "config.yaml"
    file.write_text(
        yaml.safe_dump(yaml.safe_load(file.read_text()) | {"dataset": {"path": "/old/e2e", "other": "/olden"}})
    )
    assert composed(capsys, "eval", f"ckpt='{run}'")["dataset"] == {"path": "/old/e2e", "other": "/olden"}
    assert composed(capsys, "eval", f"ckpt='{run}'", "data_root=/new")["dataset"]["path"] == "/new/e2e"
    monkeypatch.setenv("TOKENRL_DATA", "/here")
    assert composed(capsys, "eval", f"ckpt='{run}'")["dataset"]["path"] == "/here/e2e"


def test_a_run_without_a_best_checkpoint_means_its_last(run: Path, capsys: Capture) -> None:
    (run / "checkpoints" / "best").unlink()
    assert composed(capsys, "eval", f"ckpt='{run}'")["seed"] == 5


@pytest.mark.parametrize("value", ["${oc.env:HOME}", {"a": ["${seed}"]}, {"${x}": 1}])
def test_a_checkpoints_config_is_plain_values(value: Any, run: Path, capsys: Capture) -> None:
    file = run / "checkpoints" / "000012" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(config | {"reward": {"x": value}}))
    assert "holds '${'" in mistake(capsys, "eval", f"ckpt='{run}'", "--cfg", "job")


@pytest.mark.parametrize(
    ("text", "told"), [("a: 1\n", "is not the config of a checkpoint"), ("a: [", "cannot be read")]
)
def test_a_damaged_config_is_told(text: str, told: str, run: Path, capsys: Capture) -> None:
    (run / "checkpoints" / "000012" / "config.yaml").write_text(text)
    assert told in mistake(capsys, "eval", f"ckpt='{run}'")
