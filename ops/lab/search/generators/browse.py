"""Popular and new: strategies that hardly look at the query, only at the category or brand that it names."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.ops.lab.search.generators.base import Found, best
from backchannel.ops.lab.search.generators.structured import Understanding, membership


class Browse:
    """The documents with the highest worth, whatever the words, among those that the query's constraints leave.

    Args:
        understanding: of queries.
        worth: of each document, (documents,): clicks so far for `popular`, the time of release for `new`. Documents
            worth 0 are not shown.
    """

    def __init__(self, understanding: Understanding, worth: Sequence[float] | NDArray[np.floating]) -> None:
        self._understanding = understanding
        self._worth: Final = np.asarray(worth, dtype=np.float64)

    def find(self, query: str, depth: int) -> Found:
        """Return the documents worth most."""
        among = np.ones(len(self._worth), bool)
        for constraint in self._understanding.take_apart(query).constraints:
            narrower = among & membership(constraint.places, len(among))
            if narrower.any():
                among = narrower
        return best(np.where(among, self._worth, 0.0), depth)
