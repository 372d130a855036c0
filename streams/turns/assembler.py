"""From events to turns: pure, no I/O, one assembler per partition.

A turn takes the events of its query that happened from `lateness` before it (clocks differ) until the attribution
window ends. It closes when the watermark reaches that end. The watermark is the oldest of the topics' newest event
times, minus the lateness. As long as no event of a topic is more than `lateness` older than a preceding one of the same
topic, turns have the same events however the topics interleave.

Two rules make a restart exact. An event whose query has not arrived waits for as long as a turn that could take it may
be open, so turns do not depend on the order of arrival. And re-read events (at offsets that were read before the
restart) rebuild turns but are not counted again, unless they meet a new event.
"""

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

from msgspec import Meta, Struct

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Event, Query, Signal, Teach, name_of
from backchannel.schemas.text import Fold
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.deadlines import Deadlines
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
            le=1e9,
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
    fold: Annotated[
        tuple[Fold, ...],
        Meta(
            description="in what texts of one query may differ, beside case and outer punctuation: digits, those of "
            "all scripts are 0 to 9; diacritics, letters without accents and vowel signs; alef, its plain form"
        ),
    ] = ()


class TooManyOpenError(BackchannelError, RuntimeError):
    """More turns are open than the configuration allows; the message says what holds them open."""


_K = TypeVar("_K")

Assembled: TypeAlias = tuple[_K, Mapping[tuple[type[Signal], str], _K], _K | None]
"""A closed turn, as what is kept of each event: the query, the signals by type and event_id, the next query;
see `Turn`."""


class _OpenTurn(Struct, Generic[_K], gc=False):
    query_id: str
    session_id: str
    ts: int
    kept: _K
    earliest: int
    deadline: int
    order: int
    fresh: bool
    signals: dict[tuple[type[Signal], str], _K] = {}  # by type and event_id


def _closing_order(turn: _OpenTurn[Any]) -> tuple[int, int]:
    return turn.deadline, turn.order


class Assembler(Generic[_K]):
    """Assembles the turns of one partition.

    Args:
        topics: the partition's topics. A merged log, such as an event file, is one topic of all event types.
        config: window, lateness and bound.
        position: the position to resume from; records are then added from each topic's `resume` offset on.

    Attributes:
        counts: counts since the caller last cleared them: events by type (`query`, `impression` ...), closed turns
            (`turn`), duplicates by event_id or, for queries, query_id (`duplicate`), events for which every possible
            turn had closed (`late`), events without a turn because the query is missing, late or closed (`orphan`),
            events of open turns (`open`), and those of closed ones and of rules (`learned`). An event that waits for
            its query counts as an orphan meanwhile, and events are open until their turn closes, so a count can be
            negative. Every event is counted once by type and once by outcome: see `streams.turns.accounts`.
        behind: by how much (ms) the lateness would have to grow for no event so far to have been late.
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
        self._closing: Deadlines[_OpenTurn[_K]] = Deadlines()
        self._waiting: dict[str, dict[int, _Waiting[_K]]] = {}  # by query_id and order
        self._expiring: Deadlines[str] = Deadlines()  # query_ids
        self.counts: Counter[str] = Counter()
        self.behind = 0

    @property
    def watermark(self) -> int:
        """Event time (ms) up to which the partition is complete."""
        return self._watermark

    def newest(self, topic: str) -> int:
        """Return the newest event time (ms) among the events of a topic added since it was resumed."""
        return self._topics[topic].seen

    @property
    def open(self) -> int:
        """The number of open turns and waiting events."""
        return len(self._closing) + len(self._expiring)

    @property
    def rebuilding(self) -> bool:
        """Whether records are still being re-read after a restart, before which nothing may be committed."""
        return any(topic.rereading for topic in self._topics.values())

    @property
    def position(self) -> Position:
        """The partition's position, to be committed together with all turns closed so far.

        Raises:
            RuntimeError: the partition is still being rebuilt.
        """
        if self.rebuilding:
            raise RuntimeError("a partition has no position until it is rebuilt")
        horizon = self._horizon
        return Position(
            self._watermark, {name: topic.position(self._watermark, horizon) for name, topic in self._topics.items()}
        )

    @property
    def _horizon(self) -> int | None:
        """Event time (ms) before all events still needed; None if none are."""
        return self._watermark - self._window - self._lateness if self.open else None

    def _add(
        self,
        topic: str,
        offsets: Sequence[int],
        events: Sequence[Event | None],
        kept: Iterable[_K | None],
        appended: Sequence[int] | None,
    ) -> None:
        """Add a chunk of records, keeping `kept` of each event; see `TurnAssembler.add`."""
        if not offsets:
            return
        source = self._topics[topic]
        first_fresh = bisect_left(offsets, source.read)
        opened, read, taken = self._open, source.read, 0
        event: Any
        for event, keep, offset in zip(events, kept, offsets, strict=True):
            if keep is None:
                continue
            kind = type(event)
            if kind is Query:
                self._add_query(event, keep, offset >= read, source, offset)
                continue
            turn, key, ts = opened.get(event.query_id), (kind, event.event_id), event.ts
            # The common case of `_add_signal`, inlined.
            if turn is not None and turn.earliest <= ts < turn.deadline and offset >= read and key not in turn.signals:
                turn.signals[key] = keep
                taken += 1
            else:
                self._add_signal(event.query_id, _Waiting(key, ts, keep, offset >= read))
        self.counts["open"] += taken
        newest = reached = max(map(_ts, filter(None, events)), default=BEGINNING)
        if appended is not None and newest > min(appended):
            reached = max(min(event.ts, at) for event, at in zip(events, appended, strict=True) if event)
        source.advance(offsets, newest, reached)
        for event_type, count in Counter(map(type, events[first_fresh:])).items():
            if issubclass(event_type, Struct):
                self.counts[name_of(event_type)] += count
            if event_type is Teach:  # it belongs to no turn, and is written at once
                self.counts["learned"] += count
        if self.open > self._max_open:
            raise TooManyOpenError(self._explain_open())

    def _advance(
        self, caught_up: Collection[str], newest: Mapping[str, int] | None, now: int | None
    ) -> list[Assembled[_K]]:
        """Advance the watermark; see `TurnAssembler.advance`."""
        for name in caught_up:
            self._topics[name].catch_up()
        seen = {name: topic.seen for name, topic in self._topics.items()} if newest is None else newest
        behind = [at for name, at in seen.items() if name not in caught_up]
        reached = min(behind) if behind else max(seen.values())
        return self._close_through((reached if now is None else min(reached, now)) - self._lateness)

    def _finish(self, now: int | None) -> list[Assembled[_K]]:
        """Close every open turn; see `TurnAssembler.finish`."""
        ends = [end for end in (self._closing.last(), self._expiring.last()) if end is not None]
        reached = max(ends, default=self._watermark)
        return self._close_through(reached if now is None else min(reached, now))

    def _add_query(self, query: Query, kept: _K, fresh: bool, source: "_Topic", offset: int) -> None:
        deadline = query.ts + self._window
        if deadline <= self._watermark:
            self._count_late(deadline, fresh=fresh)
            return
        turn = self._open.get(query.query_id)
        if turn is not None or source.was_dropped(offset):
            self.counts["duplicate"] += fresh
            source.drop(offset, deadline)
            return
        self.counts["open"] += fresh
        self._order += 1
        session_id = query.session_id
        turn = _OpenTurn(
            query.query_id, session_id, query.ts, kept, query.ts - self._lateness, deadline, self._order, fresh
        )
        self._open[query.query_id] = turn
        self._closing.add(deadline, self._order, turn)
        session = self._sessions.get(session_id)
        if session is None:
            self._sessions[session_id] = [turn]
        elif session[-1].deadline > deadline:
            insort(session, turn, key=_closing_order)
        else:
            session.append(turn)
        waiting = self._waiting.pop(query.query_id, None)
        if waiting is None:
            return
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
            self._count_late(expiry, fresh=fresh)
            return
        self.counts["orphan"] += fresh
        self._order += 1
        self._waiting.setdefault(query_id, {})[self._order] = signal
        self._expiring.add(expiry, self._order, query_id)

    def _take(self, turn: _OpenTurn[_K], signal: "_Waiting[_K]", *, waited: bool) -> None:
        # A waiting event counts as an orphan until its query arrives. If it is re-read, a new query shows that it was
        # counted before the restart.
        news = signal.fresh or turn.fresh
        self.counts["orphan"] -= waited and news
        new = signal.key not in turn.signals
        if new:
            turn.signals[signal.key] = signal.kept
        self.counts["open" if new else "duplicate"] += news

    def _count_late(self, until: int, *, fresh: bool) -> None:
        """Count an event that a turn could have taken until the watermark reached `until` (ms)."""
        if fresh:
            self.counts["late"] += 1
            self.behind = max(self.behind, self._watermark - until + 1)

    def _close_through(self, watermark: int) -> list[Assembled[_K]]:
        if watermark <= self._watermark:
            return []
        self._watermark = watermark
        closed: list[Assembled[_K]] = []
        opened, sessions = self._open, self._sessions
        for _, _, turn in self._closing.through(watermark):
            del opened[turn.query_id]
            session = sessions[turn.session_id]
            session.pop(0)  # a session's turns close in this order
            following = session[0].kept if session else None
            if not session:
                del sessions[turn.session_id]
            elif session[0].ts >= turn.deadline:
                following = None
            closed.append((turn.kept, turn.signals, following))
        events = len(closed) + sum([len(signals) for _, signals, _ in closed])
        self.counts["turn"] += len(closed)
        self.counts["learned"] += events
        self.counts["open"] -= events
        self._expire_through(watermark)
        return closed

    def _expire_through(self, watermark: int) -> None:
        waiting = self._waiting
        for _, order, query_id in self._expiring.through(watermark):
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

    def add(
        self,
        topic: str,
        offsets: Sequence[int],
        events: Sequence[Event | None],
        appended: Sequence[int] | None = None,
    ) -> None:
        """Add a chunk of a topic's records, in their order.

        Args:
            topic: one of the constructor's topics.
            offsets: the records' offsets, ascending.
            events: the records' events; None for a record without one, such as a dead letter.
            appended: when the broker appended the records, ms since the Unix epoch, if it says so. No event advances
                the watermark further than that, read live or again: one producer whose clock is ahead would make the
                events of all others late.

        Raises:
            TooManyOpenError: there are more open turns and waiting events than `max_open`.
        """
        self._add(topic, offsets, events, [None if isinstance(event, Teach) else event for event in events], appended)

    def advance(
        self, caught_up: Collection[str] = (), newest: Mapping[str, int] | None = None, now: int | None = None
    ) -> list[Turn]:
        """Advance the watermark, and return the turns that this closes, in event-time order.

        Args:
            caught_up: topics that have been read to their end. They do not hold back the watermark, so that silence
                does not stop learning. If all have, the newest event of any topic counts.
            newest: topic -> the newest event time (ms), see `newest`, when it was asked where they end; None: now.
            now: wall clock, ms since the Unix epoch, if events are read as they happen. The watermark stays behind it,
                for records of which it is not known when they were appended; see `add`.
        """
        return list(map(_turn, self._advance(caught_up, newest, now)))

    def finish(self, now: int | None = None) -> list[Turn]:
        """Close all open turns, as no more events will come, and return them in event-time order.

        Args:
            now: wall clock, see `advance`: turns that end later stay open.
        """
        return list(map(_turn, self._finish(now)))


def _turn(closed: Assembled[Event]) -> Turn:
    query, signals, following = cast("Any", closed)
    return Turn.of(query, signals.values(), following)


class _Waiting(NamedTuple, Generic[_K]):
    """A signal that waits for its query."""

    key: tuple[type[Signal], str]
    ts: int
    kept: _K
    fresh: bool


class _Topic:
    """A topic's part of the position: offsets, newest event time, and the chunks that open turns may need again."""

    def __init__(self, position: TopicPosition) -> None:
        self.read = position.read
        self._id = position.id
        self._newest = position.newest
        self._next = position.resume
        self._reread = BEGINNING  # newest event time among re-read records
        self._chunks: deque[tuple[int, int]] = deque()  # (first offset, newest event time in the chunk)
        self._was_dropped = frozenset(position.dropped)
        self._dropped: dict[int, int] = {}  # offset -> deadline

    @property
    def rereading(self) -> bool:
        return self._next < self.read

    @property
    def seen(self) -> int:
        """The newest event time seen by this process; records still to be re-read hold back the watermark."""
        return self._reread if self.rereading else self._newest

    def catch_up(self) -> None:
        """End re-reading: the remaining records may have expired."""
        self._next = max(self._next, self.read)

    def was_dropped(self, offset: int) -> bool:
        return offset in self._was_dropped

    def drop(self, offset: int, deadline: int) -> None:
        """Remember a duplicate query, which looks like a new one once its original has closed."""
        self._dropped[offset] = deadline

    def advance(self, offsets: Sequence[int], newest: int, reached: int) -> None:
        """Note a chunk, its newest event time, and what the watermark may reach by it."""
        self._chunks.append((offsets[0], newest))
        self._next = offsets[-1] + 1
        self._reread = max(self._reread, reached)
        self._newest = max(self._newest, reached)
        self.read = max(self.read, self._next)

    def position(self, watermark: int, horizon: int | None) -> TopicPosition:
        """Return the position; only events newer than `horizon` (ms; None: none at all) may be needed again."""
        chunks = self._chunks
        while chunks and (horizon is None or chunks[0][1] <= horizon):
            chunks.popleft()
        resume = chunks[0][0] if chunks else self.read
        self._dropped = {
            offset: deadline for offset, deadline in self._dropped.items() if offset >= resume and deadline > watermark
        }
        return TopicPosition(self.read, resume, self._newest, tuple(self._dropped), self._id)
