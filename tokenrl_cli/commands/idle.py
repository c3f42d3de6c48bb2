"""Settings that do nothing beside the others of a config: refused where the line names them.

A value that a preset or a file brings is no mistake of whoever types another one beside it, as in `decode=beam
decode.beam_size=1`: what does nothing then is said, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.interfaces import Finding, UserError


@dataclass(frozen=True)
class Idle:
    """`key` does nothing, and why; `off` is the value that says so, None for a part that has no such value."""

    key: str
    why: str
    remedy: str
    off: float | None


def idle_findings(config: dict[str, Any], decoding: Decoding, line: Iterable[str]) -> list[Finding]:
    """-> a note for each setting of a checked config that does nothing and is not off. Raises UserError where the
    overrides `line` name one."""
    said = {_place(word): word for word in line if not word.startswith("~")}
    found = []
    for each in (*_of_decoding(decoding), *_of_kl(config, "algorithm"), *_of_kl(config, "warm_start")):
        for place, word in said.items():
            if place == each.key or place.startswith(f"{each.key}."):
                raise UserError(word, each.why, each.remedy)
        if each.off is not None:
            block, _, name = each.key.partition(".")
            text = f"{each.key}={config[block][name]} {each.why}"
            found.append(Finding("idle_setting", "note", 0, text, each.key))
    return found


def _place(word: str) -> str:
    """Where an override puts its value: algorithm.reference for algorithm/reference=periodic and for
    algorithm/reference@algorithm.reference=periodic."""
    from tokenrl_cli.commandline.arguments import key_of

    group, _, package = key_of(word).partition("@")
    return package or group.replace("/", ".")


def _of_decoding(decoding: Decoding) -> Iterator[Idle]:
    for name, why, off in decoding.idle():
        yield Idle(f"decode.{name}", why, f"decode.{name}={off}", off)


def _of_kl(config: dict[str, Any], name: str) -> Iterator[Idle]:
    """What a policy gradient compares with a reference, and how."""
    block = config.get(name) or {}
    if "kl_loss_coef" not in block:
        return
    paid, lost = block["kl_coef"] > 0, block["kl_loss_coef"] > 0
    if not paid and block["kl_target"] > 0:
        why = f"has nothing to adapt with {name}.kl_coef=0, which no factor makes larger"
        yield Idle(f"{name}.kl_target", why, f"{name}.kl_target=0, or {name}.kl_coef above 0", 0)
    if not paid and not lost:
        why = f"does nothing while {name}.kl_coef=0 and {name}.kl_loss_coef=0 compare the policy with no reference"
        yield Idle(f"{name}.reference", why, f"{name}.kl_coef or {name}.kl_loss_coef above 0", None)
    if not lost:
        why = f"does nothing with {name}.kl_loss_coef=0: it is what the loss takes for the KL divergence"
        yield Idle(f"{name}.divergence", why, f"{name}.kl_loss_coef above 0", None)
    if not paid or not block["kl_target"] > 0:
        why = f"does nothing without {name}.kl_target above 0: {name}.kl_coef is not adapted"
        yield Idle(f"{name}.kl_rate", why, f"{name}.kl_target above 0, or leave it out", None)
