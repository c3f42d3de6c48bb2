"""Where what we hold becomes what a user's code is given: copies, so that whatever is written into them stays there.

A reward that runs in another process gets copies anyway; with these it does the same in this one.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from tokenrl_cli.interfaces import Example, Texts

UNCHANGEABLE = (str, int, float, bool, bytes, type(None))


def copied(value: Any) -> Any:
    """Equal to `value`, and shares nothing with it that can be written into. Lists and dictionaries are walked, two of
    them that were one become two; an object of another class is copied by `copy.deepcopy`."""
    kind = type(value)
    if kind in UNCHANGEABLE:
        return value
    if kind is list:
        return [each if type(each) in UNCHANGEABLE else copied(each) for each in value]
    if kind is dict:
        return {key: copied(each) for key, each in value.items()}
    return deepcopy(value)


def own_texts(texts: Texts) -> Texts:
    """For one reward or metric to keep: lists, columns and arrays, all of them writable and its own."""
    return replace(
        texts,
        hypotheses=list(texts.hypotheses),
        references=copied(texts.references),
        sources=list(texts.sources),
        columns=copied(texts.columns),
        actions=texts.actions.copy(),
        mask=texts.mask.copy(),
        ended=texts.ended.copy(),
    )


def own_example(example: Example) -> Example:
    """Apart from what the data set keeps, or fills anew for its next example."""
    return replace(
        example,
        references=copied(example.references),
        demonstrations=copied(example.demonstrations),
        columns=copied(example.columns),
    )
