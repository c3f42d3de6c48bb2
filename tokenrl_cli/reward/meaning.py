"""How the rewards of the embedded task know what a source means."""

from __future__ import annotations

from tokenrl_cli.interfaces import Texts, UserError


def meanings(texts: Texts, reward: str) -> list[str]:
    """The key of each source's meaning. Raises UserError where the dataset does not say."""
    if "meaning" not in texts.columns:
        raise UserError(
            reward,
            "needs the column 'meaning', which the dataset does not have",
            f"choose dataset=grammar, or leave {reward} out of reward and metrics",
        )
    return texts.columns["meaning"]
