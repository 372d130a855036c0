"""Everything learned is a sum: tables of sums, deltas to add to them, and forgetting that keeps them sums.

Forgetting is forward decay (Cormode, Shkapenyuk, Srivastava & Xu, "Forward decay", ICDE 2009): what happens at time t
enters with the static weight 2^(t / half_life - landmark), and whoever reads at time T divides by
2^(T / half_life - landmark). Landmarks are whole numbers of half-lives, so moving one multiplies by a power of two,
which is exact.
"""

from collections.abc import Collection, Iterable, Mapping
from math import ldexp
from typing import Any, Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Key: TypeAlias = tuple[Any, ...]
"""The key columns of a row, each a str or an int as its table declares."""
Row: TypeAlias = NDArray[np.float64]
"""The sums of a row."""


class SumTable(Struct, frozen=True):
    """Declares a table of sums.

    Attributes:
        name: unique among all learners.
        key: the key columns with their types, str or int. Changes are tracked by the values of the first one.
        sums: the names of the sums in a row, all of them double precision. Empty: one packed vector a row, for sums
            that are only ever read whole.
        half_life_ms: of forward decay; None for what does not fade in place.
        lookup: a key column to look rows up by, besides the first.
    """

    name: str
    key: tuple[tuple[str, type], ...]
    sums: tuple[str, ...] = ()
    half_life_ms: int | None = None
    lookup: str | None = None

    def landmark(self, ts: int) -> int:
        """The newest landmark at time `ts` (ms): whole half-lives since the epoch; 0 without decay."""
        return ts // self.half_life_ms if self.half_life_ms else 0

    def weight(self, ts: int, landmark: int) -> float:
        """The static weight of what happens at `ts`; within [1, 2) for the landmark of `ts` itself."""
        if not self.half_life_ms:
            return 1.0
        periods, rest = divmod(ts, self.half_life_ms)
        return ldexp(2.0 ** (rest / self.half_life_ms), periods - landmark)


class Sums:
    """Rows of one table; also the delta to be added to them.

    Args:
        table: what the rows are of.
        rows: the sums by key.
        landmark: what the rows' weights refer to.
    """

    def __init__(self, table: SumTable, rows: dict[Key, Row] | None = None, landmark: int = 0) -> None:
        self.table = table
        self.rows = {} if rows is None else rows
        self.landmark = landmark

    def scale_to(self, landmark: int) -> float:
        """The factor (a power of two) that takes the rows to `landmark`."""
        return ldexp(1.0, self.landmark - landmark)

    def merge(self, other: "Sums") -> "Sums":
        """Return the sum of both. Commutative and associative; rows that one side lacks are zero there."""
        if not self.rows or not other.rows:
            return self if self.rows else other
        landmark = max(self.landmark, other.landmark)
        mine, theirs = self.scale_to(landmark), other.scale_to(landmark)
        rows = {key: row * mine for key, row in self.rows.items()}
        for key, row in other.rows.items():
            present = rows.get(key)
            rows[key] = row * theirs if present is None else present + row * theirs
        return Sums(self.table, rows, landmark)

    def at(self, ts: int) -> dict[Key, Row]:
        """Return the decayed sums as of time `ts` (ms)."""
        factor = 1.0 / self.table.weight(ts, self.landmark)
        return {key: row * factor for key, row in self.rows.items()}


Delta: TypeAlias = dict[str, Sums]
"""What a batch of turns adds: table name -> sums."""


def merge(deltas: Iterable[Delta]) -> Delta:
    """Return the sum of `deltas`; of none, the identity: an empty delta."""
    total: Delta = {}
    for delta in deltas:
        for name, sums in delta.items():
            total[name] = total[name].merge(sums) if name in total else sums
    return total


class SumReader(Protocol):
    """Where a learner reads sums back when it solves."""

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """Return the rows of `table`; with a `column`, its first or its `lookup`, those that have one of `values`."""


class MemorySums:
    """A `SumReader` over a delta in memory."""

    def __init__(self, delta: Mapping[str, Sums]) -> None:
        self._delta = delta

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """See `SumReader.read`."""
        sums = self._delta.get(table.name)
        if sums is None:
            return Sums(table)
        if column is None:
            return sums
        index, wanted = [name for name, _ in table.key].index(column), set(values)
        return Sums(table, {key: row for key, row in sums.rows.items() if key[index] in wanted}, sums.landmark)
