"""Which known query an unseen one is most like: for typing and hearing errors, and words in another order.

The similarity of two queries is RapidFuzz's `token_sort_ratio` over 100: with their words sorted, 1 less the insertions
and deletions that turn one into the other, over the characters of both. Which queries to compare is found by the
trigrams of characters within words, which neither the order of words nor an error elsewhere touches. Each trigram has
the list of the queries that have it, and queries are numbered by length; so those of a length that can be similar
enough are one stretch of every list (as in Bayardo, Ma & Srikant, "Scaling up all pairs similarity search", WWW 2007),
and those that share most trigrams are compared.

That is no exhaustive search: among a million queries it may miss one whose trigrams all are very common. `backchannel
bench memory-index` says how often.
"""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from backchannel.agents.memory.serving import Guess
from backchannel.agents.sums import ALL

_COMPARED: Final = 100  # of each part
_READ: Final = 50_000  # entries of lists, from the shortest one on: what takes half a millisecond
_BUCKETS: Final = 1 << 16  # that trigrams are hashed into; who shares one by chance is compared in vain
_BATCH: Final = 20_000  # queries whose characters are in memory at once
_LONGEST: Final = 65_535  # characters, as lengths are told apart
_GROWTH: Final = 2
_numbers: Final = re.compile(r"\d+").findall


class SimilarQueries:
    """Known queries, and how to find the one that is most like another. Immutable, and shares its parts with the next.

    A part is made at once and never changed. What is added becomes a part together with those before it that are not
    much larger. So there are few, and over many versions an added query costs the logarithm of their number.

    Args:
        least: similarity of what is found, 0.5 to 1.

    Raises:
        ValueError: `least` is not within these bounds.
    """

    def __init__(self, least: float) -> None:
        if not 0.5 <= least <= 1:
            raise ValueError(f"a similarity of {least} to guess from: it must be at least 0.5 and at most 1")
        self.least: Final = least
        self._parts: tuple[_Part, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes beside the queries themselves."""
        return sum(part.nbytes for part in self._parts)

    def updated(self, added: Iterable[str], known: Container[str]) -> "SimilarQueries":
        """Return the same with some queries added.

        Args:
            added: that were not there before.
            known: which queries are known now. The others are left out when parts are made anew.
        """
        fresh = dict.fromkeys(query for query in added if query != ALL)
        parts = [*self._parts]
        while fresh and parts and len(parts[-1].queries) <= _GROWTH * len(fresh):
            fresh |= dict.fromkeys(query for query in parts.pop().queries if query in known)
        similar = SimilarQueries(self.least)
        similar._parts = (*parts, _Part(list(fresh))) if fresh else self._parts
        return similar

    def nearest(self, query: str, known: Container[str]) -> Guess | None:
        """Return the query that `query` is most like, if it is so by `least` and has the same numbers in digits.

        Args:
            query: normalised.
            known: which queries are known; no other is returned.
        """
        trigrams, numbers = np.unique(_trigrams([query])[0]), sorted(_numbers(query))
        shortest, longest = len(query) * self.least / (2 - self.least), len(query) * (2 - self.least) / self.least
        candidates = {
            one
            for part in self._parts
            for one in part.sharing(trigrams, int(shortest), int(longest) + 1)
            if one in known and sorted(_numbers(one)) == numbers
        }
        # Sorted, so that of several that are alike it is the same one everywhere.
        found = process.extractOne(
            query, sorted(candidates), scorer=fuzz.token_sort_ratio, score_cutoff=100 * self.least
        )
        return Guess(found[0], found[1] / 100) if found else None


class _Part:
    """Some queries, numbered by length, and for each bucket of trigrams the numbers of those that have one, rising."""

    def __init__(self, queries: list[str]) -> None:
        queries.sort(key=len)
        self.queries: Final = queries
        self._lengths: Final = np.array([min(len(query), _LONGEST) for query in queries], np.uint16)
        entries = np.empty(sum(len(query) - query.count(" ") for query in queries), np.uint64)
        filled = 0
        for some in _entries(queries):
            entries[filled : filled + len(some)] = some
            filled += len(some)
        entries.sort()
        entries = entries[np.append(True, entries[1:] != entries[:-1])]
        self._numbers: Final = entries.astype(np.uint32)
        self._begins: Final = np.searchsorted(entries >> 32, np.arange(_BUCKETS + 1)).astype(np.uint32)

    @property
    def nbytes(self) -> int:
        return 8 * len(self.queries) + int(self._numbers.nbytes + self._begins.nbytes + self._lengths.nbytes)

    def sharing(self, trigrams: NDArray[np.uint32], shortest: int, longest: int) -> Iterator[str]:
        """Yield those of a length that share most trigrams."""
        lengths = np.array((shortest, longest + 1)).clip(max=_LONGEST).astype(np.uint16)
        bounds = np.searchsorted(self._lengths, lengths).astype(np.uint32)
        lists = [self._numbers[self._begins[bucket] : self._begins[bucket + 1]] for bucket in trigrams.tolist()]
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
    """Yield the trigrams of the queries: the bucket, and in the lower half the number of the query."""
    for first in range(0, len(queries), _BATCH):
        buckets, owners = _trigrams(queries[first : first + _BATCH])
        yield (buckets.astype(np.uint64) << np.uint64(32)) | (owners + first).astype(np.uint64)


def _trigrams(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """The buckets of all trigrams within words, which begin and end in a space, and which of the texts has them."""
    joined = " ".join(("", *texts, ""))
    characters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    owners = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])[:-1]
    before, middle, after = characters[:-2], characters[1:-1], characters[2:]
    buckets = ((before * 0x9E3779B1 + middle) * 0x85EBCA77 + after) * 0xC2B2AE3D >> 16
    within = middle != ord(" ")
    return buckets[within], owners[within]
