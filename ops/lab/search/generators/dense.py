"""Dense search: the documents whose embeddings are nearest to the query's, by exact search or a graph."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backchannel.ops.lab.search.corpus import Document
from backchannel.ops.lab.search.generators.base import Found, best
from backchannel.ops.lab.search.generators.encoder import SentenceEncoder

EXACT: Final = 100_000
"""Number of documents up to which search is exact; beyond it, a graph of neighbours is searched."""
_LEAST_SEARCHED: Final = 128  # minimum number of candidates that a graph search keeps, for the quality of short lists


class Dense:
    """Search by cosine similarity: exact up to a number of documents, and by HNSW beyond it (Malkov & Yashunin 2016).

    Args:
        documents: the documents of the corpus.
        encoder: the encoder of texts.
        progress: called with the share of documents encoded so far.
        exact: the number of documents up to which search is exact.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        encoder: SentenceEncoder,
        progress: Callable[[float], None] = lambda _: None,
        exact: int = EXACT,
    ) -> None:
        self._encoder = encoder
        texts = [" ".join(filter(None, (document.title, document.body)))[:400] for document in documents]
        self.vectors: Final = encoder.encode_cached(texts, progress)
        self._graph: Final = _graph(self.vectors) if len(documents) > exact else None
        self._known: dict[str, NDArray[np.float32]] = {}

    def prepare(self, queries: Sequence[str]) -> None:
        """Encode queries that will be asked: a batch takes less time than single queries."""
        self._known = dict(zip(queries, self._encoder.encode_cached(queries), strict=True))

    def find(self, query: str, depth: int) -> Found:
        """Return the nearest documents; scores are cosines. `total` is the number of all documents."""
        vector = self._known.get(query)
        if vector is None:
            (vector,) = self._encoder.encode([query])
        if self._graph is None:
            return best(self.vectors @ vector, depth, above=-2.0)
        found = self._graph.search(vector, depth)
        cosines = (1.0 - found.distances).astype(np.float32)
        return Found(found.keys.astype(np.int32), cosines, len(self.vectors))


def _graph(vectors: NDArray[np.float32]) -> Any:
    from usearch.index import Index  # noqa: PLC0415 - most corpora are small, and it takes its time to load

    graph = Index(ndim=vectors.shape[1], metric="cos", dtype="f16", expansion_search=_LEAST_SEARCHED)
    graph.add(np.arange(len(vectors)), vectors, threads=1)  # with several, the graph depends on their timing
    return graph
