"""Distinct people, counted by a small sketch that is a sum.

Each of a few buckets sums the weights of the people whose names hash into it (linear counting, Whang et al., ACM TODS
1990, with sums in place of bits). Sketches merge in any order, decay, and fit into a row of a `SumTable`: one column
for each of `BUCKETS`. The buckets of a row add up to the weight of all people.
"""

from collections.abc import Iterable
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import Floats, Integers

BUCKETS: Final = tuple(f"people_{number}" for number in range(8))
"""The columns of a sketch. Eight buckets distinguish one person from two and from several: enough for a threshold."""

SLOTS: Final = 256
"""Hash slots per query. The number hit never exceeds the number of people; 127 people suffice to hit a hundred."""


def unit_hash(name: str) -> float:
    """Return a hash of `name` in [0, 1), evenly spread even over similar names.

    It is a CRC-32, whose bits are linear in those of the name, scattered by multiplicative hashing (Knuth, TAOCP 6.4).
    """
    return crc32(name.encode()) * 0x9E3779B1 % 2**32 / 2**32


def unit_hashes(names: Iterable[str]) -> Floats:
    """Return the `unit_hash` of each name."""
    hashes = np.fromiter(map(crc32, map(str.encode, names)), np.uint64)
    return np.asarray(hashes * np.uint64(0x9E3779B1) % np.uint64(2**32) / 2**32)


def mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread hashes evenly over 64 bits: the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    found = hashes + np.uint64(0x9E3779B97F4A7C15)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def slot(name: str) -> int:
    """Return the slot, 0 to `SLOTS` - 1, that a person hits; the same on every machine.

    It is for linear counting (Whang et al. 1990) in tables with a row per slot that was hit.
    """
    return crc32(name.encode()) % SLOTS


def bucket(name: str) -> int:
    """Return the bucket, as its place in `BUCKETS`, that a person's weight is added to; the same on every machine."""
    return int(unit_hash(name) * len(BUCKETS))


def buckets(names: Iterable[str]) -> Integers:
    """Return the `bucket` of each person."""
    return (unit_hashes(names) * len(BUCKETS)).astype(np.int64)


def distinct(sketches: Floats) -> Floats:
    """Return a lower bound of the number of distinct people in each sketch, (...,).

    A bucket counts by its weight, at most once, so evidence that is uncertain or decayed counts for less. Of n people
    with full weights, 8 (1 - (7/8)^n) are counted on average.

    Args:
        sketches: weights of people, (..., buckets).
    """
    counted: Floats = np.minimum(sketches, 1.0).sum(axis=-1)
    return counted


def bounded_shares(sketches: Floats, one_person: float) -> Floats:
    """Return the share of each bucket's weight that counts, (n, buckets), 0 to 1.

    A bucket counts up to `one_person`, or to twice the median bucket of its sketch, whichever is more. So however much
    one person adds, what counts grows by no more than that.

    Args:
        sketches: weights of people, (n, buckets).
        one_person: the weight of one person that always counts in full, above 0.
    """
    bound = np.maximum(one_person, 2.0 * np.median(sketches, axis=1))[:, np.newaxis]
    shares: Floats = np.minimum(bound / np.maximum(sketches, 1e-300), 1.0)
    return shares
