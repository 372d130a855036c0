"""The ranking's sums: list-centred least squares of clicks over expected clicks.

Per list, with the vectors x of the shown results, the probabilities p that their positions were examined, and the gains
c:

    A += sum p (x - m)(x - m)'        m = sum p x / sum p
    b += sum (c - p sum c / sum p)(x - m)

It is pairwise least squares (Ermis, Ernst, Stein & Zappella, "Learning to rank in the position based model with bandit
feedback", arXiv 2004.13106), which never divides by p, so its variance stays low. A feature that is constant in a list
has no influence. Centred vectors, residuals and p are rounded to grids, so that the sums are exact.
"""

from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Booleans, Floats, Integers

_VECTORS: Final = 256.0  # centred vectors are multiples of 1/256
_RESIDUALS: Final = 1024.0
_EXAMINED: Final = 256.0
HEAD: Final = 5
"""Sums of a row before b and A: lists, sum of p, sum of squared residuals, sum of gains, lists with a logged curve."""


class Lists(Struct, frozen=True):
    """Lists of shown results, one after another.

    Attributes:
        lengths: The number of results of each list, at least 1, (lists,).
        vectors: The encoded results, (results, d).
        examined: The probability that each result's position was examined, in (0, 1], (results,).
        gains: Each result's gain, in [-1, 1], (results,).
        groups: The row of sums that each list belongs to, from 0, (lists,).
        logged: Whether a list's curve of examination was logged with it, (lists,).
    """

    lengths: Integers
    vectors: Floats
    examined: Floats
    gains: Floats
    groups: Integers
    logged: Booleans


def width(dimension: int) -> int:
    """Return the number of sums in a row: HEAD, b, and the upper triangle of A."""
    return HEAD + dimension + dimension * (dimension + 1) // 2


def sums_of(lists: Lists, groups: int) -> Floats:
    """Return the sums of each group of `lists`, (groups, width)."""
    dimension = lists.vectors.shape[1]
    starts = np.cumsum(lists.lengths) - lists.lengths
    weights = np.maximum(np.rint(lists.examined * _EXAMINED), 1.0) / _EXAMINED
    total = np.add.reduceat(weights, starts)
    means = np.add.reduceat(weights[:, np.newaxis] * lists.vectors, starts) / total[:, np.newaxis]
    gained = np.add.reduceat(lists.gains, starts)
    centred = np.rint((lists.vectors - np.repeat(means, lists.lengths, axis=0)) * _VECTORS) / _VECTORS
    residuals = lists.gains - weights * np.repeat(gained / total, lists.lengths)
    residuals = np.rint(residuals * _RESIDUALS) / _RESIDUALS
    heads = np.column_stack((np.ones(len(starts)), total, np.add.reduceat(residuals**2, starts), gained, lists.logged))
    found = np.zeros((groups, width(dimension)))
    triangle = np.triu_indices(dimension)
    of_result = np.repeat(lists.groups, lists.lengths)
    for group in range(groups):
        own = of_result == group
        rows = centred[own]
        found[group, :HEAD] = heads[lists.groups == group].sum(axis=0)
        found[group, HEAD : HEAD + dimension] = residuals[own] @ rows
        found[group, HEAD + dimension :] = ((rows * weights[own, np.newaxis]).T @ rows)[triangle]
    return found


def unpacked(row: Floats, dimension: int) -> tuple[Floats, Floats]:
    """Return A, (d, d), and b, (d,), of a row of sums."""
    gram = np.zeros((dimension, dimension))
    gram[np.triu_indices(dimension)] = row[HEAD + dimension :]
    return gram + np.triu(gram, 1).T, row[HEAD : HEAD + dimension]
