"""Changes of meaning between two queries. Likeness is no evidence that queries mean the same.

"Turn on the light" and "turn off the light" look and sound alike, and are opposites. So what changes between a query
and its rewrite decides how much evidence the rewrite needs. Numbers are recognised in any script that has digits. The
words (numbers, units, negations, antonyms) are those of `words`: a change in another language counts as a replaced word
at most.
"""

import re
from collections import Counter
from enum import IntEnum
from functools import lru_cache
from typing import Final

from jellyfish import metaphone
from rapidfuzz.fuzz import token_set_ratio

from backchannel.agents.rewrites.words import (
    ANTONYMS,
    DIRECTIONS,
    NEGATIONS,
    NUMBERS,
    NUMERALS,
    PREFIXES,
    UNITS,
    UNSPACED,
)


class Change(IntEnum):
    """How a rewrite changes a query, from the least evidence needed to the most."""

    WORDING = 0
    """Several words differ, or some were added or dropped."""
    SPELLING = 1
    """One word was replaced by one that sounds the same."""
    WORD = 2
    """One word was replaced by another, so one thing may have been replaced by another."""
    OPPOSITE = 3
    """A number, unit, negation or direction changed, or a word was replaced by its antonym."""


_STEM: Final = 2  # letters of a word beside its prefix
_SAME: Final = 90.0  # token set ratio, 0 to 100, from which two wordings count as the same

# Vowel signs, as of Hindi, are not in \w: a word is what has no space, digit or ASCII punctuation.
_words = re.compile(r"[^\s\d!-/:-@\[-`{-~]+(?:'[^\s\d!-/:-@\[-`{-~]+)*").findall
_numerals = re.compile(f"[{''.join(NUMERALS)}]+").findall
_digits = re.compile(r"\d+(?:\.\d+)?").findall


@lru_cache(maxsize=1 << 16)
def change(query: str, other: str) -> Change:
    """Return how `other` changes `query`; both are normalised texts or interpretations.

    >>> change("turn on the light", "turn off the light").name
    'OPPOSITE'
    >>> change("call anna", "call hanna").name
    'WORD'
    >>> change("call ann", "call anne").name
    'SPELLING'
    """
    words, others = _words(query), _words(other)
    gone, come = Counter(words) - Counter(others), Counter(others) - Counter(words)
    numbers = _numbers(query)
    opposite = (
        (bool(numbers) and numbers != _numbers(other))
        or _negations(words) != _negations(others)
        or any(_are_opposites(one, two) for one in gone for two in come)
        or (not query.isascii() and any(_turned(query, other, *pair) for pair in UNSPACED))
        or (not gone and not come and words != others and not DIRECTIONS.isdisjoint(words))
    )
    if opposite:
        return Change.OPPOSITE
    replaced = [pair for pair in zip(words, others, strict=False) if pair[0] != pair[1]]
    if len(words) != len(others) or len(replaced) != 1:
        return Change.WORDING
    sounds = {metaphone(word) for word in replaced[0]}
    return Change.SPELLING if len(sounds) == 1 and "" not in sounds else Change.WORD


def same_meaning(query: str, other: str) -> bool:
    """Return whether two queries are wordings of one meaning: one has nearly all words of the other, none replaced."""
    return change(query, other) == Change.WORDING and token_set_ratio(query, other) >= _SAME


def _are_opposites(one: str, other: str) -> bool:
    if frozenset((one, other)) in ANTONYMS:
        return True
    if one[-_STEM:] == other[-_STEM:] and any(_differ_by(one, other, *pair) for pair in PREFIXES):
        return True
    unit, other_unit = UNITS.get(one), UNITS.get(other)
    return unit is not None and other_unit is not None and unit[0] == other_unit[0] and unit[1] != other_unit[1]


def _differ_by(one: str, other: str, prefix: str, another: str) -> bool:
    """Return whether two words are the same but for their prefixes."""
    return any(
        this.startswith(prefix) and len(stem := this.removeprefix(prefix)) >= _STEM and that == another + stem
        for this, that in ((one, other), (other, one))
    )


def _turned(query: str, other: str, one: str, two: str) -> bool:
    """Return whether one query has `one` where the other has `two`."""
    return ((one in query) - (two in query)) * ((one in other) - (two in other)) < 0


def _negations(words: list[str]) -> int:
    return sum(word in NEGATIONS or word.endswith("n't") for word in words)


def _value(numerals: str) -> float:
    """Return the number that Chinese numerals write."""
    total = digit = 0
    for one in numerals:
        value = NUMERALS[one]
        if value < 10:
            digit = 10 * digit + value
        else:
            total, digit = total + (digit or 1) * value, 0
    return float(total + digit)


def _numbers(text: str) -> Counter[float]:
    """Return the numbers in a text, in digits or words; twenty and five, one after the other, are 25."""
    numbers = Counter(float(one) for one in _digits(text))
    numbers.update(map(_value, _numerals(text)))
    tens = 0
    for word in _words(text):
        value = NUMBERS.get(word)
        if value is not None and tens and 0 < value < 10:
            numbers[tens] -= 1
            value += tens
        if value is not None:
            numbers[value] += 1
        tens = value if value is not None and 20 <= value < 100 and not value % 10 else 0
    return +numbers
