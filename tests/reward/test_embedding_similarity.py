"""The cosine of sentence embeddings as reward: mean pooling over real tokens, the nearest reference, any company."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers

from tests.reward.checkpoints import ALIKE, VOCABULARY, saved
from tests.reward.said import texts
from tests.running import QUICK, lines, train
from tokenrl_cli.episodes.scoring import corpus_score, prefix_scores
from tokenrl_cli.interfaces import ReadsReferences, SettingError
from tokenrl_cli.reward.embedding_similarity import EmbeddingSimilarity

ROWS = [
    ("the cat sat on the mat .", ["the dog sat on the mat .", "a cat"]),
    ("", ["a"]),
    ("a", []),
    ("the cat", ["b b b b", "the cat"]),
    ("cat cat cat cat cat cat cat cat cat", ["dog"]),
    ("a b", ["b a"]),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("encoder"), "BertModel")


def similarity(path: Path, **changes: Any) -> EmbeddingSimilarity:
    plain: dict[str, Any] = {"pooling": "mean", "scale": "cosine", "max_tokens": None, "batch_size": 3, "device": "cpu"}
    return EmbeddingSimilarity(str(path), **(plain | changes))


def by_hand(path: Path, text: str, pooling: str = "mean") -> torch.Tensor:
    """The embedding of one text alone, by the model as transformers loads it."""
    model = transformers.AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        ids = torch.tensor([[2, *map(VOCABULARY.index, text.split()), 3]])
        hidden: torch.Tensor = model(ids).last_hidden_state[0].double()
    return hidden.mean(0) if pooling == "mean" else hidden[0]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_it_is_the_cosine_to_the_nearest_reference(encoder: Path, pooling: str) -> None:
    found = similarity(encoder, pooling=pooling)(texts(ROWS))
    assert found.dtype == np.float64
    for score, (text, references) in zip(found, ROWS, strict=True):
        own = by_hand(encoder, text, pooling)
        cosines = [float(torch.cosine_similarity(own, by_hand(encoder, each, pooling), dim=0)) for each in references]
        assert score == pytest.approx(max(cosines, default=math.nan), abs=ALIKE, nan_ok=True)
    assert found[3] == pytest.approx(1, abs=ALIKE)
    assert np.nanstd(found) > 0.02, "differences would not show"


def test_a_scale_of_0_to_1_is_a_line_through_it(encoder: Path) -> None:
    cosine, unit = similarity(encoder)(texts(ROWS)), similarity(encoder, scale="unit")(texts(ROWS))
    assert unit == pytest.approx((1 + cosine) / 2, nan_ok=True)


def test_a_text_has_the_same_number_in_any_company(encoder: Path) -> None:
    together = similarity(encoder, batch_size=4)(texts(ROWS))
    for size in (1, 32):
        assert similarity(encoder, batch_size=size)(texts(ROWS)) == pytest.approx(together, abs=ALIKE, nan_ok=True)
    judge = similarity(encoder, batch_size=32)
    for row, score in zip(ROWS, together, strict=True):
        assert judge(texts([row])) == pytest.approx([score], abs=ALIKE, nan_ok=True)


def test_it_needs_references_and_is_nan_without(encoder: Path) -> None:
    judge = similarity(encoder)
    assert isinstance(judge, ReadsReferences)
    assert judge.needs_references
    assert np.isnan(judge(texts([("a", []), ("b", [])]))).all()


def test_the_encoder_is_frozen(encoder: Path) -> None:
    network = similarity(encoder).checkpoint.network
    assert not network.training
    assert not any(each.requires_grad for each in network.parameters())


def test_the_pooler_may_be_missing_and_nothing_else(encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bare = saved(tmp_path, "BertModel")
    whole = load_file(bare / "model.safetensors")
    save_file({name: value for name, value in whole.items() if "pooler" not in name}, bare / "model.safetensors")
    assert (similarity(bare)(texts(ROWS[:2])) == similarity(encoder)(texts(ROWS[:2]))).all()
    save_file({name: value for name, value in whole.items() if "layer.1" not in name}, bare / "model.safetensors")
    with pytest.raises(SettingError, match="lacks 16 of the weights"):
        similarity(bare)


def test_a_model_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    small: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    place = saved(tmp_path, "T5Model", **small)
    with pytest.raises(SettingError, match="is a 't5' checkpoint, which is no encoder of sentences"):
        similarity(place)


def test_prefixes_and_corpora_are_scored(encoder: Path) -> None:
    judge = similarity(encoder)
    made = texts([("the cat", ["the cat", "a"])], [2])
    wanted = judge(texts([(text, ["the cat", "a"]) for text in ("", "the", "the cat")]))
    assert prefix_scores(judge, made, [["", "the", "the cat"]])[0] == pytest.approx(wanted, abs=ALIKE)
    corpus = corpus_score(judge, texts(ROWS))
    assert corpus.value == pytest.approx(np.nanmean(judge(texts(ROWS))))
    assert "pooling:mean|best reference" in corpus.signature


def test_a_run_trains_on_it(encoder: Path, tmp_path: Path) -> None:
    chosen = ["reward=embedding_similarity", f"reward.path={encoder}", "reward.scale=unit", "credit=delta", *QUICK]
    assert train(tmp_path / "run", *chosen) == 0
    last = [line for line in lines(tmp_path / "run") if line["split"] == "train"][-1]["metrics"]
    assert 0 < last["rewards/embedding_similarity/mean"] <= 1
