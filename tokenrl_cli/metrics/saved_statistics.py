"""Corpus scores saved on disk: what a significance test of two runs reads, so that nothing is decoded again.

The file is a compressed .npz without pickle. For the i-th metric it holds `<i>.statistics` [k, n], the k statistics of
each of n sentences, and `<i>.sentences` [n], their scores; `about` is JSON (UTF-8 bytes) with the name, value,
signature, direction and aggregate of each metric. Integer statistics are stored in the smallest integer type, and each
row as its difference to that earlier row which compresses best (`from`, -1: to none), because the counts of n-grams of
neighbouring orders are nearly equal. Other statistics are float32 where that is exact, else float64.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tokenrl_cli.files.writing import whole_bytes
from tokenrl_cli.interfaces import CorpusScore, UserError
from tokenrl_cli.metrics.aggregates import described, rebuilt

FORMAT = 1
LARGEST = 2**53  # integers up to it are exact in float64


def save(path: Path, corpus: dict[str, CorpusScore], numbers: dict[str, float] | None = None) -> None:
    """Writes all corpus scores of an evaluation, by metric, and `numbers` beside them, to `path`, for `load` and
    `load_numbers`. Nothing is lost but an infinite value, which becomes NaN, and an aggregate that is not of
    metrics/aggregates.

    Missing folders are made, and an existing file is replaced. The file is complete or absent, never half-written, and
    the same scores give the same bytes. Raises OSError where it cannot be written.
    """
    about: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, (name, score) in enumerate(corpus.items()):
        arrays[f"{number}.statistics"], origin = _packed(score.statistics.T)
        arrays[f"{number}.sentences"] = score.sentences
        about.append({
            "name": name,
            "signature": score.signature,
            "lower_is_better": score.lower_is_better,
            "aggregate": described(score.aggregate),
            "from": origin,
            "value": score.value if np.isfinite(score.value) else None,
        })  # fmt: skip
    text = json.dumps({"format": FORMAT, "scores": about, "numbers": numbers or {}}, ensure_ascii=False)
    arrays["about"] = np.frombuffer(text.encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_bytes(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> dict[str, CorpusScore]:
    """Returns the corpus scores of a file written by `save`, by metric, in the order saved. Raises UserError where the
    file is missing, damaged or of another format.

    The aggregate of a user's metric is a function of theirs that cannot be saved: in its place stands one that raises
    UserError when it is called.
    """
    with _opened(path) as (file, about):
        return {
            each["name"]: _score(path, each, file[f"{number}.statistics"], file[f"{number}.sentences"])
            for number, each in enumerate(about["scores"])
        }


def load_numbers(path: Path) -> dict[str, float]:
    """Returns the `numbers` that `save` wrote beside the scores; {} where it was given none. Raises UserError where the
    file is missing, damaged or of another format."""
    with _opened(path) as (_, about):
        return {str(name): float(value) for name, value in about["numbers"].items()}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Opens a file for a with-statement: its arrays and its `about`. Errors inside of it become UserErrors."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes().decode())
            if about["format"] != FORMAT:
                raise UserError(str(path), f"has format {about['format']}, this version reads {FORMAT}")
            yield file, about
    except FileNotFoundError:
        raise UserError(str(path), "there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(str(path), f"is no file of statistics, or it is damaged: {error}") from None


def _score(path: Path, about: dict[str, Any], packed: np.ndarray, sentences: np.ndarray) -> CorpusScore:
    statistics = _unpacked(packed, about["from"]).T
    if len(statistics) != len(sentences):
        raise ValueError(f"{len(statistics)} sentences have statistics and {len(sentences)} a score")

    def lost(_total: np.ndarray) -> float:
        problem = f"{about['name']} computes its corpus score in a way of its own, which is not kept"
        raise UserError(str(path), problem, "evaluate again")

    aggregate = lost if about["aggregate"] is None else rebuilt(about["aggregate"])
    value = float("nan") if about["value"] is None else about["value"]
    return CorpusScore(value, about["signature"], sentences, statistics, aggregate, about["lower_is_better"])


def _packed(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """rows [k, n] -> the array to store [k, n], and of each row the number of the earlier row that was subtracted from
    it (-1: none)."""
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    if not (np.isfinite(rows).all() and (rows == np.round(rows)).all() and (np.abs(rows) < LARGEST // 2).all()):
        with np.errstate(over="ignore"):
            short = rows.astype(np.float32)
        return short if np.array_equal(short, rows, equal_nan=True) else rows, [-1] * len(rows)
    # Tries the row itself and its difference to every earlier row, and takes what compresses best; k is small.
    whole = rows.astype(np.int64)
    origin, left = [], []
    for number, row in enumerate(whole):
        candidates = {-1: row} | {other: row - whole[other] for other in range(number)}
        best = min(candidates, key=lambda other: _cost(candidates[other]))
        origin.append(best)
        left.append(candidates[best])
    return _narrow(np.array(left, dtype=np.int64).reshape(whole.shape)), origin


def _unpacked(packed: np.ndarray, origin: list[int]) -> np.ndarray:
    """The inverse of `_packed`: the rows [k, n] in float64."""
    if packed.dtype.kind == "f":
        return packed.astype(np.float64)
    rows = packed.astype(np.int64)
    for number, other in enumerate(origin):
        if other >= 0:
            rows[number] += rows[other]
    return rows.astype(np.float64)


def _narrow(values: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kinds = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64)
    return values.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def _cost(row: np.ndarray) -> int:
    """Bytes of a row [n] once compressed."""
    return len(zlib.compress(_narrow(row).tobytes(), 6))
