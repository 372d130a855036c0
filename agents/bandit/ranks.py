"""Rank buckets: 1, 2, 3-4, 5-8 and so on to 128.

Within a bucket, rank r counts for 1 / r. Were all its ranks worth the same, plans would fill buckets to their ends.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import Floats

UPPER: Final = 2 ** np.arange(8)
"""The last rank of each bucket: 1, 2, 4 ... 128. Deeper ranks are in no bucket."""
LOWER: Final = np.concatenate(([0], UPPER[:-1]))
WIDTH: Final = UPPER - LOWER
BUCKETS: Final = len(UPPER)
_GRID: Final = 256
"""Shares of buckets are multiples of 1 / _GRID, so that sums of them are exact."""


def _shares() -> Floats:
    """Return the share of each bucket that depths 0, 1 ... cover, (depths, BUCKETS)."""
    ranks = np.arange(1, UPPER[-1] + 1)
    worth = np.where(bucket_of(ranks)[:, np.newaxis] == np.arange(BUCKETS), 1.0 / ranks[:, np.newaxis], 0.0)
    shares = np.concatenate((np.zeros((1, BUCKETS)), worth.cumsum(axis=0))) / worth.sum(axis=0)
    return np.asarray(np.rint(shares * _GRID) / _GRID)


def covered(depths: NDArray[np.int64]) -> Floats:
    """Return the share of what is wanted of each rank bucket that depths cover, (..., BUCKETS)."""
    return np.asarray(_COVERED[np.minimum(depths, UPPER[-1])])


def drawn(depths: NDArray[np.int64]) -> Floats:
    """Return the number of candidates of each rank bucket that depths hold, (..., BUCKETS)."""
    return np.asarray(np.clip(depths[..., np.newaxis] - LOWER, 0.0, WIDTH))


def bucket_of(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the buckets of ranks, from 0; BUCKETS for a rank beyond the last."""
    return np.searchsorted(UPPER, ranks).astype(np.int64)


_COVERED: Final = _shares()
WORTH: Final = np.diff(_COVERED, axis=0).sum(axis=1)
"""The share of its bucket that each rank counts for, from rank 1, (128,)."""
