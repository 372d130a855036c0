"""The local pipeline: from events to a published policy in one process, without a broker."""

import time
from collections.abc import Sequence
from typing import Final, Self

from backchannel.schemas.events import Event, EventDecoder
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.commits import commit
from backchannel.streams.pipeline.drift_monitor import DriftMonitor
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.partition import Batch, DeadLetter, Partition

TOPIC: Final = "events"
"""The only topic of a local pipeline, with all event types in time order."""


class LocalPipeline:
    """Learns from one stream of events into a store.

    Args:
        url: SQLAlchemy URL of the store.
        config: what to learn, and how.
        source: the name of the stream, under which the store keeps its position.

    Attributes:
        partition: the only partition of the stream.
        store: the store.
        ledger: the ledger of the store.

    Raises:
        StoreError: the store cannot be used; see the message.
    """

    def __init__(self, url: str, config: Config, source: str) -> None:
        self._learning: Final = Learning(config)
        self.store: Final = Store(url)
        self.store.create(self._learning.tables)
        self.ledger: Final = Ledger(self.store, self._learning.tables)
        self._publisher: Final = Publisher(self.store, self._learning, config)
        self._watch: Final = DriftMonitor(self.store, config)
        claim = self.ledger.claim(source, 0)
        self.partition: Final = Partition(claim, {TOPIC: EventDecoder()}, config.turns)
        self._next = claim.position.topic(TOPIC).resume
        self._batch: Batch | None = None  # possibly not committed yet

    def feed(self, events: Sequence[Event]) -> None:
        """Add the next events, from the stream's resume offset on, and close the turns that are complete."""
        self.partition.add_events(TOPIC, range(self._next, self._next + len(events)), events)
        self._next += len(events)
        self.partition.advance()

    def feed_records(self, offsets: Sequence[int], records: Sequence[bytes]) -> list[DeadLetter]:
        """Add the next records, from the stream's resume offset on; return those that are not valid events."""
        dead = self.partition.add(TOPIC, offsets, records, time.time_ns() // 1_000_000)
        self.partition.advance()
        return dead

    def finish(self) -> None:
        """Close every open turn, because the stream has ended."""
        self.partition.finish()

    def commit(self) -> None:
        """Learn from everything fed so far, and commit the result.

        Raises:
            FencedError: another process reads the same stream into the same store.
        """
        self._write()
        if self.partition.uncommitted and not self.partition.rebuilding:
            self._batch = self.partition.batch()
            self._write()

    def _write(self) -> None:
        """Commit the last batch if it is not committed yet; after a failure it remains for the next call."""
        if self._batch is not None:
            (self.partition.claim,) = commit(self._learning, self.ledger, [self._batch]).claims
            self._batch = None

    def publish(self) -> Snapshot | None:
        """Publish what was committed, if it changes anything; raise alarms for rates that changed."""
        self._watch.look(time.time_ns() // 1_000_000)
        return self._publisher.publish()

    def close(self) -> None:
        """Close the store. Whatever was not committed is read again the next time."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
