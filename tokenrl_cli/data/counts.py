"""What of the data a model does not get to read, and what of val and test it has read before."""

from __future__ import annotations

from collections.abc import Iterable

from tokenrl_cli.data.encoding import Ragged, count, source_ids
from tokenrl_cli.interfaces import Dataset, Example, Finding, Tokenizer

UNKNOWN_SHARE = 0.1  # of the tokens of a split; above it a model is not measured by what it learned
LOOKED_AT = 10_000  # examples of a split, at most, whose tokens are counted
GIVEN = frozenset(  # what functions are given under these names; a column of the data that is called so stays behind it
    "hypothesis hypotheses reference references source sources tokens ended step "
    "prompts completions completion_ids trainer_state".split()
)


class Unread:
    """Counts what of a user's sources a model does not get to read: what is cut off, and tokens without an id."""

    def __init__(self, unknown_id: int | None, limit: int) -> None:
        self.unknown_id, self.limit = unknown_id, limit
        self.sources = self.overlong = self.tokens = self.unknown = 0

    def add(self, sources: Ragged) -> None:
        self.sources += len(sources.lengths)
        self.overlong += int(sources.overlong.sum())
        self.tokens += len(sources.flat)
        self.unknown += count(sources, self.unknown_id)

    def sentence(self) -> str:
        """For the user; "" where there is nothing to say."""
        found = []
        if self.overlong:
            verb = "was" if self.overlong == 1 else "were"
            share = f"{self.overlong:,} of {self.sources:,} sources {verb} longer than {self.limit:,} tokens"
            found.append(f"{share} and {verb} cut")
        if self.unknown:
            found.append(f"{unknown_share(self.unknown, self.tokens, 'source')} unknown")
        return "; ".join(found)


def unknown_share(unknown: int, total: int, side: str) -> str:
    """For example "17 of 2,400 source tokens (0.7 %) are"; never "0.0 %"."""
    share = f"{unknown / total:.1%}".replace("%", " %") if unknown / total >= 0.001 else "less than 0.1 %"
    return f"{unknown:,} of {total:,} {side} tokens ({share}) {'is' if unknown == 1 else 'are'}"


def unknown_finding(split: str, side: str, unknown: int, total: int) -> list[Finding]:
    """How many tokens of a split ("train", with what is said of it) are unknown to the tokenizer of a side, "source" or
    "target": a note, above UNKNOWN_SHARE a warning; nothing where none is."""
    if not unknown:
        return []
    many = unknown / total > UNKNOWN_SHARE
    remedy = ": it knows the words of train, tokenizer=bpe every text" if many else ""
    text = f"{split}: {unknown_share(unknown, total, side)} unknown to the tokenizer{remedy}"
    return [Finding(f"unknown_{side}_tokens", "warning" if many else "note", 0, text, "tokenizer")]


def split_findings(
    dataset: Dataset, source_tokenizer: Tokenizer, tokenizer: Tokenizer, splits: Iterable[str] = ("val", "test")
) -> list[Finding]:
    """What a user should know of the splits that a run is measured on: tokens that are unknown, sources that are cut,
    and sources that stand in train. Unlimited splits are not read. Of a split's tokens the first LOOKED_AT examples
    are counted; all sources are compared, as exact text, but for empty ones."""
    found: list[Finding] = []
    sources: dict[str, list[str]] = {}
    for split in splits:
        size = dataset.size(split)
        if size is not None:
            examples = [dataset.example(split, i) for i in range(size)]
            sources[split] = [example.source for example in examples]
            name = split if size <= LOOKED_AT else f"{split} (first {LOOKED_AT:,} examples)"
            found += _hidden_columns(examples)
            found += _token_findings(name, examples[:LOOKED_AT], dataset.max_source_length, source_tokenizer, tokenizer)
    return list(dict.fromkeys(found)) + _seen_before(dataset, sources)


def _hidden_columns(examples: list[Example]) -> list[Finding]:
    """Columns that a reward function may not be given, because it gets something else under their names."""
    hidden = sorted({key for example in examples for key in example.columns} & GIVEN)
    text = "the column {!r} of the data may not reach a reward function: tokenrl gives it something else so called"
    return [Finding("hidden_column", "note", 0, text.format(key), "dataset") for key in hidden]


def _token_findings(
    name: str, examples: list[Example], limit: int, source_tokenizer: Tokenizer, tokenizer: Tokenizer
) -> list[Finding]:
    found = []
    counts = Unread(source_tokenizer.unknown_id, limit)
    counts.add(Ragged(source_ids(source_tokenizer, [example.source for example in examples]), limit))
    if counts.overlong:
        share = f"{counts.overlong:,} of {counts.sources:,} sources {'is' if counts.overlong == 1 else 'are'}"
        text = f"{name}: {share} longer than dataset.max_source_length={limit} tokens: truncated"
        found.append(Finding("overlong_sources", "note", 0, text, "dataset.max_source_length"))
    found += unknown_finding(name, "source", counts.unknown, counts.tokens)
    if tokenizer.unknown_id is not None:
        ids = [i for example in examples for text in example.references for i in tokenizer.encode(text)]
        found += unknown_finding(name, "target", ids.count(tokenizer.unknown_id), len(ids))
    return found


def _seen_before(dataset: Dataset, sources: dict[str, list[str]]) -> list[Finding]:
    """Of each split the sources that stand in train, where train is finite: read once, and not kept."""
    size = dataset.size("train")
    if size is None:
        return []
    wanted = {source for each in sources.values() for source in each if source}
    seen = {source for i in range(size) if (source := dataset.example("train", i).source) in wanted}
    found = []
    for split, each in sources.items():
        if again := sum(source in seen for source in each):
            verb = "stands" if again == 1 else "stand"
            text = f"{again:,} of {len(each):,} sources of {split} {verb} in train"
            found.append(Finding("sources_in_train", "note", 0, text, "dataset"))
    return found
