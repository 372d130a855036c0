"""How many different people: a small sketch that is a sum.

Each of a few buckets sums the weights of the people whose name hashes into it (linear counting, Whang et al., ACM TODS
1990, with sums in place of bits). So sketches add up in any order, fade, and live in a row of a `SumTable`: its columns
are `BUCKETS`, and all of them together are the weight of everybody.
"""

from typing import Final
from zlib import crc32

import numpy as np

from backchannel.agents.sums import Floats
from backchannel.schemas.events import Query

BUCKETS: Final = tuple(f"people_{number}" for number in range(8))
"""The columns of a sketch. Eight tell one from two from some, which is what a check needs."""


SLOTS: Final = 256
"""Hash slots per query. The number hit never exceeds the number of people; 127 people were enough to hit a hundred."""


def unit_hash(name: str) -> float:
    """Return a number in [0, 1) that depends on `name` only, evenly spread over names however alike.

    A CRC-32, whose bits are linear in those of the name, scattered as multiplicative hashing does (Knuth, TAOCP 6.4).
    """
    return crc32(name.encode()) * 0x9E3779B1 % 2**32 / 2**32


def person_of(query: Query) -> str:
    """Return who asked: the user, or the session where there is no `user_id`."""
    return query.user_id or query.session_id


def slot(name: str) -> int:
    """Return which of `SLOTS` somebody hits; the same on every machine.

    Linear counting by whole slots (Whang et al. 1990), for tables with a row for each slot that was hit.
    """
    return crc32(name.encode()) % SLOTS


def bucket(name: str) -> int:
    """The column that somebody's weight is added to; the same on every machine."""
    return int(unit_hash(name) * len(BUCKETS))


def distinct(sketches: Floats) -> Floats:
    """Return for each of `sketches`, (..., buckets), how many people there were, at least.

    A bucket counts by its weight, and once at most. So there are never fewer people than that, and what is uncertain or
    has faded counts for less. Of n people with full weights, 8 (1 - (7/8)^n) are expected to be counted.
    """
    counted: Floats = np.minimum(sketches, 1.0).sum(axis=-1)
    return counted
