"""How many different people: a small sketch that is a sum.

Each of a few buckets sums the weights of the people whose name hashes into it (linear counting, Whang et al., ACM TODS
1990, with sums in place of bits). So sketches add up in any order, fade, and live in a row of a `SumTable`: its columns
are `BUCKETS`, and all of them together are the weight of everybody.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.draws import lot
from backchannel.agents.sums import Matrix

BUCKETS: Final = tuple(f"people_{number}" for number in range(8))
"""The columns of a sketch. Eight tell one from two from some, which is what a check needs."""


def bucket(name: str) -> int:
    """The column that somebody's weight is added to; the same on every machine."""
    return int(lot(name) * len(BUCKETS))


def distinct(sketches: Matrix) -> NDArray[np.float64]:
    """Return for each of `sketches`, (..., buckets), how many people there were, at least.

    A bucket counts by its weight, and once at most. So there are never fewer people than that, and what is uncertain or
    has faded counts for less. Of n people with full weights, 8 (1 - (7/8)^n) are expected to be counted.
    """
    counted: NDArray[np.float64] = np.minimum(sketches, 1.0).sum(axis=-1)
    return counted
