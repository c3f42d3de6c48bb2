"""Where the real data is. Tests that need it are skipped, with the reason, where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real(name: str) -> Path:
    """The folder of a data set below TOKENRL_DATA."""
    root = os.environ.get("TOKENRL_DATA")
    if not root:
        pytest.skip("TOKENRL_DATA is not set: it names the folder of the real data")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"TOKENRL_DATA={root} has no {name}")
    return folder
