"""What the tests compose once is what Hydra composes each time."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list

from tests import composing
from tests.presets import CONF

LINES = [
    [],
    ["algorithm=ppo", "algorithm.epochs=3", "model=transformer", "algorithm/reference=moving_average", "seed=5"],
    ["~metrics.bleu", "+reward@metrics.mine=chrf", "dataset=reverse", "dataset.symbols=5", "+trainer={log_every: 7}"],
]


@pytest.mark.sample(1)
@pytest.mark.parametrize("line", LINES, ids=["nothing", "choices and values", "added and removed"])
def test_a_kept_config_is_the_composed_one(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        kept = [compose("train", line), compose("train", line)]
        monkeypatch.setattr(config_loader_impl, "create_defaults_list", create_defaults_list)
        monkeypatch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", composing.compose)
        fresh = compose("train", line)
    assert kept == [fresh, fresh]
