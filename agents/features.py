"""Contexts as vectors, encoded alike by the learner and by the policy reader."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from backchannel.schemas.events import Name, Query
from backchannel.schemas.text import normalize

Value: TypeAlias = float | bool | str | None
"""A context's value; None when it is missing."""

GRID: Final = 1024.0
"""Vectors are rounded to multiples of 1/GRID, so that sums of their products are exact in double precision."""
LIMIT: Final = 8.0
"""Numbers are clipped to [-LIMIT, LIMIT] after scaling."""


class Numeric(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="numeric"):
    """A number, as (value - center) / scale. Missing, or not a number: 0, as if it were at the center."""

    name: Name
    center: Annotated[float, Meta(ge=-1e300, le=1e300)] = 0.0
    scale: Annotated[float, Meta(ge=1e-300, le=1e300)] = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return (self.name,)

    def encode(self, value: Value) -> float:
        """Return the scaled, clipped and rounded number."""
        if value is None or isinstance(value, str) or math.isnan(value):
            return 0.0
        scaled = (value - self.center) / self.scale
        return round(min(max(scaled, -LIMIT), LIMIT) * GRID) / GRID


class Categorical(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="categorical"):
    """One of the listed values, each a column of zeros and ones. Missing or not listed: zeros only."""

    name: Name
    values: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(f"{self.name}={value}" for value in self.values)

    def encode(self, value: Value) -> int | None:
        """Return which of the values it is."""
        text = ("false", "true")[value] if isinstance(value, bool) else value
        return self.values.index(text) if text in self.values else None


Feature: TypeAlias = Numeric | Categorical

_HOUR_MS: Final = 3_600_000
DERIVED: Final[dict[str, Callable[[Query], Value]]] = {
    "query.words": lambda query: float(len(normalize(query.text).split())),
    "query.characters": lambda query: float(len(query.text)),
    "query.interpreted": lambda query: query.interpretation is not None,
    "query.locale": lambda query: query.locale,
    "time.hour": lambda query: float(query.ts // _HOUR_MS % 24),
    "time.weekday": lambda query: float((query.ts // (24 * _HOUR_MS) + 3) % 7),
}
"""Features of every query, besides what its own context carries. Times are UTC; Monday is weekday 0."""


def context_of(query: Query) -> dict[str, Value]:
    """Return the context that serving passes to `Policy.allocate`: the query's own and what is derived from it."""
    return {**query.context, **{name: derive(query) for name, derive in DERIVED.items()}}


class Encoder:
    """Encodes contexts as vectors of `dimension` columns, of which the first is the constant 1."""

    def __init__(self, features: Sequence[Feature]) -> None:
        # As they come back from JSON, so that a center of 12 and one of 12.0 have the same fingerprint.
        self.features: Final = msgspec.convert(msgspec.to_builtins(features), tuple[Feature, ...])
        self.columns: Final = ("1", *(column for feature in self.features for column in feature.columns))
        self.dimension: Final = len(self.columns)

    @property
    def fingerprint(self) -> str:
        """A short hash of the features: vectors of unlike fingerprints must never meet."""
        return hashlib.blake2b(msgspec.json.encode(self.features), digest_size=8).hexdigest()

    def encode(self, context: Mapping[str, Value]) -> NDArray[np.float64]:
        """Return the vector, (dimension,), of one context."""
        vector = np.zeros(self.dimension)
        vector[0] = 1.0
        column = 1
        for feature in self.features:
            value = context.get(feature.name)
            if isinstance(feature, Numeric):
                vector[column] = feature.encode(value)
            elif (index := feature.encode(value)) is not None:
                vector[column + index] = 1.0
            column += len(feature.columns)
        return vector

    def encode_queries(self, queries: Sequence[Query]) -> NDArray[np.float64]:
        """Return the vectors, (queries, dimension), of `queries`."""
        vectors = np.zeros((len(queries), self.dimension))
        vectors[:, 0] = 1.0
        column = 1
        for feature in self.features:
            name, derive = feature.name, DERIVED.get(feature.name)
            values = map(derive, queries) if derive else (query.context.get(name) for query in queries)
            if isinstance(feature, Numeric):
                vectors[:, column] = list(map(feature.encode, values))
            else:
                indices = list(map(feature.encode, values))
                rows = [row for row, index in enumerate(indices) if index is not None]
                vectors[rows, [column + index for index in indices if index is not None]] = 1.0
            column += len(feature.columns)
        return vectors
