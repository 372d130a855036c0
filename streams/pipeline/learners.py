"""What is learned, put together: the judge and all learners of one configuration."""

from typing import Final

from backchannel.agents import registry
from backchannel.agents.columns import Columns
from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.outcomes import Judge, Outcomes
from backchannel.agents.sums import Delta, SumTable, merge
from backchannel.streams.config import Config


class Learning:
    """Closed turns -> the delta of all learners. Pure."""

    def __init__(self, config: Config) -> None:
        self._judge: Final = Judge(config.rewards)
        self._sampled: Final = config.gate.turns
        self._features: Final = {feature.name for feature in config.bandit.features}
        self.learners: Final = registry.wanted(config)
        self.tables: Final[tuple[SumTable, ...]] = tuple(table for one in self.learners for table in one.tables)

    def judge(self, columns: Columns) -> Outcomes:
        """Return what turns say of their answers."""
        return self._judge.judge(columns)

    def learn(self, outcomes: Outcomes) -> Delta:
        """Return what turns add."""
        return merge(learner.learn(outcomes) for learner in self.learners)

    def sample(self, outcomes: Outcomes) -> TurnSample:
        """Return which of the decisions in turns are to be kept, to judge policies with."""
        return TurnSample(outcomes, self._sampled, self._features)
