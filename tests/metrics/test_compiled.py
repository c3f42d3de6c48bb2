"""Compiling takes seconds once: a notice is logged, the code is cached on disk, and no disk is needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

from tokenrl_cli.metrics import compiled

PROGRAM = """
import logging
logging.basicConfig(format="%(message)s")
from tokenrl_cli.metrics import compiled
compiled.PATIENCE = 0.01
import numpy as np
from tokenrl_cli.metrics.growth import _longer  # one of the loops, which compiles in a second
print(_longer(np.ones(1), 2)[0])
"""

# the same where the notice waits for nothing, with a loop of somebody else's, which is not ours to speak of
AT_ONCE = (
    PROGRAM.replace("PATIENCE = 0.01", "PATIENCE = 0.0")
    + """
import numba
print(numba.njit(lambda x: 2 * x)(4))
"""
)


def start(program: str = PROGRAM, **environment: str) -> subprocess.CompletedProcess[str]:
    home = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, cwd=home, capture_output=True, text=True
    )


def test_the_first_use_says_that_it_compiles_once_and_a_later_one_loads(tmp_path: Path) -> None:
    first = start(NUMBA_CACHE_DIR=str(tmp_path))
    assert (first.returncode, first.stdout) == (0, "1.0\n")
    assert first.stderr.count("compiling the loops of the metrics") == 1
    kept = sorted(path.name for path in tmp_path.rglob("*.nbc"))
    loaded = start(AT_ONCE, NUMBA_CACHE_DIR=str(tmp_path))
    assert kept
    assert (loaded.stdout, loaded.stderr) == ("1.0\n8\n", "")
    assert sorted(path.name for path in tmp_path.rglob("*.nbc")) == kept


@pytest.mark.slow
def test_where_nothing_can_be_written_it_compiles_every_time_and_says_so(tmp_path: Path) -> None:
    nowhere = "import numba.core.caching as caching\ncaching.CompileResultCacheImpl._locator_classes = []\n"
    done = start(nowhere + AT_ONCE)
    assert (done.returncode, done.stdout) == (0, "1.0\n8\n"), done.stderr
    assert done.stderr.count("compiling") == 1
    assert "at each start" in done.stderr
    assert "once" not in done.stderr


def doubled(x: int) -> int:
    return 2 * x


def test_a_damaged_cache_is_made_anew_and_a_full_disk_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled.loop(doubled)(2) == 4
    for ending in ("nbi", "nbc"):
        (file,) = tmp_path.rglob(f"*.{ending}")
        for content in (b"junk", b"", file.read_bytes()[:-20]):
            file.write_bytes(content)
            caplog.clear()
            assert compiled.loop(doubled)(2) == 4
            assert str(file.parent) in caplog.text
            assert "made anew" in caplog.text
            caplog.clear()
            assert compiled.loop(doubled)(2) == 4
            assert not caplog.text

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert compiled.loop(doubled)(2.0) == 4
