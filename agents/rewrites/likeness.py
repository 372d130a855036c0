"""The odds that a query should have been another one that succeeds: the ranker of online rewrites.

A pair of queries is described by a few numbers, each cut into bins; the score is the sum of a weight per bin.
`backchannel rephrases online --write` fits the weights, and writes them to `likeness_weights`; they are fitted anew to
the evidence when a version is published (see `training`). Habits have a model of their own (see `habitual`).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import log, log1p
from types import MappingProxyType
from typing import Final, TypeAlias

from msgspec import Struct
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import ratio, token_sort_ratio

from backchannel.agents.rewrites.nearby import sound_of

CANDIDATES: Final = 16  # compared with a query
HYPOTHESIS: Final = "hypothesis"
NAMES: Final = (
    "success",
    "failure",
    "target success",
    "target failure",
    HYPOTHESIS,
    "characters",
    "sounds",
    "sorted words",
    "lost",
    "gained",
)
"""The numbers that describe a pair, in the order of `Asked.describe`: first those that take least time and decide most
pairs, see `Ranker.score`."""
Numbers: TypeAlias = Iterator[float]


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
        self._gained: Final[dict[str, float]] = {}

    @cached_property
    def _rarities(self) -> dict[str, float]:
        return {word: self._rarity(word) for word in self._split}

    @cached_property
    def _total(self) -> float:
        return sum(self._rarities.values()) or 1.0

    def describe(self, target: str, record: Record) -> Numbers:
        """Yield the numbers of `NAMES` for a target.

        Likenesses are 0 to 1. "lost" and "gained" are the rarities (inverse document frequencies) of the words that
        only the query or only the target has, over that of all words of the query. "hypothesis" is how likely
        the recogniser heard the target, over what it most likely heard: 0 if it is no hypothesis, and -1 without any.

        Args:
            target: a normalised query.
            record: the target's record.
        """
        yield self._record.success
        yield self._record.failure
        yield log1p(record.success)
        yield record.failure / (record.success + record.failure + 1.0)
        yield self._hypotheses.get(target, 0.0) if self._hypotheses else -1.0
        yield from self.likenesses(target)

    def likenesses(self, target: str) -> Numbers:
        """Yield the last five numbers of `NAMES`, which depend on nothing but the texts."""
        yield ratio(self.query, target) / 100
        yield Indel.normalized_similarity(self._sound, sound_of(target))
        yield token_sort_ratio(self.query, target) / 100
        split, gained = dict.fromkeys(target.split()), 0.0
        yield sum(rarity for word, rarity in self._rarities.items() if word not in split) / self._total
        for word in split:
            if word not in self._rarities:
                if word not in self._gained:
                    self._gained[word] = self._rarity(word)
                gained += self._gained[word]
        yield gained / self._total

    def _rarity(self, word: str) -> float:
        return log((self._size + 1) / (self._count(word) + 0.5))
