"""Entries that fall due at a time, in event time."""

from collections import deque
from heapq import heappop, heappush
from operator import itemgetter
from typing import Final, Generic, TypeAlias, TypeVar

_T = TypeVar("_T")

Due: TypeAlias = tuple[int, int, _T]
"""The time (ms) at which an entry falls due, its number, and the entry."""

_when: Final = itemgetter(0, 1)


class Deadlines(Generic[_T]):
    """Entries by the time at which they fall due. Hardly any is added out of order; only those need a heap."""

    def __init__(self) -> None:
        self._in_order: Final[deque[Due[_T]]] = deque()
        self._others: Final[list[Due[_T]]] = []  # heap

    def __len__(self) -> int:
        return len(self._in_order) + len(self._others)

    def add(self, due: int, number: int, entry: _T) -> None:
        """Add an entry that falls due at the time `due` (ms); numbers rise, and break ties."""
        if not self._in_order or self._in_order[-1][0] <= due:
            self._in_order.append((due, number, entry))
        else:
            heappush(self._others, (due, number, entry))

    def through(self, time: int) -> list[Due[_T]]:
        """Remove and return the entries that fall due up to `time` (ms), by due time and number."""
        in_order, others, found = self._in_order, self._others, list[Due[_T]]()
        while in_order and in_order[0][0] <= time:
            found.append(in_order.popleft())
        if others and others[0][0] <= time:
            while others and others[0][0] <= time:
                found.append(heappop(others))
            found.sort(key=_when)
        return found

    def last(self) -> int | None:
        """Return the time (ms) at which the last entry falls due; None if there is none."""
        ends = [due for due, _, _ in self._others]
        if self._in_order:
            ends.append(self._in_order[-1][0])
        return max(ends, default=None)
