"""From events to turns: pure, no I/O, one assembler per partition.

A turn takes the events of its query that happened from `lateness` before it (clocks differ) until the attribution
window ends. It closes when the watermark reaches that end. The watermark is the oldest of the topics' newest event
times, less the lateness: as long as no event of a topic is more than `lateness` older than one that the topic had
before it, a turn holds the same events however the topics interleave.

Two rules make a restart exact. An event of a query that has not come yet waits for as long as any turn that could take
it may be open; so what a turn holds never depends on which came first. And re-read events (those at offsets that were
read before the restart) rebuild turns but count nothing, unless together with an event that is new.
"""

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from typing import Annotated, Final

from msgspec import Meta, Struct

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Event, Query, Signal, name_of
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.position import BEGINNING, Position, TopicPosition

_ts = attrgetter("ts")


class TurnConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How events become turns."""

    window_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="attribution window: how long after a query an event can still belong to it"),
    ] = 120.0
    lateness_s: Annotated[
        float, Meta(ge=0, le=86_400, description="how far out of order the events of a topic may arrive, in event time")
    ] = 10.0
    max_ahead_s: Annotated[
        float,
        Meta(
            gt=0,
            description="an event further ahead of this machine's clock goes to the dead letters: its clock "
            "is wrong, and it would close all open turns too early",
        ),
    ] = 300.0
    max_open: Annotated[
        int,
        Meta(
            ge=1, description="most open turns and waiting events of one partition; the run stops when there are more"
        ),
    ] = 500_000


class TooManyOpenError(BackchannelError, RuntimeError):
    """More turns are open than the configuration allows; the message says what holds them open."""


class _OpenTurn:
    __slots__ = ("deadline", "earliest", "fresh", "order", "query", "signals")

    def __init__(self, query: Query, earliest: int, deadline: int, order: int, fresh: bool) -> None:
        self.query = query
        self.earliest = earliest
        self.deadline = deadline
        self.order = order
        self.fresh = fresh
        self.signals: dict[type[Signal], dict[str, Signal]] = {}  # by type and event_id

    def take(self, signal: Signal) -> bool:
        """Take `signal`; return False if its event_id was taken before."""
        of_type = self.signals.get(type(signal))
        if of_type is None:
            self.signals[type(signal)] = {signal.event_id: signal}
            return True
        return of_type.setdefault(signal.event_id, signal) is signal

    def close(self, following: Query | None) -> Turn:
        """Return what it has become, given the session's next query within the window."""
        signals = {name_of(kind): tuple(of_type.values()) for kind, of_type in self.signals.items()}
        return Turn(self.query, signals, following)


def _closing_order(turn: _OpenTurn) -> tuple[int, int]:
    return turn.deadline, turn.order


class TurnAssembler:
    """Assembles the turns of one partition.

    Args:
        topics: the partition's topics. A merged log, such as an event file, is one topic of all event types.
        config: window, lateness and bound.
        position: where to resume, as `position` gave it; the caller then adds records from each topic's `resume` on.

    Attributes:
        counts: what was counted since the caller last took it: events by type (`query`, `impression` ...), `turn`
            (closed), `duplicate` (its event_id, or a query's query_id, was there already), `late` (no turn that could
            take it was still open when it came) and `orphan` (no turn took it: its query has not come, was itself
            late, or had closed). An event that waits for its query is an orphan until then, so a count may be negative.
    """

    def __init__(self, topics: Iterable[str], config: TurnConfig, position: Position | None = None) -> None:
        position = position or Position()
        self._window: Final = round(config.window_s * 1000)
        self._lateness: Final = round(config.lateness_s * 1000)
        self._max_open: Final = config.max_open
        self._topics: Final = {name: _Topic(position.topic(name)) for name in topics}
        self._watermark = position.watermark
        self._order = 0  # of arrival; breaks ties
        self._open: dict[str, _OpenTurn] = {}  # by query_id
        self._sessions: dict[str, list[_OpenTurn]] = {}  # open turns in event-time order
        self._closing: list[tuple[int, int, _OpenTurn]] = []  # heap: (deadline, order, turn)
        self._waiting: dict[str, dict[int, tuple[Signal, bool]]] = {}  # by query_id and order: (event, is it fresh?)
        self._expiring: list[tuple[int, int, str]] = []  # heap: (expiry, order, query_id)
        self.counts: Counter[str] = Counter()

    @property
    def watermark(self) -> int:
        """Event time (ms) up to which the partition is complete."""
        return self._watermark

    @property
    def open(self) -> int:
        """Turns open and events waiting."""
        return len(self._closing) + len(self._expiring)

    @property
    def rebuilding(self) -> bool:
        """Whether records are still to be re-read after a restart. Nothing may be committed until they are."""
        return any(topic.rereading for topic in self._topics.values())

    @property
    def position(self) -> Position:
        """Where the partition stands, to be committed together with all turns closed so far.

        Raises:
            RuntimeError: while rebuilding.
        """
        if self.rebuilding:
            raise RuntimeError("a partition has no position of its own before it is rebuilt")
        # Whatever an open turn or a waiting event needs is newer than this.
        horizon = self._watermark - self._window - self._lateness if self.open else None
        return Position(
            self._watermark, {name: topic.position(self._watermark, horizon) for name, topic in self._topics.items()}
        )

    def add(self, topic: str, offsets: Sequence[int], events: Sequence[Event | None]) -> None:
        """Add a chunk of a topic's records, in their order.

        Args:
            topic: one of the constructor's.
            offsets: ascending; of each event.
            events: None for a record that held no event, such as a dead letter.

        Raises:
            TooManyOpenError: more turns and waiting events than `max_open`.
        """
        if not offsets:
            return
        source = self._topics[topic]
        first_fresh = bisect_left(offsets, source.read)
        opened = self._open
        for index, event in enumerate(events):
            if event is None:
                continue
            fresh = index >= first_fresh
            if isinstance(event, Query):
                self._add_query(event, fresh, source, offsets[index])
                continue
            turn = opened.get(event.query_id)
            # The common case of `_add_signal`, without a call.
            if not (fresh and turn is not None and turn.earliest <= event.ts < turn.deadline and turn.take(event)):
                self._add_signal(event, fresh)
        source.advance(offsets, max(map(_ts, filter(None, events)), default=BEGINNING))
        for event_type, count in Counter(map(type, events[first_fresh:])).items():
            if issubclass(event_type, Struct):
                self.counts[name_of(event_type)] += count
        if self.open > self._max_open:
            raise TooManyOpenError(self._explain_open())

    def advance(self, caught_up: Collection[str] = ()) -> list[Turn]:
        """Move the watermark on; return the turns that it closes, in event-time order.

        Args:
            caught_up: topics that are read to their end: they do not hold the watermark back, so that silence does
                not stop learning. When all are, the newest event counts.
        """
        for name in caught_up:
            self._topics[name].catch_up()
        behind = [topic.seen for name, topic in self._topics.items() if name not in caught_up]
        newest = min(behind) if behind else max(topic.seen for topic in self._topics.values())
        return self._close_through(newest - self._lateness)

    def finish(self) -> list[Turn]:
        """Close every open turn, because no more events will come; return them in event-time order."""
        ends = [deadline for deadline, _, _ in self._closing] + [expiry for expiry, _, _ in self._expiring]
        return self._close_through(max(ends, default=self._watermark))

    def _add_query(self, query: Query, fresh: bool, source: "_Topic", offset: int) -> None:
        deadline = query.ts + self._window
        if deadline <= self._watermark:
            self.counts["late"] += fresh
            return
        turn = self._open.get(query.query_id)
        if turn is not None or source.was_dropped(offset):
            self.counts["duplicate"] += fresh
            source.drop(offset, deadline)
            return
        self._order += 1
        turn = _OpenTurn(query, query.ts - self._lateness, deadline, self._order, fresh)
        self._open[query.query_id] = turn
        heappush(self._closing, (deadline, self._order, turn))
        insort(self._sessions.setdefault(query.session_id, []), turn, key=_closing_order)
        waiting = self._waiting.pop(query.query_id, {})
        for order, (signal, was_fresh) in list(waiting.items()):
            if turn.earliest <= signal.ts < deadline:
                del waiting[order]
                self._take(turn, signal, was_fresh, waited=True)
        if waiting:
            self._waiting[query.query_id] = waiting

    def _add_signal(self, signal: Signal, fresh: bool) -> None:
        turn = self._open.get(signal.query_id)
        if turn is not None and turn.earliest <= signal.ts < turn.deadline:
            self._take(turn, signal, fresh, waited=not fresh)
            return
        expiry = signal.ts + self._lateness + self._window
        if expiry <= self._watermark:
            self.counts["late"] += fresh
            return
        self.counts["orphan"] += fresh
        self._order += 1
        self._waiting.setdefault(signal.query_id, {})[self._order] = (signal, fresh)
        heappush(self._expiring, (expiry, self._order, signal.query_id))

    def _take(self, turn: _OpenTurn, signal: Signal, fresh: bool, *, waited: bool) -> None:
        # What waited counts as an orphan until its query comes. Whether that was so before a restart shows in the
        # query: a re-read event whose query is new can only have been waiting.
        news = fresh or turn.fresh
        self.counts["orphan"] -= waited and news
        if not turn.take(signal):
            self.counts["duplicate"] += news

    def _close_through(self, watermark: int) -> list[Turn]:
        if watermark <= self._watermark:
            return []
        self._watermark = watermark
        closed: list[Turn] = []
        closing, opened, sessions = self._closing, self._open, self._sessions
        while closing and closing[0][0] <= watermark:
            _, _, turn = heappop(closing)
            query = turn.query
            del opened[query.query_id]
            session = sessions[query.session_id]
            session.pop(0)  # turns of one session close in the order in which it keeps them
            following = session[0].query if session else None
            if not session:
                del sessions[query.session_id]
            elif session[0].query.ts >= turn.deadline:
                following = None
            closed.append(turn.close(following))
        self.counts["turn"] += len(closed)
        self._expire_through(watermark)
        return closed

    def _expire_through(self, watermark: int) -> None:
        expiring, waiting = self._expiring, self._waiting
        while expiring and expiring[0][0] <= watermark:
            _, order, query_id = heappop(expiring)
            of_query = waiting.get(query_id)
            if of_query is not None:
                of_query.pop(order, None)
                if not of_query:
                    del waiting[query_id]

    def _explain_open(self) -> str:
        held = min(self._topics, key=lambda name: self._topics[name].seen)
        return (
            f"{self.open} turns and waiting events are open, more than turns.max_open = {self._max_open}. "
            f"The watermark is held back by topic {held}, which is the furthest behind in event time. "
            "Raise turns.max_open if memory allows, or shorten turns.window_s"
        )


class _Topic:
    """A topic's side of the position: offsets, newest event time, and the chunks that open turns may need again."""

    def __init__(self, position: TopicPosition) -> None:
        self.read = position.read
        self._newest = position.newest
        self._next = position.resume
        self._reread = BEGINNING  # newest event time among the records that are read once more
        self._chunks: deque[tuple[int, int]] = deque()  # (first offset, newest event time in the chunk)
        self._was_dropped = frozenset(position.dropped)
        self._dropped: dict[int, int] = {}  # offset -> deadline

    @property
    def rereading(self) -> bool:
        return self._next < self.read

    @property
    def seen(self) -> int:
        """The newest event time that this process has seen: what is still to be re-read holds the watermark."""
        return self._reread if self.rereading else self._newest

    def catch_up(self) -> None:
        """Nothing more will be re-read, even if records that were there have expired."""
        self._next = max(self._next, self.read)

    def was_dropped(self, offset: int) -> bool:
        return offset in self._was_dropped

    def drop(self, offset: int, deadline: int) -> None:
        """Remember a duplicate query: once its original has closed, nothing else would tell it from a new one."""
        self._dropped[offset] = deadline

    def advance(self, offsets: Sequence[int], newest: int) -> None:
        self._chunks.append((offsets[0], newest))
        self._next = offsets[-1] + 1
        self._reread = max(self._reread, newest)
        self._newest = max(self._newest, newest)
        self.read = max(self.read, self._next)

    def position(self, watermark: int, horizon: int | None) -> TopicPosition:
        """Where it stands, when only events newer than `horizon` (None: no event at all) may be needed again."""
        chunks = self._chunks
        while chunks and (horizon is None or chunks[0][1] <= horizon):
            chunks.popleft()
        resume = chunks[0][0] if chunks else self.read
        self._dropped = {
            offset: deadline for offset, deadline in self._dropped.items() if offset >= resume and deadline > watermark
        }
        return TopicPosition(self.read, resume, self._newest, tuple(self._dropped))
