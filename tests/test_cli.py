"""The command as a user types it. Every kind of mistake: status 2, one clear message, no traceback, nothing made."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.running import TINY, tokenrl
from tokenrl_cli import __version__, cli

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command works from any directory; what it makes lies there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("TOKENRL_DATA", raising=False)
    return tmp_path


def mistake(capsys: Capture, *words: str) -> str:
    """What is told of a command line that is wrong."""
    capsys.readouterr()
    status = tokenrl(*words)
    printed = capsys.readouterr()
    assert status == 2, printed.err
    assert printed.err.startswith("tokenrl: ")
    for noise in ("Traceback", "HYDRA_FULL_ERROR", "full_key", "object_type", "use +"):
        assert noise not in printed.err
    return printed.err


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = command.replace("tokenrl ", f"{sys.executable} -m tokenrl_cli ", 1) if "()" not in command else command
    words = ["bash", "-c", line]
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env=os.environ | environment)


# ---------------------------------------------------------------------------------------------------------- the words


def test_help_names_every_command(capsys: Capture) -> None:
    assert tokenrl("--help") == 0
    shown = capsys.readouterr().out
    assert tokenrl() == 0
    assert capsys.readouterr().out == shown
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        assert (Path(cli.__file__).parent / "commands" / f"{name}.py").is_file()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_help_page(command: str, capsys: Capture) -> None:
    assert tokenrl(command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"tokenrl {command} ")


def test_trains_help_shows_groups_values_and_flags(capsys: Capture) -> None:
    assert tokenrl("-h", "train") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  algorithm@warm_start=mle +.*\brloo\b", shown, re.MULTILINE)
    assert re.search(r"^  trainer.batch_size: \d+ # ", shown, re.MULTILINE)
    assert "--config-dir DIR" in shown


def test_version_is_ours(capsys: Capture) -> None:
    for words in (["--version"], ["train", "--version"]):
        assert tokenrl(*words) == 0
        assert capsys.readouterr().out == f"tokenrl {__version__}\n"


def test_cfg_job_prints_the_config_and_runs_nothing(capsys: Capture, elsewhere: Path) -> None:
    assert tokenrl("train", "--cfg", "job", "trainer.steps=7", "-p", "trainer") == 0
    shown = capsys.readouterr().out
    assert "steps: 7" in shown
    assert "model:" not in shown
    assert tokenrl("--cfg", "hydra", "train") == 0
    assert list(elsewhere.iterdir()) == []


def test_cfg_job_says_what_the_model_and_the_data_set_have_set(capsys: Capture, elsewhere: Path) -> None:
    assert tokenrl("train", "model=gru", "--cfg", "job") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# model=gru sets warm_start.optimizer.lr: 8.0e-3 # ")
    assert "\n# dataset=grammar sets trainer.gate: 0.40" in shown
    assert yaml.safe_load(shown)["warm_start"]["optimizer"]["lr"] == 8e-3
    assert tokenrl("train", "experiment=g2p_gru_rloo", "--cfg", "job") == 0
    shown = capsys.readouterr().out
    assert "# model=gru sets" in shown
    assert "dataset=grammar" not in shown
    assert yaml.safe_load(shown)["warm_start"]["optimizer"]["lr"] == 4e-3, "a recipe wins"


def test_data_root_comes_from_the_environment(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENRL_DATA", "/somewhere")
    assert tokenrl("train", "--cfg", "job", "--resolve") == 0
    assert "data_root: /somewhere\n" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.sample(14)
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("trian", "trian: there is no such command (did you mean 'train'?)"),
        ("seed=1", "seed=1: there is no such command"),
        ("train --cgf job", "did you mean '--cfg'?"),
        ("train model=lsmt", "model=lsmt: there is no such option (did you mean 'lstm'?)"),
        ("train modle=gru", "modle: there is no such key or group (did you mean 'model'?)"),
        (
            "train algorithm=pcl algorithm/target=hard",
            "algorithm/target: the option chosen for algorithm has no such sub-group",
        ),
        ("train algorithm=oreo algorithm.consistency.span=1", "algorithm.consistency has no values"),
        ("train optimizer/schedule=cosine", "optimizer/schedule@algorithm.optimizer.schedule=OPTION"),
        ("train experiment=none_such", "experiment=none_such: there is no such option"),
        ("train algorithm/basline=none", "did you mean 'algorithm/baseline'?"),
        ("train algorithm/baseline=grredy", "did you mean 'greedy'?"),
        ("train trainer.stpes=3", "trainer.stpes: there is no such key (did you mean 'trainer.steps'?)"),
        ("train reward.smothing=exp", "did you mean 'reward.smoothing'?"),
        ("train algorithm.optimizer.lrr=1", "did you mean 'algorithm.optimizer.lr'?"),
        ("train foo", "foo: must be key=value"),
        ("train trainer.steps=]", "trainer.steps=]: cannot be read"),
        ("train reward=bleu,chrf", "names several values\n  to try each, add -m"),
        ("train +trainer.steps=3", "+trainer.steps: exists already"),
        ("train ~nothing", "nothing: there is no such key"),
        ("validate reward=null", "reward=null: names no option\n  one of adequacy, bleu"),
        ("validate optimizer@algorithm.optimizer=5", "optimizer@algorithm.optimizer=5: names no option\n  one of adam"),
        ("validate ~reward", "reward: is missing: one of adequacy, bleu"),
        ("validate +lr=3", "lr: there is no such key or group (did you mean 'algorithm.optimizer.lr' of RL or"),
        ("validate decode.top_k=3", "decode.top_k=3: does nothing where"),
        ("validate decode=beam decode.temperature=1", "decode.temperature=1: does nothing in a search"),
        (
            "validate ~metrics.bleu +reward@metrics.mine=bleu trainer.monitor=bleu",
            "trainer.monitor=bleu: is not a number of an evaluation",
        ),
        ("validate ~imports", "imports: is missing"),
        ("validate algorithm.kl_target=3", "algorithm.kl_target=3: has nothing to adapt"),
        (f"validate imports={'[' * 3000}", "imports: is nested too deep"),
        (f"validate seed={'9' * 5000}", "seed: Exceeds the limit"),
        ("train --config-dir nowhere", "--config-dir nowhere"),
        ("train hydra.searchpath=[nowhere]", "hydra.searchpath: there is no directory nowhere"),
        ("train data_root=${nothing}", "Interpolation key 'nothing' not found"),
        ("train data_root=${oc.env:NOT_SET_AT_ALL}", "NOT_SET_AT_ALL"),
        ("train --cfg job --resolve data_root=${nothing}", "Interpolation key 'nothing' not found"),
        ("train hydra.job.chdir=perhaps", "hydra.job.chdir"),
        ("train hydra/launcher=nope", "hydra/launcher=nope: there is no such option"),
        ("train hydra.mode=MULTIRUN", "hydra.mode=MULTIRUN: cannot be set: the flag -m chooses it"),
        ("train hydra.run.dir=/proc/x", "/proc/x: "),
        ("train -m seed=1,2 modle=gru", "did you mean 'model'?"),
        ("list rewrd", "rewrd: there is no such group (did you mean 'reward'?)"),
        ("list reward/bluе", "there is no such option"),
        ("list a b", "takes one group"),
        ("list --config-dir nowhere", "there is no such directory"),
        ("copy reward/bleu", "takes two arguments"),
        ("copy rewrd/bleu x", "there is no group 'rewrd' (did you mean 'reward'?)"),
        ("copy reward/blue x", "there is no such option (did you mean 'bleu'?)"),
        ("eval", "ckpt: is missing\n  tokenrl eval ckpt="),
        ("generate ckpt=", "ckpt: is missing"),
        ("eval ckpt=nowhere", "ckpt=nowhere: there is no such directory"),
        ("eval ckpt=.", "ckpt=.: is neither a checkpoint nor a run with one"),
        ("train resume=nowhere", "resume=nowhere: there is no such directory"),
        ("train resume=.", "resume=.: is not a run"),
    ],
)
def test_a_mistake_is_told_in_one_line(line: str, told: str, capsys: Capture, elsewhere: Path) -> None:
    assert told in mistake(capsys, *line.split())
    left = [path for path in elsewhere.rglob("*") if path.is_file() and path.name not in ("train.log", "multirun.yaml")]
    assert all(".hydra" in path.parts for path in left)


@pytest.mark.sample(7)
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("model.hidden=abc", "model.hidden=abc: must be int, got str 'abc'"),
        ("trainer.steps=1.5", "trainer.steps=1.5: must be int, got float 1.5"),
        ("seed=x", "seed=x: must be int, got str 'x'"),
        ("+reward.smothing=1", "reward.smothing: TokenAccuracy has no 'smothing'"),
        ("+sede=1", "sede: there is no such key or group (did you mean 'seed'?)"),
        ("dataset.task=copi", "dataset.task=copi: must be one of copy, reverse, sort (did you mean 'copy'?)"),
        ("model.hidden=abc algorithm.optimizer.lr=x", "config: 2 mistakes\n  algorithm.optimizer.lr=x"),
        ("model.hidden=0", "model.hidden=0: must be at least 1 and at most 1000000, got 0"),
        ("warm_start.label_smoothing=2", "warm_start.label_smoothing=2: must be at least 0 and below 1, got 2"),
        ("algorithm.samples_per_source=1", "algorithm.samples_per_source: must be at least 2"),
        ("decode.max_length=0", "decode.max_length=0: must be at least 1"),
        ("trainer.batch_size=0", "trainer.batch_size=0: must be at least 1"),
        ("trainer.monitor=loss", "trainer.monitor"),
        ("trainer.device=gpu", "trainer.device=gpu: must be one of auto, cpu, cuda"),
        ("trainer.precision=fp8", "trainer.precision=fp8: must be one of fp32, bf16"),
        ("model._target_=os.system", "model._target_=os.system: os is neither tokenrl_cli nor in imports"),
        (
            "model._target_=tokenrl_cli.model.recurent.X",
            "there are tokenrl_cli.model.gpt.Gpt",
        ),
        (
            "model._target_=tokenrl_cli.reward.token_accuracy.TokenAccuracy",
            "TokenAccuracy: cannot be",
        ),
        ("imports=[absent] model._target_=absent.X", "there is no module absent"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(overrides: str, told: str, capsys: Capture, elsewhere: Path) -> None:
    assert told in mistake(capsys, "validate", *TINY, *overrides.split())
    assert list(elsewhere.iterdir()) == []


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([*TINY, "model.hidden=abc"], "model.hidden=abc: must be int, got str 'abc'"),
        ([*TINY, "trainer.batch_size=0"], "trainer.batch_size=0: must be at least 1"),
        ([*TINY, "init_from=nowhere"], "nowhere"),
        (["dataset=jsonl"], "dataset.path: is missing"),
        (["dataset=jsonl", "dataset.path=nowhere"], "nowhere"),
    ],
)
def test_train_refuses_before_the_first_step(overrides: list[str], told: str, capsys: Capture, elsewhere: Path) -> None:
    assert told in mistake(capsys, "train", *overrides)
    assert not list(elsewhere.rglob("metrics.jsonl"))
    assert not list(elsewhere.rglob("checkpoints"))


def test_a_users_yaml_is_checked_like_ours(capsys: Capture, elsewhere: Path) -> None:
    (elsewhere / "mine" / "experiment").mkdir(parents=True)
    recipe = elsewhere / "mine" / "experiment" / "mine.yaml"
    words = ["validate", "--config-dir", "mine", "experiment=mine", *TINY]
    recipe.write_text("# @package _global_\nreward:\n  smothing: 1\nsede: 2\n")
    told = mistake(capsys, *words)
    assert "sede: there is no such key or group (did you mean 'seed'?)" in told
    recipe.write_text("# @package _global_\nreward:\n  smothing: 1\n")
    assert "reward.smothing: TokenAccuracy has no 'smothing'" in mistake(capsys, *words)
    recipe.write_text("# @package _global_\na: [1\n")
    assert "expected ',' or ']'" in mistake(capsys, *words)
    recipe.write_text("# @package _global_\ndefaults:\n  - override /modle: gru\n")
    assert "modle" in mistake(capsys, *words)


@pytest.mark.sample(1)
@pytest.mark.parametrize("place", ["--config-dir mine", "hydra.searchpath=[mine]"])
@pytest.mark.parametrize("ending", [".yml", ".YAML"])
def test_an_option_that_ends_otherwise_than_in_yaml_is_named(
    capsys: Capture, elsewhere: Path, place: str, ending: str
) -> None:
    (elsewhere / "mine" / "reward").mkdir(parents=True)
    file = elsewhere / "mine" / "reward" / f"own{ending}"
    file.write_text("defaults: [token_accuracy]\n")
    told = mistake(capsys, "validate", *TINY, *place.split(), "reward=own")
    assert f"reward=own: is the file mine/reward/own{ending}, and the name of an option must end in .yaml" in told
    assert f"mv mine/reward/own{ending} mine/reward/own.yaml" in told
    file.rename(file.with_suffix(".yaml"))
    assert tokenrl("validate", *TINY, *place.split(), "reward=own") == 0


@pytest.mark.parametrize("place", ["--config-dir mine", "hydra.searchpath=[file://mine]", "hydra.searchpath=[mine]"])
def test_a_config_file_that_is_too_large_is_not_read(capsys: Capture, elsewhere: Path, place: str) -> None:
    (elsewhere / "mine" / "reward").mkdir(parents=True)
    (elsewhere / "mine" / "reward" / "own.yaml").write_text("# x\n" * 300_000)
    assert "own.yaml: has 1200000 bytes" in mistake(capsys, "validate", *place.split(), "reward=own")


def test_a_copy_into_a_directory_that_is_gone_is_told(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "x: No such file or directory" in mistake(capsys, "copy", "reward/bleu", "x")


def test_what_an_option_brings_is_not_left_out_because_of_an_ending(capsys: Capture, elsewhere: Path) -> None:
    (elsewhere / "mine" / "brings" / "model").mkdir(parents=True)
    (elsewhere / "mine" / "brings" / "model" / "gru.yml").write_text("trainer: {steps: 1}\n")
    told = mistake(capsys, "validate", *TINY, "--config-dir", "mine")
    assert "mine/brings/model/gru.yml: would not be read: the name of an option ends in .yaml" in told


def test_a_users_module_is_trusted_by_imports_alone(capsys: Capture, elsewhere: Path) -> None:
    (elsewhere / "conf" / "reward").mkdir(parents=True)
    (elsewhere / "conf" / "reward" / "mine.yaml").write_text("# mine\n_target_: user_rewards.Mine\nscale: 2.0\n")
    (elsewhere / "user_rewards.py").write_text(
        "class Mine:\n    def __init__(self, scale: float) -> None:\n        self.scale = scale\n"
        "    def __call__(self, texts):\n        return texts\n"
    )
    words = ["validate", *TINY, "--config-dir", "conf", "reward=mine"]
    told = mistake(capsys, *words)
    assert "add 'imports=[user_rewards]'" in told
    assert tokenrl(*words, "imports=[user_rewards]") == 0
    assert "user_rewards.Mine" in capsys.readouterr().out
    assert "reward.scale=x: must be float" in mistake(capsys, *words, "imports=[user_rewards]", "reward.scale=x")
    assert tokenrl("validate", *TINY, "hydra.searchpath=[conf]", "reward=mine", "imports=[user_rewards]") == 0


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a": "defaults:\n  - a\n  - bleu\n"}, "reward/a.yaml: includes itself: reward/a > reward/a"),
        ({"a": "defaults: [a]\n"}, "reward/a.yaml: includes itself: reward/a > reward/a"),
        ({"a": "defaults:\n  - b\n", "b": "defaults:\n- a\n"}, "includes itself: reward/a > reward/b > reward/a"),
        ({"a": f"x: {'[' * 3000}"}, "reward/a.yaml: is nested too deep"),
        ({"a": "a: &a [x, x]\n" + "b: [*a, *a, *a]\n" * 9}, "reward/a.yaml: has 27 aliases (*name)"),
        ({"a": "# " + "x" * 2**20}, "reward/a.yaml: has 1048578 bytes"),
    ],
    ids=["itself", "in brackets", "a circle", "deep", "aliases", "large"],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(
    files: dict[str, str], told: str, capsys: Capture, elsewhere: Path
) -> None:
    (elsewhere / "conf" / "reward").mkdir(parents=True)
    for name, text in files.items():
        (elsewhere / "conf" / "reward" / f"{name}.yaml").write_text(text)
    assert told in mistake(capsys, "validate", "--config-dir", "conf", "reward=a")


# --------------------------------------------------------------------------------------------------------- the sweep


def test_a_sweep_tells_of_every_job_that_failed(capsys: Capture, elsewhere: Path) -> None:
    assert tokenrl("-m", "validate", *TINY, "model.hidden=0,8,-1") == 2
    printed = capsys.readouterr()
    assert "job 0 failed: model.hidden=0: must be at least 1 and at most 1000000, got 0" in printed.err
    assert "job 2 failed: model.hidden=-1: must be at least 1 and at most 1000000, got -1" in printed.err
    assert printed.out.count("would run") == 1
    assert "Traceback" not in printed.err


# ------------------------------------------------------------------------------------- as a process: codes and pipes


def test_an_interruption_before_the_run_is_status_130_without_a_traceback(elsewhere: Path) -> None:
    (elsewhere / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = shell("tokenrl validate 'imports=[slow]' reward._target_=slow.X")
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "tokenrl: interrupted\n")


def test_no_stream_changes_an_exit_code(elsewhere: Path) -> None:
    """Closed from the start, closed by a reader that has seen enough, or full; the codes of `list` and of a mistake."""
    lines = [
        "tokenrl list | head -1",
        "tokenrl list | true",
        "tokenrl list >&-",
        "tokenrl list 2>&- <&-",
        "tokenrl list >/dev/full",
        "tokenrl trian >&- 2>&-",
        "tokenrl trian 2>/dev/full",
    ]
    script = "".join(f"{line}; echo ${{PIPESTATUS[0]}} >> codes\n" for line in lines)
    done = shell(f'tokenrl() {{ {sys.executable} -m tokenrl_cli "$@"; }}\n{script}')
    assert (elsewhere / "codes").read_text().split() == ["0", "0", "0", "0", "2", "2", "2"]
    assert done.stderr == "tokenrl: standard output: cannot be written: No space left on device\n"


def test_output_is_utf_8_whatever_the_surroundings_say(elsewhere: Path) -> None:
    (elsewhere / "mine" / "reward").mkdir(parents=True)
    (elsewhere / "mine" / "reward" / "grün.yaml").write_text("# ein Lob für Blätter\nx: 1 # ü\n", "utf-8")
    done = shell("tokenrl list reward/grün --config-dir mine", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ein Lob für Blätter" in done.stdout


@pytest.mark.parametrize(
    ("line", "unwanted"),
    [
        ("--help", {"hydra", "omegaconf", "torch", "numpy", "yaml"}),
        ("train --help", {"hydra", "omegaconf", "torch", "numpy", "yaml"}),
        ("list", {"hydra", "omegaconf", "torch", "numpy", "yaml"}),
        ("train --cfg job", {"torch", "numpy", "sacrebleu", "rouge_score", "tokenizers", "rich"}),
        ("train modle=gru", {"torch", "numpy"}),
    ],
)
def test_what_shows_or_refuses_loads_nothing_heavy(line: str, unwanted: set[str]) -> None:
    program = (
        "import sys; from tokenrl_cli.cli import status; status(sys.argv[1:]); "
        f"found = {unwanted!r} & set(sys.modules); sys.exit(f'loaded {{found}}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, *line.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
