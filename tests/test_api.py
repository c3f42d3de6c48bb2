"""tokenrl from Python gives what the commands give and what the reference libraries say."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jiwer
import pytest
import sacrebleu
import torch
import yaml
from rouge_score.rouge_scorer import RougeScorer

import tokenrl_cli as tokenrl
from tests.commands.test_generate import sources
from tests.running import TINY, train, weights
from tests.running import tokenrl as command
from tests.stepwise import logprobs, policy_of
from tokenrl_cli.commands.generate import rollout_from
from tokenrl_cli.config.options import conf_dir
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.data.batching import source_batch
from tokenrl_cli.data.counts import Unread
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import chunks

QUICK = ["warm_start.optimizer.lr=8e-3", "warm_start.optimizer.schedule.warmup_steps=0", "trainer.eval_every=60"]
DECODES: dict[str, tuple[list[str], dict[str, Any]]] = {  # the command's words, and the same from Python
    "greedy": ([], {}),
    "beam": (["decode=beam", "decode.beam_size=3"], {"decode": "beam", "beam_size": 3}),
    "sample": (
        ["decode=sample", "decode.temperature=0.8", "decode.top_k=4", "seed=7"],
        {"decode": "sample", "temperature": 0.8, "top_k": 4, "seed": 7},
    ),
}
TEXTS = ["the cat sat on a mat", "a small cat sat on the mat", "", "sat mat the", "the the the the"]
REFERENCES = [
    ["the cat sat on the mat", "a cat sat on the mat"],
    ["the small cat sat on the mat"],
    ["a mat"],
    ["the mat sat", "sat on the mat"],
    ["the cat"],
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tokenrl.Run:
    """Taught enough to say something else for every source; dropout would show where it is left on."""
    steps = ["trainer.warm_start_steps=60", "trainer.steps=0", "model.dropout=0.3"]
    return tokenrl.train([*TINY, *steps, *QUICK, f"out={tmp_path_factory.mktemp('api') / 'run'}"])


@cache
def reward(name: str) -> tokenrl.RewardFunction:
    return tokenrl.reward(name, **LIBRARIES[name][0])


def close(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(math.isclose(a, b, abs_tol=2e-4) for a, b in zip(one, other, strict=True))


# -------------------------------------------------------------------------------------------- generate, score, evaluate


@pytest.mark.sample(1)
@pytest.mark.parametrize("decode", DECODES)
def test_texts_are_those_of_the_command_and_their_logprobs_those_of_a_policy_that_goes_step_by_step(
    run: tokenrl.Run, tmp_path: Path, decode: str
) -> None:
    """For every architecture: tests/commands/test_generate.py."""
    given, (words, options), file = sources(), DECODES[decode], tmp_path / "said.txt"
    (tmp_path / "sources.txt").write_text("".join(f"{each}\n" for each in given))
    told = [f"ckpt={run.directory}", f"input={tmp_path / 'sources.txt'}", f"output={file}", "batch_size=5"]
    assert command("generate", *told, *words) == 0
    found = run.generate(given, batch_size=5, **options)
    assert [each.text for each in found] == file.read_text().splitlines()
    assert len({each.text for each in found}) > 4, "a model that says one thing for everything shows no difference"
    again, (policy, task) = run.score(given, [each.text for each in found], batch_size=3), policy_of(run.path)
    for source, one, other in zip(given, found, again, strict=True):
        assert one.text == other.text
        assert other.ended
        assert other.values is None
        assert len(one.prefixes) == len(one.tokens) + 1 == len(one.logprobs) + 1
        assert one.prefixes[0] == ""
        assert one.prefixes[-1] == one.text
        assert one.tokens == other.tokens[: len(one.tokens)]
        assert len(one.tokens) == len(other.tokens) - (not one.ended)
        assert close(one.logprobs, other.logprobs[: len(one.logprobs)])
        assert close(other.logprobs, logprobs(policy, task, source, one.text))
        assert other.logprob == sum(other.logprobs) < 0


def test_at_temperature_1_the_logprobs_are_those_that_the_sampler_drew_from(
    run: tokenrl.Run,
) -> None:
    policy, task = policy_of(run.path, temperature=1.0)
    rollout = rollout_from(policy, task, sources(), 0, Unread(task.source_reader, 64))
    found = run.generate(sources(), "sample", seed=7)
    assert [len(each.logprobs) for each in found] == rollout.mask.sum(-1).tolist()
    for each, drawn in zip(found, rollout.logprobs.tolist(), strict=True):
        assert close(each.logprobs, drawn[: len(each.logprobs)])


def test_defaults_are_those_of_the_commands() -> None:
    for call, name in ((tokenrl.Run.generate, "generate"), (tokenrl.Run.evaluate, "eval")):
        defaults = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text())
        kept = {key: value for key, value in (call.__kwdefaults__ or {}).items() if key != "seed"}
        assert kept == {key: defaults[key] for key in kept}
    assert tokenrl.Run.evaluate.__defaults__ == ("test", None)


@pytest.mark.parametrize("decode", DECODES)
def test_an_evaluation_is_that_of_the_command_and_writes_nothing(run: tokenrl.Run, tmp_path: Path, decode: str) -> None:
    assert run.directory is not None
    words, options = DECODES[decode]
    assert command("eval", f"ckpt={run.directory}", f"out={tmp_path}", "examples=12", "batch_size=5", *words) == 0
    (folder,) = tmp_path.iterdir()
    before = sorted(run.directory.rglob("*"))
    found = run.evaluate(examples=12, batch_size=5, **options)
    assert json.loads(json.dumps(found.results)) == json.loads((folder / "results.json").read_text())
    assert found.hypotheses == (folder / "hypotheses.txt").read_text().splitlines()
    assert found.metrics["bleu"] == found.results["metrics"]["bleu"]["value"] > 1
    assert found.metrics["reward"] == pytest.approx(sum(found.rewards) / 12)
    assert len(found.references) == 12
    assert sorted(run.directory.rglob("*")) == before


def test_an_evaluation_in_parts_is_that_of_all_texts_at_once(run: tokenrl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large vocabulary's logits are held for a few texts at a time, and in `score`, too."""
    whole, given = run.evaluate(examples=12, batch_size=5), sources()
    scores = run.score(given, given)
    monkeypatch.setattr(chunks, "HELD", 1)
    for each, other in zip(run.score(given, given), scores, strict=True):
        assert each.logprobs == pytest.approx(other.logprobs, rel=1e-5)
    parts = run.evaluate(examples=12, batch_size=5)
    assert parts.hypotheses == whole.hypotheses
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-5)


def test_a_policy_that_acts_by_values_tells_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as elsewhere:  # a thread that may set no signal handlers
        run = elsewhere.submit(tokenrl.train, [*TINY, "algorithm=dqn", f"out={tmp_path / 'run'}"]).result()
    last = tokenrl.load(tmp_path / "run" / "checkpoints" / "last")
    assert (run.step, last.step, last.stage) == (run.path.name.lstrip("0") and int(run.path.name), 12, "train")
    given = sources()
    policy, task = policy_of(last.path)
    batch = source_batch(given, task.source_reader, 64)
    best = policy.start_value(batch.source, batch.source_mask).tolist()
    for each, value, again in zip(last.generate(given), best, last.score(given, given), strict=True):
        assert each.values is not None
        assert again.values is not None
        assert len(each.values) == len(each.tokens)
        assert each.values[0] == pytest.approx(value, abs=1e-6)
        assert again.values[0] <= value + 1e-6
        assert set(each.logprobs) == {0.0}
    assert any(-math.inf in each.logprobs for each in last.score(given, given)), "it takes its best token alone"


# ------------------------------------------------------------------------------------------------------------- rewards


def of_rouge(text: str, references: list[str]) -> float:
    return float(RougeScorer(["rougeL"]).score_multi(references, text)["rougeL"].fmeasure)


def of_errors(rate: Callable[[str, str], float]) -> Callable[[str, list[str]], float]:
    return lambda text, references: max(1 - rate(reference, text) for reference in references)


LIBRARIES: dict[str, tuple[dict[str, Any], Callable[[str, list[str]], float]]] = {
    "bleu": (
        {"smoothing": "floor", "smoothing_value": 0.2, "lowercase": True},
        lambda text, references: (
            sacrebleu.BLEU(True, smooth_method="floor", smooth_value=0.2, effective_order=True)
            .sentence_score(text, references)
            .score
            / 100
        ),
    ),
    "chrf": ({"word_order": 2}, lambda text, refs: sacrebleu.CHRF(word_order=2).sentence_score(text, refs).score / 100),
    "ter": ({}, lambda text, references: 1 - sacrebleu.TER().sentence_score(text, references).score / 100),
    "rouge": ({}, of_rouge),
    "wer": ({}, of_errors(jiwer.wer)),
    "cer": ({}, of_errors(jiwer.cer)),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_reward_is_the_number_of_its_library_for_every_text_and_every_prefix(name: str) -> None:
    _, library = LIBRARIES[name]
    scores = reward(name)
    expected = [library(*pair) for pair in zip(TEXTS, REFERENCES, strict=True)]
    assert scores(TEXTS, REFERENCES) == pytest.approx(expected, abs=1e-9)
    assert len(set(expected)) > 3
    for found, references in zip(scores.prefixes(TEXTS, REFERENCES), REFERENCES, strict=True):
        words = found.prefixes[-1].split()
        assert found.prefixes == [" ".join(words[:t]) for t in range(len(words) + 1)]
        assert found.scores == pytest.approx([library(each, references) for each in found.prefixes], abs=1e-9)
        assert len(found.rewards) == len(words)
        assert sum(found.rewards) == pytest.approx(found.scores[-1] - found.scores[0], abs=1e-9)


def test_a_text_and_a_list_of_one_are_the_same_reference_and_prefixes_may_be_given() -> None:
    bleu = reward("bleu")
    assert bleu(["a cat"], ["a cat sat"]) == bleu(["a cat"], [["a cat sat"]])
    characters = [["", "a", "a ", "a c", "a ca", "a cat"]]
    (found,) = bleu.prefixes(characters, ["a cat sat"])
    assert found.prefixes == characters[0]
    assert found.scores[-1] == bleu(["a cat"], ["a cat sat"])[0] > 0
    assert bleu([], []) == []
    assert bleu.prefixes([], []) == []
    assert math.isnan(bleu(["a cat"])[0]), "without a reference there is no BLEU"


def test_a_mixture_is_the_weighted_sum_of_its_parts_at_every_prefix() -> None:
    values = {"parts": {"bleu": LIBRARIES["bleu"][0], "chrf": {"word_order": 2}}, "weights": {"bleu": 0.3}}
    values |= {"shifts": {"chrf": -1.0}}
    mixture = tokenrl.reward("mixture", overrides=["+reward@reward.parts.wer=wer"], **values)
    bleu, chrf, wer = (reward(name) for name in ("bleu", "chrf", "wer"))
    for found, a, b, c in zip(*(each.prefixes(TEXTS, REFERENCES) for each in (mixture, bleu, chrf, wer)), strict=True):
        sums = [0.3 * x + (y - 1) + z for x, y, z in zip(a.scores, b.scores, c.scores, strict=True)]
        assert found.scores == pytest.approx(sums, abs=1e-12)
    assert mixture(TEXTS, REFERENCES) == pytest.approx([x.scores[-1] for x in mixture.prefixes(TEXTS, REFERENCES)])


def test_a_function_of_the_user_is_a_reward_and_sees_words_as_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(
        "def share(hypothesis, tokens, source, weight, ended):\n"
        "    assert ended\n"
        "    return weight * len(set(tokens)) / max(1, len(tokens)) + len(source)\n"
        "def each(hypothesis):\n"
        "    return [float(len(word)) for word in hypothesis.split()]\n"
    )
    mine = tokenrl.reward("callable", function="rewards.py:share", imports=["rewards.py"])
    said = mine(["the cat the cat", "a b"], sources=["xx", ""], columns={"weight": [2, 3]})
    assert said == [2 * 0.5 + 2, 3.0]
    dense = tokenrl.reward("callable", function="rewards.py:each", imports=["rewards.py"])
    assert dense(["the cat", "a"]) == [6.0, 1.0]
    with pytest.raises(tokenrl.UserError, match="gives one number a token"):
        dense.prefixes(["the cat"])


def test_rewards_of_a_generated_text_are_those_that_training_with_delta_gives_its_tokens(
    run: tokenrl.Run,
) -> None:
    given = sources()
    wanted = [" ".join(reversed(each.split())) for each in given]
    bleu = reward("bleu")
    found = run.generate(given, "sample", seed=7)
    policy, task = policy_of(run.path, temperature=1.0)
    batch = replace(source_batch(given, task.source_reader, 64), references=[[each] for each in wanted])
    rollout = rollout_from(policy, task, given, 0, Unread(task.source_reader, 64))
    judged, scores = judge(rollout, batch, task.tokenizer, bleu.function, Delta())
    assert judged.rewards is not None
    for each, rewards in zip(bleu.prefixes(found, wanted), judged.rewards.tolist(), strict=True):
        assert each.rewards == pytest.approx(rewards[: len(each.rewards)], abs=1e-6)
    assert sum(bleu(found, wanted)) / len(given) == pytest.approx(scores.metrics["reward"]) != 0
    assert tokenrl.reward("ended")(found) == [float(each.ended) for each in found]


# --------------------------------------------------------------------------------------------------- train, load, look


def test_training_is_that_of_the_command_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore

    assert train(tmp_path / "one") == 0
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        handler = logging.FileHandler(tmp_path / "own.log", "w")
        logging.getLogger().addHandler(handler)
        argv, drawn = list(sys.argv), torch.random.get_rng_state()
        try:
            run = tokenrl.train([*TINY, f"out={tmp_path / 'two'}"])
            run.evaluate(examples=2)
            assert handler in logging.getLogger().handlers
            logs = [each.baseFilename for each in logging.getLogger().handlers if isinstance(each, logging.FileHandler)]
            assert str(tmp_path / "two" / "train.log") not in logs
            logging.getLogger().warning("a line of the caller's")
            assert (tmp_path / "own.log").read_text().endswith("a line of the caller's\n")
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()
        assert sys.argv == argv
        assert torch.equal(torch.random.get_rng_state(), drawn)
        assert compose("train")["seed"] == 1, "the caller's own Hydra goes on"
    assert "checkpoint.yaml" not in ConfigStore.instance().repo
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert (tmp_path / "two" / "train.log").is_file()
    assert run.directory == tmp_path / "two"
    assert run.path == (tmp_path / "two" / "checkpoints" / "best").resolve()
    assert repr(run).startswith(f"<tokenrl run {tmp_path / 'two'}, step ")


def test_the_table_of_metrics_has_every_number_of_the_file(run: tokenrl.Run) -> None:
    assert run.directory is not None
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    table = run.metrics()
    assert {len(column) for column in table.values()} == {len(lines)}
    for row, line in enumerate(lines):
        found = {key: column[row] for key, column in table.items() if column[row] is not None}
        numbers = {key: math.nan if value is None else value for key, value in line["metrics"].items()}
        assert found == pytest.approx({k: v for k, v in line.items() if k != "metrics"} | numbers, nan_ok=True)
    val = run.metrics("val")
    assert set(val["split"]) == {"val"}
    assert None not in val["bleu"]
    assert "loss/nll" not in val
    with pytest.raises(tokenrl.UserError, match=r"split=dev: .*no such lines\n  there are train, val, test"):
        run.metrics("dev")


def test_a_number_that_was_none_is_nan_and_a_damaged_line_is_named(run: tokenrl.Run, tmp_path: Path) -> None:
    shutil.copytree(run.directory or "", tmp_path / "run", symlinks=True)
    copied, file = tokenrl.load(tmp_path / "run"), tmp_path / "run" / "metrics.jsonl"
    line = {"step": 1, "stage": "train", "split": "train", "time": 0.1, "metrics": {"x": None, "y": 2}}
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"metrics": {}}) + "\n")
    table = copied.metrics()
    assert math.isnan(table["x"][0])
    assert table["x"][1] is None
    assert table["y"] == [2, None]
    file.write_text("{}\n{no json\n")
    with pytest.raises(tokenrl.UserError, match=r"metrics.jsonl, line 2: is not JSON"):
        copied.metrics()
    file.write_text("{}\n")
    with pytest.raises(tokenrl.UserError, match=r"metrics.jsonl, line 1: has no metrics"):
        copied.metrics()


def test_a_checkpoint_alone_is_a_policy_without_metrics(
    run: tokenrl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.path, tmp_path / "alone")
    monkeypatch.chdir(tmp_path)
    alone = tokenrl.load("alone", device="cpu")
    monkeypatch.chdir("/")
    assert alone.directory is None
    assert alone.step == run.step
    assert alone.generate(sources()) == run.generate(sources())
    with pytest.raises(tokenrl.UserError, match="is a checkpoint without a run"):
        alone.metrics()


def test_the_config_is_the_checkpoints_and_a_copy(run: tokenrl.Run) -> None:
    saved = yaml.safe_load((run.path / "config.yaml").read_text())
    assert run.config == saved
    run.config["model"]["hidden"] = 3
    assert run.config == saved


@pytest.mark.slow
def test_a_trained_run_may_read_the_data_and_modules_that_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is evaluated in the directory, and with the modules, that the line named; another process must name them."""
    pairs = [("one two three", "a b c"), ("four five", "d e"), ("six", "f")]
    (tmp_path / "data").mkdir()
    for split in ("train", "val", "test"):
        lines = [json.dumps({"src": source, "refs": [target]}) for source, target in pairs]
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "mine_here.py").write_text("def score(hypothesis):\n    return float(len(hypothesis))\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    plain = [each for each in TINY if not each.startswith(("dataset", "reward", "trainer.monitor"))]
    data = ["dataset=jsonl", f"dataset.path={tmp_path / 'data'}", "dataset.max_source_length=4", "decode.max_length=3"]
    mine = ["reward=callable", "reward.function=mine_here.score", f"imports=[{tmp_path / 'mine_here.py'}]"]
    run = tokenrl.train([*plain, *data, *mine, "trainer.monitor=reward"])
    assert run.directory is not None
    assert run.directory.is_relative_to(tmp_path / "work" / "outputs")
    assert run.evaluate().metrics["reward"] == run.evaluate(examples=3).metrics["reward"] >= 0
    stranger = tokenrl.load(run.directory)
    with pytest.raises(tokenrl.UserError, match=r"dataset.path=.*lies outside"):
        stranger.evaluate()
    with pytest.raises(tokenrl.UserError, match=r"mine_here.* imports"):
        tokenrl.load(run.directory, overrides=[f"dataset.path={tmp_path / 'data'}"]).evaluate()
    with pytest.warns(UserWarning, match=r"^1 of 2 sources was longer than 4 tokens and was cut; 1 of 5 source tokens"):
        run.generate(["one two three four five", "seven"])
    with pytest.warns(UserWarning, match=r"^1 of 3 target tokens \(33.3 %\) is unknown$"):
        run.score(["six"], ["a z"])


def test_ctrl_c_saves_the_run_which_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stopping.py").write_text(
        "import os, signal\n"
        "def score(hypothesis, step):\n"
        "    if step == 8 and os.path.exists('stop'):\n"
        "        os.remove('stop')\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return float(len(hypothesis))\n"
    )
    (tmp_path / "stop").touch()
    plain = [each for each in TINY if not each.startswith("reward")]
    mine = ["reward=callable", "reward.function=stopping.score", "imports=[stopping.py]"]
    with pytest.raises(KeyboardInterrupt):
        tokenrl.train([*plain, *mine, "out=run"])
    stopped = tokenrl.load("run/checkpoints/last")
    assert stopped.step == 9
    assert not Path("run/results.json").exists()
    assert tokenrl.train(["resume=run", "imports=[stopping.py]"]).directory == tmp_path / "run"
    assert Path("run/results.json").exists()


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.sample(12)
@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda run: tokenrl.load("nowhere"), "ckpt=nowhere: there is no such directory"),
        (lambda run: tokenrl.load("/"), "ckpt=/: is neither a checkpoint nor a run with one"),
        (lambda run: tokenrl.load(run.path, device="tpu"), "device=tpu: must be one of auto, cpu, cuda"),
        (lambda run: tokenrl.load(run.path, imports="mine"), "imports: must be a list of texts, got 'mine'"),
        (lambda run: tokenrl.load(run.path, imports=["absent.py"]), "imports=[absent.py]: there is no file"),
        (lambda run: tokenrl.load(run.path, overrides=["model.hidden=3"]), "model.hidden=3: cannot be changed"),
        (lambda run: tokenrl.load(run.path, overrides=["-m"]), "--multirun: is a flag of the command line"),
        (lambda run: run.generate("a b"), "sources: must be a list of texts, got 'a b'"),
        (lambda run: run.generate(["a", 3]), "sources: holds 3, expected texts"),
        (lambda run: run.generate(["1"], "beams"), "decode=beams: there is no such option (did you mean 'beam'?)"),
        (lambda run: run.generate(["1"], beam=3), "decode.beam: there is no such key (did you mean"),
        (lambda run: run.generate(["1"], top_k=3), "decode.top_k=3: does nothing where"),
        (lambda run: run.generate(["1"], batch_size=0), "batch_size=0: must be a whole number, at least 1"),
        (lambda run: run.score(["1"], []), "hypotheses: has 0 texts, expected one for each of the 1 sources"),
        (lambda run: run.evaluate("dev"), "split=dev"),
        (lambda run: tokenrl.train(["modle=gru"]), "modle: there is no such key or group (did you mean 'model'?)"),
        (lambda run: tokenrl.train(["trainer.steps=1,2"]), "trainer.steps=1,2: names several values"),
        (lambda run: tokenrl.train([f"out={run.directory}"]), "holds a finished run"),
        (lambda run: tokenrl.train("model=gru"), "overrides: must be a list of texts, got 'model=gru'"),
        (lambda run: tokenrl.reward("bluer"), "reward=bluer: there is no such option (did you mean 'bleu'?)"),
        (lambda run: tokenrl.reward("bleu", smooth="exp"), "reward.smooth: Bleu has no 'smooth' (did you mean"),
        (lambda run: tokenrl.reward("callable"), "reward.function: is missing"),
        (lambda run: tokenrl.reward("likelihood", checkpoint="no")(["a"]), "reward.checkpoint=no: "),
        (lambda run: reward("bleu")("a", ["a"]), "hypotheses: must be a list of texts, got 'a'"),
        (lambda run: reward("bleu")(["a"], "a"), "references: must be a list of texts, got 'a'"),
        (lambda run: reward("bleu")(["a"], ["a", "b"]), "references: has 2 entries, expected one for each"),
        (lambda run: reward("bleu")(["a"], [3]), "references[0]: must be a list of texts, got 3"),
        (lambda run: reward("bleu")([3], ["a"]), "hypotheses[0]: must be a list of texts, got 3"),
        (lambda run: reward("bleu").prefixes([["a"]], ["a"]), 'hypotheses[0]: must begin with ""'),
        (lambda run: tokenrl.reward("validity")(["a"]), "validity: needs the column 'meaning'"),
    ],
)
def test_a_mistake_is_one_error_that_names_what_was_given(
    run: tokenrl.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[tokenrl.Run], object],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tokenrl.UserError) as raised:
        call(run)
    assert told in str(raised.value)
    assert not list(tmp_path.iterdir()), "nothing is left of it"


# -------------------------------------------------------------------------------------------------------------- imports


def test_importing_the_package_loads_nothing_heavy_and_a_reward_no_run() -> None:
    program = (
        "import sys, tokenrl_cli as tokenrl\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'sacrebleu', 'rich'}\n"
        "assert {'load', 'train', 'reward', 'UserError'} <= set(dir(tokenrl))\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "tokenrl.load, tokenrl.train, tokenrl.reward, tokenrl.Run\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import tokenrl_cli.interfaces\n"
        "assert tokenrl.UserError is tokenrl_cli.interfaces.UserError\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_the_function_reward_and_the_folder_reward_have_one_name_and_both_work() -> None:
    import tokenrl_cli.reward.bleu

    assert tokenrl_cli.reward.bleu.Bleu.__name__ == "Bleu"
    assert tokenrl.reward("bleu")(["a b c d"], ["a b c d"]) == pytest.approx([1.0])
    with pytest.raises(AttributeError, match="has no attribute 'rewards'"):
        tokenrl.rewards  # noqa: B018
