"""Queries near a query: in their characters, or in how they sound.

Keys are character trigrams within words, trigrams of the sound (the Metaphone codes of the words, joined, so that
"a lexa" sounds like "alexa"), and whole words. Each key has a list of the queries that have it. Candidates are the
queries that share most keys in relation to their size (Dice's coefficient), counted over the shortest lists. The lists
of words also say how rare a word is.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
from jellyfish import metaphone
from numpy.typing import NDArray

from backchannel.agents.grams import InvertedLists, grown, trigrams

_KINDS: Final = 3  # characters, sounds, words: 65,536 buckets each
_BUCKETS: Final = _KINDS << 16
_READ: Final = 12_000  # list entries read per part, the shortest lists first
_BATCH: Final = 20_000  # queries whose keys are in memory at once


class Nearby:
    """An immutable index of queries, which shares its parts with the next version's; see `grams.grown`."""

    def __init__(self) -> None:
        self._parts: tuple[_Part, ...] = ()

    @property
    def size(self) -> int:
        """The number of queries, some of which may not be known any more."""
        return sum(len(part.queries) for part in self._parts)

    @property
    def nbytes(self) -> int:
        """The memory that the index takes besides the queries themselves, in bytes."""
        return sum(part.nbytes for part in self._parts)

    def updated(self, added: Iterable[str], known: Container[str]) -> "Nearby":
        """Return the index with some queries added.

        Args:
            added: queries that are not in the index yet.
            known: the queries that are known now. Others are dropped when parts are merged.
        """
        nearby = Nearby()
        nearby._parts = grown(self._parts, added, known, _Part)
        return nearby

    def candidates(self, query: str, most: int) -> list[str]:
        """Return at most `most` other queries that are nearest to `query`, nearest first."""
        keys = np.unique(_keys([query])[0])
        found = [pair for part in self._parts for pair in part.nearest(keys, most + 1)]
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        return [other for _, other in found if other != query][:most]

    def count(self, word: str) -> int:
        """Return the number of queries that have a word; rarely more, because words share buckets."""
        bucket = _word(word)
        return sum(part.lists.count(bucket) for part in self._parts)


class _Part:
    def __init__(self, queries: list[str]) -> None:
        queries.sort()
        self.queries: Final = queries
        self.lists: Final = InvertedLists(_entries(queries), _BUCKETS, 3 * sum(map(len, queries)) + len(queries))
        self._sizes: Final = np.bincount(self.lists.numbers, minlength=len(queries)).astype(np.uint16)

    @property
    def nbytes(self) -> int:
        return 8 * len(self.queries) + self.lists.nbytes + int(self._sizes.nbytes)

    def nearest(self, keys: NDArray[np.uint32], most: int) -> Iterator[tuple[float, str]]:
        """Yield the queries that share most of `keys`, (n,), and how near they are, 0 to 1."""
        lists = sorted((self.lists.of(key) for key in keys.tolist()), key=len)
        read = int(np.searchsorted(np.cumsum([len(one) for one in lists]), _READ, side="right"))
        if not read:
            return
        numbers, shared = np.unique(np.concatenate(lists[:read]), return_counts=True)
        near = 2.0 * shared / (self._sizes[numbers] + len(keys))
        if len(near) > most:
            top = np.argpartition(-near, most)[:most]
            numbers, near = numbers[top], near[top]
        for number, one in zip(numbers.tolist(), near.tolist(), strict=True):
            yield one, self.queries[number]


@lru_cache(maxsize=1 << 16)
def sound(word: str) -> str:
    """Return the Metaphone code of a word, without spaces; empty if it has no Latin letters."""
    return metaphone(word).replace(" ", "")


def sound_of(query: str) -> str:
    """Return the sound of a query: the codes of its words, joined."""
    return "".join(map(sound, query.split()))


def _word(word: str) -> int:
    return (2 << 16) + (crc32(word.encode("utf-8", "surrogatepass")) * 0x9E3779B1 % 2**32 >> 16)


def _entries(queries: Sequence[str]) -> Iterator[NDArray[np.uint64]]:
    for first in range(0, len(queries), _BATCH):
        keys, owners = _keys(queries[first : first + _BATCH])
        yield (keys.astype(np.uint64) << np.uint64(32)) | (owners + first).astype(np.uint64)


def _keys(queries: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Return the bucket and the query of each key, both (n,)."""
    characters, first = trigrams(queries)
    sounds, second = trigrams([sound_of(query) for query in queries])
    split = [query.split() for query in queries]
    words = np.array([_word(word) for some in split for word in some], np.uint32)
    third = np.repeat(np.arange(len(queries)), [len(some) for some in split])
    return np.concatenate((characters, sounds + np.uint32(1 << 16), words)), np.concatenate((first, second, third))
