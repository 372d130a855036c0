"""The odds that a query should have been another one that succeeds: the ranker of online rewrites.

A pair of queries is described by a few numbers, each cut into bins; the score is the sum of a weight per bin.
Habits of the user who asks have a model of their own, with more numbers. `backchannel rephrases online --write` fits
the weights, and writes them to `likeness_weights`; those of everybody's queries are fitted anew to the evidence when a
version is published (see `training`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import log, log1p
from types import MappingProxyType
from typing import Final, TypeAlias

from msgspec import Struct
from rapidfuzz import process
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import ratio, token_sort_ratio

from backchannel.agents.rewrites.nearby import sound, sound_of

CANDIDATES: Final = 16  # compared with a query
_HABITS: Final = 8  # of a user, compared with a query
HYPOTHESIS: Final = "hypothesis"
NAMES: Final = (
    "characters",
    "sorted words",
    "sounds",
    "lost",
    "gained",
    "success",
    "failure",
    "target success",
    "target failure",
    HYPOTHESIS,
)
"""The numbers that describe a pair, in the order of `Asked.describe`."""
HABIT_NAMES: Final = (
    *NAMES,
    "own success",
    "own failure",
    "lead",
    "replaced sounds",
    "unknown",
    "words",
)
"""The numbers that describe a pair of a query and a habit of the user, in the order of `Asked.describe_habit`."""

Numbers: TypeAlias = tuple[float, ...]


class Record(Struct, frozen=True):
    """How often a query succeeded and failed, in turns (decayed)."""

    success: float = 0.0
    failure: float = 0.0


class Asked:
    """A query, with what is needed to compare it with others.

    Args:
        query: a normalised query.
        record: its own record.
        count: a function that returns how many known queries have a word.
        size: the number of known queries.
        hypotheses: what the recogniser may have heard; see `hypotheses.heard`.
    """

    def __init__(
        self,
        query: str,
        record: Record,
        count: Callable[[str], int],
        size: int,
        hypotheses: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.query: Final = query
        self._record: Final = record
        self._sound: Final = sound_of(query)
        self._count: Final = count
        self._size: Final = size
        self._hypotheses: Final = hypotheses
        self._split: Final = query.split()
        self._unknown: Final = sum(not count(word) for word in self._split) / max(len(self._split), 1)
        self._gained: Final[dict[str, float]] = {}
        self._rarities: Final = {word: self._rarity(word) for word in self._split}
        self._total: Final = sum(self._rarities.values()) or 1.0

    def describe(self, target: str, record: Record) -> Numbers:
        """Return the numbers of `NAMES` for a target.

        Likenesses are 0 to 1. "lost" and "gained" are the rarities (inverse document frequencies) of the words that
        only the query or only the target has, over that of all words of the query. "hypothesis" is how likely
        the recogniser heard the target, over what it most likely heard: 0 if it is no hypothesis, and -1 without any.

        Args:
            target: a normalised query.
            record: the target's record.
        """
        split, gained = dict.fromkeys(target.split()), 0.0
        for word in split:
            if word not in self._rarities:
                if word not in self._gained:
                    self._gained[word] = self._rarity(word)
                gained += self._gained[word]
        lost = sum(rarity for word, rarity in self._rarities.items() if word not in split)
        return (
            ratio(self.query, target) / 100,
            token_sort_ratio(self.query, target) / 100,
            Indel.normalized_similarity(self._sound, sound_of(target)),
            lost / self._total,
            gained / self._total,
            self._record.success,
            self._record.failure,
            log1p(record.success),
            record.failure / (record.success + record.failure + 1.0),
            self._hypotheses.get(target, 0.0) if self._hypotheses else -1.0,
        )

    def describe_habit(self, target: str, record: Record, own: Record, lead: float) -> Numbers:
        """Return the numbers of `HABIT_NAMES` for a target, a habit of the user who asks.

        "replaced sounds" is the likeness of how those words sound that only the query or only the target has, and
        "unknown" the share of the query's words that no known query has.

        Args:
            target: a normalised query.
            record: the target's record.
            own: the target's record with the user.
            lead: the likeness of the target's characters, less the highest of another habit, -1 to 1.
        """
        split = target.split()
        gone = "".join(sound(word) for word in self._split if word not in split)
        come = "".join(sound(word) for word in split if word not in self._rarities)
        return (
            *self.describe(target, record),
            log1p(own.success),
            own.failure,
            lead,
            Indel.normalized_similarity(gone, come),
            self._unknown,
            float(len(self._split)),
        )

    def _rarity(self, word: str) -> float:
        return log((self._size + 1) / (self._count(word) + 0.5))


def nearest_habits(query: str, habits: Collection[str], hypotheses: Iterable[str] = ()) -> list[tuple[str, float]]:
    """Return the habits whose characters are most like a query's, and the lead of each; see `Asked.describe_habit`.

    Habits that are `hypotheses` of the recogniser are among them, however unlike they are.
    """
    found = process.extract(query, list(habits), scorer=ratio, limit=_HABITS)
    first, second = [*(likeness for _, likeness, _ in found[:2]), 0.0, 0.0][:2]
    leads = {
        target: (likeness - (first if place else second)) / 100 for place, (target, likeness, _) in enumerate(found)
    }
    for one in hypotheses:
        if one in habits and one not in leads:
            leads[one] = (ratio(query, one) - first) / 100
    return list(leads.items())
