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
_PORTION: Final = 128  # lists added at a time, which fit into a processor's cache
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
    found = np.zeros((groups, width(dimension)))
    starts = np.cumsum(lists.lengths) - lists.lengths
    order = np.argsort(lists.groups, kind="stable")
    bounds = np.searchsorted(lists.groups[order], np.arange(groups + 1)).tolist()
    triangle = np.triu_indices(dimension)
    for row, first, last in zip(found, bounds, bounds[1:], strict=False):
        gram = np.zeros((dimension, dimension))
        for begin in range(first, last, _PORTION):
            own = order[begin : min(begin + _PORTION, last)]
            row[: HEAD + dimension] += _add(gram, lists, own, starts[own])
        row[HEAD + dimension :] = gram[triangle]
    return found


def _add(gram: Floats, lists: Lists, own: Integers, starts: Integers) -> Floats:
    """Add some lists to A, (d, d); return what they add to the sums before A.

    Args:
        gram: A, added to in place.
        lists: All lists.
        own: The indexes of the lists to add, (own,).
        starts: The indexes of their first results, (own,).
    """
    lengths = lists.lengths[own]
    begins = np.cumsum(lengths) - lengths
    of_list = np.repeat(np.arange(len(own)), lengths)
    rows = np.arange(len(of_list)) + (starts - begins)[of_list]
    centred, gains = lists.vectors.take(rows, axis=0), lists.gains[rows]
    weights = np.maximum(np.rint(lists.examined[rows] * _EXAMINED), 1.0) / _EXAMINED
    total, gained = np.add.reduceat(weights, begins), np.add.reduceat(gains, begins)
    weighted = centred * weights[:, np.newaxis]
    means = np.add.reduceat(weighted, begins) / total[:, np.newaxis]
    centred -= means.take(of_list, axis=0)
    centred *= _VECTORS
    np.rint(centred, out=centred)
    centred /= _VECTORS
    residuals = np.rint((gains - weights * (gained / total)[of_list]) * _RESIDUALS) / _RESIDUALS
    gram += np.multiply(centred, weights[:, np.newaxis], out=weighted).T @ centred
    head = [len(own), total.sum(), residuals @ residuals, gained.sum(), lists.logged[own].sum()]
    return np.concatenate((np.array(head, dtype=float), residuals @ centred))


def unpacked(row: Floats, dimension: int) -> tuple[Floats, Floats]:
    """Return A, (d, d), and b, (d,), of a row of sums."""
    gram = np.zeros((dimension, dimension))
    gram[np.triu_indices(dimension)] = row[HEAD + dimension :]
    return gram + np.triu(gram, 1).T, row[HEAD : HEAD + dimension]
