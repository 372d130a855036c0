"""The memory index: which entities have worked for which query.

For every query q and entity e it sums, with forward decay, the gain of the clicks (see `outcomes`) and the exposure:
each showing of e for q, weighted by the probability that the position was examined (see `examination`). The score is
the mean of a gamma posterior, whose prior is a predicted score (see `priors`) worth kappa exposures:

    Q2E(q, e) = (kappa * prior + gain) / (kappa + exposure)

Entities are ranked by a lower credible bound, so that one lucky click does not outrank long evidence.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from statistics import NormalDist
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents import checksums
from backchannel.agents.learner import TOGETHER, Changed, Learner, portions_of
from backchannel.agents.memory.examination import BASIS, HARVESTED, Examination
from backchannel.agents.memory.serving import NOTHING, Header, Memory, PairEvidence, Row
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.sketches import SLOTS, slot
from backchannel.agents.statistics import gamma_rate
from backchannel.agents.sums import ALL, Delta, Floats, Groups, Integers, Key, SumReader, Sums, SumTable


class MemoryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the memory index remembers."""

    half_life_days: Annotated[float, Meta(ge=0.01, le=100_000, description="half-life of evidence, in days")] = 30.0
    kappa: Annotated[
        float,
        Meta(
            ge=0.01,
            le=1e6,
            description="weight of a pair's predicted score, in exposures; a pair without a prediction has the score 0",
        ),
    ] = 5.0
    position_decay: Annotated[
        float,
        Meta(
            ge=0,
            le=4,
            description="exponent d of the probability p^-d that position p is examined, until clicks show "
            "another curve. Like the half-life it is part of the sums",
        ),
    ] = 0.7
    confidence: Annotated[
        float,
        Meta(
            ge=0.5,
            le=0.999,
            description="probability that the true score exceeds the lower bound by which entities are ranked",
        ),
    ] = 0.9
    top: Annotated[int, Meta(ge=1, le=1000, description="entities published per query")] = 50
    challengers: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="further entities per query with little evidence that may turn out to be the best",
        ),
    ] = 5
    reserve: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="further entities per query that the ledger keeps, those with the most evidence; a "
            "dropped entity that is shown again starts as new",
        ),
    ] = 500
    personal: Annotated[int, Meta(ge=0, le=10_000, description="query-entity pairs remembered per user; 0: none")] = 0
    personal_kappa: Annotated[
        float,
        Meta(ge=0.01, le=1e6, description="largest weight of everybody's evidence beside a user's own, in exposures"),
    ] = 10.0
    min_users: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="distinct people who must have asked a query before more than predictions is "
            "published for it; without a user_id each session counts as one. Counting begins when"
            " this is first above 1",
        ),
    ] = 1


class MemoryIndex(Learner):
    """The learner of Q2E scores. Its section: query -> `serving.Row`; ALL -> `serving.Header`."""

    name = Memory.name
    serving = Memory

    def __init__(self, config: MemoryConfig) -> None:
        self.config: Final = config
        half_life_ms = round(config.half_life_days * 86_400_000)
        self.table: Final = SumTable(
            name="memory",
            key=(("query", str), ("entity", str)),
            sums=("gain", *(f"exposure_{power}" for power in range(BASIS))),
            half_life_ms=half_life_ms,
        )
        self.priors: Final = SumTable(name="priors", key=(("query", str), ("entity", str)), sums=("score",))
        self.people: Final = SumTable(
            name="people", key=(("query", str), ("slot", int)), sums=("turns",), half_life_ms=half_life_ms
        )
        self.examination: Final = Examination(config.position_decay, half_life_ms)
        self.tables = (self.table, self.priors, self.people, self.examination.table)
        self._most: Final = config.top + config.challengers + config.reserve
        self.bound = (self.table, self._most)
        self._deviations: Final = NormalDist().inv_cdf(config.confidence)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.memory)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        asked = np.flatnonzero(outcomes.named[outcomes.query])
        shown = Shown(self.table, outcomes, asked, (outcomes.query, outcomes.keys))
        delta = {}
        if shown.groups.keys:
            delta[self.table.name] = shown.sums(self.examination)
            delta[self.examination.table.name] = shown.harvest(self.examination)
        if len(asked) and self.config.min_users > 1:
            delta[self.people.name] = self._people(outcomes, asked)
        return delta

    def _people(self, outcomes: Outcomes, asked: Integers) -> Sums:
        """Return the slots hit per query, for linear counting of people (Whang, Vander-Zanden & Taylor 1990)."""
        landmark = self.people.landmark(int(outcomes.times.max()))
        people, place = np.unique(outcomes.people[asked], return_inverse=True)
        names = outcomes.columns.pools.people
        slots = np.array([slot(names[one]) for one in people.tolist()], dtype=np.int64)[place]
        groups = Groups((outcomes.query[asked], outcomes.keys), (slots, range(SLOTS)))
        return groups.sums(self.people, [self.people.weights(outcomes.times[asked], landmark)], landmark)

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:
        """See `Learner.portions`."""
        return portions_of(self.table, self._queries(changed), together) if changed else iter([changed])

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. A query keeps the examination curve with which it was last solved."""
        if not changed:
            return {}
        queries, curve = sorted(self._queries(changed)), self.examination.curve(sums)
        section: dict[str, bytes | None] = dict.fromkeys(queries)
        section[ALL] = msgspec.json.encode(self._header(curve))
        keys, values, _ = self._evidence(sums, queries, curve, at)
        if self.config.min_users > 1:
            self._withhold(sums, queries, keys, values)
        section.update(self._rows(keys, values, at))
        return section

    def _queries(self, changed: Changed) -> set[str]:
        return {query for table in (self.table, self.priors, self.people) for query in changed.get(table.name, ())}

    def compact(self, sums: Sums, at: int) -> Mapping[Key, Key | None]:  # noqa: ARG002 - decay depends on newer periods
        """See `Learner.compact`."""
        return self.examination.faded(sums.keys)

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`. Published entities stay, then those with the most evidence."""
        keys, values, shown = self._evidence(sums, crowded, self.examination.curve(sums), at)
        evidence = values[:, 0] + values[:, 1]
        for published in self._best(keys, values.round(6)).values():
            evidence[published] = inf
        by_query: defaultdict[str, list[tuple[float, Key]]] = defaultdict(list)
        for key, size in zip(keys[:shown], evidence.tolist(), strict=False):
            by_query[key[0]].append((-size, key))
        return [key for ranked in by_query.values() for _, key in sorted(ranked)[self._most :]]

    def _header(self, curve: Floats) -> Header:
        return Header(
            kappa=self.config.kappa,
            personal_kappa=self.config.personal_kappa,
            deviations=self._deviations,
            half_life_ms=self.table.half_life_ms or 0,
            curve=tuple(curve.tolist()),
            examined=tuple(self.examination.examined(curve, HARVESTED).round(3).tolist()),
        )

    def _evidence(
        self, sums: SumReader, queries: Collection[str], curve: Floats, at: int
    ) -> tuple[list[Key], Floats, int]:
        """Return pairs, those shown first; their gain, exposure and prior, (pairs, 3); and how many were shown."""
        rows, priors = (sums.read(table, "query", queries) for table in (self.table, self.priors))
        index = {key: row for row, key in enumerate(rows.keys)}
        primed = [index.setdefault(key, len(index)) for key in priors.keys]
        values = np.zeros((len(index), 3))
        seen = rows.at(at)
        values[: len(seen), 0] = seen[:, 0]
        values[: len(seen), 1] = seen[:, 1:] @ curve
        values[primed, 2] = priors.values[:, 0]
        return list(index), values, len(seen)

    def _withhold(self, sums: SumReader, queries: Collection[str], keys: Sequence[Key], values: Floats) -> None:
        """Clear the evidence of queries that fewer than `min_users` people asked."""
        slots = Counter(query for query, _ in sums.read(self.people, "query", queries).keys)
        few = np.array([slots[query] < self.config.min_users for query, _ in keys], dtype=bool)
        values[few, :2] = 0.0

    def _rows(self, keys: Sequence[Key], values: Floats, at: int) -> Iterable[tuple[str, bytes]]:
        """Yield each query with its row of entities that have a positive score."""
        values = values.round(6)  # about the contribution of a turn 20 half-lives old
        for query, rows in self._best(keys, values).items():
            numbers = values[rows].tolist()
            best = (PairEvidence(keys[row][1], *evidence) for row, evidence in zip(rows, numbers, strict=True))
            yield query, msgspec.json.encode(Row(at, tuple(best)))

    def _best(self, keys: Sequence[Key], values: Floats) -> dict[str, list[int]]:
        """Return query -> the rows of `values` (gain, exposure, prior) to publish, best first."""
        kappa, config = self.config.kappa, self.config
        gain, exposure, prior = values.T
        alpha = kappa * prior + gain
        worth = np.flatnonzero(alpha >= NOTHING)
        alpha, beta = alpha[worth], (kappa + exposure)[worth]
        scores, lower = gamma_rate(alpha, beta, -self._deviations)
        _, upper = gamma_rate(alpha, beta, self._deviations)
        by_query: defaultdict[str, list[tuple[float, float, str, float, int]]] = defaultdict(list)
        bounds = zip((-lower).tolist(), (-scores).tolist(), (-upper).tolist(), strict=True)
        for row, (low, score, high) in zip(worth.tolist(), bounds, strict=True):
            query, entity = keys[row]
            by_query[query].append((low, score, entity, high, row))
        best = {}
        for query, ranked in by_query.items():
            ranked.sort()
            left = sorted(ranked[config.top :], key=lambda one: (one[3], one[2]))[: config.challengers]
            best[query] = [one[-1] for one in (*ranked[: config.top], *sorted(left))]
        return best


class Shown:
    """Showings and clicks of turns, grouped by the key of a table.

    Args:
        table: the table; its last key column is the entity.
        outcomes: outcomes of n turns.
        rows: the turns that count, rising.
        owners: the key columns before the entity: each turn's code, (n,), and the sorted values that codes index.

    Attributes:
        groups: the lines, first a line per showing and then one per click, by key.
    """

    def __init__(
        self, table: SumTable, outcomes: Outcomes, rows: Integers, *owners: tuple[Integers, Sequence[str]]
    ) -> None:
        self._table: Final = table
        self._times: Final = outcomes.times
        impressions, gains = outcomes.columns.turns.impressions, outcomes.gains
        results = impressions.rows.results
        counts = np.zeros(len(outcomes), dtype=bool)
        counts[rows] = True
        turns = impressions.parents[results.parents]
        showings = np.flatnonzero(counts[turns])
        clicked = np.flatnonzero(counts[gains.turns])
        positions = np.append(results.rows.position, 0).astype(np.int64)
        # A click on an entity shown several times counts at the first place; on one not shown, at position 0.
        self._positions: Final = np.concatenate((positions[showings], positions[gains.places[clicked]]))
        self._turns: Final = np.concatenate((turns[showings], gains.turns[clicked]))
        self._showings: Final = len(showings)
        self._gains: Final = gains.gains[clicked]
        entities = np.concatenate((results.rows.entity[showings].astype(np.int64), gains.entities[clicked]))
        parts = *((codes[self._turns], values) for codes, values in owners), (entities, outcomes.columns.pools.entities)
        self.groups: Final = Groups(*parts)
        self._values: Final = [values for _, values in parts]

    def sums(self, examination: Examination) -> Sums:
        """Return the gain of each key, and its exposure for each power of the examination curve."""
        landmark = self._table.landmark(int(self._times.max()))
        weights = self._table.weights(self._times, landmark)[self._turns]
        shown, size, lines = self._showings, len(self.groups.keys), self.groups.lines
        values = np.empty((size, 1 + BASIS))
        values[:, 0] = np.bincount(lines[shown:], weights[shown:] * self._gains, size)
        for power, exposure in zip(examination.powers.T, values.T[1:], strict=True):
            exposure[:] = np.bincount(lines[:shown], weights[:shown] * power[self._positions[:shown]], size)
        return Sums(self._table, self.groups.keys, values, landmark)

    def harvest(self, examination: Examination) -> Sums:
        """Return what pairs of a query and an entity contribute to the examination curve."""
        queries, entities = self._values
        hashes = checksums.of_pairs(queries, entities, *self.groups.codes)
        showings, clicks = self._showings, len(self._gains)
        return examination.harvest(
            self._times[self._turns],
            hashes[self.groups.lines],
            self._positions,
            np.concatenate((np.zeros(showings), self._gains)),
            np.concatenate((np.ones(showings), np.zeros(clicks))),
        )
