"""How the rewards of the embedded task know what a source means."""

from __future__ import annotations

from tokenrl_cli.interfaces import Texts, UserError


def meanings(texts: Texts, reward: str) -> list[str]:
    """Returns the column `meaning`, which holds for each of the texts a string that `Meaning.parse` reads; the list
    itself, not a copy. `reward` is the name that the UserError shows which is raised where the dataset has no such
    column."""
    if "meaning" not in texts.columns:
        raise UserError(
            reward,
            "needs the column 'meaning', which the dataset does not have",
            f"choose dataset=grammar, or leave {reward} out of reward and metrics",
        )
    return texts.columns["meaning"]
