"""Copies of our data for a user's code, so that writing into them cannot change what we hold.

A reward in a worker process gets copies in any case. With these, the same reward in this process does the same.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from tokenrl_cli.interfaces import Example, Texts

UNCHANGEABLE = (str, int, float, bool, bytes, type(None))


def copied(value: Any) -> Any:
    """Returns a deep copy of `value`. Lists and dictionaries are copied element by element, which is faster than
    `copy.deepcopy`, but makes two copies of a list that is referred to twice, and ends in RecursionError for one that
    holds itself; other objects are left to `deepcopy`."""
    kind = type(value)
    if kind in UNCHANGEABLE:
        return value
    if kind is list:
        return [each if type(each) in UNCHANGEABLE else copied(each) for each in value]
    if kind is dict:
        return {key: copied(each) for key, each in value.items()}
    return deepcopy(value)


def own_texts(texts: Texts) -> Texts:
    """Returns a copy of the texts for one reward or metric: all lists, columns and arrays are new, and may be written
    into."""
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
    """Returns a copy of an example with lists and columns of its own: it stays as it is when the data set reuses the
    lists for the next example."""
    return replace(
        example,
        references=copied(example.references),
        demonstrations=copied(example.demonstrations),
        columns=copied(example.columns),
    )
