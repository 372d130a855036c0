"""Dense search: the documents whose embeddings are nearest to the query's, exactly."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.ops.lab.search.corpus import Document
from backchannel.ops.lab.search.generators.base import Found, best
from backchannel.ops.lab.search.generators.encoder import SentenceEncoder

MOST: Final = 100_000
"""Documents that are searched exactly; for more, use an approximate index."""


class Dense:
    """Exact search by cosine.

    Args:
        documents: of the corpus, at most MOST.
        encoder: of texts.
        progress: called with the share of documents that is encoded.

    Raises:
        ValueError: there are too many documents.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        encoder: SentenceEncoder,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        if len(documents) > MOST:
            raise ValueError(f"documents: {len(documents):,} are more than the {MOST:,} that are searched exactly")
        self._encoder = encoder
        texts = [" ".join(filter(None, (document.title, document.body)))[:400] for document in documents]
        self.vectors: Final = encoder.encode_cached(texts, progress)
        self._known: dict[str, NDArray[np.float32]] = {}

    def prepare(self, queries: Sequence[str]) -> None:
        """Encode queries that will be asked: together that takes less time than one by one."""
        self._known = dict(zip(queries, self._encoder.encode_cached(queries), strict=True))

    def find(self, query: str, depth: int) -> Found:
        """Return the nearest documents; scores are cosines. It has all documents for every query."""
        vector = self._known.get(query)
        if vector is None:
            (vector,) = self._encoder.encode([query])
        return best(self.vectors @ vector, depth, above=-2.0)
