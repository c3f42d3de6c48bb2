"""A trained classifier as reward: its own numbers, whatever the batch, and one clear error for a wrong checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers

from tests.reward.checkpoints import ALIKE, VOCABULARY, edit, labels, saved
from tests.reward.said import texts
from tests.running import QUICK, lines, tokenrl, train, weights
from tokenrl_cli.config import extras
from tokenrl_cli.config.build import build
from tokenrl_cli.episodes.scoring import corpus_score, prefix_scores
from tokenrl_cli.interfaces import Reward, SettingError, UserError
from tokenrl_cli.reward.classifier import Classifier

SAID = ["the cat sat on the mat .", "", "a", "the dogs", "cat cat cat cat cat cat cat cat cat cat", "a b", "zebra"]
TEXTS = texts([(text, []) for text in SAID])
MOODS = ("bad", "good", "so-so")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("classifiers")
    bert = "BertForSequenceClassification"
    saved(home / "moods", bert, **labels(*MOODS))
    saved(home / "tags", bert, **labels(*MOODS), problem_type="multi_label_classification")
    saved(home / "number", bert, num_labels=1)
    saved(
        home / "causal", "GPT2ForSequenceClassification", num_labels=1, pad_token_id=0, bos_token_id=3, eos_token_id=3
    )
    return home


def classifier(path: Path, **changes: Any) -> Classifier:
    plain: dict[str, Any] = {"label": None, "output": "probability", "temperature": 1.0, "reads": "text"}
    return Classifier(str(path), **(plain | {"max_tokens": None, "batch_size": 3, "device": "cpu"} | changes))


def ids(text: str) -> list[int]:
    """Of a text by hand: a word that the vocabulary does not have is [UNK], but for one that has two pieces."""
    pieces = [piece for word in text.split() for piece in {"dogs": ["dog", "##s"]}.get(word, [word])]
    return [VOCABULARY.index(piece if piece in VOCABULARY else "[UNK]") for piece in pieces]


def by_hand(path: Path, text: str, source: str | None = None) -> torch.Tensor:
    """The logits of one text alone, by the model as transformers loads it."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    first = [2, *ids(text), 3] if source is None else [2, *ids(source), 3]
    second = [] if source is None else [*ids(text), 3]
    types = torch.tensor([[0] * len(first) + [1] * len(second)])
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([first + second]), token_type_ids=types).logits[0].double()
    return logits


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_probability_or_the_logit_of_the_class(home: Path, temperature: float) -> None:
    logits = torch.stack([by_hand(home / "moods", text) for text in SAID]) / temperature
    for label in (2, "so-so"):
        found = classifier(home / "moods", label=label, temperature=temperature)(TEXTS)
        assert found.dtype == np.float64
        assert found == pytest.approx(logits.softmax(-1)[:, 2].numpy(), abs=ALIKE)
        assert found.std() > 0.05, "differences would not show"
    raw = classifier(home / "moods", label="bad", output="logit", temperature=temperature)(TEXTS)
    assert raw == pytest.approx(logits[:, 0].numpy(), abs=ALIKE)


def test_where_a_text_may_have_several_classes_each_has_a_probability_of_its_own(home: Path) -> None:
    logits = torch.stack([by_hand(home / "tags", text) for text in SAID])
    assert classifier(home / "tags", label="good")(TEXTS) == pytest.approx(logits.sigmoid()[:, 1].numpy(), abs=ALIKE)


def test_one_output_is_the_number_itself(home: Path) -> None:
    wanted = torch.stack([by_hand(home / "number", text) for text in SAID])[:, 0].numpy()
    for settings in ({}, {"output": "logit"}, {"label": 0}, {"label": "LABEL_0"}):
        assert classifier(home / "number", **settings)(TEXTS) == pytest.approx(wanted, abs=ALIKE)
    assert abs(wanted).max() > 1, "a probability would do"


@pytest.mark.parametrize(("name", "label"), [("moods", "so-so"), ("tags", 1), ("number", None)])
def test_no_texts_have_no_numbers(home: Path, name: str, label: Any) -> None:
    reward = classifier(home / name, label=label)
    assert reward(texts([])).shape == (0,)
    assert np.isnan(reward.corpus(texts([])).value)


def test_a_pair_is_the_source_and_the_text(home: Path) -> None:
    wanted = [by_hand(home / "number", text, source) for text, source in zip(SAID, TEXTS.sources, strict=True)]
    found = classifier(home / "number", reads="pair")(TEXTS)
    assert found == pytest.approx(torch.cat(wanted).numpy(), abs=ALIKE)
    assert np.abs(found - classifier(home / "number")(TEXTS)).max() > 0.1


@pytest.mark.parametrize("name", ["number", "causal"])
def test_a_text_has_the_same_number_in_any_company(home: Path, name: str) -> None:
    together = classifier(home / name, batch_size=4)(TEXTS)
    assert together.std() > 0.1
    for size in (1, 32):
        assert classifier(home / name, batch_size=size)(TEXTS) == pytest.approx(together, abs=ALIKE)
    judge = classifier(home / name, batch_size=32)
    for row, text in enumerate(SAID):
        assert judge(texts([(text, [])])) == pytest.approx(together[row : row + 1], abs=ALIKE)
    assert (judge(TEXTS) == judge(TEXTS)).all()
    assert judge(texts([(SAID[0], [])] * 3 + [("a", [])]))[0] == pytest.approx(together[0], abs=ALIKE)


def test_without_an_id_to_pad_with_texts_are_read_one_at_a_time(home: Path, tmp_path: Path) -> None:
    bare = saved(tmp_path, "GPT2ForSequenceClassification", pad=None, num_labels=1, bos_token_id=3, eos_token_id=3)
    assert classifier(bare, batch_size=32)(TEXTS) == pytest.approx(classifier(home / "causal")(TEXTS), abs=ALIKE)


def test_a_network_that_reads_padding_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = transformers.BertForSequenceClassification.forward

    def careless(self: Any, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return forward(self, input_ids, torch.ones_like(attention_mask), token_type_ids)

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", careless)
    with pytest.raises(SettingError, match="what it says of a text changes with the texts beside it"):
        classifier(home / "number")


def test_it_is_frozen(home: Path) -> None:
    network = classifier(home / "number").checkpoint.network
    assert not network.training
    assert not any(each.requires_grad for each in network.parameters())


def test_the_name_of_a_special_token_in_a_text_is_plain_text(home: Path) -> None:
    judge = classifier(home / "number")
    assert judge._inputs([("", "a [SEP] b")])[0]["input_ids"] == [2, *ids("a [ sep ] b"), 3]
    said = judge(texts([("[PAD]", []), ("a [SEP] [MASK]", []), ("", [])]))
    assert len(set(said.tolist())) == 3


def test_a_long_text_is_cut_at_the_limit(home: Path) -> None:
    whole, cut = classifier(home / "number"), classifier(home / "number", max_tokens=6)
    long = texts([("the cat sat on the mat . " * 9, []), ("the cat sat on", [])])
    assert whole.checkpoint.longest == 32
    assert cut(long)[0] == pytest.approx(whole(long)[1], abs=ALIKE)
    assert (
        len(classifier(home / "number", reads="pair", max_tokens=9)._inputs([("a " * 20, "b " * 20)])[0]["input_ids"])
        == 9
    )


def test_prefixes_are_scored_as_texts_and_the_corpus_says_how(home: Path) -> None:
    judge = classifier(home / "moods", label="good")
    made = texts([("the cat", []), ("a", [])], [2, 1])
    scores = prefix_scores(judge, made, [["", "the", "the cat"], ["", "a"]])
    wanted = judge(texts([(text, []) for text in ("", "the", "the cat", "a")]))
    assert scores[0] == pytest.approx(wanted[:3], abs=ALIKE)
    assert scores[1, :2] == pytest.approx(wanted[[0, 3]], abs=ALIKE)
    corpus = corpus_score(judge, TEXTS)
    assert corpus.value == pytest.approx(judge(TEXTS).mean())
    assert corpus.signature.startswith(f"probability of good under {home / 'moods'}@")


def broken(home: Path, tmp_path: Path, name: str = "moods") -> Path:
    return Path(shutil.copytree(home / name, tmp_path / "broken"))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (None, "names no class"),
        ("great", "is 'great', which is none of its classes"),
        (3, "is 3, which is none of its classes"),
    ],
)
def test_an_unknown_class_is_refused_with_those_there_are(home: Path, label: Any, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        classifier(home / "moods", label=label)
    assert caught.value.where == "label"
    assert caught.value.problem == f"{problem}; there are bad (0), good (1), so-so (2)"


def test_a_checkpoint_that_is_no_classifier_is_refused(home: Path, tmp_path: Path) -> None:
    encoder = saved(tmp_path / "encoder", "BertModel")
    with pytest.raises(SettingError, match="is a BertModel, which has no trained head that classifies"):
        classifier(encoder, label=0)
    edit(encoder / "config.json", architectures=None)
    with pytest.raises(SettingError, match=r"lacks 2 of the weights of its architecture, such as classifier\.bias"):
        classifier(encoder, label=0)
    edit(encoder / "config.json", model_type="vit")
    with pytest.raises(SettingError, match="is a 'vit' checkpoint, of which there are no classifiers"):
        classifier(encoder, label=0)


def test_what_is_not_whole_is_refused(home: Path, tmp_path: Path) -> None:
    place = broken(home, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).unlink()
    with pytest.raises(SettingError, match="has no tokenizer"):
        classifier(place, label=0)
    with pytest.raises(SettingError, match="there is no directory"):
        classifier(tmp_path / "no where", label=0)
    shutil.copy(home / "moods" / "tokenizer.json", place)
    edit(place / "config.json", vocab_size=10)
    with pytest.raises(SettingError, match="cannot be read"):  # weights of another shape
        classifier(place, label=0)


def test_a_tokenizer_with_more_ids_than_the_network_is_refused(home: Path, tmp_path: Path) -> None:
    small = saved(tmp_path, "BertForSequenceClassification", vocab_size=10, num_labels=1)
    with pytest.raises(SettingError, match=f"has 10 tokens, and its tokenizer has the id {len(VOCABULARY) - 1}"):
        classifier(small)


def test_pickled_weights_and_code_are_refused(home: Path, tmp_path: Path) -> None:
    place = broken(home, tmp_path)
    edit(place / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    with pytest.raises(SettingError, match="needs code of its own"):
        classifier(place, label=0)
    shutil.copy(home / "moods" / "tokenizer_config.json", place)
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(SettingError, match="holds pickled weights"):
        classifier(place, label=0)


@pytest.mark.parametrize(("longest", "problem"), [(33, "reads at most 32 tokens"), (4, "must be at least 5")])
def test_a_limit_that_cannot_be_is_refused(home: Path, longest: int, problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        classifier(home / "number", max_tokens=longest)


def test_without_the_extra_it_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    block = {"_target_": "tokenrl_cli.reward.classifier.Classifier", "path": str(home / "number"), "label": None}
    block |= {"output": "logit", "temperature": 1.0, "reads": "text", "max_tokens": None, "batch_size": 2}
    with pytest.raises(
        UserError, match=r"reward\.path: needs the package transformers(.|\n)*pip install 'tokenrl\[hf\]'"
    ):
        build(block, Reward, [], device="cpu")


@pytest.mark.slow
def test_a_run_trains_on_a_mixture_with_it_and_resumes_to_the_same_bits(home: Path, tmp_path: Path) -> None:
    chosen = ["reward=mixture", "~reward@reward.parts.bleu", "credit=delta"]
    chosen += ["+reward@reward.parts.mood=classifier", "reward.parts.mood.label=good"]
    chosen += ["+reward@metrics.number=classifier"]
    places = [f"reward.parts.mood.path={home / 'moods'}", f"metrics.number.path={home / 'number'}"]
    assert train(tmp_path / "whole", *chosen, *places, *QUICK) == 0
    assert train(tmp_path / "part", *chosen, *places, *QUICK, "trainer.steps=1") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=2", *places) == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
    last = [line for line in lines(tmp_path / "whole") if line["split"] == "train"][-1]["metrics"]
    assert 0 < last["rewards/mood/mean"] < 1
    said = [line for line in lines(tmp_path / "whole") if line["split"] == "test"][-1]["metrics"]
    assert "number" in said


def test_no_path_is_told_before_any_training(home: Path, tmp_path: Path, capsys: Any) -> None:
    assert train(tmp_path / "run", "reward=classifier", *QUICK) == 2
    assert "reward.path" in capsys.readouterr().err
    assert train(tmp_path / "run", "reward=classifier", f"reward.path={home / 'moods'}", *QUICK) == 2
    assert "reward.label: names no class; there are bad (0), good (1), so-so (2)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()
