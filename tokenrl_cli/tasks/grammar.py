"""The embedded translation task: English sentences, and all their German translations with exact probabilities.

A reference is written by one of two kinds of translator. The *house* translator (40 % of references) begins with an
opening that only it uses, and then nearly always takes the first synonym and the first word order. The *others* (60 %)
begin with another opening of the same meaning, and then spread their probability over synonyms, tenses and word orders.
A policy trained by maximum likelihood and decoded greedily takes the opening of the majority, after which no
translation is likely to match the reference; a translation in the style of the house has a higher expected BLEU. This
gap between likelihood and BLEU is built in on purpose: RL can close it, and `ceiling` computes it exactly.
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
HOUSE = {1: (1.0,), 2: (0.97, 0.03), 3: (0.96, 0.02, 0.02)}  # probability of each of 1, 2 or 3 alternatives
OTHERS = {1: (1.0,), 2: (0.45, 0.55), 3: (0.25, 0.35, 0.4)}  # the first, which the house prefers, is the least likely
ADJECTIVE_SHARE, RECIPIENT_SHARE = 0.5, 0.75
NOMINATIVE, ACCUSATIVE, DATIVE = 0, 1, 2
CASES = {"a": ACCUSATIVE, "d": DATIVE}
TOKEN = re.compile(r"\w+|[^\w\s]")
ABSENT = -1
GLUE = {"dass", ",", "."}  # tokens of a translation that express no content
T = TypeVar("T")
Weights = dict[int, tuple[float, ...]]


class Meaning(NamedTuple):
    """Meaning of a sentence, in English words; the translations depend on nothing else."""

    opening: str
    subject: str  # determiner, perhaps an adjective, noun
    verb: str
    recipient: str  # or ""
    object: str
    time: str  # an adverb, which fixes the tense of the verb

    def key(self) -> str:
        """Returns all fields in one string, separated by "|", for a column of the data set; `parse` reads it."""
        return "|".join(self)

    @staticmethod
    def parse(key: str) -> Meaning:
        """Returns the meaning of a string made by the method `key`. Raises ValueError where it has too few or too many
        fields, or words that the lexicon lacks."""
        try:
            meaning = Meaning(*key.split("|"))
            contents(meaning)  # looks up every word
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"is no meaning: {key[:60]!r}") from None
        return meaning


class Content(NamedTuple):
    """One part of a meaning that a translation must express, with all its translations (`ways`). A translation is a
    list of runs of neighbouring tokens: a German verb, for example, has two runs with other words between them."""

    name: str
    ways: list[list[tuple[str, ...]]]


@dataclass(frozen=True)
class Noun:
    """A German noun: its gender (0 masculine, 1 feminine, 2 neuter) and its forms (nominative, accusative, dative)."""

    gender: int
    forms: tuple[str, str, str]


class VerbForm(NamedTuple):
    """A German verb in one tense, for each kind of clause."""

    second: str  # the finite part, second in a main clause
    end: str  # the rest (prefix, participle or infinitive), at the end of a main clause; "" where there is none
    final: str  # both together, at the end of a subordinate clause


def _rows(table: str) -> Iterator[list[str]]:
    """The lines of a table of `lexicon`, each as its cells."""
    return ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())


def _noun(text: str) -> Noun:
    word, gender, *oblique = text.split()
    other = oblique[0] if oblique else word
    return Noun("mfn".index(gender), (word, other, other))


def _verb(text: str) -> dict[str, list[VerbForm]]:
    """Tense -> the forms that express it, from a cell of the table of verbs."""
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
    """Splits a text into its words and punctuation marks, as a tuple, without white space; for the texts of this
    grammar these are the tokens of BLEU's 13a."""
    return tuple(TOKEN.findall(text))


def sample(draws: Random) -> tuple[str, str, Meaning]:
    """Draws an example: (English source, one German translation from its distribution, their meaning)."""
    meaning = sample_meaning(draws)
    return english(meaning), sample_translation(meaning, draws), meaning


def sample_meaning(draws: Random) -> Meaning:
    """Draws the meaning of a sentence, each part uniformly among those that fit: opening, verb, time, a subject and an
    object, each with an adjective in a share ADJECTIVE_SHARE (1/2) of cases, and for a verb that can have a recipient
    one in a share RECIPIENT_SHARE (3/4) of cases."""

    def one_of(options: Sequence[str], taken: Sequence[str] = ()) -> str:
        # Faster than draws.choice; the examples of train are made anew whenever they are read.
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
    """Returns the English sentence of a meaning; each meaning has exactly one. Raises KeyError for a verb or a time
    that the lexicon does not have."""
    verb = ENGLISH_VERBS[meaning.verb][TENSE[meaning.time]]
    parts = [meaning.opening, meaning.subject, verb, meaning.recipient, meaning.object, meaning.time]
    # "a old man" becomes "an old man".
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(part for part in parts if part)) + "."


def sample_translation(meaning: Meaning, draws: Random) -> str:
    """Draws a German translation from the distribution that `translations` lists: first the translator, then each part
    of the sentence independently. Raises KeyError for a word that the lexicon does not have."""
    house = draws.random() < HOUSE_SHARE
    opening = OPENINGS[meaning.opening][0 if house else 1]
    drawn = [_draw(ways, draws) for ways in _parts(meaning, HOUSE if house else OTHERS)]
    return _clause(opening, TIMES[meaning.time], *drawn)


def translations(meaning: Meaning) -> dict[str, float]:
    """Returns all German translations of a meaning, text -> exact probability; the probabilities sum to 1, up to
    rounding. A new dictionary at each call, computed anew. Raises KeyError for a word that the lexicon does not
    have."""
    found: dict[str, float] = {}
    shares = (HOUSE_SHARE, 1 - HOUSE_SHARE)
    for opening, share, weights in zip(OPENINGS[meaning.opening], shares, (HOUSE, OTHERS), strict=True):
        for ways in product(*_parts(meaning, weights)):
            probability = share
            for _, p in ways:
                probability *= p
            text = _clause(opening, TIMES[meaning.time], *(way for way, _ in ways))
            # Different choices may give the same text: its probability is the sum.
            found[text] = found.get(text, 0.0) + probability
    return found


def _parts(meaning: Meaning, weights: Weights) -> list[list[tuple[Any, float]]]:
    """Alternatives and their probabilities for each independent choice of a translator: (kind of clause, word order),
    subject, verb, recipient, object."""
    subordinate = meaning.opening.endswith(" that")
    return [
        _pairs(_weighted(["dass", "main"] if subordinate else ["inverted"], weights), _orders(meaning, weights)),
        phrases(meaning.subject, NOMINATIVE, weights),
        _verbs(meaning, weights),
        phrases(meaning.recipient, DATIVE, weights),
        phrases(meaning.object, OBJECT_CASE[meaning.verb], weights),
    ]


def _weighted(ways: Sequence[T], weights: Weights) -> list[tuple[T, float]]:
    """Each alternative with its probability, which depends on their number alone."""
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
    """Word orders, with S the subject, T the time, O the recipient and the object. An indefinite object does not come
    before the time."""
    return _weighted(["STO", "TSO"] if meaning.object.startswith("a ") else ["STO", "TSO", "SOT"], weights)


def phrases(english: str, case: int, weights: Weights) -> list[tuple[str, float]]:
    """Returns all German translations of an English noun phrase such as "the old doctor" in a grammatical case
    (NOMINATIVE, ACCUSATIVE or DATIVE), as (text, probability), together 1; `weights` is HOUSE or OTHERS, the habits of
    one translator. An empty phrase has one translation, the empty text. Raises KeyError for a word that the lexicon
    does not have, ValueError for a phrase of one word."""
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
    """Returns the contents that a translation of a meaning must express, each with all its translations, in this order:
    opening, subject, recipient, object, time, and the verb in its tense. The recipient is left out where the meaning
    has none. Raises KeyError for a word that the lexicon does not have."""

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
    """Returns whether a German text expresses all wanted contents (as `contents` returns them) and nothing else, in any
    word order, grammatical or not.

    That is: each content appears in one of its translations (the first of `ways` of which every run is found), whose
    runs are then used up, without backtracking; the opening comes first; the subject comes before recipient and object
    (German case endings often do not distinguish them, and then order does); and the only tokens left over are "dass",
    "," and ".".
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
        # Used tokens become None, so that positions stay and no other content can use them again.
        for place, run in zip(found, way, strict=True):
            left[place : place + len(run)] = [None] * len(run)
        places[content.name] = found[0]
    objects = [places[name] for name in ("recipient", "object") if name in places]
    opened = places["opening"] == 0
    return opened and places["subject"] < min(objects) and all(t is None or t in GLUE for t in left)


def _find(sequence: list[str | None], run: tuple[str, ...]) -> int:
    """Where a run of tokens first begins in the sequence, or ABSENT."""
    starts = range(len(sequence) - len(run) + 1)
    return next((i for i in starts if tuple(sequence[i : i + len(run)]) == run), ABSENT)
