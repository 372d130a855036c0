"""The ranking layer, learning: a row of sums for each time bucket and fold.

See `sums` for the model and `weights` for its solution.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct, field

from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.posterior import run_together
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.ranking.features import SCORE, CandidateEncoder, CandidateFeature
from backchannel.agents.ranking.serving import Ranker, Settings
from backchannel.agents.ranking.sums import Lists, sums_of
from backchannel.agents.ranking.weights import solve
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable
from backchannel.schemas.events import Name, Normalizer, Result

_DAY_MS: Final = 86_400_000
_position = attrgetter("position")
EXAMINED: Final = tuple(round(place**-0.7, 3) for place in range(1, 501))
"""The examination curve of impressions that log none, by position. To underestimate position bias does less harm than
to overestimate it."""


class RankingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How candidates are ranked."""

    features: Annotated[
        tuple[CandidateFeature, ...],
        Meta(
            max_length=64,
            description="features of candidates. The policy itself supplies `memory.score`, `memory.evidence` and "
            "`rank.STRATEGY` (one over the rank in a strategy's list); all others come with the candidates. Kinds are "
            "numeric, categorical, hashed and binned. Without any, no ranking is learned",
        ),
    ] = ()
    normalized: Annotated[
        tuple[Name, ...],
        Meta(
            max_length=64,
            description="numeric or binned features that are standardized within each list, as scores whose size "
            "depends on the query should be",
        ),
    ] = ()
    query_features: Annotated[
        tuple[CandidateFeature, ...],
        Meta(max_length=32, description="features of the query's context, to be crossed with those of candidates"),
    ] = ()
    crosses: Annotated[
        tuple[tuple[Name, Name], ...],
        Meta(max_length=64, description="pairs of a query feature and a candidate feature to multiply"),
    ] = ()
    prior: Annotated[
        dict[str, float],
        Meta(
            description="column -> weight: the order to begin with, and to fall back to. Columns are named as their "
            "features; those of categorical ones are `NAME=VALUE`"
        ),
    ] = field(default_factory=lambda: {SCORE: 1.0})
    half_lives_days: Annotated[
        tuple[Annotated[float, Meta(ge=0.01, le=100_000)], ...],
        Meta(
            max_length=6,
            description="half-lives of evidence to choose from, besides never to forget; held-out queries decide",
        ),
    ] = (90.0, 14.0)
    bucket_s: Annotated[float, Meta(ge=60, le=31_536_000, description="length of a time bucket")] = 86_400.0
    evidence: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            description="the order leaves the prior only if the held-out improvement exceeds zero by this many of its "
            "standard deviations",
        ),
    ] = 1.0
    exploration: Annotated[
        float, Meta(ge=0, le=10, description="width of the posterior draws, in its standard deviations; 0: none")
    ] = 0.5
    max_shift: Annotated[
        int, Meta(ge=0, le=500, description="places by which exploration moves a candidate at most")
    ] = 3
    limits: Annotated[
        dict[Name, Annotated[int, Meta(ge=1, le=500)]],
        Meta(description="feature -> at most so many of the first k results have the same value of it"),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = self.encoder().columns
        if not columns:
            return
        for name, weight in self.prior.items():
            if name not in columns:
                raise ValueError(f"prior: {name!r} is none of the columns: {', '.join(columns)}")
            if not np.isfinite(weight):
                raise ValueError(f"prior: {name}: {weight} is not a finite number")
        if not any(self.prior.values()):
            raise ValueError("prior: at least one column needs a weight: it is the order to begin with")

    def encoder(self) -> CandidateEncoder:
        """Return the encoder of candidates."""
        return CandidateEncoder(self.features, self.normalized, self.query_features, self.crosses)


def _distinct(results: Sequence[Result]) -> Sequence[Result]:
    """Each entity once, where it was shown first."""
    if len({one.entity_id for one in results}) == len(results):
        return results
    first = {one.entity_id: one for one in sorted(results, key=_position, reverse=True)}
    return list(first.values())


class ResultRanking(Learner):
    """The learner of the order of results. Its section: "" -> `serving.Settings`.

    Assumptions, as `docs/design.md` asks of every learner: clicks follow the position-based model with the curve that
    is logged with the impression, or `EXAMINED`; what one turn adds is bounded, as gains and vectors are; a list is
    compared within itself only, so overlap, depth and the number of candidates drawn do not enter.
    """

    name = Ranker.name
    serving = Ranker

    def __init__(self, config: RankingConfig) -> None:
        self.config: Final = config
        self.encoder: Final = config.encoder()
        self.table: Final = SumTable(name="ranking", key=(("encoding", str), ("bucket", int), ("fold", int)))
        self.tables = (self.table,)
        self._bucket_ms: Final = round(config.bucket_s * 1000)
        self._prior: Final = np.array([config.prior.get(column, 0.0) for column in self.encoder.columns])
        self._half_lives: Final = (None, *(days * _DAY_MS for days in config.half_lives_days))

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.ranking)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: candidates must have features."""
        return bool(config.ranking.features)

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`. A list of a single result says nothing of an order."""
        results: list[Result] = []
        gains: list[float] = []
        examined: list[float] = []
        lengths: list[int] = []
        logged: list[Mapping[str, Normalizer]] = []
        contexts: list[Mapping[str, Value]] = []
        places: list[tuple[int, int]] = []
        for outcome in outcomes:
            left, query = dict(outcome.gains), outcome.turn.query
            for impression in outcome.turn.impressions:
                shown = _distinct(impression.results)
                if len(shown) < 2:
                    continue
                curve = impression.examined or EXAMINED
                results += shown
                gains += [left.pop(one.entity_id, 0.0) for one in shown] if left else [0.0] * len(shown)
                examined += [curve[min(one.position, len(curve)) - 1] for one in shown]
                lengths.append(len(shown))
                logged.append(impression.normalizers)
                contexts.append(query.context)
                places.append((query.ts // self._bucket_ms * self._bucket_ms, int(unit_hash(outcome.query) < 0.5)))
        if not places:
            return {}
        sizes = np.array(lengths, dtype=np.int64)
        features = [one.features for one in results]
        numbers = self.encoder.numbers(features, [one.ranks for one in results])
        normalizers = self.encoder.normalizers(numbers, sizes)
        for place, own in enumerate(logged):
            for column, name in enumerate(self.encoder.normalized if own else ()):
                if name in own:
                    normalizers[0][place, column] = own[name].mean
                    normalizers[1][place, column] = own[name].deviation
        vectors = self.encoder.encode(numbers, normalizers, features, contexts, sizes)
        keys = sorted(set(places))
        code = {key: group for group, key in enumerate(keys)}
        lists = Lists(sizes, vectors, np.array(examined), np.array(gains), np.array([code[place] for place in places]))
        rows: list[Key] = [(self.encoder.fingerprint, *key) for key in keys]
        return {self.table.name: Sums(self.table, rows, sums_of(lists, len(keys)))}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        if self.table.name not in changed:
            return {}
        stored = sums.read(self.table, "encoding", [self.encoder.fingerprint])
        starts = sorted({start for _, start, _ in stored.keys})
        place = {start: row for row, start in enumerate(starts)}
        rows = np.zeros((len(starts), 2, stored.values.shape[1] if starts else 4 + self._size))
        for (_, start, fold), row in zip(stored.keys, stored.values, strict=True):
            rows[place[start], fold] = row
        config = self.config
        weights = solve(
            np.array(starts, dtype=float), rows, self._prior, self._half_lives, at, evidence=config.evidence
        )
        settings = Settings(
            features=config.features,
            normalized=config.normalized,
            query_features=config.query_features,
            crosses=config.crosses,
            encoding=self.encoder.fingerprint,
            weights=weights.mean.tolist(),
            factor=weights.factor.tolist() if weights.learned else [],
            learned=weights.learned,
            gain=weights.gain,
            deviation=weights.deviation,
            lists=weights.lists,
            half_life_days=(weights.half_life or 0.0) / _DAY_MS,
            exploration=config.exploration,
            max_shift=config.max_shift,
            limits=config.limits,
        )
        return {"": orjson.dumps(msgspec.to_builtins(settings))}

    @property
    def _size(self) -> int:
        return self.encoder.dimension * (self.encoder.dimension + 3) // 2

    def compact(self, sums: Sums, at: int) -> dict[Key, Key | None]:
        """See `Learner.compact`: old buckets run together."""
        became: dict[Key, Key | None] = {}
        starts = {start for _, start, _ in sums.keys}
        coarser = run_together(starts, (), self._bucket_ms, at)
        for key in sums.keys:
            encoding, start, fold = key
            if start in coarser:
                became[key] = (encoding, coarser[start], fold)
        return became
