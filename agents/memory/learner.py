"""The memory index: which entities have worked for which query.

For every query q and entity e it sums, with forward decay, the gain of the clicks (see `outcomes`) and the exposure:
each time e was shown for q, weighted by the probability that somebody looks at that position (see `examination`). The
score is the mean of a gamma posterior, whose prior is a predicted score (see `priors`) that counts like kappa
exposures:

    Q2E(q, e) = (kappa * prior + gain) / (kappa + exposure)

Ranked is by a lower credible bound, so that one lucky click does not outrank long evidence.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import inf
from operator import attrgetter
from statistics import NormalDist
from typing import Annotated, Any, Final, Self
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.learner import TOGETHER, Changed, Learner, portions_of
from backchannel.agents.memory.examination import BASIS, HARVESTED, Examination
from backchannel.agents.memory.serving import NOTHING, Evidence, Header, Memory, Row
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sketches import person_of, slot
from backchannel.agents.statistics import gamma_rate
from backchannel.agents.sums import ALL, Delta, Key, Matrix, SumReader, Sums, SumTable


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
    """The learner of Q2E scores. Its section: see `recall`."""

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

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`."""
        shown = Shown(self.table, outcomes, lambda outcome: (outcome.query,) if outcome.query else None)
        delta = {}
        if shown.keys:
            delta[self.table.name] = shown.sums(self.examination)
            delta[self.examination.table.name] = shown.harvest(self.examination)
        if outcomes and self.config.min_users > 1:
            delta[self.people.name] = self._people(outcomes)
        return delta

    def _people(self, outcomes: Sequence[Outcome]) -> Sums:
        """Linear counting (Whang, Vander-Zanden & Taylor 1990): which of the query's slots people's hashes hit."""
        landmark = self.people.landmark(max(outcome.turn.query.ts for outcome in outcomes))
        turns: defaultdict[Key, float] = defaultdict(float)
        for outcome in outcomes:
            asked = outcome.turn.query
            if outcome.query:
                turns[outcome.query, slot(person_of(asked))] += self.people.weight(asked.ts, landmark)
        return Sums(self.people, list(turns), np.array(list(turns.values()))[:, np.newaxis], landmark)

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:
        """See `Learner.portions`."""
        return portions_of(self.table, self._queries(changed), together) if changed else iter([changed])

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. A query keeps the curve that was in use when it last changed."""
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

    def compact(self, sums: Sums, at: int) -> Mapping[Key, Key | None]:  # noqa: ARG002 - it fades by what came since
        """See `Learner.compact`."""
        return self.examination.faded(sums.keys)

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`: what is published stays, and of the others those with most evidence."""
        keys, values, shown = self._evidence(sums, crowded, self.examination.curve(sums), at)
        evidence = values[:, 0] + values[:, 1]
        for published in self._best(keys, values.round(6)).values():
            evidence[published] = inf
        by_query: defaultdict[str, list[tuple[float, Key]]] = defaultdict(list)
        for key, size in zip(keys[:shown], evidence.tolist(), strict=False):
            by_query[key[0]].append((-size, key))
        return [key for ranked in by_query.values() for _, key in sorted(ranked)[self._most :]]

    def _header(self, curve: Matrix) -> Header:
        return Header(
            kappa=self.config.kappa,
            personal_kappa=self.config.personal_kappa,
            deviations=self._deviations,
            half_life_ms=self.table.half_life_ms or 0,
            curve=tuple(curve.tolist()),
            examined=tuple(self.examination.examined(curve, HARVESTED).round(3).tolist()),
        )

    def _evidence(
        self, sums: SumReader, queries: Collection[str], curve: Matrix, at: int
    ) -> tuple[list[Key], Matrix, int]:
        """The pairs of some queries; their gain, exposure and prior, (pairs, 3); how many, the first, were shown."""
        rows, priors = (sums.read(table, "query", queries) for table in (self.table, self.priors))
        index = {key: row for row, key in enumerate(rows.keys)}
        primed = [index.setdefault(key, len(index)) for key in priors.keys]
        values = np.zeros((len(index), 3))
        seen = rows.at(at)
        values[: len(seen), 0] = seen[:, 0]
        values[: len(seen), 1] = seen[:, 1:] @ curve
        values[primed, 2] = priors.values[:, 0]
        return list(index), values, len(seen)

    def _withhold(self, sums: SumReader, queries: Collection[str], keys: Sequence[Key], values: Matrix) -> None:
        """Clear the evidence of queries that too few people asked."""
        slots = Counter(query for query, _ in sums.read(self.people, "query", queries).keys)
        few = np.array([slots[query] < self.config.min_users for query, _ in keys], dtype=bool)
        values[few, :2] = 0.0

    def _rows(self, keys: Sequence[Key], values: Matrix, at: int) -> Iterable[tuple[str, bytes]]:
        """Each query's row, of the entities that anything speaks for."""
        values = values.round(6)  # about what a turn adds is worth when it is 20 half-lives old
        for query, rows in self._best(keys, values).items():
            numbers = values[rows].tolist()
            best = (Evidence(keys[row][1], *evidence) for row, evidence in zip(rows, numbers, strict=True))
            yield query, msgspec.json.encode(Row(at, tuple(best)))

    def _best(self, keys: Sequence[Key], values: Matrix) -> dict[str, list[int]]:
        """Which rows of gain, exposure and prior are to be published of each query, best first."""
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


_entity = attrgetter("entity_id")
_position = attrgetter("position")


class Shown:
    """What was shown and clicked in some turns, by the keys under which it is summed.

    Args:
        table: to sum into; its key ends in the entity.
        outcomes: the turns.
        owner: what of a turn precedes the entity in the key; None to leave the turn out.

    Attributes:
        keys: in order, as the ledger wants them.
    """

    def __init__(
        self, table: SumTable, outcomes: Sequence[Outcome], owner: Callable[[Outcome], tuple[str, ...] | None]
    ) -> None:
        self._table: Final = table
        # By what precedes the entity, so that pairs are counted without building their keys.
        number = count().__next__
        index: defaultdict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(number))
        rows: list[int] = []
        positions: list[int] = []
        lengths: list[int] = []
        gained: list[tuple[int, int, int, float]] = []
        for turn, outcome in enumerate(outcomes):
            prefix, first = owner(outcome), len(rows)
            if prefix is not None:
                of_prefix = index[prefix]
                for impression in outcome.turn.impressions:
                    rows += map(of_prefix.__getitem__, map(_entity, impression.results))
                    positions += map(_position, impression.results)
                for entity, gain in outcome.gains.items():
                    row = of_prefix[entity]
                    # Shown in several places, it counts as clicked in the first; shown in none, as clicked in 0.
                    where = positions[rows.index(row, first)] if row in rows[first:] else 0
                    gained.append((row, where, turn, gain))
            lengths.append(len(rows) - first)
        ordered = [(prefix, entity, of[entity]) for prefix, of in sorted(index.items()) for entity in sorted(of)]
        self.keys: Final[list[Key]] = [(*prefix, entity) for prefix, entity, _ in ordered]
        self._order: Final = np.array([row for _, _, row in ordered], dtype=np.intp)
        # Each line is a showing or a click; neither is the other.
        clicked_rows, clicked_positions, clicked_turns, gains = zip(*gained, strict=True) if gained else ((),) * 4
        self._rows: Final = np.array([*rows, *clicked_rows], dtype=np.intp)
        self._positions: Final = np.array([*positions, *clicked_positions], dtype=np.intp)
        turns = np.repeat(np.arange(len(lengths)), np.array(lengths, dtype=np.intp))
        self._turns: Final = np.append(turns, np.array(clicked_turns, dtype=np.intp))
        self._gains: Final = np.zeros(len(self._rows))
        self._gains[len(rows) :] = gains
        self._shown: Final = np.ones(len(self._rows))
        self._shown[len(rows) :] = 0.0
        self._times: Final = np.array([outcome.turn.query.ts for outcome in outcomes], dtype=np.int64)

    def sums(self, examination: Examination) -> Sums:
        """Return what each key gained, and its exposure to each of the powers of the curve."""
        landmark = self._table.landmark(int(self._times.max()))
        weights = self._table.weights(self._times, landmark)[self._turns]
        values = np.empty((len(self.keys), 1 + BASIS))
        values[:, 0] = np.bincount(self._rows, weights * self._gains, len(self.keys))
        shown = weights * self._shown
        for power, exposure in zip(examination.powers.T, values.T[1:], strict=True):
            exposure[:] = np.bincount(self._rows, shown * power[self._positions], len(self.keys))
        return Sums(self._table, self.keys, values[self._order], landmark)

    def harvest(self, examination: Examination) -> Sums:
        """Return what the keys add to the comparison of positions."""
        hashes = np.empty(len(self.keys), dtype=np.uint32)
        hashes[self._order] = [crc32("\0".join(key).encode()) for key in self.keys]
        return examination.harvest(
            self._times[self._turns], hashes[self._rows], self._positions, self._gains, self._shown
        )
