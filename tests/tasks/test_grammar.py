"""The embedded grammar: its German sentences, their probabilities, and which contents a text expresses."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tokenrl_cli.tasks import grammar
from tokenrl_cli.tasks.grammar import HOUSE_SHARE, OPENINGS, Meaning

SAID = {  # written by hand, each a translation under one style or the other
    "I think that|the old doctor|sell||a small car|yesterday": (
        "I think that the old doctor sold a small car yesterday.",
        [
            "Ich glaube, dass der alte Arzt gestern ein kleines Auto verkauft hat.",
            "Ich denke, gestern verkaufte der alte Doktor einen kleinen Wagen.",
            "Ich denke, dass gestern der alte Doktor einen kleinen Wagen verkaufte.",
        ],
        [
            "Ich glaube, dass der alte Arzt ein kleines Auto gestern verkauft hat.",  # indefinite before the time
            "Ich glaube, dass der alte Arzt gestern ein kleines Auto hat verkauft.",
            "Ich glaube, dass der alte Arzt gestern ein kleiner Wagen verkauft hat.",
            "Ich glaube, der alte Arzt gestern verkaufte ein kleines Auto.",
            "Ich glaube, dass der alte Arzt heute ein kleines Auto verkauft hat.",
            "Ich glaube, dass der alte Arzt gestern ein kleines Auto verkauft hat",
        ],
    ),
    "Of course,|a neighbor|call||my sister|soon": (
        "Of course, a neighbor will call my sister soon.",
        [
            "Natürlich wird ein Nachbar bald meine Schwester anrufen.",
            "Selbstverständlich ruft ein Nachbar meine Schwester bald an.",
            "Selbstverständlich wird bald ein Nachbar meine Schwester anrufen.",
        ],
        [
            "Natürlich ein Nachbar wird bald meine Schwester anrufen.",
            "Natürlich anruft ein Nachbar bald meine Schwester.",
        ],
    ),
    "They say that|this clever woman|show|the boy|my new letter|now": (
        "They say that this clever woman is showing the boy my new letter now.",
        [
            "Man sagt, dass diese kluge Frau jetzt dem Jungen meinen neuen Brief zeigt.",
            "Es heißt, jetzt zeigt diese schlaue Frau dem Jungen mein neues Schreiben.",
        ],
        ["Man sagt, dass diese kluge Frau jetzt den Jungen meinen neuen Brief zeigt."],
    ),
    "Perhaps|my guest|help||a tired child|next week": (
        "Perhaps my guest will help a tired child next week.",
        ["Vielleicht wird mein Gast nächste Woche einem müden Kind helfen."],
        ["Vielleicht wird mein Gast nächste Woche ein müdes Kind helfen."],
    ),
}


def meanings(count: int, seed: int = 1) -> list[Meaning]:
    draws = Random(seed)
    return [grammar.sample_meaning(draws) for _ in range(count)]


@pytest.mark.parametrize("key", SAID)
def test_sentences_worked_out_by_hand_are_translations_and_wrong_ones_are_not(key: str) -> None:
    source, right, wrong = SAID[key]
    meaning = Meaning.parse(key)
    assert meaning.key() == key
    assert grammar.english(meaning) == source
    found = grammar.translations(meaning)
    assert [text for text in right if text not in found] == []
    assert [text for text in wrong if text in found] == []


def test_the_probabilities_of_all_translations_sum_to_one_and_the_house_has_its_share() -> None:
    for meaning in meanings(50):
        found = grammar.translations(meaning)
        assert sum(found.values()) == pytest.approx(1, abs=1e-12)
        opening = OPENINGS[meaning.opening][0]
        assert sum(p for text, p in found.items() if text.startswith(opening)) == pytest.approx(HOUSE_SHARE, abs=1e-12)


def test_samples_have_the_frequencies_that_enumeration_promises() -> None:
    meaning = Meaning.parse("I think that|the doctor|buy||the car|tomorrow")
    draws = Random(3)
    count = 20_000
    drawn = Counter(grammar.sample_translation(meaning, draws) for _ in range(count))
    promised = grammar.translations(meaning)
    assert set(drawn) <= set(promised)
    statistic = sum((drawn[text] - count * p) ** 2 / (count * p) for text, p in promised.items())
    freedom = len(promised) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5  # chi-square: mean df, variance 2 df


def test_no_way_to_say_a_thing_is_lost_or_doubled_between_two_styles() -> None:
    for house, others in OPENINGS.values():
        assert not others.startswith(house)
        assert not house.startswith(others)
    for meaning in meanings(200):
        styles = Counter(text.startswith(OPENINGS[meaning.opening][0]) for text in grammar.translations(meaning))
        assert styles[True] == styles[False]


def test_the_styles_part_within_the_first_two_tokens() -> None:
    for house, others in OPENINGS.values():
        assert grammar.tokens(house)[:2] != grammar.tokens(others)[:2]


def test_a_source_has_one_meaning() -> None:
    known: dict[str, Meaning] = {}
    for meaning in meanings(20_000):
        assert known.setdefault(grammar.english(meaning), meaning) == meaning


def test_the_task_is_as_small_as_it_says() -> None:
    draws = Random(1)
    said = [grammar.sample(draws) for _ in range(20_000)]
    english = {token for source, _, _ in said for token in grammar.tokens(source)}
    german = {token for _, text, _ in said for token in grammar.tokens(text)}
    lengths = [len(grammar.tokens(text)) for _, text, _ in said]
    assert 120 <= len(english) <= 175
    assert 200 <= len(german) <= 400
    assert 11 <= sum(lengths) / len(lengths) <= 13
    assert max(lengths) <= 25


def test_every_translation_is_adequate() -> None:
    for meaning in meanings(100, seed=2):
        wanted = grammar.contents(meaning)
        assert [text for text in grammar.translations(meaning) if not grammar.adequate(wanted, text)] == []


def test_a_translation_of_another_meaning_is_not_adequate() -> None:
    others = meanings(10, seed=5)
    for meaning in meanings(80, seed=4):
        for field, other in zip(Meaning._fields, others[len(meaning.key()) % 10], strict=True):
            changed = meaning._replace(**{field: other})
            said = set(grammar.translations(meaning))
            if changed == meaning or bool(changed.recipient) != bool(meaning.recipient) or field == "verb":
                continue
            wrong = [text for text in grammar.translations(changed) if text not in said]
            assert [text for text in wrong if grammar.adequate(grammar.contents(meaning), text)] == [], (
                meaning,
                changed,
            )


@pytest.mark.parametrize(
    ("determiner", "man", "woman", "house"),
    [
        ("the", "der alte den alten dem alten", "die alte die alte der alten", "das alte das alte dem alten"),
        ("this", "dieser alte diesen alten diesem alten", "diese alte diese alte dieser alten",
         "dieses alte dieses alte diesem alten"),
        ("a", "ein alter einen alten einem alten", "eine alte eine alte einer alten",
         "ein altes ein altes einem alten"),
        ("my", "mein alter meinen alten meinem alten", "meine alte meine alte meiner alten",
         "mein altes mein altes meinem alten"),
    ],
)  # fmt: skip
def test_articles_and_adjectives_agree_in_gender_and_case(determiner: str, man: str, woman: str, house: str) -> None:
    for noun, forms in (("man", man), ("woman", woman), ("child", house)):
        words = forms.split()
        for case in (grammar.NOMINATIVE, grammar.ACCUSATIVE, grammar.DATIVE):
            ((said, probability),) = grammar.phrases(f"{determiner} old {noun}", case, grammar.OTHERS)
            assert said.split()[:2] == words[2 * case : 2 * case + 2]
            assert probability == 1


@pytest.mark.parametrize(
    ("text", "says_all"),
    [
        ("Die Frau besucht Leider heute das Kind.", False),  # the opening opens
        ("Leider besucht die Frau heute das Kind.", True),
        ("Leider die Frau besucht heute das Kind", True),  # bad grammar, good meaning
        ("Leider, dass heute die Frau das Kind besucht.", True),
        ("Leider besucht das Kind heute die Frau.", False),  # roles
        ("Leider besucht die Frau heute.", False),
        ("Leider besucht die Frau heute das kleine Kind.", False),  # says more
        ("Leider besucht die Frau heute das Kind das Kind.", False),
        ("Leider hat die Frau heute das Kind besucht.", False),  # tense
        ("Leider besucht eine Frau heute das Kind.", False),
        ("", False),
    ],
)
def test_adequate_means_every_content_once_in_its_role_and_nothing_else(text: str, says_all: bool) -> None:
    meaning = Meaning.parse("Unfortunately,|the woman|visit||the child|today")
    assert grammar.adequate(grammar.contents(meaning), text) is says_all


@pytest.mark.parametrize(
    "key",
    [
        "", "|||||", "Perhaps|the woman|read||the book", "Perhaps|the woman|read||the book|today|now",
        "Perhaps|the wombat|read||the book|today", "Perhaps|the woman|eat stones||the book|today",
        "Perhaps|woman|read||the book|today", "Maybe so|the woman|read||the book|today",
        "Perhaps|the woman|read||the book|yesteryear",
    ],
)  # fmt: skip
def test_any_other_line_is_no_meaning(key: str) -> None:
    assert Meaning.parse("Perhaps|the woman|read||the book|today")
    with pytest.raises(ValueError, match="is no meaning"):
        Meaning.parse(key)
