"""What a candidate generator is."""

from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Places: TypeAlias = NDArray[np.int32]
"""Documents by their place in the corpus."""
Scores: TypeAlias = NDArray[np.float32]


class Found(Struct, frozen=True):
    """What a generator found for one query, best first.

    Attributes:
        places: of the documents in the corpus, (n,), n at most the depth that was asked.
        scores: (n,), falling; on a scale of the generator's own.
        total: documents that it has for the query, n or more.
    """

    places: Places
    scores: Scores
    total: int


class Generator(Protocol):
    """A candidate generator."""

    def find(self, query: str, depth: int, /) -> Found:
        """Return the best `depth` documents for `query`, or as many as there are."""


def best(scores: NDArray[np.floating], depth: int, above: float = 0.0) -> Found:
    """Return the documents whose score, (documents,), is greater than `above`; ties in the catalogue's order."""
    total = int(np.count_nonzero(scores > above))
    count = min(depth, total)
    if count == 0:
        return Found(np.empty(0, np.int32), np.empty(0, np.float32), 0)
    # Everything that scores as much as the last, so that ties are broken alike whatever the partition does.
    last = np.partition(scores, len(scores) - count)[-count]
    among = np.flatnonzero(scores >= last)
    chosen = among[np.argsort(-scores[among], kind="stable")][:count]
    return Found(chosen.astype(np.int32), scores[chosen].astype(np.float32), total)
