"""The history of strategies: how well each has done on a query.

For every query and strategy it sums, with forward decay, the turns in which the strategy was asked and their rewards.
Serving puts what comes of it into the strategy's context, as the feature `strategy.history`; so the bandit, which
learns from the context that was logged, never learns from what came later. See `history`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import orjson

from backchannel.agents.bandit.features import HISTORY
from backchannel.agents.bandit.history import History
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable


class StrategyHistory(Learner):
    """The learner of strategies' rewards by query. Its section: query -> {strategy: [turns, reward]}, as of its turns.

    Args:
        strategies: whose.
        half_life_days: after which a turn counts half.
    """

    name = History.name
    serving = History

    def __init__(self, strategies: Sequence[str], half_life_days: float) -> None:
        self._strategies: Final = frozenset(strategies)
        self.table: Final = SumTable(
            name="history",
            key=(("query", str), ("strategy", str)),
            sums=("turns", "reward"),
            half_life_ms=round(half_life_days * 86_400_000),
        )
        self.tables = (self.table,)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.bandit.strategies, config.bandit.history_half_life_days)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if its feature is configured."""
        return HISTORY in {feature.name for feature in config.bandit.features}

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`."""
        if not outcomes:
            return {}
        table = self.table
        landmark = table.landmark(max(outcome.turn.query.ts for outcome in outcomes))
        sums: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for outcome in outcomes:
            if not outcome.query:  # nothing was recognised
                continue
            weight = table.weight(outcome.turn.query.ts, landmark)
            credited = outcome.credited
            for strategy in outcome.asked.keys() & self._strategies:
                row = sums[outcome.query, strategy]
                row[0] += weight
                if strategy in credited:
                    row[1] += weight * credited[strategy][0]
        return {table.name: Sums(table, list(sums), np.array(list(sums.values())), landmark)} if sums else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        queries = changed.get(self.table.name, ())
        rows = sums.read(self.table, "query", queries)
        section: dict[str, dict[str, list[float]]] = {query: {} for query in queries}
        for (query, strategy), row in zip(rows.keys, rows.at(at).tolist(), strict=True):
            section[query][strategy] = row
        return {query: orjson.dumps(dict(sorted(own.items()))) for query, own in section.items()}
