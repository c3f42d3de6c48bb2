from __future__ import annotations

import numpy as np
import pytest

from tokenrl_cli.data.frames import FrameStore

ARRAYS = {("a", speed): np.full((64, 16), speed, np.float32) for speed in (0.9, 1.0, 1.1, 1.2)}  # 4 KiB each
KIB = 1 / 1024


@pytest.mark.parametrize(
    ("memory", "disk", "kept"), [(1.0, 0.0, 4), (9 * KIB, 0.0, 2), (5 * KIB, 9 * KIB, 3), (0, 1, 4)]
)
def test_arrays_come_back_as_they_were_as_far_as_there_is_room(memory: float, disk: float, kept: int) -> None:
    store = FrameStore(memory, disk)
    for key, array in ARRAYS.items():
        assert store.put(key, array.copy()) is not None
    found = {key: store.get(key) for key in ARRAYS}
    assert sum(array is not None for array in found.values()) == kept
    for key, array in found.items():
        if array is not None:
            np.testing.assert_array_equal(array, ARRAYS[key])
            assert not array.flags.writeable
    assert store.get(("b", 1.0)) is None


def test_clear_makes_room_again() -> None:
    store = FrameStore(5 * KIB, 5 * KIB)
    for _ in range(2):
        for key, array in ARRAYS.items():
            store.put(key, array.copy())
        assert [store.get(key) is not None for key in ARRAYS] == [True, True, False, False]
        store.clear()
        assert store.get(("a", 0.9)) is None


def test_a_full_disk_costs_time_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    store = FrameStore(0, 1)
    key, array = next(iter(ARRAYS.items()))
    np.testing.assert_array_equal(store.put(key, array.copy()), array)
    assert store.get(key) is None
