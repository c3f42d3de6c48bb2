"""Files of a directory that may come from anywhere: whatever is no regular file is refused, and never waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import UserError

WAYS = {
    "append": partial(disk.append, text="x"), "cut": partial(disk.cut, size=0), "read": partial(disk.read, limit=9),
    "log": disk.LogFile,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_a_pipe_that_nobody_reads_and_a_socket_are_no_regular_files(
    way: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(UserError, match="is not a regular file") as caught:
                way(tmp_path / name)
            assert caught.value.where == str(tmp_path / name)
