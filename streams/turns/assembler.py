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
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

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


_K = TypeVar("_K")

Assembled: TypeAlias = tuple[_K, dict[str, tuple[_K, ...]], _K | None]
"""A closed turn of what is kept of events: its query, its signals by type, and the session's next query; see `Turn`."""


class _OpenTurn(Generic[_K]):
    __slots__ = ("deadline", "earliest", "fresh", "kept", "order", "query_id", "session_id", "signals", "ts")

    def __init__(self, query: Query, kept: _K, *, earliest: int, deadline: int, order: int, fresh: bool) -> None:
        self.query_id = query.query_id
        self.session_id = query.session_id
        self.ts = query.ts
        self.kept = kept
        self.earliest = earliest
        self.deadline = deadline
        self.order = order
        self.fresh = fresh
        self.signals: dict[type[Signal], dict[str, _K]] = {}  # by type and event_id

    def take(self, kind: type[Signal], event_id: str, kept: _K) -> bool:
        """Take a signal; return False if its event_id was taken before."""
        of_type = self.signals.get(kind)
        if of_type is None:
            self.signals[kind] = {event_id: kept}
            return True
        if event_id in of_type:
            return False
        of_type[event_id] = kept
        return True

    def close(self, following: _K | None) -> Assembled[_K]:
        """Return what it has become, given the session's next query within the window."""
        return self.kept, {name_of(kind): tuple(some.values()) for kind, some in self.signals.items()}, following


def _closing_order(turn: _OpenTurn[Any]) -> tuple[int, int]:
    return turn.deadline, turn.order


class Assembler(Generic[_K]):
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
        self._open: dict[str, _OpenTurn[_K]] = {}  # by query_id
        self._sessions: dict[str, list[_OpenTurn[_K]]] = {}  # open turns in event-time order
        self._closing: list[tuple[int, int, _OpenTurn[_K]]] = []  # heap: (deadline, order, turn)
        self._waiting: dict[str, dict[int, _Waiting[_K]]] = {}  # by query_id and order
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
        horizon = self._horizon
        return Position(
            self._watermark, {name: topic.position(self._watermark, horizon) for name, topic in self._topics.items()}
        )

    @property
    def _horizon(self) -> int | None:
        """Whatever an open turn or a waiting event needs is newer than this (ms); None if there are none."""
        return self._watermark - self._window - self._lateness if self.open else None

    def _add(
        self, topic: str, offsets: Sequence[int], events: Sequence[Event | None], kept: Sequence[_K | None]
    ) -> None:
        """Add a chunk of a topic's records, of which `kept` is kept; see `TurnAssembler.add`."""
        if not offsets:
            return
        source = self._topics[topic]
        first_fresh = bisect_left(offsets, source.read)
        opened = self._open
        for index, (event, keep) in enumerate(zip(events, kept, strict=True)):
            if event is None or keep is None:
                continue
            fresh = index >= first_fresh
            if isinstance(event, Query):
                self._add_query(event, keep, fresh, source, offsets[index])
                continue
            turn = opened.get(event.query_id)
            ts, kind, event_id = event.ts, type(event), event.event_id
            # The common case of `_add_signal`, without a call.
            if not (
                fresh and turn is not None and turn.earliest <= ts < turn.deadline and turn.take(kind, event_id, keep)
            ):
                self._add_signal(event.query_id, _Waiting(kind, event_id, ts, keep, fresh))
        source.advance(offsets, max(map(_ts, filter(None, events)), default=BEGINNING))
        for event_type, count in Counter(map(type, events[first_fresh:])).items():
            if issubclass(event_type, Struct):
                self.counts[name_of(event_type)] += count
        if self.open > self._max_open:
            raise TooManyOpenError(self._explain_open())

    def _advance(self, caught_up: Collection[str]) -> list[Assembled[_K]]:
        """Move the watermark on; see `TurnAssembler.advance`."""
        for name in caught_up:
            self._topics[name].catch_up()
        behind = [topic.seen for name, topic in self._topics.items() if name not in caught_up]
        newest = min(behind) if behind else max(topic.seen for topic in self._topics.values())
        return self._close_through(newest - self._lateness)

    def _finish(self) -> list[Assembled[_K]]:
        """Close every open turn; see `TurnAssembler.finish`."""
        ends = [deadline for deadline, _, _ in self._closing] + [expiry for expiry, _, _ in self._expiring]
        return self._close_through(max(ends, default=self._watermark))

    def _add_query(self, query: Query, kept: _K, fresh: bool, source: "_Topic", offset: int) -> None:
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
        turn = _OpenTurn(
            query, kept, earliest=query.ts - self._lateness, deadline=deadline, order=self._order, fresh=fresh
        )
        self._open[query.query_id] = turn
        heappush(self._closing, (deadline, self._order, turn))
        insort(self._sessions.setdefault(query.session_id, []), turn, key=_closing_order)
        waiting = self._waiting.pop(query.query_id, {})
        for order, signal in list(waiting.items()):
            if turn.earliest <= signal.ts < deadline:
                del waiting[order]
                self._take(turn, signal, waited=True)
        if waiting:
            self._waiting[query.query_id] = waiting

    def _add_signal(self, query_id: str, signal: "_Waiting[_K]") -> None:
        turn, fresh = self._open.get(query_id), signal.fresh
        if turn is not None and turn.earliest <= signal.ts < turn.deadline:
            self._take(turn, signal, waited=not fresh)
            return
        expiry = signal.ts + self._lateness + self._window
        if expiry <= self._watermark:
            self.counts["late"] += fresh
            return
        self.counts["orphan"] += fresh
        self._order += 1
        self._waiting.setdefault(query_id, {})[self._order] = signal
        heappush(self._expiring, (expiry, self._order, query_id))

    def _take(self, turn: _OpenTurn[_K], signal: "_Waiting[_K]", *, waited: bool) -> None:
        # What waited counts as an orphan until its query comes. Whether that was so before a restart shows in the
        # query: a re-read event whose query is new can only have been waiting.
        news = signal.fresh or turn.fresh
        self.counts["orphan"] -= waited and news
        if not turn.take(signal.kind, signal.event_id, signal.kept):
            self.counts["duplicate"] += news

    def _close_through(self, watermark: int) -> list[Assembled[_K]]:
        if watermark <= self._watermark:
            return []
        self._watermark = watermark
        closed: list[Assembled[_K]] = []
        closing, opened, sessions = self._closing, self._open, self._sessions
        while closing and closing[0][0] <= watermark:
            _, _, turn = heappop(closing)
            del opened[turn.query_id]
            session = sessions[turn.session_id]
            session.pop(0)  # turns of one session close in the order in which it keeps them
            following = session[0].kept if session else None
            if not session:
                del sessions[turn.session_id]
            elif session[0].ts >= turn.deadline:
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


class TurnAssembler(Assembler[Event]):
    """Assembles turns of events as objects; see `Assembler`."""

    def add(self, topic: str, offsets: Sequence[int], events: Sequence[Event | None]) -> None:
        """Add a chunk of a topic's records, in their order.

        Args:
            topic: one of the constructor's.
            offsets: ascending; of each event.
            events: None for a record that held no event, such as a dead letter.

        Raises:
            TooManyOpenError: more turns and waiting events than `max_open`.
        """
        self._add(topic, offsets, events, events)

    def advance(self, caught_up: Collection[str] = ()) -> list[Turn]:
        """Move the watermark on; return the turns that it closes, in event-time order.

        Args:
            caught_up: topics that are read to their end: they do not hold the watermark back, so that silence does
                not stop learning. When all are, the newest event counts.
        """
        return [Turn(*one) for one in cast("list[Any]", self._advance(caught_up))]

    def finish(self) -> list[Turn]:
        """Close every open turn, because no more events will come; return them in event-time order."""
        return [Turn(*one) for one in cast("list[Any]", self._finish())]


class _Waiting(NamedTuple, Generic[_K]):
    """A signal, as far as it matters to where it belongs."""

    kind: type[Signal]
    event_id: str
    ts: int
    kept: _K
    fresh: bool


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
