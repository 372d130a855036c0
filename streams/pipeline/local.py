"""The local pipeline: the whole way from events to a published policy in one process, without a broker."""

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
"""The one topic of a local pipeline: all event types, in time order."""


class LocalPipeline:
    """Learns from one stream of events into a store.

    Args:
        url: of the store, SQLAlchemy's.
        config: what to learn, and how.
        source: names the stream; the store keeps its position under this name.

    Attributes:
        partition: the stream, as the one partition that it is.
        store: the store.
        ledger: the ledger in it.

    Raises:
        StoreError: the store cannot be used, see the message.
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
        self._batch: Batch | None = None  # not known to be committed

    def feed(self, events: Sequence[Event]) -> None:
        """Take the next events, from the stream's resume offset on, and close what turns they let close."""
        self.partition.add_events(TOPIC, range(self._next, self._next + len(events)), events)
        self._next += len(events)
        self.partition.advance()

    def feed_records(self, offsets: Sequence[int], records: Sequence[bytes]) -> list[DeadLetter]:
        """Take the next records, from the stream's resume offset on; return those that are no events."""
        dead = self.partition.add(TOPIC, offsets, records, time.time_ns() // 1_000_000)
        self.partition.advance()
        return dead

    def finish(self) -> None:
        """Close every open turn, because the stream is at its end."""
        self.partition.finish()

    def commit(self) -> None:
        """Learn from what was fed so far, and make it durable.

        Raises:
            FencedError: another process reads the same stream into the same store.
        """
        self._write()
        if self.partition.uncommitted and not self.partition.rebuilding:
            self._batch = self.partition.batch()
            self._write()

    def _write(self) -> None:
        """Commit the last batch, unless it is; a failure leaves it to the next time."""
        if self._batch is not None:
            (self.partition.claim,) = commit(self._learning, self.ledger, [self._batch]).claims
            self._batch = None

    def publish(self) -> Snapshot | None:
        """Publish what was committed, if it changes anything; raise an alarm if a rate has changed."""
        self._watch.look(time.time_ns() // 1_000_000)
        return self._publisher.publish()

    def close(self) -> None:
        """Close the store. What was not committed is read again the next time."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
