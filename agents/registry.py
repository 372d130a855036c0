"""The registry of learners, and the configuration of each.

A learner is one folder and one line here: a field of `LearningConfig`, or a class in a field's `Learners`. That line
adds it to the configuration file, the fingerprint, learning, publishing, the erasure of users, and the contract tests.
"""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Final, get_type_hints

from msgspec import Meta, Struct, field

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.strategy_history import StrategyHistory
from backchannel.agents.bandit.user_history import UserHistory
from backchannel.agents.failures.learner import FailureConfig, FailurePoints
from backchannel.agents.failures.sample import LabelSample
from backchannel.agents.goals.credits import CreditedGoals
from backchannel.agents.goals.learner import GoalConfig, Goals
from backchannel.agents.horizon.learner import HorizonConfig, Returns
from backchannel.agents.horizon.rest import RestOfSession
from backchannel.agents.learner import Learner
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.ope.followed import Followed
from backchannel.agents.ope.trials import Trials
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.quality.delays import ClickDelays
from backchannel.agents.quality.learner import AnswerQuality, QualityConfig
from backchannel.agents.ranking.learner import RankingConfig, ResultRanking
from backchannel.agents.ranking.personal import PersonalRanking
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habit_ranking import HabitRanking
from backchannel.agents.rewrites.habits import Habits
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.satisfaction.learner import SatisfactionConfig, SatisfactionLearner


class Learners:
    """Annotates a section of the configuration with the learners that it configures."""

    def __init__(self, *classes: type[Learner]) -> None:
        self.classes: Final = classes


class LearningConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is learned, and how. A subclass adds a learner by adding an annotated field."""

    rewards: Annotated[RewardConfig, Meta(description="What feedback is worth.")] = field(default_factory=RewardConfig)
    bandit: Annotated[
        BanditConfig,
        Meta(description="The strategy bandit."),
        Learners(StrategyBandit, StrategyHistory, UserHistory, Trials),
    ] = field(default_factory=BanditConfig)
    memory: Annotated[MemoryConfig, Meta(description="The memory index."), Learners(MemoryIndex, PersonalMemory)] = (
        field(default_factory=MemoryConfig)
    )
    rephrases: Annotated[
        RephraseConfig,
        Meta(description="The rephrase graph."),
        Learners(RephraseGraph, PersonalRewrites, Habits, HabitRanking),
    ] = field(default_factory=RephraseConfig)
    ranking: Annotated[
        RankingConfig, Meta(description="The order of results."), Learners(ResultRanking, PersonalRanking)
    ] = field(default_factory=RankingConfig)
    quality: Annotated[
        QualityConfig,
        Meta(description="How the quality of answers is monitored."),
        Learners(AnswerQuality, ClickDelays),
    ] = field(default_factory=QualityConfig)
    goals: Annotated[
        GoalConfig, Meta(description="Which goals were reached, from labels."), Learners(Goals, CreditedGoals)
    ] = field(default_factory=GoalConfig)
    failures: Annotated[
        FailureConfig, Meta(description="Which component failed, from labels."), Learners(FailurePoints, LabelSample)
    ] = field(default_factory=FailureConfig)
    satisfaction: Annotated[
        SatisfactionConfig,
        Meta(description="How satisfied people are, from what they say."),
        Learners(SatisfactionLearner),
    ] = field(default_factory=SatisfactionConfig)
    horizon: Annotated[
        HorizonConfig,
        Meta(description="Whether people come back, and what the rest of a session brings."),
        Learners(Returns, RestOfSession, Followed),
    ] = field(default_factory=HorizonConfig)

    def __post_init__(self) -> None:
        if self.bandit.long_term and not self.horizon.salt:
            raise ValueError(
                f"bandit.long_term: {self.bandit.long_term:g}, but returns are not learned: set horizon.salt, too"
            )


def registered(config: LearningConfig) -> tuple[Learner, ...]:
    """Return every registered learner, including those that `config` does not want."""
    return tuple(one.configured(config) for classes in _classes(type(config)).values() for one in classes)


def wanted(config: LearningConfig) -> tuple[Learner, ...]:
    """Return the learners that `config` wants."""
    classes = (one for classes in _classes(type(config)).values() for one in classes)
    return tuple(one.configured(config) for one in classes if one.is_wanted(config))


def published(config: LearningConfig) -> tuple[Struct, ...]:
    """Return the sections of `config` that affect the policy: those whose learners publish a section."""
    return tuple(
        getattr(config, section)
        for section, classes in _classes(type(config)).items()
        if any(one.serving is not None for one in classes)
    )


def personal(learners: Iterable[Learner]) -> tuple[str, ...]:
    """Return the sections whose keys are users."""
    return tuple(sorted(one.name for one in learners if one.is_personal))


@cache
def _classes(config: type[LearningConfig]) -> dict[str, tuple[type[Learner], ...]]:
    """Return the learners of each section of the configuration, in the order of the fields."""
    hints = get_type_hints(config, include_extras=True)
    return {
        section: one.classes
        for section in config.__struct_fields__
        for one in getattr(hints[section], "__metadata__", ())
        if isinstance(one, Learners)
    }
