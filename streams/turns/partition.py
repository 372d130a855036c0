"""A partition: records are decoded and assembled into batches of turns."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Final, cast

from msgspec import Struct

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.satisfaction.asking import answered
from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.schemas.events import Event, Feedback, Teach
from backchannel.streams.clock import untimely
from backchannel.streams.turns.accounts import ANSWERED, FIELD_DROPPED
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.position import Claim, Position
from backchannel.streams.turns.rows import RowAssembler

_TOGETHER: Final = 1 << 18
"""Bytes of records that become columns together. Their events take several times as much, and would otherwise fall out
of the processor's caches between decoding, interning and freeing them."""

_ts = attrgetter("ts")


class DeadLetter(Struct, frozen=True):
    """An invalid event; `record` is empty if it was null."""

    topic: str
    offset: int
    record: bytes
    reason: str


class Batch(Struct, frozen=True):
    """A partition's part of a commit.

    Attributes:
        claim: the claim to commit with.
        position: the partition's position after the batch.
        counts: counts since the last batch; see `Partition.counts`.
        columns: the turns that closed since the last batch, in event-time order.
    """

    claim: Claim
    position: Position
    counts: dict[str, int]
    columns: Sequence[Columns]


class PartitionState(Struct, frozen=True):
    """What the owner of a partition knows of it where the partition is in another process.

    Attributes:
        uncommitted: the number of new records since the last batch or, if there are none, of turns that closed.
        closed: the number of turns that closed since the last batch.
        open: the number of open turns and waiting events.
        rebuilding: whether open turns are still being rebuilt after a restart; until then there is no batch.
        watermark: event time (ms) up to which the partition is complete.
        newest: topic -> the newest event time (ms); see `Partition.newest`.
    """

    uncommitted: int
    closed: int
    open: int
    rebuilding: bool
    watermark: int
    newest: dict[str, int]


def unauthorized(event: Teach, operators: Collection[str]) -> str | None:
    """Return why somebody may not teach this; None if they may."""
    if event.everyone and event.user_id not in operators:
        return f"everyone: true is for operators; {event.user_id!r} is not one of taught.operators"
    return None


class Partition:
    """A claimed partition. It does no I/O: its owner reads, commits and publishes.

    Args:
        claim: the ledger's claim; records are added from each topic's resume offset on.
        topics: topic name -> the decoder of its records.
        turns: the configuration of turns.
        operators: who may teach for everyone.

    Attributes:
        claim: the claim for the next commit.
        examples: field -> why the first of its unusable values was left out.
    """

    def __init__(
        self,
        claim: Claim,
        topics: Mapping[str, EventDecoder],
        turns: TurnConfig,
        operators: Collection[str] = (),
    ) -> None:
        self.claim = claim
        self._operators: Final = operators
        self._taught: list[Teach] = []
        self._decoders: Final = dict(topics)
        self._max_ahead: Final = round(turns.max_ahead_s * 1000)
        self._assembler: Final = RowAssembler(topics, turns, claim.position)
        self._read: Final = {topic: claim.position.topic(topic).read for topic in topics}
        self._dead = 0
        self._noted: Final[Counter[str]] = Counter()
        self._uncommitted = 0
        self.examples: Final[dict[str, str]] = {}

    @property
    def uncommitted(self) -> int:
        """The number of new records since the last batch or, if there are none, of turns that closed."""
        return self._uncommitted or self._assembler.closed

    @property
    def position(self) -> Position:
        """The position after the next batch.

        Raises:
            RuntimeError: the partition is still being rebuilt.
        """
        return self._assembler.position

    @property
    def counts(self) -> dict[str, int]:
        """Counts since the last batch: those of `Assembler.counts`, and others; see `streams.turns.accounts`."""
        counts = Counter({**self._assembler.counts, **self._noted, "dead_letter": self._dead})
        return {name: count for name, count in counts.items() if count}

    @property
    def rebuilding(self) -> bool:
        """Whether open turns are still being rebuilt after a restart; until then there is no batch."""
        return self._assembler.rebuilding

    @property
    def open(self) -> int:
        """The number of open turns and waiting events."""
        return self._assembler.open

    @property
    def watermark(self) -> int:
        """Event time (ms) up to which the partition is complete."""
        return self._assembler.watermark

    @property
    def behind(self) -> int:
        """By how much (ms) the lateness would have to grow for no event so far to have been late."""
        return self._assembler.behind

    def newest(self, topic: str) -> int:
        """Return the newest event time (ms) among the events of a topic added since it was resumed."""
        return self._assembler.newest(topic)

    @property
    def state(self) -> PartitionState:
        """What another process has to know of the partition."""
        return PartitionState(
            self.uncommitted,
            self._assembler.closed,
            self.open,
            self.rebuilding,
            self.watermark,
            {topic: self.newest(topic) for topic in self._decoders},
        )

    def add(
        self,
        topic: str,
        offsets: Sequence[int],
        records: Sequence[bytes | None],
        now: int,
        appended: Sequence[int] | None = None,
    ) -> list[DeadLetter]:
        """Decode and add a chunk of records.

        Args:
            topic: one of the constructor's topics.
            offsets: the records' offsets, ascending.
            records: the raw records.
            now: wall clock, ms since the Unix epoch. Events more than `max_ahead_s` ahead of it are refused, and so
                are those before 1980.
            appended: when the broker appended the records; see `TurnAssembler.add`.

        Returns:
            the invalid events that were not read before.

        Raises:
            TooManyOpenError: see `TurnAssembler.add`.
        """
        pieces = max(round(sum(map(len, filter(None, records))) / _TOGETHER), 1)
        together = max(-(-len(records) // pieces), 1)
        dead = []
        for first in range(0, len(records), together):
            some = slice(first, first + together)
            dead += self._add(topic, offsets[some], records[some], now, None if appended is None else appended[some])
        return dead

    def _add(
        self,
        topic: str,
        offsets: Sequence[int],
        records: Sequence[bytes | None],
        now: int,
        appended: Sequence[int] | None,
    ) -> list[DeadLetter]:
        decoded, dropped = self._decoders[topic].decode_noting(records)
        for place, value in dropped:
            if offsets[place] >= self._read[topic]:
                self._noted[FIELD_DROPPED + value.field] += 1
                self.examples.setdefault(value.field, value.reason)
        if decoded and not set(map(type, decoded)) & {EventError, Teach}:
            times = list(map(_ts, decoded))
            if not any(untimely(ts, now, self._max_ahead) for ts in (min(times), max(times))):
                self.add_events(topic, offsets, cast("list[Event]", decoded), appended)
                return []
        dead = []
        events: list[Event | None] = []
        for index, event in enumerate(decoded):
            reason = self._fault(event, now)
            events.append(cast("Event", event) if reason is None else None)
            if reason is not None and offsets[index] >= self._read[topic]:
                dead.append(DeadLetter(topic, offsets[index], records[index] or b"", reason))
        self._dead += len(dead)
        self.add_events(topic, offsets, events, appended)
        return dead

    def _fault(self, event: Event | EventError, now: int) -> str | None:
        if isinstance(event, EventError):
            return str(event)
        fault = untimely(event.ts, now, self._max_ahead)
        return unauthorized(event, self._operators) if fault is None and isinstance(event, Teach) else fault

    def add_events(
        self,
        topic: str,
        offsets: Sequence[int],
        events: Sequence[Event | None],
        appended: Sequence[int] | None = None,
    ) -> None:
        """Add a chunk of decoded events; see `TurnAssembler.add`."""
        self._assembler.add(topic, offsets, events, appended)
        read = self._read[topic]
        if not {Feedback, Teach}.isdisjoint(map(type, events)):
            fresh = [event for at, event in zip(offsets, events, strict=True) if event and at >= read]
            self._taught += [event for event in fresh if isinstance(event, Teach)]
            self._noted.update(ANSWERED + kind for kind in map(answered, fresh) if kind)
        if offsets and offsets[-1] >= read:
            self._uncommitted += offsets[-1] + 1 - max(offsets[0], read)

    def advance(
        self, caught_up: Collection[str] = (), newest: Mapping[str, int] | None = None, now: int | None = None
    ) -> int:
        """Advance the watermark, and return the number of turns that this closes; see `TurnAssembler.advance`."""
        return self._assembler.advance(caught_up, newest, now)

    def finish(self, now: int | None = None) -> int:
        """Close all open turns, as no more records will come, and return their number; see `TurnAssembler.finish`."""
        return self._assembler.finish(now)

    def take_taught(self) -> list[Teach]:
        """Return what was taught since the last time.

        The caller writes it before it commits a position after it. Writing it again changes nothing.
        """
        taken, self._taught = self._taught, []
        return taken

    def batch(self) -> Batch:
        """Return the batch since the last one, and begin the next.

        The caller commits it, and then sets `claim` to the claim for the next commit.

        Raises:
            RuntimeError: the partition is still being rebuilt.
        """
        batch = Batch(self.claim, self.position, self.counts, self._assembler.take())
        self._assembler.counts.clear()
        self._dead = 0
        self._noted.clear()
        self._uncommitted = 0
        return batch
