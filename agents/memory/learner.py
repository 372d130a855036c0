"""The memory index: which entities have worked for which query.

For every query q and entity e it sums, with forward decay, the gain of the clicks (see `outcomes`) and the exposure:
each showing of e for q, weighted by the probability that the position was examined (see `examination`). The score is
the mean of a gamma posterior, whose prior is a predicted score (see `priors`) worth kappa exposures:

    Q2E(q, e) = (kappa * prior + gain) / (kappa + exposure)

Entities are ranked by a lower credible bound, so that one lucky click does not outrank long evidence.

What one person adds is bounded: gains and showings are kept by bucket of people (see `sketches`), and those of a pair
that fall into one bucket are scaled down, when they are read, to `one_person` showings or to twice the pair's median
bucket, whichever is more. An entity that is shown or clicked several times in a turn counts once.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from statistics import NormalDist
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.columnar.frames import firsts
from backchannel.agents.learner import TOGETHER, Changed, Learner, portions_of
from backchannel.agents.memory import checksums
from backchannel.agents.memory.examination import SHOWINGS, Curve, Examination
from backchannel.agents.memory.serving import NOTHING, Header, Memory, PairEvidence, Row
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sketches import BUCKETS, SLOTS, bounded_shares, slot
from backchannel.agents.statistics import gamma_rate
from backchannel.agents.sums import (
    ALL,
    CodedKeys,
    Delta,
    Floats,
    Groups,
    Integers,
    Key,
    SumReader,
    Sums,
    SumTable,
    unique_inverse,
)


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
    position_trust: Annotated[
        float,
        Meta(
            ge=0,
            le=0.9,
            description="share of the examined but useless results at the first position that are clicked because "
            "people trust the order; at position p it is one p-th of that. Take it from an experiment: clicks alone "
            "hardly show it",
        ),
    ] = 0.0
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
    personal: Annotated[int, Meta(ge=0, le=10_000, description="query-entity pairs kept per user; 0 for none")] = 0
    personal_kappa: Annotated[
        float,
        Meta(ge=0.01, le=1e6, description="largest weight of everybody's evidence beside a user's own, in exposures"),
    ] = 10.0
    one_person: Annotated[
        float,
        Meta(
            gt=0,
            le=1e6,
            description="showings (decayed) of a pair to one person that always count in full; further ones "
            "count up to twice the median of eight groups of people",
        ),
    ] = 1.0
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
            key=(("query", str), ("entity", str), ("people", int)),
            sums=("gain", *SHOWINGS),
            half_life_ms=half_life_ms,
        )
        self.priors: Final = SumTable(name="priors", key=(("query", str), ("entity", str)), sums=("score",))
        self.people: Final = SumTable(
            name="people", key=(("query", str), ("slot", int)), sums=("turns",), half_life_ms=half_life_ms
        )
        self.examination: Final = Examination(config.position_decay, half_life_ms, config.position_trust)
        self.tables = (self.table, self.priors, self.people, self.examination.table)
        self._most: Final = config.top + config.challengers + config.reserve
        self._room: Final = self._most * len(BUCKETS)
        self.bound = (self.table, self._room)
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
            delta[self.table.name] = shown.sums(self.examination, by_people=True)
            delta[self.examination.table.name] = shown.harvest(self.examination)
        if len(asked) and self.config.min_users > 1:
            delta[self.people.name] = self._people(outcomes, asked)
        return delta

    def _people(self, outcomes: Outcomes, asked: Integers) -> Sums:
        """Return the slots hit per query, for linear counting of people (Whang, Vander-Zanden & Taylor 1990)."""
        landmark = self.people.landmark(int(outcomes.times.max()))
        people, place = unique_inverse(outcomes.people[asked])
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

    def compact(
        self,
        table: SumTable,  # noqa: ARG002 - Learner's
        keys: Sequence[Key],
        sums: SumReader,  # noqa: ARG002 - Learner's
        at: int,  # noqa: ARG002 - decay depends on newer periods
    ) -> Mapping[Key, Key | None]:
        """See `Learner.compact`."""
        return self.examination.faded(keys)

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`. Published entities stay, then those with the most evidence, with all their rows."""
        keys, values, shown = self._evidence(sums, crowded, self.examination.curve(sums), at)
        evidence = values[:, 0] + values[:, 1]
        for published in self._best(keys, values.round(6)).values():
            evidence[published] = inf
        by_query: defaultdict[str, list[tuple[float, Key]]] = defaultdict(list)
        for key, size in zip(keys[:shown], evidence.tolist(), strict=False):
            by_query[key[0]].append((-size, key))
        own = sums.read(self.table, "query", crowded).keys
        rows, dropped = Counter(key[:2] for key in own), set[Key]()
        for ranked in by_query.values():
            entities = [key for _, key in sorted(ranked)]
            room = self._room - np.cumsum([rows[key] for key in entities])
            dropped.update(entities[int((room >= 0).sum()) :])
        return [key for key in own if key[:2] in dropped]

    def _header(self, curve: Curve) -> Header:
        return Header(
            kappa=self.config.kappa,
            personal_kappa=self.config.personal_kappa,
            deviations=self._deviations,
            half_life_ms=self.table.half_life_ms or 0,
            examined=tuple(curve.examined.round(3).tolist()),
            top=self.config.top,
        )

    def _evidence(
        self, sums: SumReader, queries: Collection[str], curve: Curve, at: int
    ) -> tuple[list[Key], Floats, int]:
        """Return pairs, those shown first; their gain, exposure and prior, (pairs, 3); and how many were shown."""
        rows, priors = (sums.read(table, "query", queries) for table in (self.table, self.priors))
        index: dict[Key, int] = {}
        pairs = [index.setdefault(key[:2], len(index)) for key in rows.keys]
        shown = len(index)
        primed = [index.setdefault(key, len(index)) for key in priors.keys]
        seen = np.zeros((shown, len(BUCKETS), len(rows.table.sums)))
        seen[pairs, [key[2] for key in rows.keys]] = rows.at(at)
        masses = np.maximum(seen[:, :, 0], seen[:, :, 1:].sum(axis=2))
        counted = np.einsum("pb,pbs->ps", bounded_shares(masses, self.config.one_person), seen)
        values = np.zeros((len(index), 3))
        values[:shown, 0], values[:shown, 1] = curve.evidence(counted[:, 0], counted[:, 1:])
        values[primed, 2] = priors.values[:, 0]
        return list(index), values, shown

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
        owners: the key columns before the entity, each as the turns' codes, (n,), and the sorted values that they
            index.

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
        entities = np.append(results.rows.entity, 0).astype(np.int64)
        # An entity shown several times in a turn counts as shown, and as clicked, at the first place.
        showings = showings[firsts(turns[showings], entities[showings])]
        positions = np.append(results.rows.position, 0).astype(np.int64)
        # A click on an entity that was not shown counts at position 0.
        self._positions: Final = np.concatenate((positions[showings], positions[gains.places[clicked]]))
        self._turns: Final = np.concatenate((turns[showings], gains.turns[clicked]))
        self._showings: Final = len(showings)
        self._gains: Final = gains.gains[clicked]
        self._by_click: Final = outcomes.clicked[gains.turns[clicked]]
        self._buckets: Final = outcomes.buckets
        entities = np.concatenate((entities[showings], gains.entities[clicked]))
        parts = *((codes[self._turns], values) for codes, values in owners), (entities, outcomes.columns.pools.entities)
        self._parts: Final = parts
        self.groups: Final = Groups(*parts)

    def sums(self, examination: Examination, *, by_people: bool = False) -> Sums:
        """Return the gain and the showings of each key; `by_people`, the key ends in the bucket of who asked."""
        landmark = self._table.landmark(int(self._times.max()))
        weights = self._table.weights(self._times, landmark)[self._turns]
        lines, keys = self.groups.lines, self.groups.keys
        if by_people:  # within the groups, which need not be found again
            within = Groups((lines, range(len(keys))), (self._buckets[self._turns], range(len(BUCKETS))))
            group, people = within.codes
            parts = ((codes[group], values) for codes, values in keys.parts)
            lines, keys = within.lines, CodedKeys(*parts, (people, range(len(BUCKETS))))
        shown, size = self._showings, len(keys)
        values = np.empty((size, 1 + len(SHOWINGS)))
        values[:, 0] = np.bincount(lines[shown:], weights[shown:] * self._gains, size)
        values[:, 1:] = examination.showings(lines[:shown], self._positions[:shown], weights[:shown], size)
        return Sums(self._table, keys, values, landmark)

    def harvest(self, examination: Examination) -> Sums:
        """Return what pairs of a query and an entity contribute to the examination curve."""
        (_, queries), (_, entities) = self._parts
        hashes = checksums.of_pairs(queries, entities, *self.groups.codes)
        showings, clicks = self._showings, len(self._gains)
        return examination.harvest(
            self._times[self._turns],
            hashes[self.groups.lines],
            self._positions,
            # Success without a click does not compare positions: it is of single results only.
            np.concatenate((np.zeros(showings), self._gains * self._by_click)),
            np.concatenate((np.ones(showings), np.zeros(clicks))),
        )
