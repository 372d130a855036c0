"""Changes of meaning between two queries. Likeness is no evidence that queries mean the same.

"Turn on the light" and "turn off the light" look and sound alike, and are opposites. So what changes between a query
and its rewrite decides how much evidence the rewrite needs. Numbers are recognised in any script that has digits. The
words (numbers, units, negations, antonyms) are English: a change in another language counts as a replaced word at most.
"""

import re
from collections import Counter
from enum import IntEnum
from functools import lru_cache
from typing import Final

from jellyfish import metaphone
from rapidfuzz.fuzz import token_set_ratio


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


_SAME: Final = 90.0  # token set ratio, 0 to 100, from which two wordings count as the same

_words = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?").findall
_digits = re.compile(r"\d+(?:\.\d+)?").findall

# ruff: noqa: SIM905 - word lists are read more easily as text
_ONES: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS: Final = {word: value for value, word in enumerate(_ONES)} | {
    word: 20 + 10 * place for place, word in enumerate(_TENS)
}
_NUMBERS["hundred"], _NUMBERS["thousand"] = 100, 1000
_NEGATIONS: Final = frozenset("no not never none nothing without except dont neither nor cannot".split())
_DIRECTIONS: Final = frozenset("to from before after than minus into".split())
_UNITS: Final = {
    unit: (dimension, names.split()[0])
    for dimension, all_names in {
        "time": ("second seconds sec secs", "minute minutes min mins", "hour hours hr hrs", "day days", "week weeks"),
        "date": ("month months", "year years"),
        "temperature": ("celsius centigrade", "fahrenheit"),
        "length": ("meter meters metre metres", "kilometer kilometers kilometre km", "mile miles", "foot feet", "inch"),
        "weight": ("gram grams", "kilogram kilograms kilo kilos kg", "pound pounds lb lbs", "ounce ounces oz"),
        "money": ("dollar dollars", "euro euros", "yen", "franc francs", "cent cents"),
        "share": ("percent", "degree degrees"),
    }.items()
    for names in all_names
    for unit in names.split()
}
_ANTONYMS: Final = frozenset(
    frozenset(pair.split("/"))
    for pair in (
        "on/off up/down left/right in/out inside/outside open/close opened/closed opening/closing start/stop "
        "play/stop play/pause start/end begin/end add/remove add/delete increase/decrease raise/lower "
        "louder/quieter louder/softer warmer/cooler warmer/colder hotter/colder hot/cold warm/cool "
        "brighter/dimmer brighter/darker bright/dim light/dark more/less most/least higher/lower high/low "
        "highest/lowest faster/slower fast/slow cheap/expensive cheapest/expensive north/south east/west "
        "northern/southern eastern/western first/last next/previous forward/back forward/backward "
        "forwards/backwards before/after today/tomorrow today/yesterday tomorrow/yesterday morning/evening "
        "morning/night morning/afternoon day/night am/pm early/late earlier/later earliest/latest new/old "
        "newest/oldest arrive/leave arrive/depart arrival/departure arrivals/departures buy/sell send/receive "
        "accept/decline accept/reject allow/block enter/exit enter/leave push/pull win/lose best/worst good/bad "
        "big/small bigger/smaller large/small long/short longer/shorter show/hide save/delete keep/delete "
        "true/false yes/no with/without always/never to/from over/under above/below private/public male/female "
        "husband/wife mother/father mum/dad mom/dad son/daughter brother/sister "
    ).split()
)
_PREFIXES: Final = ("un", "dis")


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
        or (not gone and not come and words != others and not _DIRECTIONS.isdisjoint(words))
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
    if frozenset((one, other)) in _ANTONYMS or any(one == p + other or other == p + one for p in _PREFIXES):
        return True
    unit, other_unit = _UNITS.get(one), _UNITS.get(other)
    return unit is not None and other_unit is not None and unit[0] == other_unit[0] and unit[1] != other_unit[1]


def _negations(words: list[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith("n't") for word in words)


def _numbers(text: str) -> Counter[float]:
    """Return the numbers in a text, in digits or words; twenty and five, one after the other, are 25."""
    numbers = Counter(float(one) for one in _digits(text))
    tens = 0
    for word in _words(text):
        value = _NUMBERS.get(word)
        if value is not None and tens and 0 < value < 10:
            numbers[tens] -= 1
            value += tens
        if value is not None:
            numbers[value] += 1
        tens = value if value is not None and 20 <= value < 100 and not value % 10 else 0
    return +numbers
