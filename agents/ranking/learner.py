"""The ranking layer, learning: a row of sums for each time bucket and fold.

See `sums` for the model and `weights` for its solution.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct, field

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.posterior import coarsen
from backchannel.agents.columnar.columns import Columns, Ranks, Results
from backchannel.agents.columnar.frames import MISSING, Codes, Ragged, distinct
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Gains, Outcomes
from backchannel.agents.ranking.features import SCORE, CandidateEncoder, CandidateFeature
from backchannel.agents.ranking.serving import EXAMINED_DECAY, Ranker, Settings
from backchannel.agents.ranking.sums import Lists, sums_of, width
from backchannel.agents.ranking.weights import solve
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import Delta, Floats, Integers, Key, SumReader, Sums, SumTable
from backchannel.schemas.events import Name

_DAY_MS: Final = 86_400_000
_NOTHING: Final = msgspec.msgpack.encode({})
EXAMINED: Final = tuple(round(place**-EXAMINED_DECAY, 3) for place in range(1, 501))
"""The examination curve for impressions that log none, by position. Underestimating position bias does less harm than
overestimating it."""


class RankingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How candidates are ranked."""

    features: Annotated[
        tuple[CandidateFeature, ...],
        Meta(
            max_length=64,
            description="features of candidates. The policy itself supplies `memory.score`, `memory.evidence` and "
            "`rank.STRATEGY` (one over the rank in a strategy's list); all others come with the candidates. Kinds are "
            "numeric, categorical, hashed and binned. Numbers are bounded to 8 either way once they are scaled, so "
            "scores of 20 need a `scale`. Without any features, no ranking is learned",
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
    personal: Annotated[
        tuple[Name, ...],
        Meta(
            max_length=8,
            description="categorical features for whose values each user's taste is learned from the user's own clicks",
        ),
    ] = ()
    personal_half_life_days: Annotated[
        float, Meta(ge=0.01, le=100_000, description="half-life of tastes, in days; it is part of their sums")
    ] = 30.0
    personal_ridge: Annotated[
        float,
        Meta(
            ge=0.01,
            le=1e6,
            description="pull towards the taste of all users: 30 weighs as much as 60 choices between two results",
        ),
    ] = 30.0

    def __post_init__(self) -> None:
        columns = self.encoder().columns
        choices = [one.name for one in self.features if isinstance(one, Categorical)]
        for name in self.personal:
            if name not in choices:
                raise ValueError(f"personal: {name!r} is not a categorical feature: {', '.join(choices) or 'none is'}")
        if not columns:
            return
        for name, weight in self.prior.items():
            if name not in columns:
                raise ValueError(f"prior: {name!r} is not one of the columns: {', '.join(columns)}")
            if not np.isfinite(weight):
                raise ValueError(f"prior: {name}: {weight} is not a finite number")
        if not any(self.prior.values()):
            raise ValueError("prior: at least one column needs a weight, which gives the initial order")

    def encoder(self) -> CandidateEncoder:
        """Return the encoder of candidates."""
        return CandidateEncoder(self.features, self.normalized, self.query_features, self.crosses)


def chosen_results(results: Ragged[Results]) -> tuple[Integers, Integers]:
    """Return the results of lists of at least two entities, each entity where it was shown first; and their lists."""
    rows, parents = results.rows, results.parents
    first, _ = distinct(parents, rows.entity)
    if len(first) < len(parents):
        order = np.lexsort((rows.position, rows.entity, parents))
        keys = np.column_stack((parents, rows.entity))[order]
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        chosen = np.sort(order[begins])
    else:
        chosen = np.arange(len(parents))
    counts = np.bincount(parents[chosen], minlength=len(results))
    chosen = chosen[counts[parents[chosen]] > 1]
    return chosen, parents[chosen]


def gains_of(gained: Gains, chosen: Integers) -> Floats:
    """Return the gain of each chosen result, (chosen,); an entity's first result in a turn gets its gain."""
    gains = np.zeros(len(chosen))
    if not len(gained.shown):
        return gains
    place = np.minimum(np.searchsorted(chosen, gained.shown), len(chosen) - 1)
    there = chosen[place] == gained.shown
    place, which = place[there], gained.of_shown[there]
    order = np.lexsort((place, which))
    of_gain, first = np.unique(which[order], return_index=True)
    gains[place[order][first]] = gained.gains[of_gain]
    return gains


def _brought(ranks: Ragged[Ranks], strategies: Sequence[str], wanted: Sequence[str]) -> Floats:
    """Return the ranks of results in the wanted strategies' lists, (results, wanted); 0 if a strategy did not bring
    it.
    """
    column = {name: place for place, name in enumerate(wanted)}
    columns = np.array([column.get(name, MISSING) for name in strategies], dtype=np.int64)[ranks.rows.strategy]
    own = columns != MISSING
    found = np.zeros((len(ranks), len(wanted)))
    found[ranks.parents[own], columns[own]] = ranks.rows.rank[own]
    return found


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
        """See `Learner.learn`. A list of a single result says nothing about the order."""
        columns, encoder = outcomes.columns, self.encoder
        impressions = columns.turns.impressions
        shown, rows = impressions.rows, impressions.rows.results.rows
        chosen, parents = chosen_results(shown.results)
        if not len(chosen):
            return {}
        lists, sizes = np.unique(parents, return_counts=True)
        turns = impressions.parents[lists]
        features, values = self._values(columns, rows.features[chosen])
        brought = None
        if encoder.ranked:
            brought = _brought(rows.ranks.take(chosen), columns.pools.strategies, encoder.ranked)
        numbers = encoder.completed(values, brought)
        normalizers = encoder.normalizers(numbers, sizes)
        for place, own in enumerate(self._contexts(columns, shown.normalizers[lists]) if encoder.normalized else ()):
            for column, name in enumerate(encoder.normalized if own else ()):
                if name in own:
                    normalizers[0][place, column] = own[name]["mean"]
                    normalizers[1][place, column] = own[name]["deviation"]
        asked = self._contexts(columns, columns.turns.query.context[turns]) if encoder.of_query else ()
        buckets = outcomes.times[turns] // self._bucket_ms * self._bucket_ms
        folds = np.array([unit_hash(key) < 0.5 for key in outcomes.keys], dtype=np.int64)[outcomes.query[turns]]
        keys, groups = np.unique(np.column_stack((buckets, folds)), axis=0, return_inverse=True)
        found = Lists(
            lengths=sizes,
            vectors=encoder.encode(numbers, normalizers, features, asked, sizes),
            examined=self.examined(columns, np.repeat(shown.examined[lists], sizes), rows.position[chosen]),
            gains=gains_of(outcomes.gains, chosen),
            groups=groups.ravel(),
            logged=shown.examined[lists] != MISSING,
        )
        stored: list[Key] = [(encoder.fingerprint, *key) for key in keys.tolist()]
        return {self.table.name: Sums(self.table, stored, sums_of(found, len(stored)))}

    def _values(self, columns: Columns, codes: Codes) -> tuple[list[dict[str, Any]], Floats]:
        """Return the features of results that must be read one by one, and the results' numbers."""
        pool, wanted = columns.pools.contexts, codes.tolist()
        features = self._contexts(columns, codes) if self.encoder.of_choices else []
        return features, self.encoder.unpacked([pool[code] if code != MISSING else _NOTHING for code in wanted])

    def _contexts(self, columns: Columns, codes: Codes) -> list[dict[str, Any]]:
        """Return the contexts of `codes`; empty for MISSING."""
        pool = columns.pools.contexts
        known = {code: msgspec.msgpack.decode(pool[code]) for code in set(codes.tolist()) if code != MISSING}
        return [known.get(code, {}) for code in codes.tolist()]

    def examined(self, columns: Columns, codes: Codes, positions: Codes) -> Floats:
        """Return the probability that each result was examined, (results,), by the curve logged with its list."""
        used, place = np.unique(codes, return_inverse=True)
        curves = [one or EXAMINED for one in self._contexts(columns, used)]
        lengths = np.array([len(curve) for curve in curves])
        every = np.concatenate([np.array(curve, dtype=float) for curve in curves])
        begins = lengths.cumsum() - lengths
        found: Floats = every[begins[place] + np.minimum(positions, lengths[place]) - 1]
        return found

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        if self.table.name not in changed:
            return {}
        stored = sums.read(self.table, "encoding", [self.encoder.fingerprint])
        starts = sorted({start for _, start, _ in stored.keys})
        place = {start: row for row, start in enumerate(starts)}
        rows = np.zeros((len(starts), 2, width(self.encoder.dimension)))
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
            prior=weights.prior.tolist(),
            factor=weights.factor.tolist() if weights.learned else [],
            learned=weights.learned,
            gain=weights.gain,
            deviation=weights.deviation,
            lists=weights.lists,
            logged=weights.logged,
            half_life_days=(weights.half_life or 0.0) / _DAY_MS,
            exploration=config.exploration,
            max_shift=config.max_shift,
            limits=config.limits,
        )
        return {"": orjson.dumps(msgspec.to_builtins(settings))}

    def compact(self, table: SumTable, keys: Sequence[Key], sums: SumReader, at: int) -> dict[Key, Key | None]:  # noqa: ARG002 - Learner's
        """See `Learner.compact`: old buckets are coarsened."""
        became: dict[Key, Key | None] = {}
        coarser = coarsen({start for _, start, _ in keys}, (), self._bucket_ms, at)
        for key in keys:
            encoding, start, fold = key
            if start in coarser:
                became[key] = (encoding, coarser[start], fold)
        return became
