"""The odds that a query should have been another one that succeeds: the ranker of online rewrites.

A pair of queries is described by a few numbers, each cut into bins; the score is the sum of a weight per bin.
`backchannel rephrases online --write` fits the weights, and writes them to `likeness_weights`.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log, log1p
from typing import Final

from msgspec import Struct
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import ratio, token_sort_ratio

from backchannel.agents.rewrites.nearby import sound_of

CANDIDATES: Final = 16  # compared with a query
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
)
"""The numbers that describe a pair, in the order of `Asked.describe`."""


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
    """

    def __init__(self, query: str, record: Record, count: Callable[[str], int], size: int) -> None:
        self._query: Final = query
        self._record: Final = record
        self._sound: Final = sound_of(query)
        self._count: Final = count
        self._size: Final = size
        self._words: Final = set(query.split())
        self._rarities: Final[dict[str, float]] = {}
        self._total: Final = self._rarity(self._words) or 1.0

    def describe(self, target: str, record: Record) -> tuple[float, ...]:
        """Return the numbers of `NAMES` for a target.

        Likenesses are 0 to 1. "lost" and "gained" are the rarities (inverse document frequencies) of the words that
        only the query or only the target has, over that of all words of the query.

        Args:
            target: a normalised query.
            record: the target's record.
        """
        words = set(target.split())
        return (
            ratio(self._query, target) / 100,
            token_sort_ratio(self._query, target) / 100,
            Indel.normalized_similarity(self._sound, sound_of(target)),
            self._rarity(self._words - words) / self._total,
            self._rarity(words - self._words) / self._total,
            self._record.success,
            self._record.failure,
            log1p(record.success),
            record.failure / (record.success + record.failure + 1.0),
        )

    def _rarity(self, words: Iterable[str]) -> float:
        total = 0.0
        for word in sorted(words):  # sums of floats depend on their order
            if word not in self._rarities:
                self._rarities[word] = log((self._size + 1) / (self._count(word) + 0.5))
            total += self._rarities[word]
        return total


class Scorer(Struct, frozen=True):
    """Weights per bin.

    Attributes:
        constant: the score of a pair before any of them is added.
        edges: the inner edges of each number's bins, ascending.
        weights: the weight of each bin, one more than edges.
    """

    constant: float
    edges: Mapping[str, Sequence[float]]
    weights: Mapping[str, Sequence[float]]

    def score(self, numbers: Sequence[float]) -> float:
        """Return the score of a pair described by `numbers`: the higher, the better the odds of a win."""
        total = self.constant
        for name, number in zip(NAMES, numbers, strict=True):
            total += self.weights[name][bisect_right(self.edges[name], number)]
        return total
