"""Turns whose events become rows of columns on arrival, so that the event objects can be freed at once."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import numpy as np

from backchannel.agents.columnar.columns import TOGETHER, Columns, Turns
from backchannel.agents.columnar.frames import MISSING, Frame, Ragged
from backchannel.agents.columnar.interning import Interner
from backchannel.agents.sums import Integers
from backchannel.schemas.events import BargeIn, Click, Event, Impression, Query, Teach, name_of
from backchannel.streams.turns.assembler import Assembled, Assembler, TurnConfig
from backchannel.streams.turns.position import Position

_LEAST: Final = 1 << 16
"""Number of interned values up to which none are dropped."""

_NOTHING, _QUERIES, _IMPRESSIONS, _CLICKS, _BARGE_INS, _OTHERS = range(-1, 5)
"""Places of event types. Of rules and dead letters nothing is kept, of a barge-in only that it came; signals without
columns of their own have a place for each type, from _OTHERS on."""
_PLACES: Final[dict[type[Any], int]] = {
    type(None): _NOTHING,
    Teach: _NOTHING,
    Query: _QUERIES,
    Impression: _IMPRESSIONS,
    Click: _CLICKS,
    BargeIn: _BARGE_INS,
}
_STEP: Final = 1 << 8
"""Between the codes of two rows; more than there are types."""

_ts: Final = attrgetter("ts")
_F = TypeVar("_F", bound=Frame)


class RowAssembler(Assembler[int]):
    """Assembles turns as columns; see `Assembler`.

    Of each event it keeps a code: its row number among those with the same columns, and its type's place. Rows are
    freed once no open turn can need them, as the position's resume offset says.
    """

    def __init__(self, topics: Iterable[str], config: TurnConfig, position: Position | None = None) -> None:
        super().__init__(topics, config, position)
        self._interner: Final = Interner(config.fold)
        self._queries: Final = _Arrived(self._interner.queries)
        self._impressions: Final = _Arrived(self._interner.impressions)
        self._clicks: Final = _Arrived(self._interner.clicks)
        self._others: Final = _Arrived(self._interner.others)
        self._places: Final = defaultdict[type[Any], int](count(_OTHERS).__next__, _PLACES)
        self._arrived: Final[dict[int, _Arrived[Any]]] = {
            _QUERIES: self._queries,
            _IMPRESSIONS: self._impressions,
            _CLICKS: self._clicks,
            _OTHERS: self._others,
        }
        self._closed = _Closed()
        self._columns: list[Columns] = []
        self._most = _LEAST

    @property
    def closed(self) -> int:
        """The number of turns that have closed since the last `take`."""
        return sum(map(len, self._columns)) + len(self._closed.queries)

    def add(
        self,
        topic: str,
        offsets: Sequence[int],
        events: Sequence[Event | None],
        appended: Sequence[int] | None = None,
    ) -> None:
        """Add a chunk of a topic's records; see `TurnAssembler.add`."""
        places = [self._places[type(event)] for event in events]
        every = set(places)
        if len(every) == 1:
            self._add(topic, offsets, events, self._codes(places[0], events), appended)
            return
        codes = {
            place: iter(self._codes(place, [event for event, its in zip(events, places, strict=True) if its == place]))
            for place in every
        }
        self._add(topic, offsets, events, [next(codes[place]) for place in places], appended)

    def _codes(self, place: int, events: Sequence[Any]) -> Iterable[int | None]:
        """Add the rows of events of one type, and return their codes."""
        if place == _NOTHING:
            return repeat(None, len(events))
        if place == _BARGE_INS:
            return repeat(place, len(events))
        arrived = self._arrived[min(place, _OTHERS)]
        first = arrived.next
        arrived.add(events)
        return range(first * _STEP + place, arrived.next * _STEP, _STEP)

    def advance(
        self, caught_up: Collection[str] = (), newest: Mapping[str, int] | None = None, now: int | None = None
    ) -> int:
        """Advance the watermark, and return the number of turns that this closes; see `TurnAssembler.advance`."""
        return self._close(self._advance(caught_up, newest, now))

    def finish(self, now: int | None = None) -> int:
        """Close all open turns, and return their number; see `TurnAssembler.finish`."""
        return self._close(self._finish(now))

    def take(self) -> list[Columns]:
        """Return the turns that have closed since the last call, in event-time order; see `columns.TOGETHER`."""
        self._collect()
        columns, self._columns = self._columns, []
        return columns

    def _close(self, closed: Sequence[Assembled[int]]) -> int:
        self._closed.add(closed)
        if len(self._closed.queries) >= TOGETHER:
            self._collect()
        return len(closed)

    def _collect(self) -> None:
        """Make columns of the turns that have closed, and free the rows that are no longer needed."""
        if self._closed.queries:
            self._columns.append(self._columns_of(self._closed))
            self._closed = _Closed()
        self._forget()

    def _columns_of(self, closed: "_Closed") -> Columns:
        following = np.array(closed.following, dtype=np.int64)
        has_next = following != MISSING
        counts = np.array(closed.counts, dtype=np.int64)
        turns = np.repeat(np.arange(len(counts)), counts)
        rows, places = np.divmod(np.array(closed.signals, dtype=np.int64), _STEP)

        def signals(arrived: _Arrived[_F], found: Integers) -> Ragged[_F]:
            return Ragged(np.bincount(turns[found], minlength=len(counts)), arrived.take(rows[found]))

        by_name = np.argsort(np.argsort([name_of(kind) for kind, place in self._places.items() if place >= _OTHERS]))
        others = np.flatnonzero(places >= _OTHERS)
        others = others[np.lexsort((by_name[places[others] - _OTHERS], turns[others]))]
        return self._interner.columns(
            Turns(
                query=self._queries.take(np.array(closed.queries, dtype=np.int64) // _STEP),
                following=Ragged(has_next.astype(np.int64), self._queries.take(following[has_next] // _STEP)),
                impressions=signals(self._impressions, np.flatnonzero(places == _IMPRESSIONS)),
                clicks=signals(self._clicks, np.flatnonzero(places == _CLICKS)),
                barge_ins=np.bincount(turns[places == _BARGE_INS], minlength=len(counts)),
                others=signals(self._others, others),
            )
        )

    def _forget(self) -> None:
        """Free the rows that are no longer needed and, occasionally, the interned values that no row holds."""
        every = self._arrived.values()
        for arrived in every:
            arrived.forget(self._horizon)
        if len(self._interner) > self._most:
            blocks = [block for arrived in every for block in arrived.blocks]
            frames = self._interner.pruned([block.frame for block in blocks])
            for block, frame in zip(blocks, frames, strict=True):
                block.frame = frame
            self._most = max(2 * len(self._interner), _LEAST)


class _Closed:
    """Closed turns, as the codes of their events; see `RowAssembler`.

    Attributes:
        queries: the code of each turn's query.
        following: the code of the session's next query; MISSING if there is none.
        counts: the number of each turn's signals.
        signals: the codes of all signals, turn by turn.
    """

    def __init__(self) -> None:
        self.queries: Final[list[int]] = []
        self.following: Final[list[int]] = []
        self.counts: Final[list[int]] = []
        self.signals: Final[list[int]] = []

    def add(self, closed: Sequence[Assembled[int]]) -> None:
        """Add turns."""
        for query, signals, following in closed:
            self.queries.append(query)
            self.following.append(MISSING if following is None else following)
            self.counts.append(len(signals))
            self.signals.extend(signals.values())


class _Block(Generic[_F]):
    """The events of one type in a chunk: the first row number, and the newest event time."""

    __slots__ = ("first", "frame", "newest")

    def __init__(self, first: int, newest: int, frame: _F) -> None:
        self.first = first
        self.newest = newest
        self.frame = frame


class _Arrived(Generic[_F]):
    """The rows of the events of one type, numbered in order of arrival.

    Args:
        make: a function from events to a frame.
    """

    def __init__(self, make: Callable[[Sequence[Any]], _F]) -> None:
        self._make: Final = make
        self.next = 0
        self.blocks: Final[deque[_Block[_F]]] = deque()

    def add(self, events: Sequence[Event]) -> None:
        """Add rows."""
        if events:
            self.blocks.append(_Block(self.next, max(map(_ts, events)), self._make(events)))
            self.next += len(events)

    def take(self, rows: Integers) -> _F:
        """Return the rows with the numbers `rows`, (n,), in that order."""
        if not len(rows):
            return self._make(())
        first, last = int(rows.min()), int(rows.max())
        blocks = [block for block in self.blocks if block.first <= last and block.first + len(block.frame) > first]
        frame = type(blocks[0].frame).concat([block.frame for block in blocks])
        return frame.take(rows - blocks[0].first)

    def forget(self, horizon: int | None) -> None:
        """Drop the leading blocks without an event newer than `horizon` (ms); all blocks if None."""
        while self.blocks and (horizon is None or self.blocks[0].newest <= horizon):
            self.blocks.popleft()
