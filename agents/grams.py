"""Inverted lists: for each key of some texts, such as a trigram of characters, the texts that have it.

And the growth of an index of queries that is made of them.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import ALL

_GROWTH: Final = 2
_SMALL: Final = 1_000  # queries; a part with fewer is merged with any other, because to look into a part takes time


class Part(Protocol):
    """A part of an index, which never changes."""

    @property
    def queries(self) -> list[str]:
        """Its queries."""


_P = TypeVar("_P", bound=Part)


def grown(
    parts: Sequence[_P], added: Iterable[str], known: Container[str], make: Callable[[list[str]], _P]
) -> tuple[_P, ...]:
    """Return the parts of an index with some queries added.

    Added queries become a new part, merged with the preceding parts that are not much larger. So there are few parts,
    and over many versions adding a query costs the logarithm of the number of queries.

    Args:
        parts: the parts so far.
        added: queries that are not in the index yet.
        known: the queries that are known now. Others are dropped when parts are merged.
        make: makes a part.
    """
    fresh = dict.fromkeys(query for query in added if query != ALL)
    kept = [*parts]
    while fresh and kept and len(kept[-1].queries) <= max(_GROWTH * len(fresh), _SMALL):
        fresh |= dict.fromkeys(query for query in kept.pop().queries if query in known)
    return (*kept, make(list(fresh))) if fresh else (*parts,)


class InvertedLists:
    """The ascending numbers of the texts that hit each bucket of keys.

    Args:
        batches: the keys of batches of texts: the bucket in the upper half, the text's number in the lower, (n,) each.
            A text may hit a bucket more than once.
        buckets: the number of buckets.
        most: at least the number of keys in all batches.
    """

    def __init__(self, batches: Iterable[NDArray[np.uint64]], buckets: int, most: int) -> None:
        entries = np.empty(most, np.uint64)  # all at once, because joining the batches would take twice the memory
        filled = 0
        for some in batches:
            entries[filled : filled + len(some)] = some
            filled += len(some)
        entries = entries[:filled]
        entries.sort()
        entries = entries[np.append(True, entries[1:] != entries[:-1])[: len(entries)]]
        self.numbers: Final = entries.astype(np.uint32)
        self._begins: Final = np.searchsorted(entries >> np.uint64(32), np.arange(buckets + 1)).astype(np.uint32)

    @property
    def nbytes(self) -> int:
        """The memory that the lists take, in bytes."""
        return int(self.numbers.nbytes + self._begins.nbytes)

    def of(self, bucket: int) -> NDArray[np.uint32]:
        """Return the numbers of the texts that hit a bucket, ascending, (n,)."""
        numbers: NDArray[np.uint32] = self.numbers[self._begins[bucket] : self._begins[bucket + 1]]
        return numbers

    def shortest(self, buckets: NDArray[np.uint32], most: int) -> NDArray[np.uint32]:
        """Return a copy of the shortest lists of `buckets`, (n,), joined, as many as fit into `most` numbers."""
        begins, ends = self._begins[buckets], self._begins[buckets + np.uint32(1)]
        order = np.argsort(ends - begins, kind="stable")
        begins, ends = begins[order], ends[order]
        read = int(np.searchsorted(np.cumsum(ends - begins, dtype=np.int64), most, side="right"))
        lists = [self.numbers[a:b] for a, b in zip(begins[:read].tolist(), ends[:read].tolist(), strict=True)]
        return np.concatenate((*lists, self.numbers[:0]))

    def count(self, bucket: int) -> int:
        """Return the number of texts that hit a bucket."""
        return int(self._begins[bucket + 1]) - int(self._begins[bucket])


def trigram(before: int, middle: int, after: int) -> int:
    """Return the 16-bit hash of a trigram of characters, as `trigrams` does."""
    return (((before * 0x9E3779B1 + middle) * 0x85EBCA77 + after) * 0xC2B2AE3D & 0xFFFFFFFF) >> 16


def trigrams(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Return the 16-bit hash and the text of each trigram within a word, with the spaces around it, both (n,)."""
    joined = " ".join(("", *texts, ""))
    characters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    owners = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])[:-1]
    before, middle, after = characters[:-2], characters[1:-1], characters[2:]
    buckets = ((before * 0x9E3779B1 + middle) * 0x85EBCA77 + after) * 0xC2B2AE3D >> 16
    within = middle != ord(" ")
    return buckets[within], owners[within]
