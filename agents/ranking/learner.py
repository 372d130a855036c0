"""The ranking layer, learning: a row of sums for each time bucket and fold.

See `sums` for the model and `weights` for its solution.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct, field

from backchannel.agents.bandit.posterior import run_together
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.ranking.features import SCORE, CandidateEncoder, CandidateFeature
from backchannel.agents.ranking.serving import Ranker, Settings
from backchannel.agents.ranking.sums import Lists, sums_of
from backchannel.agents.ranking.weights import solve
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable
from backchannel.schemas.events import Name

_DAY_MS: Final = 86_400_000
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
            description="numeric or binned features to standardize within each list; useful for scores whose "
            "scale depends on the query",
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
            description="column -> weight: the prior order, served until clicks improve on it. A column is named after "
            "its feature; those of categorical features are named `NAME=VALUE`"
        ),
    ] = field(default_factory=lambda: {SCORE: 1.0})
    half_lives_days: Annotated[
        tuple[Annotated[float, Meta(ge=0.01, le=100_000)], ...],
        Meta(
            max_length=6,
            description="candidate half-lives, in addition to no forgetting; chosen on held-out queries",
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
        int, Meta(ge=0, le=500, description="maximum number of places by which exploration moves a candidate")
    ] = 3
    limits: Annotated[
        dict[Name, Annotated[int, Meta(ge=1, le=500)]],
        Meta(description="feature -> maximum number of the first k results with the same value"),
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


def _distinct(rows: range, entities: Sequence[int], positions: Sequence[int]) -> Sequence[int]:
    """Each entity's result once, where it was shown first."""
    if len(set(entities[rows.start : rows.stop])) == len(rows):
        return rows
    first = {entities[row]: row for row in sorted(rows, key=positions.__getitem__, reverse=True)}
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

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. A list of a single result says nothing of an order."""
        columns, gained = outcomes.columns, outcomes.gains
        impressions, contexts = columns.turns.impressions, columns.contexts()
        results = impressions.rows.results
        entities, positions = results.rows.entity.tolist(), results.rows.position.tolist()
        curves, ends = impressions.rows.examined.tolist(), results.counts.cumsum().tolist()
        left = dict(
            zip(zip(gained.turns.tolist(), gained.entities.tolist(), strict=True), gained.gains.tolist(), strict=True)
        )
        buckets = (outcomes.times // self._bucket_ms * self._bucket_ms).tolist()
        folds = [int(unit_hash(key) < 0.5) for key in outcomes.keys]
        chosen: list[int] = []
        gains: list[float] = []
        examined: list[float] = []
        lengths: list[int] = []
        lists: list[int] = []
        places: list[tuple[int, int]] = []
        for place, (turn, count) in enumerate(zip(impressions.parents.tolist(), results.counts.tolist(), strict=True)):
            shown = _distinct(range(ends[place] - count, ends[place]), entities, positions)
            if len(shown) < 2:
                continue
            curve = contexts[curves[place]] or EXAMINED
            chosen += shown
            gains += [left.pop((turn, entities[row]), 0.0) for row in shown]
            examined += [curve[min(positions[row], len(curve)) - 1] for row in shown]
            lengths.append(len(shown))
            lists.append(place)
            places.append((buckets[turn], folds[outcomes.query[turn]]))
        if not places:
            return {}
        sizes, rows = np.array(lengths, dtype=np.int64), np.array(chosen)
        features = [contexts[code] for code in results.rows.features[rows].tolist()]
        ranks = results.rows.ranks.take(rows)
        numbers = self.encoder.numbers(features, columns.by_strategy(ranks, ranks.rows.rank))
        normalizers = self.encoder.normalizers(numbers, sizes)
        for place, code in enumerate(impressions.rows.normalizers[lists].tolist()):
            own = contexts[code]
            for column, name in enumerate(self.encoder.normalized if own else ()):
                if name in own:
                    normalizers[0][place, column] = own[name]["mean"]
                    normalizers[1][place, column] = own[name]["deviation"]
        asked = columns.turns.query.context[impressions.parents[lists]]
        vectors = self.encoder.encode(
            numbers, normalizers, features, [contexts[code] for code in asked.tolist()], sizes
        )
        keys = sorted(set(places))
        code = {key: group for group, key in enumerate(keys)}
        groups = np.array([code[place] for place in places])
        lists_shown = Lists(sizes, vectors, np.array(examined), np.array(gains), groups)
        stored: list[Key] = [(self.encoder.fingerprint, *key) for key in keys]
        return {self.table.name: Sums(self.table, stored, sums_of(lists_shown, len(keys)))}

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
