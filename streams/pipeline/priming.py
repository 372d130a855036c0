"""Priming: predicted scores are added to the ledger, whether or not workers are running."""

from collections.abc import Mapping
from typing import Final, Self

from sqlalchemy import func, select

from backchannel.agents.memory.examination import SHOWINGS
from backchannel.agents.memory.learner import MemoryIndex
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.corrections import set_sums
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger

SOURCE: Final = "prime"
"""The source under which predictions are committed. It has no stream: its position stays at the beginning."""


class Primer:
    """Puts predictions into a store, and publishes them.

    Args:
        url: SQLAlchemy URL of the store.
        config: the configuration of the learners.

    Raises:
        StoreError: the store cannot be used; see the message.
    """

    def __init__(self, url: str, config: Config) -> None:
        learning = Learning(config)
        self._index: Final = MemoryIndex(config.memory)
        self._store: Final = Store(url)
        self._store.create(learning.tables)
        self._ledger: Final = Ledger(self._store, learning.tables)
        self._publisher: Final = Publisher(self._store, learning, config)

    def put(self, predictions: Mapping[tuple[str, str], float]) -> int:
        """Set the predicted scores of pairs (normalized query, entity id); a score of 0 removes the prediction.

        Returns:
            the number of scores that changed.

        Raises:
            FencedError: another process is priming the same store. Nothing was set.
        """
        exact = {pair: round(score * 2**20) / 2**20 for pair, score in predictions.items()}  # differences are exact
        table = self._index.priors
        return set_sums(self._store, self._ledger, table, table.sums[0], exact, source=SOURCE, counter="primed")

    def queries(self) -> dict[str, float]:
        """Return the queries with results shown, and the weight of the results shown for each."""
        self._ledger.merge()
        table = self._store.sum_tables[self._index.table.name]
        shown = func.sum(sum((table.c[name] for name in SHOWINGS[1:]), table.c[SHOWINGS[0]]))
        with self._store.read() as connection:
            return dict(connection.execute(select(table.c.query, shown).group_by(table.c.query)).all())

    def publish(self) -> Snapshot | None:
        """Publish the predictions, if they change anything."""
        return self._publisher.publish()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
