"""Composes the project's own options once per choice, for the hundreds of commands that the tests run in one process.

Hydra reads and merges some forty files for each command, half of the time of a tiny run. What comes of them depends on
the options chosen (model=gru) and not on the values set (model.hidden=24), which Hydra applies afterwards. So what was
composed is kept, and a copy is handed out wherever the same options are chosen from the project's own files. Commands
that also read files of a test's own are composed anew, and so is everything in the processes that tests start.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import omegaconf._utils
import omegaconf.omegaconf
import yaml
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.hydra import Hydra

KEPT = ("train", "eval_model")  # what others compose depends on the checkpoint, too
PLACES = ["hydra.conf", str(Path(__file__).parents[1] / "conf"), ""]

lists: dict[Any, DefaultsList] = {}
configs: dict[int, Any] = {}  # by the identity of the list of defaults that they were composed from
compose = ConfigLoaderImpl._compose_config_from_defaults_list


def compose_once() -> None:
    """Replaces Hydra's composing in this process by what is kept, and OmegaConf's writer of YAML by libyaml's."""
    Hydra.get_mode = lambda self, config_name, overrides: None  # it composes once more only to look for hydra.mode
    config_loader_impl.create_defaults_list = kept_list
    ConfigLoaderImpl._compose_config_from_defaults_list = kept_config
    if yaml.__with_libyaml__:
        writer = with_libyaml(omegaconf._utils.get_omega_conf_dumper(), yaml.CDumper)
        omegaconf.omegaconf.get_omega_conf_dumper = lambda: writer


def kept_list(**asked: Any) -> DefaultsList:
    """What Hydra's create_defaults_list returns."""
    overrides, repo = asked["overrides_list"], asked["repo"]
    ours = asked["config_name"] in KEPT and [source.path for source in repo.get_sources()] == PLACES
    if not ours or any(each.is_sweep_override() for each in overrides):
        return create_defaults_list(**asked)
    chosen = [each for each in overrides if repo.group_exists(each.key_or_group)]
    key = (asked["config_name"], asked["skip_missing"], *(each.input_line for each in chosen))
    if key not in lists:
        lists[key] = create_defaults_list(**asked | {"overrides_list": chosen})
        configs[id(lists[key].defaults)] = None
    kept = lists[key]
    values = {each.input_line for each in kept.config_overrides}
    values |= {each.input_line for each in overrides if each not in chosen}
    return DefaultsList(
        defaults=kept.defaults,
        defaults_tree=kept.defaults_tree,
        config_overrides=[each for each in overrides if each.input_line in values],
        overrides=kept.overrides,
    )


def kept_config(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> Any:
    """What Hydra's method _compose_config_from_defaults_list returns."""
    if id(defaults) not in configs:
        return compose(self, defaults, repo)
    if configs[id(defaults)] is None:
        configs[id(defaults)] = compose(self, defaults, repo)
    return deepcopy(configs[id(defaults)])


def with_libyaml(slow: Any, quick: Any) -> Any:
    """A class that writes what `slow` does, by libyaml, whose class with PyYAML's own rules is `quick`."""
    return type(slow.__name__, (quick.__bases__[0], slow), {"__init__": quick.__init__})
