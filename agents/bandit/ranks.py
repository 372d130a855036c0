"""Rank buckets: 1, 2, 3-4, 5-8 and so on to 128."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import Floats

UPPER: Final = 2 ** np.arange(8)
"""The last rank of each bucket: 1, 2, 4 ... 128. Deeper ranks are in no bucket."""
LOWER: Final = np.concatenate(([0], UPPER[:-1]))
WIDTH: Final = UPPER - LOWER
BUCKETS: Final = len(UPPER)


def covered(depths: NDArray[np.int64] | Floats) -> Floats:
    """Return the share of each rank bucket that depths cover, (..., BUCKETS)."""
    return np.asarray(np.clip((depths[..., np.newaxis] - LOWER) / WIDTH, 0.0, 1.0))


def bucket_of(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the buckets of ranks, from 0; BUCKETS for a rank beyond the last."""
    return np.searchsorted(UPPER, ranks).astype(np.int64)
