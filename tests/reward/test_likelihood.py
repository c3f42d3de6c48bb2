"""What a frozen run thinks of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.reward.said import texts
from tests.running import QUICK, lines, tokenrl, train, weights
from tokenrl_cli.interfaces import Frozen, SettingError, Texts, UserError
from tokenrl_cli.reward.likelihood import Likelihood
from tokenrl_cli.run.assembly import frozen_loader
from tokenrl_cli.tokenizer.char import Char

CPU = torch.device("cpu")
SAID = ["1 2 3", "", "4", "1 1 1 1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("likelihood") / "judge"
    assert train(run, "trainer.warm_start_steps=300", "trainer.steps=0", "trainer.eval_every=300") == 0
    return run


def reward(run: Path, **changes: Any) -> Likelihood:
    frozen = frozen_loader([], CPU)
    tokenizer = frozen(str(run)).tokenizer
    plain: dict[str, Any] = {"checkpoint": str(run), "path": None, "temperature": 1.0, "per_token": False}
    plain |= {"batch_size": 3, "frozen": frozen, "tokenizer": tokenizer, "device": "cpu", "here": "reward"}
    return Likelihood(**(plain | changes))


def seen(frozen: Frozen, said: list[str], ended: list[bool]) -> Texts:
    """The texts with the ids that the run's own tokenizer gives them."""
    ids = [frozen.tokenizer.encode(text) + [0] * end for text, end in zip(said, ended, strict=True)]
    made = texts([(text, []) for text in said], [len(each) for each in ids], ended)
    for row, each in enumerate(ids):
        made.actions[row, : len(each)] = each
    return made


def by_hand(frozen: Frozen, source: str, ids: list[int], temperature: float = 1.0) -> list[float]:
    """Step by step, a row alone."""
    state = frozen.policy.start(
        torch.tensor([frozen.source_tokenizer.encode(source) or [0]]),
        torch.ones(1, max(1, len(frozen.source_tokenizer.encode(source))), dtype=torch.bool),
    )
    previous, found = None, []
    for token in ids:
        output, state = frozen.policy.step(state, previous)
        found.append(float((output.logits[0, -1] / temperature).log_softmax(-1)[token]))
        previous = torch.tensor([token])
    return found


@pytest.mark.sample(1)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_is_the_log_probability_step_by_step(run: Path, temperature: float) -> None:
    mean = reward(run, temperature=temperature)
    made = seen(mean.judge, SAID, [True, True, False, True])
    each = reward(run, temperature=temperature, per_token=True)(made)
    for row, ids in enumerate(made.actions):
        expected = by_hand(mean.judge, made.sources[row], ids[made.mask[row]].tolist(), temperature)
        assert mean(made)[row] == pytest.approx(np.mean(expected), abs=1e-5)
        assert each[row, made.mask[row]] == pytest.approx(expected, abs=1e-5)
    assert not each[~made.mask].any()


def test_a_text_that_did_not_end_is_scored_without_eos_and_nothing_yet_is_0(run: Path) -> None:
    judge = reward(run)
    ended, cut = judge(seen(judge.judge, ["1", "1"], [True, False]))
    assert ended != cut
    assert judge(seen(judge.judge, ["", "1"], [False, False]))[0] == judge(seen(judge.judge, [""], [False]))[0] == 0
    assert judge(seen(judge.judge, [""], [True]))[0] < 0  # the log-probability of ending at once


@pytest.mark.parametrize(("per_token", "shape"), [(False, (0,)), (True, (0, 0))])
def test_no_texts_have_no_numbers_and_need_no_run(per_token: bool, shape: tuple[int, ...]) -> None:
    judge = fluency(None, checkpoint="nowhere", per_token=per_token)
    assert judge(texts([])).shape == shape
    assert np.isnan(judge.corpus(texts([])).value)


def test_a_row_of_a_ragged_batch_is_the_row_alone_however_many_there_are(run: Path, monkeypatch: Any) -> None:
    judge = reward(run)
    together = judge(seen(judge.judge, SAID, [True] * 4))
    monkeypatch.setattr("tokenrl_cli.reward.likelihood.ROWS", 3)
    assert judge(seen(judge.judge, SAID, [True] * 4)) == pytest.approx(together, abs=1e-6)


def test_another_tokenizer_is_read_as_text_but_not_as_tokens(run: Path) -> None:
    other = Char(100, 1)
    other.train(SAID)
    made = seen(reward(run).judge, SAID, [True] * 4)
    assert (reward(run, tokenizer=other)(made) == reward(run)(made)).all()
    with pytest.raises(UserError, match="has another target tokenizer"):
        reward(run, tokenizer=other, per_token=True)(made)


def test_a_run_that_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"reward.checkpoint={tmp_path}: .*holds no complete checkpoint"):
        reward(run, checkpoint=str(tmp_path)).judge  # noqa: B018


def test_the_frozen_run_has_no_gradient_and_is_in_evaluation_mode(run: Path) -> None:
    policy: Any = reward(run).judge.policy
    assert not policy.training
    assert not any(each.requires_grad for each in policy.parameters())


def test_a_likely_text_is_worth_more(run: Path) -> None:
    judge = reward(run)
    made = seen(judge.judge, ["3 2 1", "1 1 1"], [True, True])
    made.sources[:] = ["1 2 3", "1 2 3"]
    assert judge(made)[0] > judge(made)[1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["credit=delta"], ["reward.per_token=true", "credit=token"]])
def test_a_run_trains_on_it_and_resumes_to_the_same_bits(run: Path, tmp_path: Path, options: list[str]) -> None:
    chosen = ["reward=likelihood", f"reward.checkpoint={run}", f"init_from={run}", *options]
    assert train(tmp_path / "whole", *chosen, "trainer.warm_start_steps=0") == 0
    assert train(tmp_path / "part", *chosen, "trainer.warm_start_steps=0", "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=6", f"reward.checkpoint={run}") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
    last = [line for line in lines(tmp_path / "whole") if line["split"] == "train"][-1]["metrics"]
    assert last["rewards/likelihood/mean"] < 0
    assert json.loads((tmp_path / "whole" / "results.json").read_text())["format"] == 1


def test_a_run_that_is_not_there_is_told_before_any_training(tmp_path: Path, capsys: Any) -> None:
    assert train(tmp_path / "run", "reward=likelihood", "reward.checkpoint=nowhere") == 2
    assert "reward.checkpoint=nowhere" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ a pretrained causal model

FLUENT = ["the cat sat on the mat .", "", "a", "cat cat cat cat cat cat cat cat cat", "a b"]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from tests.reward.checkpoints import saved

    place = tmp_path_factory.mktemp("language_model")
    return saved(place, "GPT2LMHeadModel", n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=3)


def fluency(place: Path | None, **changes: Any) -> Likelihood:
    plain: dict[str, Any] = {"checkpoint": None, "path": place and str(place), "temperature": 1.0, "per_token": False}
    plain |= {"batch_size": 3, "frozen": None, "tokenizer": None, "device": "cpu", "here": "reward"}
    return Likelihood(**(plain | changes))


def alone(path: Path, text: str, ended: bool, temperature: float = 1.0) -> float:
    """The mean log-probability of one text by the model as transformers loads it; [SEP], the end, comes before it."""
    from transformers import AutoModelForCausalLM

    from tests.reward.checkpoints import VOCABULARY

    ids = [3, *map(VOCABULARY.index, text.split()), *([3] if ended else [])]
    if len(ids) == 1:
        return 0.0
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(path).eval()(torch.tensor([ids])).logits[0].double()
    logprobs = (logits / temperature).log_softmax(-1)
    return float(logprobs[range(len(ids) - 1), ids[1:]].mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_pretrained_model_gives_the_mean_log_probability_of_the_text(
    language_model: Path, temperature: float
) -> None:
    ended = [True, False, True, False, True]
    made = texts([(text, []) for text in FLUENT], ended=ended)
    found = fluency(language_model, temperature=temperature)(made)
    wanted = [alone(language_model, *row, temperature) for row in zip(FLUENT, ended, strict=True)]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert found[1] == 0
    assert fluency(language_model)(texts([("", [])]))[0] < -0.5, "a text that ends at once must not be the best"
    assert (
        fluency(language_model)
        .corpus(made)
        .signature.startswith(f"mean log-probability a token under {language_model}@")
    )


def test_a_pretrained_model_gives_a_text_the_same_number_in_any_company(language_model: Path) -> None:
    assert fluency(language_model)(texts([])).shape == (0,)
    made = texts([(text, []) for text in FLUENT])
    together = fluency(language_model, batch_size=4)(made)
    for size in (1, 32):
        assert fluency(language_model, batch_size=size)(made) == pytest.approx(together, abs=1e-5)
    for row, text in enumerate(FLUENT):
        assert fluency(language_model)(texts([(text, [])])) == pytest.approx(together[row : row + 1], abs=1e-5)


def test_a_text_that_is_too_long_for_a_pretrained_model_is_cut(language_model: Path) -> None:
    long, cut = fluency(language_model)(texts([("a b " * 40, []), ("a b " * 15 + "a", [])], ended=[True, False]))
    assert long == pytest.approx(cut, abs=1e-5)


def test_the_source_is_not_read_by_a_pretrained_model_which_is_frozen(language_model: Path) -> None:
    judge = fluency(language_model)
    made = texts([("a b", []), ("a b", [])])
    made.sources[:] = ["1 2 3", "4"]
    assert len(set(judge(made).tolist())) == 1
    assert judge.language_model is not None
    network = judge.language_model.checkpoint.network
    assert not network.training
    assert not any(each.requires_grad for each in network.parameters())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"path": None}, "needs a model: checkpoint and path are both empty"),
        ({"checkpoint": "RUN"}, "needs a model: checkpoint and path are both given"),
        ({"per_token": True}, "needs the tokens of a saved run, and path is a pretrained model"),
        ({"path": "no where"}, "there is no directory no where"),
    ],
)
def test_a_wrong_choice_of_model_is_refused(language_model: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        fluency(language_model, **changes)


def test_a_model_that_is_not_causal_is_refused(language_model: Path, tmp_path: Path) -> None:
    from tests.reward.checkpoints import edit, saved

    with pytest.raises(SettingError, match="is a 'bert' checkpoint, which is no causal language model"):
        fluency(saved(tmp_path / "bert", "BertForMaskedLM"))
    headless = saved(tmp_path / "headless", "GPT2LMHeadModel", n_embd=16, n_layer=2, n_head=2, n_positions=32)
    edit(headless / "tokenizer_config.json", eos_token=None)
    with pytest.raises(SettingError, match="has neither a bos_token nor an eos_token"):
        fluency(headless)


def test_a_run_trains_on_a_pretrained_model_beside_another_reward(language_model: Path, tmp_path: Path) -> None:
    chosen = ["reward=mixture", "~reward@reward.parts.chrf", "+reward@reward.parts.fluency=likelihood", "credit=delta"]
    assert train(tmp_path / "run", *chosen, f"reward.parts.fluency.path={language_model}", *QUICK) == 0
    last = [line for line in lines(tmp_path / "run") if line["split"] == "train"][-1]["metrics"]
    assert last["rewards/fluency/mean"] < 0
