from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sounds import noise, recording
from tokenrl_cli.features.mfcc import GivenMfcc, deltas, paced
from tokenrl_cli.interfaces import Features, Recording, UserError

FRAMES = np.array([[0.0, 1.0], [1.0, 1.0], [4.0, 1.0], [9.0, 1.0], [16.0, 1.0], [25.0, 1.0]])


def mfcc(**changes: Any) -> GivenMfcc:
    values: dict[str, Any] = {"inputs": 2, "window": 2, "orders": 2, "normalisation": "none", "speeds": [1.0]}
    return GivenMfcc(**values | {"memory": 1.0, "disk": 0.0} | changes)


def given(frames: np.ndarray = FRAMES, name: str = "a") -> Recording:
    return Recording(name, lambda: frames.astype(np.float32))


def test_deltas_by_hand() -> None:
    """At frame 2 of the squares: (1 (9 - 1) + 2 (16 - 0)) / (2 (1 + 4)) = 4; at frame 0, whose earlier frames count as
    itself, (1 (1 - 0) + 2 (4 - 0)) / 10 = 0.9; at the last (1 (25 - 16) + 2 (25 - 9)) / 10 = 4.1."""
    found = deltas(FRAMES, 2)
    np.testing.assert_allclose(found[[0, 2, 5], 0], [0.9, 4.0, 4.1])
    np.testing.assert_allclose(found[:, 1], 0)
    np.testing.assert_allclose(deltas(FRAMES, 1)[:, 0], [0.5, 2, 4, 6, 8, 4.5])


def test_deltas_and_their_deltas_are_appended() -> None:
    features = mfcc()
    assert isinstance(features, Features)
    found = features.frames(given())
    assert (features.width, found.shape, found.dtype) == (6, (6, 6), np.float32)
    np.testing.assert_allclose(found, np.hstack([FRAMES, deltas(FRAMES, 2), deltas(deltas(FRAMES, 2), 2)]), rtol=1e-6)
    np.testing.assert_array_equal(mfcc(orders=0).frames(given()), FRAMES.astype(np.float32))


def test_pace_is_changed_by_interpolation() -> None:
    np.testing.assert_allclose(paced(FRAMES, 0.5)[:4, 0], [0, 0.5, 1, 2.5])
    np.testing.assert_allclose(paced(FRAMES, 2.0)[:, 0], [0, 4, 16])
    assert len(paced(FRAMES[:1], 3.0)) == 1
    assert len(mfcc(speeds=[0.5, 1.0]).frames(given(), 0.5)) == 12


@pytest.mark.parametrize("frames", [np.zeros((3, 4)), np.zeros((0, 2)), np.zeros(3)])
def test_frames_of_another_shape_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"a: holds an array of shape .* expected frames \[S, 2\]"):
        mfcc().frames(given(frames))


def test_sound_is_refused() -> None:
    with pytest.raises(UserError, match=r"a: is sound(.|\n)*features=logmel"):
        mfcc().frames(recording(noise()))


def test_mean_and_deviation_of_train_are_saved(tmp_path: Path) -> None:
    features = mfcc(normalisation="global")
    features.train([given()])
    found = features.frames(given())
    np.testing.assert_allclose(found[:, 0], (FRAMES[:, 0] - FRAMES[:, 0].mean()) / FRAMES[:, 0].std(), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1], 0)  # it never changes
    features.save(tmp_path)
    loaded = mfcc(normalisation="global")
    loaded.load(tmp_path)
    np.testing.assert_array_equal(loaded.frames(given()), found)
    with pytest.raises(UserError, match="is of other features"):
        mfcc(normalisation="utterance").load(tmp_path)
