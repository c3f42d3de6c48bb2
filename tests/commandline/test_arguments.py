"""Parsing the command line, and quoting overrides."""

from __future__ import annotations

import pytest

from tokenrl_cli.commandline.arguments import key_of, parse, quoted, unquoted
from tokenrl_cli.interfaces import UserError


def test_flags_may_stand_before_the_command() -> None:
    for words in (["-m", "train", "seed=1,2"], ["train", "-m", "seed=1,2"], ["train", "seed=1,2", "--multirun"]):
        arguments = parse(words)
        assert (arguments.command, arguments.rest) == ("train", ("seed=1,2",))
        assert arguments.line() == ["--multirun", "seed=1,2"]


def test_a_flags_value_is_not_taken_for_the_command() -> None:
    for words in (["--config-dir", "mine", "train"], ["--config-dir=mine", "train"], ["-cd", "mine", "train"]):
        assert parse(words).command == "train"
        assert parse(words).flags == {"--config-dir": "mine"}
    assert parse(["--info", "train"]).flags == {"--info": "all"}
    assert parse(["--info", "searchpath", "train"]).flags == {"--info": "searchpath"}


def test_an_override_is_not_taken_for_the_command() -> None:
    assert parse(["seed=1"]).command is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--cgf", "job"], "--cgf: there is no such flag (did you mean '--cfg'?)"),
        (["train", "--cfg"], "--cfg: needs a value"),
        (["train", "--cfg", "jbo"], "--cfg jbo: must be one of job, hydra, all (did you mean 'job'?)"),
        (["train", "--multirun=2"], "takes no value"),
        (["train", "-m", "--cfg", "job"], "only one of these flags"),
        (["train", "--resolve"], "only be given with --cfg"),
        (["train", "--experimental-rerun", "x.pickle"], "loads a pickle"),
    ],
)
def test_a_wrong_flag_is_told(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(words)
    assert told in str(raised.value)


def test_the_last_value_of_a_key_counts_and_loses_its_quotes() -> None:
    arguments = parse(["train", "resume=a", "+resume='b c'"])
    assert arguments.value("resume") == "b c"
    assert arguments.value("seed") is None
    assert parse(["train", "out=a", "~out", "~out=b"]).value("out") == "a"
    assert parse(["train", "~out=b"]).value("out") is None
    assert arguments.without("resume").rest == ()
    assert [key_of(each) for each in ("++a.b=1", "~c", "d@e.f=g")] == ["a.b", "c", "d@e.f"]


@pytest.mark.parametrize(
    "text", ["plain", "with space", "a=b,c", "it's", "back\\slash", "\\'", "end\\", "\\\\'x", "'", ""]
)
def test_any_text_survives_quoting(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={quoted(text)}")
    assert parsed.value() == text
    assert unquoted(quoted(text)) == text
