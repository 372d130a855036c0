"""The memory index as a strategy: the documents that have worked for a query, by the reader's newest policy."""

from collections.abc import Mapping

import numpy as np

from backchannel.ops.lab.search.generators.base import Found
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader


class Memory:
    """Recalls from a policy reader.

    Args:
        reader: a reader of the store that the loop learns into.
        number: document id -> its index in the corpus; other remembered documents are left out.
    """

    def __init__(self, reader: PolicyReader, number: Mapping[str, int]) -> None:
        self._reader = reader
        self._number = number

    def find(self, query: str, depth: int) -> Found:
        """Return the documents that have worked for the query; scores are Q2E scores."""
        try:
            recalled = self._reader.policy.recall(query, depth)
        except NoPolicyError:
            recalled = []
        known = [(self._number[one.entity_id], one.score) for one in recalled if one.entity_id in self._number]
        places, scores = zip(*known, strict=True) if known else ((), ())
        return Found(np.array(places, np.int32), np.array(scores, np.float32), len(known))
