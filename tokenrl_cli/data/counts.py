"""Counts and findings about data: tokens unknown to a tokenizer, references that it changes, sources that are cut, and
sources of val and test that are in train, too."""

from __future__ import annotations

from collections.abc import Iterable

from tokenrl_cli.data.encoding import Sources, encoded_sources, unit_of, unknown_id
from tokenrl_cli.data.lines import shown, well_formed
from tokenrl_cli.interfaces import Dataset, Example, Finding, LeavesOutFaults, SourceReader, Tokenizer, TranslatesIds

UNKNOWN_SHARE = 0.1  # of the tokens of a split; above it the tokenizer, not the model, decides the scores
LOOKED_AT = 10_000  # examples of a split, at most, whose tokens are counted
GIVEN = frozenset(  # arguments of reward functions; a column of the data with such a name cannot be passed to them
    "hypothesis hypotheses reference references source sources tokens ended step "
    "prompts completions completion_ids trainer_state".split()
)


class Unread:
    """Counts the sources that are cut at `limit` tokens (frames of recordings), and the tokens among those left that
    are unknown to the tokenizer `reader`. The counts, from 0, are its attributes: `sources`, and of these `overlong`;
    `tokens`, and of these `unknown`."""

    def __init__(self, reader: SourceReader, limit: int) -> None:
        self.unknown_id, self.unit, self.limit = unknown_id(reader), unit_of(reader), limit
        self.sources = self.overlong = self.tokens = self.unknown = 0

    def add(self, sources: Sources) -> None:
        """Adds the numbers of some sources to the counts. The sources must have been cut at `limit`."""
        self.sources += len(sources.lengths)
        self.overlong += int(sources.overlong.sum())
        self.tokens += int(sources.lengths.sum())
        self.unknown += sources.unknown(self.unknown_id)

    def sentence(self) -> str:
        """Returns a message for the user about the cut sources and the unknown tokens; "" where there are neither."""
        found = []
        if self.overlong:
            verb = "was" if self.overlong == 1 else "were"
            share = f"{self.overlong:,} of {self.sources:,} sources {verb} longer than {self.limit:,} {self.unit}"
            found.append(f"{share} and {verb} cut")
        if self.unknown:
            found.append(f"{unknown_share(self.unknown, self.tokens, 'source')} unknown")
        return "; ".join(found)


def unknown_share(unknown: int, total: int, side: str) -> str:
    """Returns the beginning of a message, such as "17 of 2,400 source tokens (0.7 %) are"; never with "0.0 %". `side`,
    here "source", is printed as it is; `total` is above 0."""
    share = f"{unknown / total:.1%}".replace("%", " %") if unknown / total >= 0.001 else "less than 0.1 %"
    return f"{unknown:,} of {total:,} {side} tokens ({share}) {'is' if unknown == 1 else 'are'}"


def unknown_finding(split: str, side: str, unknown: int, total: int, fixed: bool = False) -> list[Finding]:
    """Returns the finding that `unknown` of `total` tokens are unknown to the tokenizer of `side` ("source" or
    "target"): a list with one note, or one warning above UNKNOWN_SHARE (10 %); [] where none is unknown. `split` is the
    beginning of the message, such as "train"; `fixed` says that the vocabulary is that of a pretrained model."""
    if not unknown:
        return []
    many = unknown / total > UNKNOWN_SHARE
    advice = "a pretrained model of other texts may know them" if fixed else "tokenizer=bpe every text"
    remedy = f": {'its vocabulary is fixed' if fixed else 'it knows the words of train'}, {advice}" if many else ""
    text = f"{split}: {unknown_share(unknown, total, side)} unknown to the tokenizer{remedy}"
    return [Finding(f"unknown_{side}_tokens", "warning" if many else "note", 0, text, "tokenizer")]


def split_findings(
    dataset: Dataset, source_reader: SourceReader, tokenizer: Tokenizer, splits: Iterable[str] = ("val", "test")
) -> list[Finding]:
    """Returns findings about the splits that a run is evaluated on: tokens of sources and references that are unknown
    to the tokenizers, and references that a tokenizer changes; sources longer than `dataset.max_source_length`, which
    are cut; sources that are in train, too; and columns that may not reach a reward function, because tokenrl gives it
    an argument of the same name.

    Unlimited splits are not read; all examples of the others are held in memory. Tokens and lengths are counted in the
    first LOOKED_AT (10,000) examples of a split. Sources are compared with train as exact text, all of them but empty
    ones, unless train is unlimited; this reads train once. Raises UserError where the data cannot be read.
    """
    found: list[Finding] = []
    sources: dict[str, list[str]] = {}
    for split in splits:
        size = dataset.size(split)
        if size is not None:
            examples = [dataset.example(split, i) for i in range(size)]
            sources[split] = [str(example.source) for example in examples]
            name = split if size <= LOOKED_AT else f"{split} (first {LOOKED_AT:,} examples)"
            found += _hidden_columns(examples)
            found += _token_findings(name, examples[:LOOKED_AT], dataset.max_source_length, source_reader, tokenizer)
    # A column has the same finding in every split: dict.fromkeys leaves one of each.
    return list(dict.fromkeys(found)) + _seen_before(dataset, sources)


def _hidden_columns(examples: list[Example]) -> list[Finding]:
    """Findings about columns whose name is that of another argument of reward functions."""
    hidden = sorted({key for example in examples for key in example.columns} & GIVEN)
    text = "the column {!r} of the data may not reach a reward function: tokenrl gives it something else so called"
    return [Finding("hidden_column", "note", 0, text.format(key), "dataset") for key in hidden]


def _token_findings(
    name: str, examples: list[Example], limit: int, source_reader: SourceReader, tokenizer: Tokenizer
) -> list[Finding]:
    found = []
    counts = Unread(source_reader, limit)
    counts.add(encoded_sources(source_reader, (example.source for example in examples), limit))
    if counts.overlong:
        share = f"{counts.overlong:,} of {counts.sources:,} sources {'is' if counts.overlong == 1 else 'are'}"
        text = f"{name}: {share} longer than dataset.max_source_length={limit} {counts.unit}: truncated"
        found.append(Finding("overlong_sources", "note", 0, text, "dataset.max_source_length"))
    found += unknown_finding(name, "source", counts.unknown, counts.tokens, isinstance(source_reader, TranslatesIds))
    references = [text for example in examples for text in example.references]
    encoded = [tokenizer.encode(text) for text in references]
    if tokenizer.unknown_id is not None:
        unknown = sum(ids.count(tokenizer.unknown_id) for ids in encoded)
        found += unknown_finding(name, "target", unknown, sum(map(len, encoded)), isinstance(tokenizer, TranslatesIds))
    return found + lossy_finding(name, references, encoded, tokenizer)


def lossy_finding(split: str, references: list[str], encoded: list[list[int]], tokenizer: Tokenizer) -> list[Finding]:
    """Returns the finding that references are not what the tokenizer decodes from their ids, as with one that writes
    lower case only: a list with one note; [] where all come back. References with unknown tokens are left out: see
    `unknown_finding`. `encoded` holds the ids of each reference, without EOS. `split` is the beginning of the message,
    such as "val"."""
    known = [(text, ids) for text, ids in zip(references, encoded, strict=True) if tokenizer.unknown_id not in ids]
    pairs = [(text, tokenizer.decode(ids)) for text, ids in known]
    changed = [(text, back) for text, back in pairs if back not in (text, well_formed(text))]
    if not changed:
        return []
    text, back = min(changed, key=lambda pair: len(pair[0]))  # the shortest shows best what changes
    kept = len(pairs) - len(changed)
    share = f"{kept:,} of {len(pairs):,} references ({kept / len(pairs):.1%})".replace("%", " %")
    example = f"others do not, such as {shown(text)}, which comes back as {shown(back)}"
    problem = f"{split}: {share} come back from the tokenizer as they are; {example}"
    remedy = "; a metric may ignore case: metrics.bleu.lowercase=true" if back.lower() == text.lower() else ""
    return [Finding("lossy_tokenizer", "note", 0, f"{problem}: no policy can generate these{remedy}", "tokenizer")]


def fault_findings(dataset: Dataset, splits: Iterable[str]) -> list[Finding]:
    """Returns one warning for each of the splits, all of which have been read, of which examples with faulty files are
    left out, with their number and the first of them; [] for other data sets."""
    found = []
    faults = dataset.faults if isinstance(dataset, LeavesOutFaults) else {}
    for split in splits:
        if errors := faults.get(split, []):
            size = dataset.size(split) or 0
            share = f"{len(errors):,} of {size + len(errors):,} examples are left out for faults of their files"
            text = f"{split}: {share}; the first is {errors[0].where}: {errors[0].problem}"
            found.append(Finding("faulty_files", "warning", 0, text, "dataset.faulty"))
    return found


def _seen_before(dataset: Dataset, sources: dict[str, list[str]]) -> list[Finding]:
    """Findings about sources of each split that are in train, too, where train is finite; it is read once, and not
    held in memory."""
    size = dataset.size("train")
    if size is None:
        return []
    wanted = {source for each in sources.values() for source in each if source}
    seen = {source for i in range(size) if (source := str(dataset.example("train", i).source)) in wanted}
    found = []
    for split, each in sources.items():
        if again := sum(source in seen for source in each):
            verb = "stands" if again == 1 else "stand"
            text = f"{again:,} of {len(each):,} sources of {split} {verb} in train"
            found.append(Finding("sources_in_train", "note", 0, text, "dataset"))
    return found
