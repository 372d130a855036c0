"""What tells whether a query should have been one of the habits of the user who asks.

Among a few habits, the nearest one may be anything, so likeness alone says little: what helps is how much nearer it is
than the next one, and whether it has in common with the query what the NLU heard. A pair is described by numbers as in
`likeness`, but nothing here depends on other people: how rare words are is counted among the habits themselves.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import log1p
from typing import Final

from rapidfuzz import process
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import ratio

from backchannel.agents.labelled.kinds import acts_of, parts_of
from backchannel.agents.rewrites.likeness import Asked, Numbers, Record
from backchannel.agents.rewrites.nearby import sound
from backchannel.agents.rewrites.rows import Habit

NAMES: Final = (
    "characters",
    "sounds",
    "sorted words",
    "lost",
    "gained",
    "own success",
    "own failure",
    "lead",
    "replaced sounds",
    "unknown",
    "words",
    "intent",
    "slots",
    "values",
    "lead in meaning",
)
"""The numbers that describe a pair of a query and a habit, in the order of `described`."""
_NEAREST: Final = 8  # habits that are compared with a query
_UNKNOWN: Final = -1.0


def described(query: str, form: str, habits: Mapping[str, Habit]) -> Iterator[tuple[str, Numbers]]:
    """Yield the habits nearest to a query, nearest first, with the numbers of `NAMES` for each.

    Queries with interpretations are compared with habits that have one, others with habits that have none. A habit of
    the same interpretation is left out, as it would change nothing.

    The first five are those of `likeness`. "own" are the habit's turns. "lead" is the likeness of the habit's
    characters, less the highest of another habit, -1 to 1. "replaced sounds" is the likeness of how those words sound
    that only the query or only the habit has, and "unknown" the share of the query's words that no habit has. "intent",
    "slots" and "values" say how much of each both interpretations have in common, 0 to 1 (Dice's coefficient), or -1 if
    neither has any; "lead in meaning" is the sum of the three, less the highest of another habit, -3 to 3.

    Args:
        query: a normalised text.
        form: its interpretation; empty without one.
        habits: habits of the user, by normalised text; without the query itself.
    """
    alike = {text: habit for text, habit in habits.items() if bool(habit.form) == bool(form)}
    known = Counter(word for text in alike for word in set(text.split()))
    asked = Asked(query, Record(), known.__getitem__, len(alike))
    words = query.split()
    unknown = sum(word not in known for word in words) / max(len(words), 1)
    found = process.extract(query, list(alike), scorer=ratio, limit=_NEAREST)
    nearest = [*(likeness / 100 for _, likeness, _ in found[:2]), 0.0][:2]
    common = {text: _common(form, habit.form) for text, habit in alike.items()}
    meant = {text: sum(max(one, 0.0) for one in some) for text, some in common.items()}
    best = [*sorted(meant.values(), reverse=True), 0.0][:2]

    def numbers(text: str, lead: float) -> Numbers:
        yield from asked.likenesses(text)
        yield log1p(alike[text].success)
        yield alike[text].failure
        yield lead
        split = text.split()
        gone = "".join(sound(word) for word in words if word not in split)
        come = "".join(sound(word) for word in split if word not in words)
        yield Indel.normalized_similarity(gone, come)
        yield unknown
        yield float(len(words))
        yield from common[text]
        yield meant[text] - best[meant[text] == best[0]]

    for place, (text, likeness, _) in enumerate(found):
        if not form or alike[text].form != form:
            yield text, numbers(text, likeness / 100 - nearest[not place])


def _common(form: str, other: str) -> tuple[float, float, float]:
    (intents, slots, values), (others, other_slots, other_values) = _parts(form), _parts(other)
    if not form:
        return _UNKNOWN, _UNKNOWN, _UNKNOWN
    return float(intents == others), _dice(slots, other_slots), _dice(values, other_values)


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    size = len(one) + len(other)
    return 2 * len(one & other) / size if size else _UNKNOWN


@lru_cache(maxsize=1 << 14)
def _parts(form: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the intents of an interpretation, its slots, and their values."""
    pairs = [part.partition("=") for part in parts_of(form) if "=" in part]
    slots, values = frozenset(slot for slot, _, _ in pairs), frozenset(value for _, _, value in pairs)
    return frozenset(acts_of(form)), slots, values
