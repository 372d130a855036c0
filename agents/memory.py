"""The memory index: which entities have worked for which query.

For every query q and entity e it sums, with forward decay, the examined exposure (each time e was shown for q, weighted
by the probability that somebody looks at that position; Craswell et al., "An experimental comparison of click
position-bias models", WSDM 2008) and the gain of the clicks. The score is a posterior mean that starts at 0:

    Q2E(q, e) = gain / (kappa + exposure)
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
import orjson
from msgspec import Meta, Struct

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable


class MemoryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the memory index remembers."""

    half_life_days: Annotated[float, Meta(ge=0.01, le=100_000, description="after which evidence counts half")] = 30.0
    kappa: Annotated[
        float, Meta(ge=0.01, le=1e6, description="exposures that a query-entity pair starts with, none clicked")
    ] = 5.0
    position_decay: Annotated[
        float,
        Meta(ge=0, le=4, description="the probability that position p is examined is p to the power of minus this"),
    ] = 0.7
    top: Annotated[int, Meta(ge=1, le=1000, description="entities published per query")] = 50


class MemoryIndex(Learner):
    """The learner of Q2E scores. Its section: normalised query -> [[entity, score], ...], best first."""

    name = "memory"

    def __init__(self, config: MemoryConfig) -> None:
        self.config: Final = config
        self.table: Final = SumTable(
            name="memory",
            key=(("query", str), ("entity", str)),
            sums=("gain", "exposure"),
            half_life_ms=round(config.half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        # Positions that schemas.events admits.
        self._examined: Final[list[float]] = [0.0, *(np.arange(1, 10_001.0) ** -config.position_decay).tolist()]

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`."""
        if not outcomes:
            return {}
        table, examined = self.table, self._examined
        landmark = table.landmark(max(outcome.turn.query.ts for outcome in outcomes))
        # By query, then entity: a turn's pairs are summed without building their keys.
        exposures: defaultdict[str, dict[str, float]] = defaultdict(dict)
        gains: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for outcome in outcomes:
            query = outcome.query
            if not query:  # nothing was recognised
                continue
            weight = table.weight(outcome.turn.query.ts, landmark)
            exposed = exposures[query]
            for impression in outcome.turn.impressions:
                for result in impression.results:
                    entity = result.entity_id
                    exposed[entity] = exposed.get(entity, 0.0) + weight * examined[result.position]
            if outcome.gains:
                gained = gains[query]
                for entity, gain in outcome.gains.items():
                    gained[entity] = gained.get(entity, 0.0) + weight * gain
                    exposed.setdefault(entity, 0.0)
        # In order, as the ledger wants them: many small sorts cost less than a large one.
        keys: list[Key] = [(query, entity) for query in sorted(exposures) for entity in sorted(exposures[query])]
        nothing: dict[str, float] = {}
        values = np.zeros((len(keys), 2))
        values[:, 0] = [gains.get(query, nothing).get(entity, 0.0) for query, entity in keys]
        values[:, 1] = [exposures[query][entity] for query, entity in keys]
        return {table.name: Sums(table, keys, values, landmark)} if keys else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        queries = changed.get(self.table.name, ())
        rows = sums.read(self.table, "query", queries)
        gain, exposure = rows.at(at).T
        scores = np.minimum(gain / (self.config.kappa + exposure), 1.0)
        section: dict[str, list[tuple[float, str]]] = {query: [] for query in queries}
        for (query, entity), score in zip(rows.keys, scores.tolist(), strict=True):
            if score > 0:
                section[query].append((-score, entity))
        return {
            query: orjson.dumps([[entity, -score] for score, entity in sorted(ranked)[: self.config.top]])
            if ranked
            else None
            for query, ranked in section.items()
        }
