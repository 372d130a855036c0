"""Contexts as vectors, encoded alike by the learner and by the policy reader."""

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import cos, inf, sin, tau
from operator import itemgetter
from typing import Annotated, Any, Final, TypeAlias
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, distinct
from backchannel.agents.sums import GRID
from backchannel.schemas.events import Name, Query
from backchannel.schemas.text import normalize

Value: TypeAlias = float | bool | str | None
"""A context's value; None when it is missing."""

LIMIT: Final = 8.0
"""Numbers are clipped to [-LIMIT, LIMIT] after scaling."""
_TO_WHOLE: Final = 1.5 * 2**52  # added and taken off again, it rounds as round() does, in half the time


class Numeric(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="numeric"):
    """A number, encoded as (value - center) / scale. A missing or non-numeric value counts as the center."""

    name: Name
    center: Annotated[float, Meta(ge=-1e300, le=1e300)] = 0.0
    scale: Annotated[float, Meta(ge=1e-300, le=1e300)] = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (self.name,)


class Categorical(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="categorical"):
    """A text from a list, or true or false: one indicator column for each. A missing or unlisted value is all zeros."""

    name: Name
    values: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(f"{self.name}={value}" for value in self.values)

    def encode(self, value: Value) -> int | None:
        """Return the index of `value` in `values`; None if it is not listed."""
        text = ("false", "true")[value] if isinstance(value, bool) else value
        return self.values.index(text) if text in self.values else None


class Hashed(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hashed"):
    """Any value, hashed to one of `buckets` indicator columns. A missing value is all zeros."""

    name: Name
    buckets: Annotated[int, Meta(ge=2, le=256)] = 16

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(f"{self.name}#{bucket}" for bucket in range(self.buckets))

    def encode(self, value: Value) -> int | None:
        """Return the column of a value. The hash includes the feature's name, so that features collide differently."""
        if value is None:
            return None
        text = value if isinstance(value, str) else repr(value) if isinstance(value, bool) else repr(float(value))
        return crc32(f"{self.name}={text}".encode(errors="surrogatepass")) % self.buckets


class Binned(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="binned"):
    """A number with a non-linear effect, assigned to one of len(edges) + 1 indicator columns.

    The first column is for values below the first edge; an edge belongs to the column above it. A missing or
    non-numeric value is all zeros.
    """

    name: Name
    edges: Annotated[tuple[Annotated[float, Meta(ge=-1e300, le=1e300)], ...], Meta(min_length=1, max_length=63)]

    def __post_init__(self) -> None:
        if any(one >= other for one, other in pairwise(self.edges)):
            raise ValueError(f"{self.name}: edges: {list(self.edges)} must rise")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        bounds = ("", *(f"{edge:g}" for edge in self.edges), "")
        return tuple(f"{self.name}[{low}..{high})" for low, high in pairwise(bounds))

    def encode(self, value: Value) -> int | None:
        """Return the column of a value."""
        if value is None or isinstance(value, str) or value != value:  # noqa: PLR0124 - NaN differs from itself
            return None
        return bisect_right(self.edges, value)


class Cyclic(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cyclic"):
    """A number that starts again after `period`, such as an hour of the day: sines and cosines of 1, 2, ... `harmonics`
    turns per period, so that 23 is as near to 0 as 1 is. A missing or non-numeric value is all zeros.
    """

    name: Name
    period: Annotated[float, Meta(ge=1e-300, le=1e300)] = 24.0
    harmonics: Annotated[int, Meta(ge=1, le=8)] = 2

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        turns = range(1, self.harmonics + 1)
        return tuple(f"{self.name}~{wave}{turn}" for turn in turns for wave in ("sin", "cos"))

    def encode(self, value: Value) -> list[float]:
        """Return the columns' values, on the grid; none for a value that is missing or not a number."""
        if value is None or isinstance(value, str) or not abs(value) < inf:
            return []
        angle = tau * (value % self.period) / self.period
        turns = range(1, self.harmonics + 1)
        return [round(wave(turn * angle) * GRID) / GRID + 0.0 for turn in turns for wave in (sin, cos)]


class Cross(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cross"):
    """All products of a column of one feature with a column of another; both must be listed before it."""

    left: Name
    right: Name

    @property
    def name(self) -> str:
        """The names of both features, joined."""
        return f"{self.left}*{self.right}"


Feature: TypeAlias = Numeric | Categorical | Hashed | Binned | Cyclic | Cross

_HOUR_MS: Final = 3_600_000
DERIVED: Final[dict[str, Callable[[Query], Value]]] = {
    "query.words": lambda query: float(len(normalize(query.text).split())),
    "query.characters": lambda query: float(len(query.text)),
    "query.interpreted": lambda query: query.interpretation is not None,
    "query.locale": lambda query: query.locale,
    "time.hour": lambda query: float(query.ts // _HOUR_MS % 24),
    "time.weekday": lambda query: float((query.ts // (24 * _HOUR_MS) + 3) % 7),
}
"""Features that are derived from every query, in addition to its own context. Times are UTC; Monday is weekday 0."""

_READ: Final = {
    "query.words": "text",
    "query.characters": "text",
    "query.interpreted": "form",
    "query.locale": "locale",
    "time.hour": "ts",
    "time.weekday": "ts",
}
"""The column of queries that each of them is derived from."""

DERIVED_MEANINGS: Final = {
    "query.words": "number of words of the query",
    "query.characters": "number of characters of the query",
    "query.interpreted": "whether the query has an `interpretation`: true or false",
    "query.locale": "the query's `locale`, a text",
    "time.hour": "hour of the query's `ts` in UTC, 0 to 23",
    "time.weekday": "day of the week of the query's `ts` in UTC: 0 is Monday, 6 is Sunday",
}
"""The derived features in words, for the configuration reference."""


OF_STRATEGY: Final = "strategy."
"""Prefix of the features that describe a strategy instead of the query; see `Impression.strategy_context`."""

OF_USER: Final = "user."
"""Prefix of the features that describe the user; see `Impression.user_context`."""

HISTORY: Final = f"{OF_STRATEGY}history"
"""A strategy's mean reward on the query minus that on all queries, -1 to 1; 0 if nothing is known."""


def context_of(query: Query) -> dict[str, Value]:
    """Return the context to pass to `Policy.allocate` and `Policy.rank`: the query's own, and the derived features."""
    return {**query.context, **{name: derive(query) for name, derive in DERIVED.items()}}


MAX_DIMENSION: Final = 256


class Encoder:
    """Encodes contexts as vectors of `dimension` columns, of which the first is the constant 1.

    Attributes:
        features: the encoded features.
        columns: names of the columns.
        dimension: number of columns.
        places: name of each feature -> its columns.
        segments: name -> place of each column that indicates a listed value.
        of_strategies: whether some features describe strategies, so that each strategy has its own vector.
        of_users: whether some features describe the user.

    Raises:
        ValueError: a cross refers to a feature that is not listed before it, or there are more than MAX_DIMENSION
            columns.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        # Converted as JSON would be, so that a center of 12 and one of 12.0 have the same fingerprint.
        self.features: Final = msgspec.convert(msgspec.to_builtins(features), tuple[Feature, ...])
        columns, places = ["1"], dict[str, slice]()
        self.places: Final = places
        self._crosses: Final[list[tuple[slice, slice, slice]]] = []
        self._choices: Final[list[tuple[Categorical | Hashed | Binned, int]]] = []
        self._cycles: Final[list[tuple[Cyclic, slice]]] = []
        numeric: dict[str, tuple[Numeric, int]] = {}
        for feature in self.features:
            begin = len(columns)
            if isinstance(feature, Cross):
                for name in (feature.left, feature.right):
                    if name not in places:
                        raise ValueError(f"cross {feature.name}: {name!r} is not among the features listed before it")
                left, right = places[feature.left], places[feature.right]
                columns += [f"{one}*{other}" for one in columns[left] for other in columns[right]]
                self._crosses.append((left, right, slice(begin, len(columns))))
            else:
                columns += feature.columns
                if isinstance(feature, Numeric):
                    numeric[feature.name] = feature, begin
                elif isinstance(feature, Cyclic):
                    self._cycles.append((feature, slice(begin, len(columns))))
                else:
                    self._choices.append((feature, begin))
            places[feature.name] = slice(begin, len(columns))
        if len(columns) > MAX_DIMENSION:
            raise ValueError(f"features: {len(columns)} columns in total; the maximum is {MAX_DIMENSION}")
        self.columns: Final = tuple(columns)
        self.dimension: Final = len(columns)
        self._numbers: Final = [
            (column, name, feature.center, -LIMIT * feature.scale, LIMIT * feature.scale, feature.scale / GRID)
            for name, (feature, column) in numeric.items()
        ]
        self._get_numbers: Final = itemgetter(*(numeric or ("",)))
        self._number_columns: Final = np.array([column for _, column in numeric.values()], dtype=np.intp)
        self._centers: Final = np.array([feature.center for feature, _ in numeric.values()])
        self._scales: Final = np.array([feature.scale for feature, _ in numeric.values()])
        own = [*numeric, *(feature.name for feature, _ in (*self._choices, *self._cycles))]
        self._derived: Final = [(name, DERIVED[name]) for name in own if name in DERIVED]
        self.segments: Final = {
            column: begin + place
            for feature, begin in self._choices
            if isinstance(feature, Categorical)
            for place, column in enumerate(feature.columns)
        }
        read = {_READ.get(name, "context") for name in own if not name.startswith((OF_STRATEGY, OF_USER))}
        if any(name.startswith((OF_STRATEGY, OF_USER)) for name in own):
            read.add("context")  # a query may say something of this name where an impression does not
        self._read: Final = sorted(read)
        self.of_strategies: Final = any(name.startswith(OF_STRATEGY) for name in own)
        self.of_users: Final = any(name.startswith(OF_USER) for name in own)

    @property
    def fingerprint(self) -> str:
        """A short hash of the features: vectors with different fingerprints must never be combined."""
        return hashlib.blake2b(msgspec.json.encode(self.features), digest_size=8).hexdigest()

    def encode(self, context: Mapping[str, Value]) -> NDArray[np.float64]:
        """Return the vector, (dimension,), of one context.

        It equals what `encode_all` returns, to the last bit. For a single context, plain Python is faster: one call of
        numpy costs as much as encoding several numbers.
        """
        vector = [0.0] * self.dimension
        vector[0] = 1.0
        for column, name, center, low, high, step in self._numbers:
            try:
                offset = context[name] - center  # type: ignore[operator]
            except (KeyError, TypeError):
                continue  # missing or not a number: counts as the center
            if low <= offset <= high:
                vector[column] = (offset / step + _TO_WHOLE - _TO_WHOLE) / GRID
            elif offset > high:
                vector[column] = LIMIT
            elif offset < low:
                vector[column] = -LIMIT
        for feature, begin in self._choices:
            place = feature.encode(context.get(feature.name))
            if place is not None:
                vector[begin + place] = 1.0
        for cycle, place_of in self._cycles:
            if waves := cycle.encode(context.get(cycle.name)):
                vector[place_of] = waves
        for left, right, both in self._crosses:
            others = vector[right]
            vector[both] = [
                round(min(max(one * other, -LIMIT), LIMIT) * GRID) / GRID if one and other else 0.0
                for one in vector[left]
                for other in others
            ]
        return np.array(vector)

    def vectors(self, columns: Columns) -> NDArray[np.float64]:
        """Return the vectors of turns, (turns, dimension); each distinct context is encoded once."""
        contexts, place = self._contexts(columns)
        encoded: NDArray[np.float64] = self.encode_all(contexts)[place]
        return encoded

    def vectors_of(
        self, columns: Columns, rows: NDArray[np.int64], codes: NDArray[np.int64], strategies: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return the vectors of strategies in turns, (rows, dimension).

        Args:
            columns: the turns.
            rows: places of turns, (rows,).
            codes: the strategy of each, (rows,), as its place among `strategies`.
            strategies: their names.
        """
        if not self.of_strategies:
            return self.vectors(columns)[rows]
        contexts, place = self._contexts(columns)
        known, known_place = _known(columns, "strategy_context")
        first, line = distinct(place[rows], known_place[rows], codes)
        encoded: NDArray[np.float64] = self.encode_all(
            [
                {**contexts[place[row]], **known[known_place[row]].get(strategies[code], {})}
                for row, code in zip(rows[first].tolist(), codes[first].tolist(), strict=True)
            ]
        )
        return encoded[line]

    def _contexts(self, columns: Columns) -> tuple[list[Mapping[str, Value]], NDArray[np.int64]]:
        """Return the distinct contexts of turns, in their encoded parts, and each turn's index among them, (turns,)."""
        query, turns = columns.turns.query, len(columns)
        codes = [np.zeros(turns, dtype=np.int64)]
        for name in self._read:
            column = query.ts // _HOUR_MS if name == "ts" else getattr(query, name)
            codes.append(column != MISSING if name == "form" else column)
        of_user, user_place = _known(columns, "user_context") if self.of_users else ([], codes[0])
        first, place = distinct(*codes, user_place)
        own = columns.contexts()
        contexts: list[Mapping[str, Value]] = []
        for row in first.tolist():
            context = dict(own[query.context[row]]) if "context" in self._read else {}
            if self._derived:
                asked = columns.query(row)
                context.update((name, get(asked)) for name, get in self._derived)
            if self.of_users:
                context.update(of_user[user_place[row]])
            contexts.append(context)
        return contexts, place

    def encode_all(self, contexts: Sequence[Mapping[str, Value]]) -> NDArray[np.float64]:
        """Return the vectors, (contexts, dimension), of `contexts`."""
        vectors = np.zeros((len(contexts), self.dimension))
        vectors[:, 0] = 1.0
        if self._numbers:
            numbers = self._read_numbers(contexts).reshape(-1, len(self._numbers))
            vectors[:, self._number_columns] = self._scaled(numbers)
        for feature, begin in self._choices:
            name = feature.name
            for row, context in enumerate(contexts):
                place = feature.encode(context.get(name))
                if place is not None:
                    vectors[row, begin + place] = 1.0
        for cycle, place_of in self._cycles:
            for row, context in enumerate(contexts):
                if waves := cycle.encode(context.get(cycle.name)):
                    vectors[row, place_of] = waves
        for left, right, both in self._crosses:
            products = vectors[:, left, np.newaxis] * vectors[:, np.newaxis, right]
            vectors[:, both] = _on_grid(products.reshape(len(contexts), both.stop - both.start))
        return vectors

    def _read_numbers(self, contexts: Sequence[Mapping[str, Value]]) -> NDArray[np.float64]:
        """Return the values of the numeric features, context by context; the center where one is missing."""
        try:
            numbers = np.array(list(map(self._get_numbers, contexts)))
        except KeyError:  # not every context has all of them
            pass
        else:
            if numbers.dtype == np.float64 and not np.isnan(numbers).any():
                return numbers
        return np.array(
            [_number(context.get(name), center) for context in contexts for _, name, center, *_ in self._numbers]
        )

    def _scaled(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            return _on_grid((numbers - self._centers) / self._scales)


def _known(columns: Columns, name: str) -> tuple[list[Mapping[str, Any]], NDArray[np.int64]]:
    """What impressions say of who asked, or of strategies: the distinct things, and which of them each turn has.

    Of several impressions the first that says something counts, of a strategy or of who asked.
    """
    impressions = columns.turns.impressions
    codes: NDArray[np.int32] = getattr(impressions.rows, name)
    said = np.flatnonzero(codes != MISSING)
    of_turn: defaultdict[int, tuple[int, ...]] = defaultdict(tuple)
    for turn, code in zip(impressions.parents[said].tolist(), codes[said].tolist(), strict=True):
        of_turn[turn] += (code,)
    index: dict[tuple[int, ...], int] = {(): 0}
    place = np.zeros(len(columns), dtype=np.int64)
    place[list(of_turn)] = [index.setdefault(some, len(index)) for some in of_turn.values()]
    contexts = columns.contexts()
    if name == "user_context":
        return [contexts[some[0]] if some else {} for some in index], place
    known: list[Mapping[str, Any]] = [
        {key: one for code in some[::-1] for key, one in contexts[code].items() if one} for some in index
    ]
    return known, place


def _number(value: Value, center: float) -> float:
    """Return `value`, or `center` if it is not a number. NaN fails the comparison with infinity."""
    return center if value is None or isinstance(value, str) or not value <= inf else float(value)


def _on_grid(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip and round to the grid. Negative zero becomes zero, so that equal vectors are equal to the last bit."""
    return np.rint(np.minimum(np.maximum(numbers, -LIMIT), LIMIT) * GRID) / GRID + 0.0
