"""Sound for tests: short files with noise, and settings of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenrl_cli.dataset.speech import Speech
from tokenrl_cli.features.logmel import LogMel
from tokenrl_cli.interfaces import Recording, Waveform

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'tokenrl[speech]'")


def noise(seconds: float = 0.3, rate: int = 8000, seed: int = 0, loud: float = 0.1) -> np.ndarray:
    """Noise [n] float32 whose colour changes, on the grid of 16 bits."""
    draws = np.random.default_rng(seed).normal(size=round(seconds * rate))
    samples = np.cumsum(draws) * 0.02 + draws * np.linspace(0, 1, len(draws))
    return (np.round(samples / np.abs(samples).max() * loud * 32768) / 32768).astype(np.float32)


def written(path: Path, samples: np.ndarray | None = None, rate: int = 8000, **how: Any) -> Path:
    """Writes samples [n] or [n, channels], by default `noise()`, as a file of the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise() if samples is None else samples, rate, **how)
    return path


def recording(samples: np.ndarray, rate: int = 8000, name: str = "a") -> Recording:
    return Recording(name, lambda: Waveform(samples, rate))


def logmel(**changes: Any) -> LogMel:
    values: dict[str, Any] = {
        "rate": 8000, "window_ms": 25.0, "hop_ms": 10.0, "bins": 20, "low": 20.0, "high": None, "pre_emphasis": 0.97,
        "dither": 0.0, "snip_edges": True, "loudness": None, "normalisation": "none", "speeds": [1.0], "memory": 1.0,
        "disk": 0.0,
    }  # fmt: skip
    return LogMel(**values | changes)


def manifest(folder: Path, *lines: dict[str, Any], split: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def speech(folder: Path, **changes: Any) -> Speech:
    values: dict[str, Any] = {
        "path": str(folder), "splits": {}, "format": "jsonl", "audio_root": None, "audio_column": "audio",
        "text_column": "refs", "id_column": "id", "speaker_column": "speaker", "offset_column": "offset",
        "duration_column": "duration", "gaps_column": "gaps_ms", "arrays": None, "max_seconds": 5.0,
        "faulty": "refuse", "rl_share": 0.0, "rl_split": None, "max_source_length": 1000, "overlong": "drop",
    }  # fmt: skip
    return Speech(**values | changes)
