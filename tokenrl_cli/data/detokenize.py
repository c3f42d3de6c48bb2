"""Text from tokens: undoes the tokenisation of English text, in which a space stands around every punctuation mark."""

from __future__ import annotations

import re

RULES = (  # pattern, replacement; in this order
    (r" (?=[,.;:!?)\]}%](?= |$))", ""),  # cheap , is it ? -> cheap, is it?
    (r"(?<=[(\[{£$€]) ", ""),  # ( or £ 30 -> (or £30
    (r"(?<=\w) - (?=\w)", "-"),  # family - friendly -> family-friendly
    (r"(?<=\w) (?='[a-z])", ""),  # isn 't -> isn't
    (r"""(?:(?<= )|^)(['"]) ([^'"]+) \1(?=\W|$)""", r"\1\2\1"),  # ' The Mill ' -> 'The Mill'
)
COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in RULES)


def detokenized(text: str) -> str:
    """Returns English text whose tokens are separated by spaces as it is usually written: "isn 't cheap ." becomes
    "isn't cheap.". Text without such spaces is returned as it is. A dash between two words is taken for a hyphen."""
    for pattern, replacement in COMPILED:
        text = pattern.sub(replacement, text)
    return text
