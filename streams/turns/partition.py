"""One partition's way from records to a batch of turns: decode, assemble."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Final, cast

from msgspec import Struct

from backchannel.agents.columns import Columns
from backchannel.schemas.events import Event, EventDecoder, EventError
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.position import Claim, Position
from backchannel.streams.turns.rows import RowAssembler

_ts = attrgetter("ts")


class DeadLetter(Struct, frozen=True):
    """A record that is not a valid event; an empty one may have been null."""

    topic: str
    offset: int
    record: bytes
    reason: str


class Batch(Struct, frozen=True):
    """What one partition brings to a commit.

    Attributes:
        claim: to commit with.
        position: where the batch brings the partition to.
        counts: what was counted on the way.
        columns: the turns that were closed on the way.
    """

    claim: Claim
    position: Position
    counts: dict[str, int]
    columns: Columns


class Partition:
    """A claimed partition. Pure but for what it is handed; its owner reads, commits and publishes.

    Args:
        claim: as the ledger gave it; records are then added from each topic's resume offset on.
        topics: the partition's topics, each with the decoder of its records.
        turns: how events become turns.

    Attributes:
        claim: to commit the next batch with.
    """

    def __init__(self, claim: Claim, topics: Mapping[str, EventDecoder], turns: TurnConfig) -> None:
        self.claim = claim
        self._decoders: Final = dict(topics)
        self._max_ahead: Final = round(turns.max_ahead_s * 1000)
        self._assembler: Final = RowAssembler(topics, turns, claim.position)
        self._read: Final = {topic: claim.position.topic(topic).read for topic in topics}
        self._dead = 0
        self._uncommitted = 0

    @property
    def uncommitted(self) -> int:
        """What the next batch brings: new records, or else turns that closed without any."""
        return self._uncommitted or self._assembler.closed

    @property
    def position(self) -> Position:
        """What the next batch brings the partition to.

        Raises:
            RuntimeError: while rebuilding.
        """
        return self._assembler.position

    @property
    def counts(self) -> dict[str, int]:
        """What was counted since the last batch."""
        counts = Counter({**self._assembler.counts, "dead_letter": self._dead})
        return {name: count for name, count in counts.items() if count}

    @property
    def rebuilding(self) -> bool:
        """Whether open turns are still being rebuilt after a restart; there is no batch until then."""
        return self._assembler.rebuilding

    @property
    def open(self) -> int:
        """Turns open and events waiting."""
        return self._assembler.open

    @property
    def watermark(self) -> int:
        """Event time (ms) up to which the partition is complete."""
        return self._assembler.watermark

    def add(self, topic: str, offsets: Sequence[int], records: Sequence[bytes | None], now: int) -> list[DeadLetter]:
        """Decode and add a chunk of records.

        Args:
            topic: one of the constructor's.
            offsets: ascending; of each record.
            records: as they came.
            now: wall clock, ms since the Unix epoch; what lies too far ahead of it is refused.

        Returns:
            what is no valid event, unless it was read before.

        Raises:
            TooManyOpenError: see `TurnAssembler.add`.
        """
        decoded = self._decoders[topic].decode_many(records)
        latest = now + self._max_ahead
        if EventError not in set(map(type, decoded)) and max(map(_ts, decoded), default=0) <= latest:
            self.add_events(topic, offsets, cast("list[Event]", decoded))
            return []
        dead = []
        events: list[Event | None] = []
        for index, event in enumerate(decoded):
            if isinstance(event, EventError):
                reason = str(event)
            elif event.ts > latest:
                reason = f"ts: {event.ts} is more than turns.max_ahead_s ahead of the clock"
            else:
                events.append(event)
                continue
            events.append(None)
            if offsets[index] >= self._read[topic]:
                dead.append(DeadLetter(topic, offsets[index], records[index] or b"", reason))
        self._dead += len(dead)
        self.add_events(topic, offsets, events)
        return dead

    def add_events(self, topic: str, offsets: Sequence[int], events: Sequence[Event | None]) -> None:
        """Add a chunk that is decoded already; see `TurnAssembler.add`."""
        self._assembler.add(topic, offsets, events)
        if offsets and offsets[-1] >= self._read[topic]:
            self._uncommitted += offsets[-1] + 1 - max(offsets[0], self._read[topic])

    def advance(self, caught_up: Collection[str] = ()) -> int:
        """Move the watermark on, and return how many turns that closes; see `TurnAssembler.advance`."""
        return self._assembler.advance(caught_up)

    def finish(self) -> int:
        """Close every open turn, because no more records will come, and return how many."""
        return self._assembler.finish()

    def batch(self) -> Batch:
        """Return what came since the last one, and begin anew.

        The caller commits it, and sets the claim before the next one.

        Raises:
            RuntimeError: while rebuilding.
        """
        batch = Batch(self.claim, self.position, self.counts, self._assembler.take())
        self._assembler.counts.clear()
        self._dead = 0
        self._uncommitted = 0
        return batch
