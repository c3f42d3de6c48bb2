"""The embedded task: English sentences, and every German translation with its exact probability. Knows no RL.

A source has two kinds of translator. The *house* one (40 % of references) has openings of its own, then nearly always
the first word and the first order. Others (60 %) open otherwise, then spread over synonyms, tenses and orders. The
openings mean the same, so neither kind says more than the other. Likelihood follows the majority's opening into the
flat part of the distribution, where nobody can guess the reference; expected BLEU prefers what the house says. This gap
is built in on purpose, and `ceiling` computes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any, NamedTuple, TypeVar

from tokenrl_cli.tasks import lexicon

HOUSE_SHARE = 0.4
HOUSE = {1: (1.0,), 2: (0.97, 0.03), 3: (0.96, 0.02, 0.02)}  # probability of each of 1, 2 or 3 ways to say a thing
OTHERS = {1: (1.0,), 2: (0.45, 0.55), 3: (0.25, 0.35, 0.4)}  # the house's way is their last choice
ADJECTIVE_SHARE, RECIPIENT_SHARE = 0.5, 0.75
NOMINATIVE, ACCUSATIVE, DATIVE = 0, 1, 2
CASES = {"a": ACCUSATIVE, "d": DATIVE}
TOKEN = re.compile(r"\w+|[^\w\s]")
ABSENT = -1
GLUE = {"dass", ",", "."}  # tokens that belong to no content
T = TypeVar("T")
Weights = dict[int, tuple[float, ...]]


class Meaning(NamedTuple):
    """What a sentence says, in English words: its translations are a function of it. `key` and `parse` are inverse."""

    opening: str
    subject: str  # determiner, perhaps an adjective, noun
    verb: str
    recipient: str  # or ""
    object: str
    time: str  # the tense agrees with it

    def key(self) -> str:
        return "|".join(self)

    @staticmethod
    def parse(key: str) -> Meaning:
        return Meaning(*key.split("|"))


class Content(NamedTuple):
    """One thing that a translation must say, and all ways to say it: each some runs of neighbouring tokens."""

    name: str
    ways: list[list[tuple[str, ...]]]


@dataclass(frozen=True)
class Noun:
    """One German word: its gender and its forms by case."""

    gender: int
    forms: tuple[str, str, str]


class VerbForm(NamedTuple):
    """A verb in a tense."""

    second: str  # in second place of a main clause
    end: str  # what then ends the clause, or ""
    final: str  # all of it at the end of a subordinate clause


def _rows(table: str) -> Iterator[list[str]]:
    return ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())


def _noun(text: str) -> Noun:
    word, gender, *oblique = text.split()
    other = oblique[0] if oblique else word
    return Noun("mfn".index(gender), (word, other, other))


def _verb(text: str) -> dict[str, list[VerbForm]]:
    """Its ways to say each tense."""
    present, past, participle, infinitive, *separable = text.split()
    prefix = "".join(separable)
    now = VerbForm(present, prefix, prefix + present)
    return {
        "past": [VerbForm("hat", participle, f"{participle} hat"), VerbForm(past, prefix, prefix + past)],
        "present": [now],
        "future": [VerbForm("wird", infinitive, f"{infinitive} wird"), now],
    }


OPENINGS = {english: (house, others) for english, house, others in _rows(lexicon.OPENINGS)}
TIMES = {english: german for english, german, _ in _rows(lexicon.TIMES)}
TENSE = {english: tense for english, _, tense in _rows(lexicon.TIMES)}
NOUNS = {english: [_noun(n) for n in german.split("/")] for english, _, german in _rows(lexicon.NOUNS)}
OF_CLASS: dict[str, list[str]] = {}
for _english, _class, _ in _rows(lexicon.NOUNS):
    OF_CLASS.setdefault(_class, []).append(_english)
CLASS = {noun: name for name, nouns in OF_CLASS.items() for noun in nouns}
ADJECTIVES = {english: german.split(" / ") for english, _, german in _rows(lexicon.ADJECTIVES)}
FITTING = {c: [english for english, fits, _ in _rows(lexicon.ADJECTIVES) if c in fits.split()] for c in OF_CLASS}
DETERMINERS = lexicon.DETERMINERS.split()
ARTICLES = {english: [forms.split() for forms in genders] for english, *genders in _rows(lexicon.ARTICLES)}
ENDINGS = {
    english: [endings.split() for endings in genders]
    for those, *genders in _rows(lexicon.ENDINGS)
    for english in those.split()
}
ENGLISH_VERBS: dict[str, dict[str, str]] = {}
OBJECTS: dict[str, list[str]] = {}
RECIPIENTS: dict[str, list[str]] = {}
OBJECT_CASE: dict[str, int] = {}
VERBS: dict[str, list[dict[str, list[VerbForm]]]] = {}
for _forms, _objects, _recipients, _case, _german in _rows(lexicon.VERBS):
    _base, _past, _progressive = _forms.split()
    ENGLISH_VERBS[_base] = {"past": _past, "present": f"is {_progressive}", "future": f"will {_base}"}
    OBJECTS[_base] = [noun for c in _objects.split() for noun in OF_CLASS[c]]
    RECIPIENTS[_base] = [noun for c in _recipients.split() for noun in OF_CLASS[c]]
    OBJECT_CASE[_base] = CASES[_case]
    VERBS[_base] = [_verb(v) for v in _german.split(" / ")]
EVERY = {name: list(table) for name, table in (("opening", OPENINGS), ("verb", VERBS), ("time", TIMES))}


def tokens(text: str) -> tuple[str, ...]:
    """Words and marks. BLEU's 13a tokens of these texts are the same."""
    return tuple(TOKEN.findall(text))


def sample(draws: Random) -> tuple[str, str, Meaning]:
    """A source, one translation drawn from its distribution, and what both mean."""
    meaning = sample_meaning(draws)
    return english(meaning), sample_translation(meaning, draws), meaning


def sample_meaning(draws: Random) -> Meaning:
    def one_of(options: Sequence[str], taken: Sequence[str] = ()) -> str:
        while (choice := options[int(draws.random() * len(options))]) in taken:
            pass
        return choice

    def phrase(noun: str) -> str:
        determiner = one_of(DETERMINERS)
        if draws.random() < ADJECTIVE_SHARE:
            return f"{determiner} {one_of(FITTING[CLASS[noun]])} {noun}"
        return f"{determiner} {noun}"

    verb = one_of(EVERY["verb"])
    subject = one_of(OF_CLASS["P"])
    recipient = ""
    if RECIPIENTS[verb] and draws.random() < RECIPIENT_SHARE:
        recipient = f"{one_of(DETERMINERS)} {one_of(RECIPIENTS[verb], [subject])}"
    thing = one_of(OBJECTS[verb], [subject])
    return Meaning(one_of(EVERY["opening"]), phrase(subject), verb, recipient, phrase(thing), one_of(EVERY["time"]))


def english(meaning: Meaning) -> str:
    verb = ENGLISH_VERBS[meaning.verb][TENSE[meaning.time]]
    parts = [meaning.opening, meaning.subject, verb, meaning.recipient, meaning.object, meaning.time]
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(part for part in parts if part)) + "."


def sample_translation(meaning: Meaning, draws: Random) -> str:
    house = draws.random() < HOUSE_SHARE
    opening = OPENINGS[meaning.opening][0 if house else 1]
    drawn = [_draw(ways, draws) for ways in _parts(meaning, HOUSE if house else OTHERS)]
    return _clause(opening, TIMES[meaning.time], *drawn)


def translations(meaning: Meaning) -> dict[str, float]:
    """Every German text that the grammar has for it, with its exact probability; the sum is 1."""
    found: dict[str, float] = {}
    shares = (HOUSE_SHARE, 1 - HOUSE_SHARE)
    for opening, share, weights in zip(OPENINGS[meaning.opening], shares, (HOUSE, OTHERS), strict=True):
        for ways in product(*_parts(meaning, weights)):
            probability = share
            for _, p in ways:
                probability *= p
            text = _clause(opening, TIMES[meaning.time], *(way for way, _ in ways))
            found[text] = found.get(text, 0.0) + probability
    return found


def _parts(meaning: Meaning, weights: Weights) -> list[list[tuple[Any, float]]]:
    """Layout, subject, verb, recipient, object: the ways to say each, drawn independently."""
    subordinate = meaning.opening.endswith(" that")
    return [
        _pairs(_weighted(["dass", "main"] if subordinate else ["inverted"], weights), _orders(meaning, weights)),
        phrases(meaning.subject, NOMINATIVE, weights),
        _verbs(meaning, weights),
        phrases(meaning.recipient, DATIVE, weights),
        phrases(meaning.object, OBJECT_CASE[meaning.verb], weights),
    ]


def _weighted(ways: Sequence[T], weights: Weights) -> list[tuple[T, float]]:
    return list(zip(ways, weights[len(ways)], strict=True))


def _pairs(first: list[tuple[Any, float]], second: list[tuple[Any, float]]) -> list[tuple[Any, float]]:
    return [((a, b), p * q) for a, p in first for b, q in second]


def _draw(ways: list[tuple[T, float]], draws: Random) -> T:
    place = draws.random()
    for way, probability in ways:
        place -= probability
        if place < 0:
            return way
    return ways[-1][0]  # the sum of the probabilities is 1 up to rounding


def _orders(meaning: Meaning, weights: Weights) -> list[tuple[str, float]]:
    """Of subject S, time T, recipient and object O. An indefinite object does not stand before the time."""
    return _weighted(["STO", "TSO"] if meaning.object.startswith("a ") else ["STO", "TSO", "SOT"], weights)


def phrases(english: str, case: int, weights: Weights) -> list[tuple[str, float]]:
    """All ways to say "the old doctor" in a case; no phrase has one way."""
    if not english:
        return [("", 1.0)]
    determiner, *adjective, noun = english.split()
    ways = []
    for word, p in _weighted(NOUNS[noun], weights):
        article = ARTICLES[determiner][word.gender][case]
        if not adjective:
            ways.append((f"{article} {word.forms[case]}", p))
            continue
        ending = ENDINGS[determiner][word.gender][case]
        for stem, q in _weighted(ADJECTIVES[adjective[0]], weights):
            ways.append((f"{article} {stem}{ending} {word.forms[case]}", p * q))
    return ways


def _verbs(meaning: Meaning, weights: Weights) -> list[tuple[VerbForm, float]]:
    tense = TENSE[meaning.time]
    verbs = _weighted(VERBS[meaning.verb], weights)
    return [(form, p * q) for verb, p in verbs for form, q in _weighted(verb[tense], weights)]


def _clause(
    opening: str, time: str, layout: tuple[str, str], subject: str, verb: VerbForm, recipient: str, thing: str
) -> str:
    kind, order = layout
    place = {"S": subject, "T": time, "O": f"{recipient} {thing}" if recipient else thing}
    first, *rest = [place[slot] for slot in order]
    if kind == "dass":
        parts = [f"{opening}, dass", first, *rest, verb.final]
    elif kind == "main":
        parts = [f"{opening},", first, verb.second, *rest, verb.end]
    else:
        parts = [opening, verb.second, first, *rest, verb.end]
    return " ".join(part for part in parts if part) + "."


def contents(meaning: Meaning) -> list[Content]:
    """What a translation must say: opening, subject, objects, time, and the verb in its tense."""

    def runs(english: str, case: int) -> list[list[tuple[str, ...]]]:
        return [[tokens(text)] for text, _ in phrases(english, case, OTHERS)]

    found = [
        Content("opening", [[tokens(text)] for text in OPENINGS[meaning.opening]]),
        Content("subject", runs(meaning.subject, NOMINATIVE)),
        Content("recipient", runs(meaning.recipient, DATIVE)),
        Content("object", runs(meaning.object, OBJECT_CASE[meaning.verb])),
        Content("time", [[tokens(TIMES[meaning.time])]]),
        Content("verb", [way for form, _ in _verbs(meaning, OTHERS) for way in _verb_ways(form)]),
    ]
    return [content for content in found if content.ways != [[()]]]


def _verb_ways(form: VerbForm) -> list[list[tuple[str, ...]]]:
    return [[tokens(form.final)], [run for run in (tokens(form.second), tokens(form.end)) if run]]


def adequate(wanted: list[Content], text: str) -> bool:
    """Whether a text says all of it and nothing else, in whatever order and however well joined.

    Each content is said in one of its ways, each run of neighbouring tokens once; the opening opens the text; the
    subject stands before the objects (where case does not tell them apart, order does); and no token is left over but
    "dass", "," and ".".
    """
    left: list[str | None] = list(tokens(text))
    places: dict[str, int] = {}
    for content in wanted:
        for way in content.ways:
            found = [_find(left, run) for run in way]
            if ABSENT not in found:
                break
        else:
            return False
        for place, run in zip(found, way, strict=True):
            left[place : place + len(run)] = [None] * len(run)
        places[content.name] = found[0]
    objects = [places[name] for name in ("recipient", "object") if name in places]
    opened = places["opening"] == 0
    return opened and places["subject"] < min(objects) and all(t is None or t in GLUE for t in left)


def _find(sequence: list[str | None], run: tuple[str, ...]) -> int:
    starts = range(len(sequence) - len(run) + 1)
    return next((i for i in starts if tuple(sequence[i : i + len(run)]) == run), ABSENT)
