"""Splits by name, the part of train that is reserved for RL, and the check, before training or evaluation, that every
example has the references that something needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tokenrl_cli.config.build import hint
from tokenrl_cli.interfaces import Dataset, Divided, Example, NamedSplits, ReadsReferences, UserError

Member = Callable[[Example, int], bool]  # (example, its index in the split) -> whether it may be drawn
MADE = 100  # examples to check of a split that is generated, not read from files: they all look alike


def drawn_by(dataset: Dataset, stage: str) -> tuple[str, Member | None]:
    """Returns the name of the split that a training stage draws its examples from, and a function of an example and its
    index in that split that is True where the stage may draw it; None: it may draw all. `stage` is "warm_start", or
    "train" for RL.

    Both stages draw from all of train, except for a data set that is `Divided`: with `rl_split` RL draws from that
    split and the warm start from all of train; else, with an `rl_share` above 0, RL draws from that share of train and
    the warm start from the rest.
    """
    if not isinstance(dataset, Divided):
        return "train", None
    if dataset.rl_split is not None:
        return (dataset.rl_split if stage == "train" else "train"), None
    share = dataset.rl_share
    if not share:
        return "train", None
    return "train", lambda example, index: kept_for_rl(str(example.source), index, share) == (stage == "train")


def kept_for_rl(source: str, index: int, share: float) -> bool:
    """Returns whether an example of train belongs to the `share` (0 to 1) of examples that only RL draws, by a hash of
    its source.

    Equal sources are so always on the same side; of an empty source the index is hashed. The examples of a smaller
    share are among those of a larger one.
    """
    content = source or f"\0{index}"
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8, person=b"rl_share").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def splits_of(dataset: Dataset) -> list[str]:
    """Returns the names of the splits of a data set, each once: train, val and test, and then those that it names
    itself."""
    named = dataset.splits() if isinstance(dataset, NamedSplits) else []
    return list(dict.fromkeys(["train", "val", "test", *named]))


def require_split(dataset: Dataset, split: str) -> None:
    """Raises UserError where the data set has no split of this name; the message lists those it has. Reads no data."""
    known = splits_of(dataset)
    if split not in known:
        problem = f"the data set has no such split{hint(split, known)}"
        raise UserError(f"split={split}", problem, f"one of {', '.join(known)}; dataset.splits names others")


def all_empty(dataset: Dataset, split: str, examples: int) -> bool:
    """Returns whether the first `examples` examples of a split (0: all) all have an empty source; greedy decoding then
    gives the same text for each. Reads up to the first with a source that is not empty. False for a split without
    examples, and for an unlimited one where `examples` is 0."""
    size = dataset.size(split)
    count = examples if size is None else min(examples or size, size)
    return count > 0 and all(not dataset.example(split, i).source for i in range(count))


# ---------------------------------------------------------------------------------------------- required references


@dataclass(frozen=True)
class Reader:
    """A component of a run that may need the references of a split."""

    key: str  # its place in the config, as it is typed
    part: Any
    split: str
    remedy: str  # what to set instead, for an error message
    member: Member | None = None  # True for the examples of the split that it reads; None: it reads all

    @property
    def reads(self) -> bool:
        """Whether the component needs references: True if it has `needs_references` and that is True."""
        return isinstance(self.part, ReadsReferences) and self.part.needs_references


def require_references(dataset: Dataset, readers: Iterable[Reader]) -> None:
    """Raises UserError where a component needs references and an example that it reads has none. The message names all
    such components and the first such example. Of a split that is unlimited, or is generated, not read from files (its
    examples have no `place`), only the first MADE (100) examples are checked."""
    memo: dict[tuple[str, Member | None], list[str]] = {}
    lacking = []
    for reader in readers:
        of = (reader.split, reader.member)
        if reader.reads and of not in memo:
            memo[of] = _without(dataset, *of)
        if reader.reads and memo[of]:
            lacking.append(reader)
    if not lacking:
        return
    keys = list(dict.fromkeys(reader.key for reader in lacking))
    first, *others = memo[lacking[0].split, lacking[0].member]
    more = f", nor have {len(others):,} others of {lacking[0].split}" if others else ""
    problem = f"need{'s' if len(keys) == 1 else ''} references: {first} has none{more}"
    remedies = "; ".join(dict.fromkeys(reader.remedy for reader in lacking))
    raise UserError(", ".join(keys), problem, f"give it references, or: {remedies}")


def _without(dataset: Dataset, split: str, member: Member | None) -> list[str]:
    """Places ("FILE, line N") of the examples of a split without a reference, of those for which `member` is True."""
    size = dataset.size(split)
    read = size is not None and size > 0 and bool(dataset.example(split, 0).place)
    found = []
    for index in range(MADE if size is None else size if read else min(size, MADE)):
        example = dataset.example(split, index)
        if not example.references and (member is None or member(example, index)):
            found.append(example.place or f"example {example.id!r} of {split}")
    return found
