"""Queries near a query: in their characters, or in how they sound.

Keys are character trigrams within words, trigrams of the sound (the Metaphone codes of the words, joined, so that
"a lexa" sounds like "alexa"), whole words, and pairs of words at most one word apart. Each key has a list of the
queries that have it. Candidates are the queries that share most keys in relation to their size (Dice's coefficient),
counted over the shortest lists: an error makes rare trigrams, whose lists say nothing, but most pairs of words survive
it, and their lists are short. The lists of words also say how rare a word is.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
from jellyfish import metaphone
from numpy.typing import NDArray

from backchannel.agents.grams import InvertedLists, grown, trigram, trigrams

_SOUNDS, _WORDS, _PAIRS = (1 << 16), (2 << 16), (3 << 16)  # the first bucket of each kind of key, after the characters'
_PAIR_BITS: Final = 18  # there are more pairs of words than other keys
_BUCKETS: Final = _PAIRS + (1 << _PAIR_BITS)
_READ: Final = 4_000  # list entries read per part, the shortest lists first
_BATCH: Final = 20_000  # queries whose keys are in memory at once


class Nearby:
    """An immutable index of queries, which shares its parts with the next version's; see `grams.grown`."""

    def __init__(self) -> None:
        self._parts: tuple[_Part, ...] = ()
        self._counts: Final = lru_cache(maxsize=1 << 16)(self._count)  # words come again

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
        keys = np.array(sorted(set(_keys_of(query))), np.uint32)
        found = [pair for part in self._parts for pair in part.nearest(keys, most + 1)]
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        return [other for _, other in found if other != query][:most]

    def count(self, word: str) -> int:
        """Return the number of queries that have a word; rarely more, because words share buckets."""
        return self._counts(word)

    def _count(self, word: str) -> int:
        bucket = _WORDS + (_hash(word) >> 16)
        return sum(part.lists.count(bucket) for part in self._parts)


class _Part:
    def __init__(self, queries: list[str]) -> None:
        queries.sort()
        self.queries: Final = queries
        self.lists: Final = InvertedLists(_entries(queries), _BUCKETS, 5 * sum(map(len, queries)) + 2 * len(queries))
        self._sizes: Final = np.bincount(self.lists.numbers, minlength=len(queries)).astype(np.uint16)

    @property
    def nbytes(self) -> int:
        return 8 * len(self.queries) + self.lists.nbytes + int(self._sizes.nbytes)

    def nearest(self, keys: NDArray[np.uint32], most: int) -> Iterator[tuple[float, str]]:
        """Yield the queries that share most of `keys`, (n,), and how near they are, 0 to 1."""
        entries = self.lists.shortest(keys, _READ)
        entries.sort()
        # Nearly all queries share a single key: these are only counted where hardly any share more.
        numbers, shared = _counted(entries[1:][entries[1:] == entries[:-1]])
        shared += 1
        if len(numbers) < most:
            numbers, shared = _counted(entries)
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


def _hash(word: str) -> int:
    return crc32(word.encode("utf-8", "surrogatepass")) * 0x9E3779B1 % 2**32


def _counted(numbers: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Return the distinct ones of ascending numbers, (n,), and how often each is there; much faster than np.unique."""
    begins = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1]))[: len(numbers)])
    ends = np.concatenate((begins[1:], [len(numbers)]))[: len(begins)]
    return numbers[begins], ends - begins


def _keys_of(query: str) -> Iterator[int]:
    """Yield the buckets of the keys of one query, as `_keys`, which takes twice as long for so few."""
    for first, text in ((0, query), (_SOUNDS, sound_of(query))):
        characters = [32, *map(ord, text), 32]
        for before, middle, after in zip(characters, characters[1:], characters[2:], strict=False):
            if middle != 32:
                yield first + trigram(before, middle, after)
    words = [_hash(word) for word in query.split()]
    for word in words:
        yield _WORDS + (word >> 16)
    for apart in (1, 2):
        for one, other in zip(words, words[apart:], strict=False):
            yield _PAIRS + (((one + other) * 0x85EBCA77 & 0xFFFFFFFF) >> (32 - _PAIR_BITS))


def _entries(queries: Sequence[str]) -> Iterator[NDArray[np.uint64]]:
    for first in range(0, len(queries), _BATCH):
        keys, owners = _keys(queries[first : first + _BATCH])
        yield (keys.astype(np.uint64) << np.uint64(32)) | (owners + first).astype(np.uint64)


def _keys(queries: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Return the bucket and the query of each key, both (n,)."""
    # Characters and sounds in one go: for a single query, the number of calls is what takes the time.
    grams, texts = trigrams([*queries, *map(sound_of, queries)])
    sounds, of = np.divmod(texts, max(len(queries), 1))
    split = [query.split() for query in queries]
    words = np.array([_hash(word) for some in split for word in some], np.uint32)
    owners = np.repeat(np.arange(len(queries)), [len(some) for some in split])
    keys, first = [grams + sounds.astype(np.uint32) * np.uint32(_SOUNDS), _WORDS + (words >> 16)], [of, owners]
    for apart in (1, 2):
        together = owners[apart:] == owners[:-apart]
        pairs = (words[apart:] + words[:-apart])[together] * np.uint32(0x85EBCA77) >> np.uint32(32 - _PAIR_BITS)
        keys.append(_PAIRS + pairs)
        first.append(owners[apart:][together])
    return np.concatenate(keys), np.concatenate(first)
