"""Frames: sets of numpy arrays of the same length, with the strings in them as codes.

A `Frame` is a set of arrays of the same length; a `Ragged` holds any number of rows of one frame per row of another.
Strings are interned: arrays hold codes, which index a pool of values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.sums import Booleans, Integers, numbered, unique_inverse

Codes: TypeAlias = NDArray[np.int32]

MISSING: Final = -1
"""The code of a missing value."""

POOLS: Final = {
    "session": "people",
    "user": "people",
    "text": "texts",
    "spelled": "texts",
    "rewrite": "texts",
    "form": "forms",
    "entity": "entities",
    "strategy": "strategies",
    "locale": "labels",
    "kind": "labels",
    "outcome": "labels",
    "reply": "labels",
    "context": "contexts",
    "asr": "contexts",
    "nlu": "contexts",
    "earlier": "contexts",
    "fields": "contexts",
    "strategy_context": "contexts",
    "user_context": "contexts",
    "features": "contexts",
    "examined": "contexts",
    "normalizers": "contexts",
}
"""The pool of each column of codes."""


class Frame(Struct, frozen=True):
    """Columns of the same length; each is an array, a `Ragged` or another frame."""

    def __len__(self) -> int:
        return len(getattr(self, self.__struct_fields__[0]))

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the rows at the indexes `rows`, (n,), in that order."""
        return type(self)(*(getattr(self, name).take(rows) for name in self.__struct_fields__))

    @classmethod
    def concat(cls, frames: Sequence[Self]) -> Self:
        """Return the rows of `frames`, at least one, one after the other."""
        if len(frames) == 1:
            return frames[0]
        return cls(*(_concat([getattr(one, name) for one in frames]) for name in cls.__struct_fields__))

    def recoded(self, codes: Mapping[str, Codes]) -> Self:
        """Return the frame with new codes: pool -> the new code of each old one, and MISSING at the end."""
        return type(self)(*(_recoded(name, getattr(self, name), codes) for name in self.__struct_fields__))

    def coded(self) -> Iterator[tuple[str, Codes]]:
        """Yield every array of codes, with the name of its pool."""
        for name in self.__struct_fields__:
            column = getattr(self, name)
            if isinstance(column, np.ndarray):
                if name in POOLS:
                    yield POOLS[name], column
            else:
                yield from (column.rows if isinstance(column, Ragged) else column).coded()


_F = TypeVar("_F", bound=Frame)


class Ragged(Struct, Generic[_F], frozen=True):
    """Any number of rows for each row of another frame.

    Attributes:
        counts: the number of rows of each parent, (parents,).
        rows: the rows of the first parent, then those of the second, and so on.
    """

    counts: Integers
    rows: _F

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def starts(self) -> Integers:
        """The index of each parent's first row, (parents,)."""
        return np.asarray(self.counts.cumsum() - self.counts)

    @property
    def parents(self) -> Integers:
        """The parent of each row, (rows,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, rows: NDArray[Any]) -> Self:
        """See `Frame.take`."""
        counts = self.counts.take(rows)
        return type(self)(counts, self.rows.take(spans(self.starts.take(rows), counts)))


def spans(starts: Integers, counts: Integers) -> Integers:
    """Return start, start + 1 ... start + count - 1 for each start, concatenated."""
    return np.asarray(np.repeat(starts - (counts.cumsum() - counts), counts) + np.arange(int(counts.sum())))


def distinct(*codes: NDArray[Any]) -> tuple[Integers, Integers]:
    """Return the index of the first of each distinct row of `codes`, (rows,) each, and each row's number among
    these, which are sorted.
    """
    numbers, place = unique_inverse(numbered(*codes))
    first = np.empty(len(numbers), dtype=np.int64)
    first[place[::-1]] = np.arange(len(place))[::-1]  # the last one assigned stays
    return first, place


def firsts(*codes: NDArray[Any]) -> Booleans:
    """Return whether each row of `codes`, (rows,) each, is the first one like it, (rows,)."""
    numbers = numbered(*codes)
    # Without indexes, and by merging, as rows come turn by turn: most occur once, and most are in order.
    ordered = np.sort(numbers, kind="stable")
    is_first = ~np.isin(numbers, ordered[1:][ordered[1:] == ordered[:-1]])
    others = np.flatnonzero(~is_first)
    is_first[others[np.unique(numbers[others], return_index=True)[1]]] = True
    return is_first


def _concat(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Ragged):
        rows = [one.rows for one in parts]
        return Ragged(np.concatenate([one.counts for one in parts]), type(rows[0]).concat(rows))
    return type(parts[0]).concat(parts) if isinstance(parts[0], Frame) else np.concatenate(parts)


def _recoded(name: str, column: Any, codes: Mapping[str, Codes]) -> Any:
    if isinstance(column, Ragged):
        return Ragged(column.counts, column.rows.recoded(codes))
    if isinstance(column, Frame):
        return column.recoded(codes)
    return codes[POOLS[name]].take(column, mode="wrap") if name in POOLS else column
