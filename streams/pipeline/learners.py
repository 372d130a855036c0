"""Learning: the judge and all learners of one configuration."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from backchannel.agents import registry
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Delta, SumTable, merge
from backchannel.streams.config import Config

UNKNOWN_STRATEGY: Final = "unknown_strategy:"
"""Prefix of the counts of turns that asked an unconfigured strategy, before its name."""

UNKNOWN_KIND: Final = "unknown_kind:"
"""Prefix of the counts of clicks of an unconfigured kind, before its name."""

_MOST_NAMES: Final = 50


class Learning:
    """Maps closed turns to the delta of all learners. Pure."""

    def __init__(self, config: Config) -> None:
        self._judge: Final = Judge(config.rewards)
        self._sampled: Final = config.gate.turns
        self._features: Final = {feature.name for feature in config.bandit.features}
        self._rewards: Final = config.rewards
        self._strategies: Final = frozenset(config.bandit.strategies)
        self._named: Final[set[str]] = set()
        self.learners: Final = registry.wanted(config)
        self.tables: Final[tuple[SumTable, ...]] = tuple(table for one in self.learners for table in one.tables)

    def judge(self, columns: Columns) -> Outcomes:
        """Return the outcomes of turns."""
        return self._judge.judge(columns)

    def unconfigured(self, outcomes: Outcomes) -> dict[str, int]:
        """Return the number of turns that asked each unconfigured strategy, and of clicks of each unconfigured kind.

        Names that are not among the first are counted together, because producers choose them.
        """
        pools, clicks = outcomes.columns.pools, outcomes.columns.turns.clicks
        asked = np.bincount(outcomes.asked.codes, minlength=len(pools.strategies)).tolist()
        kinds = np.bincount(clicks.rows.kind, minlength=len(pools.labels)).tolist()
        counts: Counter[str] = Counter()
        for name, count in zip(pools.strategies, asked, strict=True):
            if self._strategies and count and name not in self._strategies:
                counts[self._bounded(UNKNOWN_STRATEGY, name)] += count
        for kind, count in zip(pools.labels, kinds, strict=True):
            if count and not self._rewards.names(kind):
                counts[self._bounded(UNKNOWN_KIND, kind)] += count
        return dict(counts)

    def _bounded(self, prefix: str, name: str) -> str:
        if prefix + name not in self._named and len(self._named) >= _MOST_NAMES:
            return f"{prefix}..."
        self._named.add(prefix + name)
        return prefix + name

    def learn(self, outcomes: Outcomes) -> Delta:
        """Return the delta of all learners from the outcomes of turns."""
        return merge(learner.learn(outcomes) for learner in self.learners)

    def sample(self, several: Sequence[Outcomes]) -> TurnSample:
        """Return the sample of logged decisions to keep for judging policies, of turns in portions."""
        return TurnSample(several, self._sampled, self._features)
