"""The interface of candidate generators."""

from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Places: TypeAlias = NDArray[np.int32]
"""Documents, as indexes into the corpus."""
Scores: TypeAlias = NDArray[np.float32]


class Found(Struct, frozen=True):
    """The results of a generator for one query, best first.

    Attributes:
        places: indexes of the documents in the corpus, (n,), with n at most the requested depth.
        scores: their scores, (n,), descending, on the generator's own scale.
        total: the number of documents that it has for the query, at least n.
    """

    places: Places
    scores: Scores
    total: int


class Generator(Protocol):
    """A candidate generator."""

    def find(self, query: str, depth: int, /) -> Found:
        """Return the best documents for `query`, at most `depth`."""


def best(scores: NDArray[np.floating], depth: int, above: float = 0.0) -> Found:
    """Return the best documents with `scores`, (documents,), greater than `above`; ties are in the catalogue's
    order.
    """
    total = int(np.count_nonzero(scores > above))
    count = min(depth, total)
    if count == 0:
        return Found(np.empty(0, np.int32), np.empty(0, np.float32), 0)
    # Include everything that ties with the last, so that ties do not depend on the partition.
    last = np.partition(scores, len(scores) - count)[-count]
    among = np.flatnonzero(scores >= last)
    chosen = among[np.argsort(-scores[among], kind="stable")][:count]
    return Found(chosen.astype(np.int32), scores[chosen].astype(np.float32), total)
