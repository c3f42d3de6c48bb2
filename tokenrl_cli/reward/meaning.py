"""How the rewards of the embedded task know what a source means."""

from __future__ import annotations

from functools import lru_cache

from tokenrl_cli.interfaces import Texts, UserError
from tokenrl_cli.tasks.grammar import Meaning

parsed = lru_cache(4096)(Meaning.parse)


def meanings(texts: Texts, reward: str) -> list[str]:
    """Returns the column `meaning`, which holds for each of the texts a string that `Meaning.parse` reads. Raises
    UserError, whose `where` is `reward`, the name of the reward, where the dataset has no such column, or a value in it
    is no such string."""
    if "meaning" not in texts.columns:
        raise UserError(
            reward,
            "needs the column 'meaning', which the dataset does not have",
            f"choose dataset=grammar, or leave {reward} out of reward and metrics",
        )
    found = [str(key) for key in texts.columns["meaning"]]
    try:
        for key in found:
            parsed(key)
    except ValueError as error:
        raise UserError(reward, f"the column 'meaning' {error}", "write it as dataset=grammar does") from None
    return found
