"""Turns whose events are rows of columns from their arrival on, so that the events as objects go at once."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any, Final, Generic, TypeVar

import numpy as np

from backchannel.agents.columns import Columns, Frame, Interner, Ragged, Turns, others_of
from backchannel.agents.sums import Integers
from backchannel.schemas.events import BargeIn, Click, Event, Impression, Query, name_of
from backchannel.streams.turns.assembler import Assembled, Assembler, TurnConfig
from backchannel.streams.turns.position import Position

_LEAST: Final = 1 << 18
"""Interned values below which none are dropped."""

_F = TypeVar("_F", bound=Frame)


class RowAssembler(Assembler[int]):
    """Assembles turns as columns; see `Assembler`.

    It keeps of each event the number of its row among those of its type. Rows go when no open turn can need them, as
    the position's resume offset says.
    """

    def __init__(self, topics: Iterable[str], config: TurnConfig, position: Position | None = None) -> None:
        super().__init__(topics, config, position)
        self._interner: Final = Interner()
        self._queries: Final = _Arrived(self._interner.queries)
        self._impressions: Final = _Arrived(self._interner.impressions)
        self._clicks: Final = _Arrived(self._interner.clicks)
        self._others: Final = _Arrived(self._interner.others)
        # Signals of a type that is not among these have no columns of their own.
        self._arrived: Final[dict[type[Event] | None, _Arrived[Any]]] = {
            Query: self._queries,
            Impression: self._impressions,
            Click: self._clicks,
            None: self._others,
        }
        self._closed: list[Assembled[int]] = []
        self._most = _LEAST

    @property
    def closed(self) -> int:
        """Turns that have closed since they were last taken."""
        return len(self._closed)

    def add(self, topic: str, offsets: Sequence[int], events: Sequence[Event | None]) -> None:
        """Add a chunk of a topic's records; see `TurnAssembler.add`."""
        by_type: dict[type[Event] | None, list[Event]] = {kind: [] for kind in self._arrived}
        firsts = {kind: arrived.next for kind, arrived in self._arrived.items()}
        rows: list[int | None] = []
        for event in events:
            if event is None or type(event) is BargeIn:  # of a barge-in, only that it came is kept
                rows.append(None if event is None else 0)
            else:
                kind = type(event) if type(event) in by_type else None
                rows.append(firsts[kind] + len(by_type[kind]))
                by_type[kind].append(event)
        for kind, own in by_type.items():
            self._arrived[kind].add(own)
        self._add(topic, offsets, events, rows)

    def advance(self, caught_up: Collection[str] = ()) -> int:
        """Move the watermark on, and return how many turns that closes; see `TurnAssembler.advance`."""
        closed = self._advance(caught_up)
        self._closed += closed
        return len(closed)

    def finish(self) -> int:
        """Close every open turn, and return how many; see `TurnAssembler.finish`."""
        closed = self._finish()
        self._closed += closed
        return len(closed)

    def take(self) -> Columns:
        """Return the turns that have closed since the last time, in event-time order."""
        closed, self._closed = self._closed, []

        def signals(kind: type[Event]) -> tuple[Integers, Integers]:
            """How many signals of a type each turn has, and their rows."""
            name = name_of(kind)
            rows = [own.get(name, ()) for _, own, _ in closed]
            counts = np.fromiter(map(len, rows), np.int64, len(rows))
            return counts, np.fromiter(chain.from_iterable(rows), np.int64, int(counts.sum()))

        following = [row for _, _, row in closed if row is not None]
        shown, impressions = signals(Impression)
        clicked, clicks = signals(Click)
        barge_ins, _ = signals(BargeIn)
        others = [others_of(own) for _, own, _ in closed]
        columns = self._interner.columns(
            Turns(
                query=self._queries.take(np.array([row for row, _, _ in closed], dtype=np.int64)),
                following=Ragged(
                    np.array([row is not None for _, _, row in closed], dtype=np.int64),
                    self._queries.take(np.array(following, dtype=np.int64)),
                ),
                impressions=Ragged(shown, self._impressions.take(impressions)),
                clicks=Ragged(clicked, self._clicks.take(clicks)),
                barge_ins=barge_ins,
                others=Ragged(
                    np.fromiter(map(len, others), np.int64, len(others)),
                    self._others.take(np.fromiter(chain.from_iterable(others), np.int64)),
                ),
            )
        )
        self._forget()
        return columns

    def _forget(self) -> None:
        """Drop the rows that nothing needs any more and, now and then, the interned values that no row holds."""
        for arrived in self._arrived.values():
            arrived.forget(self._horizon)
        if len(self._interner) > self._most:
            blocks = [block for arrived in self._arrived.values() for block in arrived.blocks]
            frames = self._interner.pruned([block.frame for block in blocks])
            for block, frame in zip(blocks, frames, strict=True):
                block.frame = frame
            self._most = max(2 * len(self._interner), _LEAST)


class _Block(Generic[_F]):
    """The events of one type in a chunk: the number of the first row, and the newest event time."""

    __slots__ = ("first", "frame", "newest")

    def __init__(self, first: int, newest: int, frame: _F) -> None:
        self.first = first
        self.newest = newest
        self.frame = frame


class _Arrived(Generic[_F]):
    """The rows of the events of one type, numbered as they came.

    Args:
        make: makes a frame of events.
    """

    def __init__(self, make: Callable[[Sequence[Any]], _F]) -> None:
        self._make: Final = make
        self.next = 0
        self.blocks: Final[deque[_Block[_F]]] = deque()

    def add(self, events: Sequence[Event]) -> None:
        """Add rows."""
        if events:
            self.blocks.append(_Block(self.next, max(event.ts for event in events), self._make(events)))
            self.next += len(events)

    def take(self, rows: Integers) -> _F:
        """Return the rows of some numbers, in their order."""
        if not len(rows):
            return self._make(())
        first, last = int(rows.min()), int(rows.max())
        blocks = [block for block in self.blocks if block.first <= last and block.first + len(block.frame) > first]
        frame = type(blocks[0].frame).concat([block.frame for block in blocks])
        return frame.take(rows - blocks[0].first)

    def forget(self, horizon: int | None) -> None:
        """Drop the first blocks without any event newer than `horizon` (ms); None: all of them."""
        while self.blocks and (horizon is None or self.blocks[0].newest <= horizon):
            self.blocks.popleft()
