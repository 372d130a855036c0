"""What is learned, put together: the judge and all learners of one configuration."""

from collections.abc import Sequence
from typing import Final

from backchannel.agents import registry
from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.outcomes import Judge
from backchannel.agents.sums import Delta, SumTable, merge
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config


class Learning:
    """Closed turns -> the delta of all learners. Pure."""

    def __init__(self, config: Config) -> None:
        self._judge: Final = Judge(config.rewards)
        self._sampled: Final = config.gate.turns
        self._features: Final = {feature.name for feature in config.bandit.features}
        self.learners: Final = registry.wanted(config)
        self.tables: Final[tuple[SumTable, ...]] = tuple(table for one in self.learners for table in one.tables)

    def learn(self, turns: Sequence[Turn]) -> Delta:
        """Return what `turns` add."""
        outcomes = self._judge.judge(turns)
        return merge(learner.learn(outcomes) for learner in self.learners)

    def sample(self, turns: Sequence[Turn]) -> TurnSample:
        """Return which of the decisions in `turns` are to be kept, to judge policies with."""
        return TurnSample(turns, self._sampled, self._judge, self._features)
