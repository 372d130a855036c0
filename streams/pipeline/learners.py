"""Learning: the judge and all learners of one configuration."""

from typing import Final

from backchannel.agents import registry
from backchannel.agents.columns import Columns
from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.outcomes import Judge, Outcomes
from backchannel.agents.sums import Delta, SumTable, merge
from backchannel.streams.config import Config


class Learning:
    """Maps closed turns to the delta of all learners. Pure."""

    def __init__(self, config: Config) -> None:
        self._judge: Final = Judge(config.rewards)
        self._sampled: Final = config.gate.turns
        self._features: Final = {feature.name for feature in config.bandit.features}
        self.learners: Final = registry.wanted(config)
        self.tables: Final[tuple[SumTable, ...]] = tuple(table for one in self.learners for table in one.tables)

    def judge(self, columns: Columns) -> Outcomes:
        """Return the outcomes of turns."""
        return self._judge.judge(columns)

    def learn(self, outcomes: Outcomes) -> Delta:
        """Return the delta of all learners from the outcomes of turns."""
        return merge(learner.learn(outcomes) for learner in self.learners)

    def sample(self, outcomes: Outcomes) -> TurnSample:
        """Return the sample of logged decisions to keep for judging policies."""
        return TurnSample(outcomes, self._sampled, self._features)
