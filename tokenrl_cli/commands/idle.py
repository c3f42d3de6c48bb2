"""Finds settings that have no effect because of other settings in the config.

If the command line sets one it is refused. If it comes from a preset, as the length penalty in `decode=beam
decode.beam_size=1`, that is no mistake of the user's: it becomes a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.interfaces import Finding, UserError


@dataclass(frozen=True)
class Idle:
    """A setting without effect: its key, the reason, how to change that, and the value of `key` that turns it off (None
    for a component, which has no such value)."""

    key: str
    why: str
    remedy: str
    off: float | None


def idle_findings(config: dict[str, Any], decoding: Decoding, line: Iterable[str]) -> list[Finding]:
    """Returns a note for each setting of `config`, valid and resolved, of any command, that has no effect although it
    is not turned off, such as the length penalty of a beam of size 1. `decoding` is the one in use. Components without
    effect get no note. Raises UserError if one of the overrides `line` sets such a setting, or chooses or changes such
    a component."""
    typed = {place_of(word): word for word in line if not word.startswith("~")}
    found = []
    for each in (*_of_decoding(decoding), *_of_kl(config, "algorithm"), *_of_kl(config, "warm_start")):
        for place, word in typed.items():
            if place == each.key or place.startswith(f"{each.key}."):
                raise UserError(word, each.why, each.remedy)
        if each.off is not None:
            block, _, name = each.key.partition(".")
            text = f"{each.key}={config[block][name]} {each.why}"
            found.append(Finding("idle_setting", "note", 0, text, each.key))
    return found


def place_of(word: str) -> str:
    """Returns the key at which an override puts its value: algorithm.reference for algorithm/reference=periodic as well
    as for algorithm/reference@algorithm.reference=periodic."""
    from tokenrl_cli.commandline.arguments import key_of

    group, _, package = key_of(word).partition("@")
    return package or group.replace("/", ".")


def _of_decoding(decoding: Decoding) -> Iterator[Idle]:
    """Yields the settings of a decoding that have no effect."""
    for name, why, off in decoding.idle():
        yield Idle(f"decode.{name}", why, f"decode.{name}={off}", off)


def _of_kl(config: dict[str, Any], name: str) -> Iterator[Idle]:
    """Yields the KL settings of an algorithm block that have no effect, because the policy is compared with no
    reference or kl_coef is not adapted."""
    block = config.get(name) or {}
    if "kl_loss_coef" not in block:
        return
    in_reward, in_loss = block["kl_coef"] > 0, block["kl_loss_coef"] > 0
    if not in_reward and block["kl_target"] > 0:
        why = f"has nothing to adapt: it multiplies {name}.kl_coef, which is 0"
        yield Idle(f"{name}.kl_target", why, f"{name}.kl_target=0, or {name}.kl_coef above 0", 0)
    if not in_reward and not in_loss:
        why = f"does nothing with {name}.kl_coef=0 and {name}.kl_loss_coef=0: nothing compares the policy with it"
        yield Idle(f"{name}.reference", why, f"{name}.kl_coef or {name}.kl_loss_coef above 0", None)
    if not in_loss:
        why = f"does nothing with {name}.kl_loss_coef=0: it is the estimate of the KL divergence in the loss"
        yield Idle(f"{name}.divergence", why, f"{name}.kl_loss_coef above 0", None)
    if not in_reward or not block["kl_target"] > 0:
        why = f"does nothing without {name}.kl_target above 0: {name}.kl_coef is not adapted"
        yield Idle(f"{name}.kl_rate", why, f"{name}.kl_target above 0, or leave it out", None)
