"""What is learned, put together: the judge and all learners of one configuration."""

from collections.abc import Sequence
from typing import Final

from backchannel.agents.bandit.features import HISTORY
from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.strategy_history import StrategyHistory
from backchannel.agents.bandit.user_history import UserHistory
from backchannel.agents.bandit.users import USER_FEATURES
from backchannel.agents.learner import Learner
from backchannel.agents.memory.learner import MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.outcomes import Judge
from backchannel.agents.quality.learner import AnswerQuality
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.sums import Delta, SumTable, merge
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config


class Learning:
    """Closed turns -> the delta of all learners. Pure."""

    def __init__(self, config: Config) -> None:
        self._judge: Final = Judge(config.rewards)
        index = MemoryIndex(config.memory)
        self._sampled: Final = config.gate.turns
        self._features: Final = {feature.name for feature in config.bandit.features}
        learners: list[Learner] = [
            StrategyBandit(config.bandit),
            index,
            RephraseGraph(config.rephrases),
            AnswerQuality(config.quality, config.bandit.strategies),
            PersonalRewrites(config.rephrases),
        ]
        if HISTORY in self._features:
            learners.append(StrategyHistory(config.bandit.strategies, config.bandit.history_half_life_days))
        if USER_FEATURES & self._features:
            learners.append(UserHistory(config.bandit.user_half_life_days))
        if config.memory.personal:
            learners.append(PersonalMemory(index))
        self.learners: Final = tuple(learners)
        self.tables: Final[tuple[SumTable, ...]] = tuple(table for one in self.learners for table in one.tables)

    def learn(self, turns: Sequence[Turn]) -> Delta:
        """Return what `turns` add."""
        outcomes = self._judge.judge(turns)
        return merge(learner.learn(outcomes) for learner in self.learners)

    def sample(self, turns: Sequence[Turn]) -> TurnSample:
        """Return which of the decisions in `turns` are to be kept, to judge policies with."""
        return TurnSample(turns, self._sampled, self._judge, self._features)
