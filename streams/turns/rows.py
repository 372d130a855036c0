"""Turns whose events become rows of columns on arrival, so that the event objects can be freed at once."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import numpy as np

from backchannel.agents.columnar.columns import TOGETHER, Columns, Turns
from backchannel.agents.columnar.frames import MISSING, Frame, Ragged
from backchannel.agents.columnar.interning import Interner, others_of
from backchannel.agents.sums import Integers
from backchannel.schemas.events import BargeIn, Click, Event, Impression, Query, Signal, Teach, name_of
from backchannel.streams.turns.assembler import Assembled, Assembler, TurnConfig
from backchannel.streams.turns.position import Position

_LEAST: Final = 1 << 16
"""Number of interned values up to which none are dropped."""
_TOGETHER: Final = 500
"""Turns that are gone through together: few, so that they stay in the processor's cache from one pass to the next."""

_ts: Final = attrgetter("ts")
_F = TypeVar("_F", bound=Frame)


class RowAssembler(Assembler[int]):
    """Assembles turns as columns; see `Assembler`.

    It keeps the row number of each event among those of its type. Rows are freed once no open turn can need them, as
    the position's resume offset says.
    """

    def __init__(self, topics: Iterable[str], config: TurnConfig, position: Position | None = None) -> None:
        super().__init__(topics, config, position)
        self._interner: Final = Interner(config.fold)
        self._queries: Final = _Arrived(self._interner.queries)
        self._impressions: Final = _Arrived(self._interner.impressions)
        self._clicks: Final = _Arrived(self._interner.clicks)
        self._others: Final = _Arrived(self._interner.others)
        # Only the arrival of a barge-in is kept; signals of all other types are among the others.
        self._arrived: Final[dict[type[Event], _Arrived[Any]]] = {
            Query: self._queries,
            Impression: self._impressions,
            Click: self._clicks,
        }
        self._closed = _Closed()
        self._columns: list[Columns] = []
        self._most = _LEAST

    @property
    def closed(self) -> int:
        """The number of turns that have closed since the last `take`."""
        return sum(map(len, self._columns)) + len(self._closed.queries)

    def add(self, topic: str, offsets: Sequence[int], events: Sequence[Event | None]) -> None:
        """Add a chunk of a topic's records; see `TurnAssembler.add`."""
        number_other = count(self._others.next).__next__
        numbers: defaultdict[type[Any], Callable[[], int | None]] = defaultdict(lambda: number_other)
        numbers[BargeIn], numbers[Teach], numbers[type(None)] = _came, _nothing, _nothing
        for kind, arrived in self._arrived.items():
            numbers[kind] = count(arrived.next).__next__
            arrived.add([event for event in events if type(event) is kind])
        rows = [numbers[type(event)]() for event in events]
        if len(numbers) > len(self._arrived) + 3:
            self._others.add([event for event in events if event is not None and numbers[type(event)] is number_other])
        self._add(topic, offsets, events, rows)

    def advance(self, caught_up: Collection[str] = ()) -> int:
        """Advance the watermark, and return the number of turns that this closes; see `TurnAssembler.advance`."""
        return self._close(self._advance(caught_up))

    def finish(self) -> int:
        """Close all open turns, and return their number; see `TurnAssembler.finish`."""
        return self._close(self._finish())

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
        return self._interner.columns(
            Turns(
                query=self._queries.take(np.array(closed.queries, dtype=np.int64)),
                following=Ragged(has_next.astype(np.int64), self._queries.take(following[has_next])),
                impressions=closed.signals[Impression].of(self._impressions),
                clicks=closed.signals[Click].of(self._clicks),
                barge_ins=np.array(closed.signals[BargeIn].counts, dtype=np.int64),
                others=closed.others.of(self._others),
            )
        )

    def _forget(self) -> None:
        """Free the rows that are no longer needed and, occasionally, the interned values that no row holds."""
        every = [*self._arrived.values(), self._others]
        for arrived in every:
            arrived.forget(self._horizon)
        if len(self._interner) > self._most:
            blocks = [block for arrived in every for block in arrived.blocks]
            frames = self._interner.pruned([block.frame for block in blocks])
            for block, frame in zip(blocks, frames, strict=True):
                block.frame = frame
            self._most = max(2 * len(self._interner), _LEAST)


def _came() -> int:
    """The row of an event of which only the arrival is kept."""
    return 0


def _nothing() -> None:
    """The row of an event of which nothing is kept."""


class _Signals:
    """The signals of closed turns: the number per turn, and their row numbers."""

    __slots__ = ("counts", "rows")

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.rows: list[int] = []

    def of(self, arrived: "_Arrived[_F]") -> Ragged[_F]:
        """Return the signals of each turn."""
        return Ragged(np.array(self.counts, dtype=np.int64), arrived.take(np.array(self.rows, dtype=np.int64)))


class _Closed:
    """Closed turns, as row numbers.

    Attributes:
        queries: the row of each turn's query.
        following: the row of the session's next query; MISSING if there is none.
        signals: the signals of types with columns of their own.
        others: all other signals.
    """

    def __init__(self) -> None:
        self.queries: list[int] = []
        self.following: list[int] = []
        self.signals: Final[dict[type[Signal], _Signals]] = {kind: _Signals() for kind in (Impression, Click, BargeIn)}
        self.others: Final = _Signals()

    def add(self, closed: Sequence[Assembled[int]]) -> None:
        """Add turns."""
        for first in range(0, len(closed), _TOGETHER):
            self._add(closed[first : first + _TOGETHER])

    def _add(self, closed: Sequence[Assembled[int]]) -> None:
        self.queries += [query for query, _, _ in closed]
        self.following += [MISSING if following is None else following for _, _, following in closed]
        none: dict[str, int] = {}
        for kind, signals in self.signals.items():
            own = [of_turn.get(kind, none) for _, of_turn, _ in closed]
            signals.counts += map(len, own)
            signals.rows += chain.from_iterable([some.values() for some in own if some])
        for _, of_turn, _ in closed:
            rows = _others(of_turn) if of_turn.keys() - self.signals.keys() else ()
            self.others.counts.append(len(rows))
            self.others.rows += rows


def _others(signals: Mapping[type[Signal], Mapping[str, int]]) -> list[int]:
    return others_of({name_of(kind): some.values() for kind, some in signals.items()})


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
