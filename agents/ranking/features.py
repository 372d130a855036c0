"""Candidates as vectors, encoded alike by the learner and by the policy reader.

A candidate's own features come from whoever asks for a ranking. Some the policy supplies itself: `memory.score` and
`memory.evidence`, what the memory index knows of the pair, and `rank.STRATEGY`, one over the candidate's rank in a
strategy's list. Crosses multiply a candidate's feature with one of the query's, so that a weight may depend on the
query; a query's features alone would move all candidates alike.
"""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from backchannel.agents.bandit.features import LIMIT, Binned, Categorical, Encoder, Hashed, Numeric, Value
from backchannel.agents.ranking.packed import read_alike
from backchannel.agents.sums import GRID, Floats, Integers

SCORE: Final = "score"
"""The feature that holds the caller's own score."""
MEMORY_SCORE: Final = "memory.score"
MEMORY_EVIDENCE: Final = "memory.evidence"
RANK: Final = "rank."
"""Prefix of the features that are one over the rank in a strategy's list; 0 for candidates that it did not bring."""
MAX_COLUMNS: Final = 128
_FORMAT: Final = 2  # of the sums: to be raised when the meaning of a row changes
_LEAST_DEVIATION: Final = 1e-9  # below this, a feature counts as constant in a list
_GREATEST: Final = 1e15  # beyond this, a number counts as missing

CandidateFeature: TypeAlias = Numeric | Categorical | Hashed | Binned


class CandidateEncoder:
    """Encodes the candidates of lists.

    Args:
        features: The candidates' features.
        normalized: Numeric or binned features that are standardized within each list before they are encoded.
        query_features: Features of the query, for crosses.
        crosses: Pairs of a query feature and a candidate feature whose columns are multiplied.

    Attributes:
        columns: The names of the columns.
        dimension: The number of columns.
        fingerprint: A short hash of all settings: vectors with different fingerprints must never be combined.
        of_memory: Whether the memory index supplies some of the features.
        of_choices: Whether some features are not numbers.
        of_query: Whether some columns depend on the query.
        read: The names of the numbers that are read from a candidate's own features.
        ranked: The strategies whose ranks are features.

    Raises:
        ValueError: An unknown name in `normalized` or `crosses`, or more than MAX_COLUMNS columns.
    """

    def __init__(
        self,
        features: Sequence[CandidateFeature],
        normalized: Sequence[str] = (),
        query_features: Sequence[CandidateFeature] = (),
        crosses: Sequence[tuple[str, str]] = (),
    ) -> None:
        own, self._query = Encoder(features), Encoder(query_features)  # these raise if the features are invalid
        names = [one.name for one in features if isinstance(one, Numeric | Binned)]
        for name in normalized:
            if name not in names:
                raise ValueError(f"normalized: {name!r} is not a numeric or binned feature of candidates")
        places, of_query = _places(features), _places(query_features)
        for left, right in crosses:
            if left not in of_query or right not in places:
                raise ValueError(f"crosses: {left} * {right} must be a query feature and a candidate feature")
        crossed = [(of_query[left], places[right]) for left, right in crosses]
        self.columns: Final = (
            *own.columns[1:],
            *(
                f"{one}*{other}"
                for left, right in crossed
                for one in self._query.columns[left]
                for other in own.columns[right]
            ),
        )
        self.dimension: Final = len(self.columns)
        if self.dimension > MAX_COLUMNS:
            raise ValueError(f"features: {self.dimension} columns in all; at most {MAX_COLUMNS} can be learned from")
        parts = (_FORMAT, own.fingerprint, tuple(normalized), self._query.fingerprint, tuple(map(tuple, crosses)))
        self.fingerprint: Final = hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()
        self.of_memory: Final = not {MEMORY_SCORE, MEMORY_EVIDENCE}.isdisjoint(names)
        self.normalized: Final = tuple(normalized)
        self._width: Final = own.dimension - 1
        # Without the constant that an `Encoder` begins with.
        self._crosses: Final = [(left, slice(right.start - 1, right.stop - 1)) for left, right in crossed]
        self.of_query: Final = bool(crossed)
        # Numbers are read as one matrix: first the candidates' own, then one over their ranks.
        self.read: Final = tuple(name for name in names if not name.startswith(RANK))
        self.ranked: Final = tuple(name.removeprefix(RANK) for name in names if name.startswith(RANK))
        self.of_choices: Final = any(isinstance(one, Categorical | Hashed) for one in features)
        kept = [
            (f"column{place}", float, msgspec.field(default=np.nan, name=name)) for place, name in enumerate(self.read)
        ]
        self._decode: Final = msgspec.msgpack.Decoder(msgspec.defstruct("Numbers", kept)).decode
        self._get: Final[Callable[[Any], tuple[Value, ...]]] = _getter(self.read)
        self._pack: Final = struct.Struct(f"{len(self.read)}d").pack
        source = {name: column for column, name in enumerate([*self.read, *(RANK + name for name in self.ranked)])}
        self._standardized: Final = np.array([source[name] for name in normalized], dtype=np.intp)
        # Scaling and standardizing are one step: subtract the offset, multiply by the factor.
        self._offsets, self._factors = np.zeros(len(source)), np.ones(len(source))
        numeric = [one for one in features if isinstance(one, Numeric)]
        for one in numeric:
            self._offsets[source[one.name]], self._factors[source[one.name]] = one.center, 1.0 / one.scale
        taken = [source[one.name] for one in numeric]
        whole = taken == list(range(len(source)))
        self._numeric_from: Final[Any] = slice(None) if whole else np.array(taken, dtype=np.intp)
        self._numeric_to: Final = np.array([places[one.name].start - 1 for one in numeric], dtype=np.intp)
        self._binned: Final = [
            (source[one.name], np.array(one.edges), places[one.name].start - 1)
            for one in features
            if isinstance(one, Binned)
        ]
        self._choices: Final = [
            (one, places[one.name].start - 1) for one in features if isinstance(one, Categorical | Hashed)
        ]

    def numbers(self, features: Sequence[Mapping[str, Value]], ranks: Sequence[Mapping[str, int]]) -> Floats:
        """Return the numeric features of candidates, (candidates, numbers); NaN for missing values."""
        get, pack = self._get, self._pack
        try:
            flat = np.frombuffer(bytearray().join([pack(*get(one)) for one in features]))
        except (KeyError, struct.error):  # not every candidate has all of them
            flat = np.array([number_of(one.get(name)) for one in features for name in self.read])
        found = flat.reshape(len(features), len(self.read))
        if not self.ranked:
            return self.completed(found)
        brought = np.array([[own.get(name, 0) for name in self.ranked] for own in ranks], dtype=float)
        return self.completed(found, brought)

    def unpacked(self, packed: Sequence[bytes]) -> Floats:
        """Return the numbers named in `read` from features packed by MessagePack, (candidates, read); see
        `completed`.
        """
        found, like = read_alike(packed, self.read)
        rest = np.flatnonzero(~like).tolist()
        if rest:
            found[rest] = self._singly([packed[row] for row in rest])
        return found

    def _singly(self, packed: Sequence[bytes]) -> Floats:
        """Return what `unpacked` does, decoded one by one."""
        decode, values, pack = self._decode, msgspec.structs.astuple, self._pack
        try:
            flat = np.frombuffer(bytearray().join([pack(*values(decode(one))) for one in packed]))
        except msgspec.ValidationError:  # some are not numbers
            features = map(msgspec.msgpack.decode, packed)
            flat = np.array([number_of(one.get(name)) for one in features for name in self.read])
        return flat.reshape(len(packed), len(self.read))

    def completed(self, own: Floats, brought: Floats | None = None) -> Floats:
        """Return the numeric features of candidates; see `numbers`.

        Args:
            own: The numbers named in `read`, (candidates, read); NaN for missing values. Too large values become NaN.
            brought: Ranks in the lists of the strategies in `ranked`, from 1, (candidates, ranked); 0 if a
                strategy did not bring the candidate. None if there are no such features.
        """
        own[np.abs(own) > _GREATEST] = np.nan
        if brought is None:
            return own
        reciprocal = np.divide(1.0, brought, out=np.zeros_like(brought), where=brought > 0)
        return np.concatenate((own, reciprocal), axis=1)

    def normalizers(self, numbers: Floats, lengths: Integers) -> tuple[Floats, Floats]:
        """Return the mean and the standard deviation of the normalized features in each list, both (lists, features).

        Args:
            numbers: See `numbers`.
            lengths: The number of candidates of each list, at least 1, (lists,).
        """
        values = numbers[:, self._standardized]
        starts, counts = lengths.cumsum() - lengths, lengths[:, np.newaxis].astype(np.float64)
        missing = np.isnan(values)
        some = bool(missing.any())
        if some:
            values[missing] = 0.0
            counts = np.maximum(np.add.reduceat(~missing, starts, dtype=np.float64), 1.0)
        means = np.add.reduceat(values, starts) / counts
        values -= _of_each(means, lengths)
        if some:
            values[missing] = 0.0
        return means, np.sqrt(np.add.reduceat(values * values, starts) / counts)

    def encode(
        self,
        numbers: Floats,
        normalizers: tuple[Floats, Floats],
        features: Sequence[Mapping[str, Value]],
        contexts: Sequence[Mapping[str, Value]],
        lengths: Integers,
    ) -> Floats:
        """Return the vectors of the candidates of lists, (candidates, dimension), on the grid.

        Args:
            numbers: See `numbers`.
            normalizers: See `normalizers`.
            features: Each candidate's own features; only read if `of_choices`.
            contexts: The query's context, for each list; only read if `of_query`.
            lengths: The number of candidates of each list, (lists,).
        """
        scaled = numbers - self._offsets
        scaled *= self._factors
        if self.normalized:
            means, deviations = normalizers
            some = self._standardized
            offsets = means + self._offsets[some] * deviations
            factors = self._factors[some] * (1.0 / np.where(deviations > _LEAST_DEVIATION, deviations, np.inf))
            scaled[:, some] = (numbers[:, some] - _of_each(offsets, lengths)) * _of_each(factors, lengths)
        own = _on_grid(scaled[:, self._numeric_from])
        own[np.isnan(own)] = 0.0
        if len(self._numeric_to) == self._width:
            vectors = own
        else:
            vectors = np.zeros((len(numbers), self._width))
            vectors[:, self._numeric_to] = own
        for column, edges, begin in self._binned:
            known = np.flatnonzero(~np.isnan(scaled[:, column]))
            vectors[known, begin + np.searchsorted(edges, scaled[known, column], side="right")] = 1.0
        for feature, begin in self._choices:
            for row, one in enumerate(features):
                place = feature.encode(one.get(feature.name))
                if place is not None:
                    vectors[row, begin + place] = 1.0
        if not self._crosses:
            return vectors
        queries = _of_each(self._query.encode_all(contexts), lengths)
        products = [
            (queries[:, left, np.newaxis] * vectors[:, np.newaxis, right]).reshape(len(vectors), -1)
            for left, right in self._crosses
        ]
        return np.concatenate((vectors, _on_grid(np.concatenate(products, axis=1))), axis=1)


def _of_each(rows: Floats, lengths: Integers) -> Floats:
    """Return each list's row repeated for its candidates, or the only row of a single list."""
    return rows if len(lengths) == 1 else np.repeat(rows, lengths, axis=0)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Value, ...]]:
    if len(names) == 1:  # itemgetter would return the value itself
        (name,) = names
        return lambda own: (own[name],)
    return itemgetter(*names) if names else lambda _: ()


def number_of(value: Value) -> float:
    """Return the number of a value; NaN if it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan


def _on_grid(numbers: Floats) -> Floats:
    found: Floats = np.minimum(np.maximum(numbers, -LIMIT), LIMIT)
    found *= GRID
    np.rint(found, out=found)
    found /= GRID
    return found


def _places(features: Sequence[CandidateFeature]) -> dict[str, slice]:
    """Return the columns of each feature in the vectors of an `Encoder`."""
    ends = np.cumsum([1, *(len(one.columns) for one in features)]).tolist()
    return {one.name: slice(begin, end) for one, begin, end in zip(features, ends, ends[1:], strict=False)}
