"""The known query most similar to an unseen one, despite typing errors, hearing errors and another order of words.

The similarity of two queries is RapidFuzz's `token_sort_ratio` over 100: with their words sorted, 1 minus the number of
insertions and deletions that turn one into the other, divided by the characters of both. Candidates are found by
character trigrams within words, which neither the order of words nor an error elsewhere changes. Each trigram has a
list of the queries that contain it. Queries are numbered by length, so those whose length allows the required
similarity are one stretch of every list (as in Bayardo, Ma & Srikant, "Scaling up all pairs similarity search", WWW
2007). The candidates that share most trigrams are compared.

The search is not exhaustive: among a million queries it may miss one whose trigrams are all very common. `backchannel
bench memory-index` measures how often.
"""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from backchannel.agents.grams import InvertedLists, grown, trigrams
from backchannel.agents.memory.serving import Guess

_COMPARED: Final = 100  # candidates compared per part
_READ: Final = 50_000  # list entries read per part, shortest lists first: about half a millisecond
_BUCKETS: Final = 1 << 16  # hash buckets of trigrams; a collision costs a comparison in vain
_BATCH: Final = 20_000  # queries whose characters are in memory at once
_LONGEST: Final = 65_535  # characters; longer queries count as this long
_numbers: Final = re.compile(r"\d+").findall


class SimilarQueries:
    """An immutable index of known queries, which shares its parts with the next version's.

    See `grams.grown`.

    Args:
        least: the least similarity of a match, 0.5 to 1.

    Raises:
        ValueError: `least` is out of range.
    """

    def __init__(self, least: float) -> None:
        if not 0.5 <= least <= 1:
            raise ValueError(f"a similarity of {least} to guess from: it must be at least 0.5 and at most 1")
        self.least: Final = least
        self._parts: tuple[_Part, ...] = ()

    @property
    def nbytes(self) -> int:
        """The memory that the index takes besides the queries themselves, in bytes."""
        return sum(part.nbytes for part in self._parts)

    def updated(self, added: Iterable[str], known: Container[str]) -> "SimilarQueries":
        """Return the index with some queries added.

        Args:
            added: queries that are not in the index yet.
            known: the queries that are known now. Others are dropped when parts are merged.
        """
        similar = SimilarQueries(self.least)
        similar._parts = grown(self._parts, added, known, _Part)
        return similar

    def nearest(self, query: str, known: Container[str]) -> Guess | None:
        """Return the known query most similar to `query`; None if none is similar enough.

        A match has the same numbers, as digits.

        Args:
            query: a normalised query.
            known: the queries that are known; no other is returned.
        """
        grams, numbers = np.unique(trigrams([query])[0]), sorted(_numbers(query))
        shortest, longest = len(query) * self.least / (2 - self.least), len(query) * (2 - self.least) / self.least
        candidates = {
            one
            for part in self._parts
            for one in part.sharing(grams, int(shortest), int(longest) + 1)
            if one in known and sorted(_numbers(one)) == numbers
        }
        # Sorted, so that a tie is broken the same way everywhere.
        found = process.extractOne(
            query, sorted(candidates), scorer=fuzz.token_sort_ratio, score_cutoff=100 * self.least
        )
        return Guess(found[0], found[1] / 100) if found else None


class _Part:
    """Queries numbered by length, and for each bucket of trigrams the ascending numbers of the queries that hit it."""

    def __init__(self, queries: list[str]) -> None:
        queries.sort(key=len)
        self.queries: Final = queries
        self._lengths: Final = np.array([min(len(query), _LONGEST) for query in queries], np.uint16)
        self._lists: Final = InvertedLists(_entries(queries), _BUCKETS, sum(map(len, queries)))

    @property
    def nbytes(self) -> int:
        return 8 * len(self.queries) + self._lists.nbytes + int(self._lengths.nbytes)

    def sharing(self, grams: NDArray[np.uint32], shortest: int, longest: int) -> Iterator[str]:
        """Yield the queries that share most trigrams.

        Args:
            grams: the distinct buckets of the query's trigrams, (n,).
            shortest: the least length, in characters.
            longest: the greatest length, in characters.
        """
        lengths = np.array((shortest, longest + 1)).clip(max=_LONGEST).astype(np.uint16)
        bounds = np.searchsorted(self._lengths, lengths).astype(np.uint32)
        lists = [self._lists.of(bucket) for bucket in grams.tolist()]
        lists = [one[slice(*np.searchsorted(one, bounds))] for one in lists]
        lists.sort(key=len)
        read = np.searchsorted(np.cumsum([len(one) for one in lists]), _READ, side="right")
        if not read:
            return
        numbers, shared = np.unique(np.concatenate(lists[:read]), return_counts=True)
        if len(numbers) > _COMPARED:
            numbers = numbers[np.argpartition(-shared, _COMPARED)[:_COMPARED]]
        yield from map(self.queries.__getitem__, numbers.tolist())


def _entries(queries: Sequence[str]) -> Iterator[NDArray[np.uint64]]:
    """Yield the trigrams of batches of queries, (n,): the bucket in the upper half, the query's number in the lower."""
    for first in range(0, len(queries), _BATCH):
        buckets, owners = trigrams(queries[first : first + _BATCH])
        yield (buckets.astype(np.uint64) << np.uint64(32)) | (owners + first).astype(np.uint64)
