"""Reading JSON and YAML that may come from somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tokenrl_cli.files.records import read_json, read_yaml, yaml_text
from tokenrl_cli.interfaces import UserError

VALUES: list[Any] = [
    "13a", "1e5", "1e-3", "12", "1.0e+30", ".5", "1_0", "0x1", "010", "1:30", "null", "a", "yes", ".inf", "1.", "1.2.3",
    "2024-01-01", "=", "1e5x", "", "~", "ü\n", "- a", "*a", "&a", "!x", "a: b", "#", 1e30, 1e-5, 0.1, 3, True, None,
    float("inf"), -1e-300, 10**20, [], {}, [[1, "1"]],
]  # fmt: skip


def test_every_reader_reads_what_was_written(tmp_path: Path) -> None:
    shared = ["x"]
    content = {"all": VALUES, "one": shared, "other": shared}
    (tmp_path / "x.yaml").write_text(yaml_text(content), "utf-8")
    found = read_yaml(tmp_path / "x.yaml")
    assert found == content
    assert [type(each) for each in found["all"]] == [type(each) for each in VALUES]
    assert yaml.safe_load(yaml_text(content)) == content
    assert OmegaConf.to_container(OmegaConf.create(yaml_text(content))) == content


def test_a_path_whose_bytes_are_no_text_comes_back(tmp_path: Path) -> None:
    content = {"path": b"caf\xe9".decode("utf-8", "surrogateescape")}
    (tmp_path / "config.yaml").write_text(yaml_text(content), "utf-8")
    assert read_yaml(tmp_path / "config.yaml") == content


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("3", 3), ("13a", "13a"), ("1_000", 1000), ("1.5", 1.5)])
def test_what_is_typed_by_hand_is_read_as_a_config_is(text: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"a: {text}")
    found = read_yaml(tmp_path / "x.yaml")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &x [1]\nb: *x", "an alias"),
        ("1: a", "the root holds the key 1, must be text"),
        ("a: {null: b}", "a holds the key None"),
        ("a: 2024-01-01", "a is a date"),
        ("a: !!binary aGk=", "a is a bytes"),
        ("a: !!set {b}", "a is a set"),
        ("a: !!python/tuple [b]", "python/tuple"),
        ("a: !!python/object/apply:os.getcwd []", "python/object"),
        ("a: " + "[" * 61 + "]" * 61, "60 levels deep"),
        ("a: " + "x" * 2**20, "is larger than 1 MiB"),
        ("[a]", "must hold keys and values"),
        ("a: \udcff", "cannot be read"),
    ],
)
def test_what_no_run_writes_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=told):
        read_yaml(tmp_path / "x.yaml")


def test_json_that_no_run_writes_is_refused(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"a": ' * 70 + "1" + "}" * 70, '{"a": ' + "1" * 5000 + "}", "[1]", "{", "\xff"):
        (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"x.json"):
            read_json(tmp_path / "x.json", "checkpoint")
