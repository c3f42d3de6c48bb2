"""tokenrl: train sequence models on token-level rewards."""

__version__ = "0.1.0"
