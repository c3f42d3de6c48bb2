"""What holds for every tokenizer, on the real data and across processes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real_data import real
from tokenrl_cli.data.lines import well_formed
from tokenrl_cli.interfaces import Tokenizer
from tokenrl_cli.tokenizer.bpe import Bpe
from tokenrl_cli.tokenizer.char import Char
from tokenrl_cli.tokenizer.word import Word

TEXT_SETS = ["arxiv_titles", "e2e_nlg", "g2p_cmudict", "g2p_wikipron", "inflection", "scitldr"]
TEXT_SETS += ["tatoeba_en_de", "tatoeba_en_fr"]
TRAIN_AND_SAVE = """
import sys
from pathlib import Path
from tokenrl_cli.tokenizer.{module} import {name}
texts = [f"w{{i % 97}} x{{i % 31}}, y{{i * i % 53}} é" for i in range(2000)]
tokenizer = {name}(400, 1)
tokenizer.train(texts)
tokenizer.save(Path(sys.argv[1]))
"""


def texts_of(folder: Path) -> list[str]:
    texts = []
    for path in sorted(folder.glob("*test.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            record = json.loads(line)
            texts += [record["src"], *record["refs"]]
    return texts


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", TEXT_SETS)
def test_shipped_data_comes_back_from_every_tokenizer(name: str) -> None:
    texts = texts_of(real(name))[:1500]
    tokenizers: list[Tokenizer] = [Word(10**6, 1), Char(10**6, 1), Bpe(400, 2)]
    for tokenizer in tokenizers:
        tokenizer.train(texts if tokenizer.unknown_id is not None else texts[:100])
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", [Word, Char, Bpe])
def test_half_of_a_surrogate_pair_ends_nothing(tmp_path: Path, kind: type[Word | Char | Bpe]) -> None:
    text = "a\ud800 b\udfff \ud83d\ude00"
    tokenizer = kind(400, 1)
    tokenizer.train([text])
    tokenizer.save(tmp_path)
    other = kind(400, 1)
    other.load(tmp_path)
    ids = other.encode(text)
    assert ids == tokenizer.encode(text)
    assert other.decode(ids) == (well_formed(text) if kind is Bpe else text)
    assert other.encode("never \udabc seen")


@pytest.mark.parametrize(("module", "name"), [("word", "Word"), ("char", "Char"), ("bpe", "Bpe")])
def test_the_same_data_gives_the_same_bytes_in_every_process(tmp_path: Path, module: str, name: str) -> None:
    code = TRAIN_AND_SAVE.format(module=module, name=name)
    digests = set()
    for run, hash_seed in enumerate(("1", "2")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / str(run))], check=True, env=environment)
        files = sorted((tmp_path / str(run)).iterdir())
        digests.add(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest())
    assert len(digests) == 1
