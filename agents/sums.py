"""Everything learned is a sum: tables of sums, deltas to add to them, and forgetting that keeps them sums.

The algebra is a commutative monoid with a decay action. For deltas a, b, c and times s <= t:

- `merge` is associative and commutative, and the empty delta is its identity;
- decay is a homomorphism: (a + b) decayed to t is a decayed to t plus b decayed to t;
- decay composes: from the landmark to s and on to t is from the landmark to t.

Commutativity and the identity hold to the last bit. The other laws hold to rounding, 1e-9 relative, and to the last bit
where addends lie on the dyadic grid (`GRID`) and times are whole half-lives apart. `checks` tests the laws.

Forgetting is forward decay (Cormode, Shkapenyuk, Srivastava & Xu, "Forward decay", ICDE 2009): a contribution at time t
enters with the static weight 2^(t / half_life - landmark), and reading at time T divides by
2^(T / half_life - landmark). Landmarks are whole numbers of half-lives, so moving one multiplies by a power of two,
which is exact.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import ldexp
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, overload

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.schemas.errors import BackchannelError

Key: TypeAlias = tuple[Any, ...]
"""The key columns of a row, each a str or an int as its table declares."""

Floats: TypeAlias = NDArray[np.float64]
"""An array of doubles; whoever takes one documents its shape."""
Integers: TypeAlias = NDArray[np.int64]
Booleans: TypeAlias = NDArray[np.bool_]

GRID: Final = 1024.0
"""Contexts, rewards and probabilities are multiples of 1 / GRID, so that sums of products are exact in doubles."""

ALL: Final = ""
"""The key for all values together (strategies, users or targets), and for the row that describes a whole section. No
other key is empty."""

USER: Final = "user"
"""The key column that holds a user, see `Learner.key_of`. A table with it is kept by user; most have it first."""
_LARGEST: Final = 1 << 62


class Keys(Sequence[Key]):
    """The keys of rows, stored by column, (rows,) each: sorted, without duplicates."""

    def __init__(self, *columns: Sequence[Any]) -> None:
        self._columns = columns

    @property
    def columns(self) -> Sequence[Sequence[Any]]:
        """The values of each key column, (rows,)."""
        return self._columns

    def coded(self) -> "CodedKeys":
        """Return the same keys as codes of the values that occur."""
        return CodedKeys(*map(_coded, self.columns))

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Key]:
        return zip(*self.columns, strict=True)

    @overload
    def __getitem__(self, place: int) -> Key: ...
    @overload
    def __getitem__(self, place: slice) -> list[Key]: ...
    def __getitem__(self, place: int | slice) -> Key | list[Key]:
        found = [column[place] for column in self.columns]
        return list(zip(*found, strict=True)) if isinstance(place, slice) else tuple(found)


def taken(values: Sequence[Any], codes: NDArray[Any]) -> list[Any]:
    """Return the value, text or number, of each code; of many, an array gives them faster than a list."""
    if len(values) > len(codes):
        return list(map(values.__getitem__, codes.tolist()))
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    found: list[Any] = objects.take(codes).tolist()
    return found


class CodedKeys(Keys):
    """The keys of rows, stored as codes of sorted values.

    Args:
        parts: for each key column, the rows' codes, (rows,), and the sorted values that they index.
    """

    def __init__(self, *parts: tuple[Integers, Sequence[Any]]) -> None:
        super().__init__()
        self.parts: Final = parts

    def __len__(self) -> int:
        return len(self.parts[0][0])

    @property
    def columns(self) -> Sequence[Sequence[Any]]:
        """See `Keys.columns`."""
        self._columns = self._columns or tuple(taken(values, codes) for codes, values in self.parts)
        return self._columns

    def coded(self) -> "CodedKeys":
        """See `Keys.coded`."""
        return CodedKeys(*(_compact(codes, values) for codes, values in self.parts))


def _parts(keys: Sequence[Key]) -> Sequence[tuple[Integers, Sequence[Any]]]:
    """Return keys as codes; see `CodedKeys`."""
    return (keys if isinstance(keys, Keys) else Keys(*zip(*keys, strict=True))).coded().parts


def _coded(column: Sequence[Any]) -> tuple[Integers, Sequence[Any]]:
    """Return a column as the index of each value among the distinct ones, and these, sorted."""
    distinct = sorted(set(column))
    places = dict(zip(distinct, count()))
    return np.fromiter(map(places.__getitem__, column), np.int64, len(column)), distinct


def _united(columns: Sequence[tuple[Integers, Sequence[Any]]]) -> tuple[Integers, Sequence[Any]]:
    """Return coded columns, one after the other, as codes of all their values, sorted."""
    values = sorted(set().union(*(own for _, own in columns)))
    places = dict(zip(values, count()))
    codes = [np.fromiter(map(places.__getitem__, own), np.int64, len(own))[codes] for codes, own in columns]
    return np.concatenate(codes), values


def _compact(codes: Integers, values: Sequence[Any]) -> tuple[Integers, Sequence[Any]]:
    """Return codes, (rows,), without the values that do not occur."""
    found, compact = unique_inverse(codes)
    return (codes, values) if len(found) == len(values) else (compact, taken(values, found))


def unique_inverse(numbers: NDArray[Any]) -> tuple[Integers, Integers]:
    """Return the distinct numbers, sorted, and the index of each of `numbers`, (n,), among them: numpy's function.

    Those of a narrow range, such as codes, are not sorted but looked up in a table, which takes a tenth of the time.
    """
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    if high - low > 4 * len(numbers):
        return np.unique(numbers, return_inverse=True)
    own = np.subtract(numbers, low, dtype=np.int64)
    there = np.zeros(high - low + 1, dtype=bool)
    there[own] = True
    return np.flatnonzero(there) + low, (there.cumsum() - 1)[own]


def numbered(*codes: NDArray[Any]) -> Integers:
    """Return a number for each row of `codes`, (rows,) each: equal for equal rows, and in their order."""
    numbers = np.zeros(len(codes[0]), dtype=np.int64)
    size = 1  # the numbers so far are below this
    for code in codes if len(numbers) else ():
        low = int(code.min())
        width = int(code.max()) - low + 1
        if size * width > _LARGEST:  # few of them are in use: at most as many as there are rows
            numbers, own = (unique_inverse(one)[1] for one in (numbers, code))
            size, width = int(numbers.max()) + 1, int(own.max()) + 1
        else:
            own = code.astype(np.int64) - low
        numbers, size = numbers * width + own, size * width
    return numbers


class Groups:
    """Lines grouped by their keys.

    Args:
        parts: for each key column, the lines' codes, (lines,), at least 0, and the sorted values that they index.

    Attributes:
        codes: the distinct keys as codes, (keys,) for each column.
        lines: the index of each line's key, (lines,).
        keys: the distinct keys.
    """

    def __init__(self, *parts: tuple[NDArray[Any], Sequence[Any]]) -> None:
        numbers, self.lines = unique_inverse(numbered(*(codes for codes, _ in parts)))
        self.codes: Final = np.empty((len(parts), len(numbers)), dtype=np.int64)
        for own, (codes, _) in zip(self.codes, parts, strict=True):
            own[self.lines] = codes  # the lines of a key have the same
        self.keys: Final = CodedKeys(*((codes, values) for codes, (_, values) in zip(self.codes, parts, strict=True)))

    def sums(self, table: "SumTable", columns: Sequence[Floats], landmark: int = 0) -> "Sums":
        """Add up the lines of each key; `columns` holds the lines' values, (lines,), for each of the table's sums."""
        size = len(self.keys)
        return Sums(table, self.keys, np.array([np.bincount(self.lines, one, size) for one in columns]).T, landmark)


class SumTable(Struct, frozen=True):
    """Declares a table of sums.

    Attributes:
        name: the table's name, unique among all learners.
        key: the key columns with their types, str or int. Changes are tracked by the values of the first one.
        sums: the names of the sums in a row, all in double precision. If empty, each row is one packed vector, for sums
            that are only ever read whole; rows that are read or merged together then have the same length.
        half_life_ms: the half-life of forward decay, ms; None if the sums do not decay.
        lookup: another key column by which rows can be read, besides the first.
    """

    name: str
    key: tuple[tuple[str, type], ...]
    sums: tuple[str, ...] = ()
    half_life_ms: int | None = None
    lookup: str | None = None

    @property
    def by_user(self) -> bool:
        """Whether rows are kept by user, so that they and the user's row of the section are erased with the user."""
        return USER in dict(self.key)

    def column(self, name: str) -> int:
        """The index of key column `name`."""
        return [column for column, _ in self.key].index(name)

    def landmark(self, ts: int) -> int:
        """The newest landmark at time `ts` (ms): whole half-lives since the epoch; 0 without decay."""
        return ts // self.half_life_ms if self.half_life_ms else 0

    def weight(self, ts: int, landmark: int) -> float:
        """The static weight of an event at `ts` (ms): in [1, 2) for the landmark of `ts` itself."""
        if not self.half_life_ms:
            return 1.0
        periods, rest = divmod(ts, self.half_life_ms)
        return ldexp(float(np.exp2(rest / self.half_life_ms)), periods - landmark)  # the last bit as in `weights`

    def weights(self, times: NDArray[np.int64], landmark: int) -> Floats:
        """The static weights of events at `times` (ms), (times,); see `weight`."""
        if not self.half_life_ms:
            return np.ones(len(times))
        periods, rest = np.divmod(times, self.half_life_ms)
        weights: Floats = np.ldexp(np.exp2(rest / self.half_life_ms), periods - landmark)
        return weights

    def decay(self, ts: int, landmark: int) -> float:
        """The factor, at most 1, that decays sums with the given landmark to time `ts` (ms).

        A time before the landmark, such as that of a lagging partition, counts as the landmark.
        """
        if not self.half_life_ms:
            return 1.0
        periods, rest = divmod(max(ts, landmark * self.half_life_ms), self.half_life_ms)
        return ldexp(2.0 ** -(rest / self.half_life_ms), landmark - periods)


class Sums:
    """Rows of one table, or a delta to add to them.

    Args:
        table: the table.
        keys: the keys of the rows, without duplicates.
        values: the sums, (rows, sums).
        landmark: the landmark that the sums' weights refer to, in half-lives since the epoch.
    """

    def __init__(
        self, table: SumTable, keys: Sequence[Key] = (), values: Floats | None = None, landmark: int = 0
    ) -> None:
        self.table = table
        self.keys = keys
        self.values = np.empty((0, len(table.sums))) if values is None else values
        self.landmark = landmark

    def rescaled(self, landmark: int) -> Floats:
        """Return the sums, (rows, sums), for another landmark, which multiplies them by a power of two."""
        return self.values if landmark == self.landmark else self.values * ldexp(1.0, self.landmark - landmark)

    def merge(self, *others: "Sums") -> "Sums":
        """Return the sum of all; a missing row counts as zeros. Commutative and associative.

        Raises:
            ValueError: the tables differ.
            WidthError: their rows differ in length.
        """
        for other in others:
            if self.table != other.table:
                raise ValueError(f"sums of table {other.table.name} cannot be added to those of {self.table.name}")
        parts = [one for one in (self, *others) if len(one.keys)]
        if len(parts) <= 1:
            return parts[0] if parts else self
        if len(widths := {one.values.shape[1] for one in parts}) > 1:
            raise WidthError(self.table.name, widths)
        landmark = max(one.landmark for one in parts)
        groups = Groups(*map(_united, zip(*(_parts(one.keys) for one in parts), strict=True)))
        lines = np.split(groups.lines, np.cumsum([len(one.keys) for one in parts])[:-1])
        values = np.zeros((len(groups.keys), *widths))
        for own, one in zip(lines, parts, strict=True):  # in their order; each has a key once
            values[own] += one.rescaled(landmark)
        return Sums(self.table, groups.keys, values, landmark)

    def ordered(self) -> tuple[Keys, Floats]:
        """Return keys and sums, (rows, sums), sorted by key. Grouped sums are sorted already."""
        if isinstance(self.keys, Keys):
            return self.keys, self.values
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        columns = [[self.keys[row][place] for row in order] for place in range(len(self.table.key))]
        return Keys(*columns), self.values[order]

    def at(self, ts: int) -> Floats:
        """Return the sums, (rows, sums), decayed to time `ts` (ms), or to the landmark if that is later."""
        return self.values * self.table.decay(ts, self.landmark)


Delta: TypeAlias = dict[str, Sums]
"""The contribution of a batch of turns: table name -> sums."""


def merge(deltas: Iterable[Delta]) -> Delta:
    """Return the sum of `deltas`: an empty delta if there are none."""
    parts: dict[str, list[Sums]] = {}
    for delta in deltas:
        for name, sums in delta.items():
            parts.setdefault(name, []).append(sums)
    return {name: first.merge(*others) for name, (first, *others) in parts.items()}


class WidthError(BackchannelError, ValueError):
    """Rows of one table have different numbers of sums: two versions of Backchannel wrote them."""

    def __init__(self, table: str, widths: Iterable[int]) -> None:
        super().__init__(
            f"table {table}: its rows have {' or '.join(map(str, sorted(widths)))} numbers: two versions of "
            "Backchannel added them up, and they cannot be combined. Learn anew from the log into a new store: "
            "`backchannel run LOG --store URL`, or a worker whose --store is new"
        )


class SumReader(Protocol):
    """The sums that a learner solves, and what it published of them before."""

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """Return the rows of `table`, or those whose key `column`, the first or `lookup`, has one of `values`."""

    def published(self, section: str, key: str) -> bytes | None:
        """Return a row of the version that the next one builds on; None without one, and if there is no such version.

        With it a learner can leave rows as they are that hardly change and cost much. Nothing else may depend on it.
        """


class MemorySums:
    """A `SumReader` over a delta in memory.

    Args:
        delta: the sums, by table.
        before: the sections that were published before, section -> key -> row; by default none.
    """

    def __init__(
        self, delta: Mapping[str, Sums], before: Mapping[str, Mapping[str, bytes]] = MappingProxyType({})
    ) -> None:
        self._delta = delta
        self._before = before

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """See `SumReader.read`."""
        sums = self._delta.get(table.name)
        if sums is None:
            return Sums(table)
        if column is None:
            return sums
        position, wanted = table.column(column), set(values)
        rows = [row for row, key in enumerate(sums.keys) if key[position] in wanted]
        return Sums(table, [sums.keys[row] for row in rows], sums.values[rows], sums.landmark)

    def published(self, section: str, key: str) -> bytes | None:
        """See `SumReader.published`."""
        return self._before.get(section, {}).get(key)
