"""Priming: predicted scores into the ledger, while workers learn or not."""

from collections.abc import Mapping
from typing import Final, Self

import numpy as np
from sqlalchemy import func, select

from backchannel.agents.memory.learner import MemoryIndex
from backchannel.agents.sums import Sums
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger, LedgerSums

SOURCE: Final = "prime"
"""The stream that predictions are committed as. Nothing is read from it: its one position stays at the beginning."""


class Primer:
    """Puts predictions into a store, and publishes them.

    Args:
        url: of the store, SQLAlchemy's.
        config: of the learners.

    Raises:
        StoreError: the store cannot be used, see the message.
    """

    def __init__(self, url: str, config: Config) -> None:
        learning = Learning(config)
        self._index: Final = MemoryIndex(config.memory)
        self._store: Final = Store(url)
        self._store.create(learning.tables)
        self._ledger: Final = Ledger(self._store, learning.tables)
        self._publisher: Final = Publisher(self._store, learning, config)

    def put(self, predictions: Mapping[tuple[str, str], float]) -> int:
        """Make these the predicted scores of their pairs, (normalised query, entity id); a score of 0 is none.

        What is added to the ledger is by how much they differ from those of before. Nobody else can change these
        meanwhile, because the claim of `SOURCE` would then be lost.

        Returns:
            how many were not so before.

        Raises:
            FencedError: somebody else is priming the same store. Nothing was put.
        """
        claim = self._ledger.claim(SOURCE, 0)
        table = self._index.priors
        with self._store.read() as connection:
            held = LedgerSums(self._store, connection).read(table, "query", {query for query, _ in predictions})
        before = dict(zip(held.keys, held.values[:, 0].tolist(), strict=True))
        added = {}
        for pair, score in predictions.items():
            exact = round(score * 2**20) / 2**20  # so that differences add up exactly
            if exact != before.get(pair, 0.0):
                added[pair] = exact - before.get(pair, 0.0)
        if added:
            values = np.array(list(added.values()))[:, np.newaxis]
            delta = {table.name: Sums(table, list(added), values)}
            self._ledger.commit([Contribution(claim, claim.position, delta, {"primed": len(added)})])
        return len(added)

    def queries(self) -> dict[str, float]:
        """Return the queries that people were shown something for, with how much was shown."""
        table = self._store.sum_tables[self._index.table.name]
        shown = func.sum(table.c[self._index.table.sums[1]])
        with self._store.read() as connection:
            return dict(connection.execute(select(table.c.query, shown).group_by(table.c.query)).all())

    def publish(self) -> Snapshot | None:
        """Publish what was put, if it changes anything."""
        return self._publisher.publish()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
