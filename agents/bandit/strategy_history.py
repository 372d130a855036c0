"""The history of strategies: how well each has done on a query.

For every query and strategy it sums, with forward decay, the turns in which the strategy was asked and their rewards.
Serving puts the result into the strategy's context, as the feature `strategy.history`. As the bandit learns from the
logged context, it never learns from what came later. See `history`.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import orjson

from backchannel.agents.bandit.features import HISTORY
from backchannel.agents.bandit.history import History
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Delta, Groups, SumReader, SumTable


class StrategyHistory(Learner):
    """The learner of strategies' rewards by query. Its section: query -> {strategy: [turns, reward]}, as of its turns.

    Args:
        strategies: the strategies to learn of; without any, those that turns name.
        half_life_days: the half-life of a turn, in days.
    """

    name = History.name
    serving = History

    def __init__(self, strategies: Sequence[str], half_life_days: float) -> None:
        self._strategies: Final = tuple(strategies)
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

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        strategies, table = sorted(outcomes.strategies_of(self._strategies)), self.table
        asked = outcomes.asked_of(strategies)
        known = outcomes.named[outcomes.query[asked.rows]]  # else nothing was recognised
        if not known.any():
            return {}
        landmark = table.landmark(int(outcomes.times.max()))
        turns = table.weights(outcomes.times, landmark)[asked.rows]
        rewards = np.zeros(len(turns))
        rewards[asked.credited] = turns[asked.credited] * asked.rewards
        rows = asked.rows[known]
        groups = Groups((outcomes.query[rows], outcomes.keys), (asked.codes[known], strategies))
        return {table.name: groups.sums(table, (turns[known], rewards[known]), landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        queries = changed.get(self.table.name, ())
        rows = sums.read(self.table, "query", queries)
        section: dict[str, dict[str, list[float]]] = {query: {} for query in queries}
        for (query, strategy), row in zip(rows.keys, rows.at(at).tolist(), strict=True):
            section[query][strategy] = row
        return {query: orjson.dumps(dict(sorted(own.items()))) for query, own in section.items()}
