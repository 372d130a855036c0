"""A sample of queries in which near ones are together: what the ranker of online rewrites is trained on.

To learn what a rewrite to a near query would do, queries must be sampled with those near them. A query's block is the
least hash of its trigrams (min-hash: Broder, "On the resemblance and containment of documents", 1997), so two queries
are in one block with the probability of their trigrams' Jaccard similarity, and the sample is the queries with the
lowest blocks. It is a sum: whichever rows are dropped, the lowest are the same.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.grams import trigrams
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.rewrites.keeping import Fitted
from backchannel.agents.sums import Delta, Floats, Integers, Key, SumReader, Sums, SumTable

SIZE: Final = 4_000
"""Queries in the sample."""
_ENCODING: Final = "min-hash 1"
_BLOCKS: Final = 1 << 24


class Sample:
    """The sums of the sampled queries.

    Args:
        half_life_ms: the half-life of evidence, ms.
        size: the number of queries.
    """

    def __init__(self, half_life_ms: int, size: int = SIZE) -> None:
        self._size: Final = size
        self.table: Final = SumTable(
            name="sampled_queries",
            key=(("encoding", str), ("block", int), ("state", str)),
            sums=("turns",),
            half_life_ms=half_life_ms,
        )

    def learn(self, outcomes: Outcomes, rows: Integers, weights: Floats, landmark: int) -> Delta:
        """Return the delta contributed by some turns, (rows,), with the weights of all, (turns,).

        Queries with an interpretation are left out, as they are not compared.
        """
        rows = rows[outcomes.columns.turns.query.form[rows] == MISSING]
        if not len(rows):
            return {}
        states, place = np.unique(outcomes.state[rows], return_inverse=True)
        texts = [outcomes.keys[state] for state in states.tolist()]
        keys: list[Key] = list(zip([_ENCODING] * len(texts), blocks_of(texts).tolist(), texts, strict=True))
        turns = np.bincount(place, weights[rows], len(texts)).astype(float)[:, np.newaxis]
        return {self.table.name: Sums(self.table, keys, turns, landmark)}

    def sampled(self, sums: SumReader, at: int) -> tuple[list[list[str]], Fitted]:
        """Return the sampled queries, by block, and what is fitted to them at a time (ms)."""
        rows = sums.read(self.table, "encoding", [_ENCODING])
        turns = dict(zip(rows.keys, rows.at(at)[:, 0].round(6).tolist(), strict=True))
        kept = sorted(turns)[: self._size]
        blocks, places = list[list[str]](), list[float]()
        for block, own in groupby(kept, itemgetter(1)):
            blocks.append([state for _, _, state in own])
            # Only the first queries of the last block may be sampled. What others of that block displace goes unnoticed
            # until its turns decay.
            places += ((block + place / self._size) / _BLOCKS for place in range(len(blocks[-1])))
        return blocks, Fitted.to(places, [turns[key] for key in kept], at, full=len(kept) == self._size)

    def excess(self, sums: SumReader, crowded: Collection[str]) -> Sequence[Key]:
        """Return the rows to drop: see `Learner.excess`."""
        rows = sums.read(self.table, "encoding", crowded).keys
        kept = sorted(key for key in rows if key[0] == _ENCODING)[: self._size]
        return sorted(set(rows).difference(kept))


def blocks_of(texts: Sequence[str]) -> Integers:
    """Return the block of each text, (n,); texts are not empty."""
    grams, owners = trigrams(texts)
    hashes = grams.astype(np.uint32) * np.uint32(0x9E3779B1) >> np.uint32(8)
    starts = np.searchsorted(owners, np.arange(len(texts)))
    blocks: Integers = np.minimum.reduceat(hashes, starts).astype(np.int64)
    return blocks


def resemblance(one: str, other: str) -> float:
    """Return the probability, 0 to 1, that two queries are in one block: the Jaccard similarity of their trigrams."""
    first, second = _grams(one), _grams(other)
    return len(first & second) / len(first | second)


@lru_cache(maxsize=SIZE)
def _grams(text: str) -> frozenset[int]:
    return frozenset(trigrams([text])[0].tolist())
