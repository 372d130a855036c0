"""The local pipeline: from events to a published policy in one process, without a broker."""

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final, Self

from msgspec import structs

from backchannel.schemas.codec import EventDecoder, EventError, checked
from backchannel.schemas.events import Event, Teach
from backchannel.schemas.forms import NATIVE, EventConfig
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.commits import commit
from backchannel.streams.pipeline.drift_monitor import DriftMonitor
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.pipeline.sources import TOPIC
from backchannel.streams.snapshots.teachings import Teachings
from backchannel.streams.store.engine import Store, StoreAwayError
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.event_file import Chunk
from backchannel.streams.turns.partition import Batch, DeadLetter, Partition, unauthorized


class LocalPipeline:
    """Learns from one stream of events into a store.

    Args:
        url: SQLAlchemy URL of the store.
        config: what to learn, and how.
        source: the name of the stream, under which the store keeps its position.
        events: the form of the stream's records; `feed` expects the native form.
        topics: the topics of the stream, each with all event types in time order.

    Attributes:
        partition: the only partition of the stream.
        store: the store.
        ledger: the ledger of the store.

    Raises:
        StoreError: the store cannot be used; see the message.
    """

    def __init__(
        self, url: str, config: Config, source: str, topics: Sequence[str] = (TOPIC,), *, events: EventConfig = NATIVE
    ) -> None:
        self._learning: Final = Learning(config)
        self.store: Final = Store(url)
        self.store.create(self._learning.tables)
        self.ledger: Final = Ledger(self.store, self._learning.tables)
        self._publisher: Final = Publisher(self.store, self._learning, config)
        self._watch: Final = DriftMonitor(self.store, config)
        claim = self.ledger.claim(source, 0)
        decoders = {topic: EventDecoder(config=events) for topic in topics}
        self._operators: Final = config.taught.operators
        self._teachings: Final = Teachings(self.store, config.taught, config.turns.fold, config.snapshots.signing_key)
        self._taught: list[Teach] = []  # possibly not written yet
        self.partition: Final = Partition(claim, decoders, config.turns, self._operators)
        # Of the files behind the topics, as far as they were read.
        self._identities: Final = {name: at.identity for name, at in claim.position.topics.items() if at.identity}
        self._next = claim.position.topic(TOPIC).resume
        self._batch: Batch | None = None  # possibly not committed yet

    def feed(self, events: Sequence[Event]) -> None:
        """Add the next events, from the stream's resume offset on, and close the turns that are complete.

        Raises:
            EventError: one of them is invalid; none is added.
        """
        events = list(map(checked, events))
        for event in events:
            if isinstance(event, Teach) and (fault := unauthorized(event, self._operators)):
                raise EventError(fault)
        self.partition.add_events(TOPIC, range(self._next, self._next + len(events)), events)
        self._next += len(events)
        self._teach()
        self.partition.advance()

    def feed_records(self, offsets: Sequence[int], records: Sequence[bytes]) -> list[DeadLetter]:
        """Add the next records, from the stream's resume offset on, as they happen; return the invalid events."""
        now = time.time_ns() // 1_000_000
        dead = self.partition.add(TOPIC, offsets, records, now)
        self._teach()
        self.partition.advance(now=now)
        return dead

    def feed_chunk(self, topic: str, chunk: Chunk, ended: Collection[str] = ()) -> list[DeadLetter]:
        """Add the next lines of a file.

        Args:
            topic: the topic of the file.
            chunk: lines from the topic's resume offset on.
            ended: topics read to their end, which do not hold back the watermark.

        Returns:
            the lines that are invalid events.
        """
        dead = self.partition.add(topic, chunk.offsets, chunk.lines, time.time_ns() // 1_000_000)
        self._teach()
        self._identities[topic] = chunk.identity
        self.partition.advance(ended)
        return dead

    def finish(self, now: int | None = None) -> None:
        """Close every open turn, because the stream has ended; see `TurnAssembler.finish`."""
        self.partition.finish(now)

    def commit(self) -> None:
        """Learn from everything fed so far, and commit the result.

        Raises:
            FencedError: another process reads the same stream into the same store.
        """
        self._taught += self.partition.take_taught()
        self._teachings.write(self._taught)
        self._taught.clear()
        self._write()
        if self.partition.uncommitted and not self.partition.rebuilding:
            batch = self.partition.batch()
            topics = {
                name: structs.replace(at, identity=self._identities.get(name))
                for name, at in batch.position.topics.items()
            }
            self._batch = structs.replace(batch, position=structs.replace(batch.position, topics=topics))
            self._write()

    def _teach(self) -> None:
        """Write what was taught; while the store is away, that waits for the next commit."""
        self._taught += self.partition.take_taught()
        with suppress(StoreAwayError):
            self._teachings.write(self._taught)
            self._taught.clear()

    def _write(self) -> None:
        """Commit the last batch if it is not committed yet; after a failure it remains for the next call."""
        if self._batch is not None:
            (self.partition.claim,) = commit(self._learning, self.ledger, [self._batch]).claims
            self._batch = None

    def publish(self) -> Snapshot | None:
        """Publish what was committed, if it changes anything; raise alarms for rates that changed."""
        made = self._publisher.publish()
        self._watch.look(time.time_ns() // 1_000_000)
        return made

    def close(self) -> None:
        """Close the store. Whatever was not committed is read again the next time."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
