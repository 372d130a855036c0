"""Bins of numbers: a number becomes one of a few slots, so that what is learned from it is a sum of whole numbers."""

from bisect import bisect_right

import numpy as np

from backchannel.agents.sums import Floats, Integers


def bin_of(edges: tuple[float, ...], number: float | None) -> int:
    """Return the bin of a number, from 1; 0 if it is unknown.

    Args:
        edges: the lower bounds of the bins from the second one on.
        number: the number; None: unknown.
    """
    return 0 if number is None else 1 + bisect_right(edges, number)


def bins_of(edges: tuple[float, ...], numbers: Floats) -> Integers:
    """Return the bins of numbers, (n,), as `bin_of`; NaN is unknown."""
    return np.where(np.isnan(numbers), 0, 1 + np.searchsorted(edges, numbers, side="right"))


def range_of(edges: tuple[float, ...], place: int) -> str:
    """Return a bin in words: `below 1`, `1 to 2` ..."""
    if place == 0:
        return "unknown"
    if place == 1:
        return f"below {edges[0]:g}"
    return f"at least {edges[-1]:g}" if place > len(edges) else f"{edges[place - 2]:g} to {edges[place - 1]:g}"
