"""Popular and new: strategies that use only the category and brand that a query names."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.ops.lab.search.generators.base import Found, best
from backchannel.ops.lab.search.generators.structured import Understanding, membership


class Browse:
    """Finds the documents with the highest worth among those that satisfy the query's constraints.

    Args:
        understanding: the query understanding.
        worth: the worth of each document, (documents,): past clicks for `popular`, release time for `new`. Documents
            of worth 0 are not shown.
    """

    def __init__(self, understanding: Understanding, worth: Sequence[float] | NDArray[np.floating]) -> None:
        self._understanding = understanding
        self._worth: Final = np.asarray(worth, dtype=np.float64)

    def find(self, query: str, depth: int) -> Found:
        """Return the documents of the highest worth."""
        among = np.ones(len(self._worth), bool)
        for constraint in self._understanding.take_apart(query).constraints:
            narrower = among & membership(constraint.places, len(among))
            if narrower.any():
                among = narrower
        return best(np.where(among, self._worth, 0.0), depth)
