"""The registry of learners: what is learned, and from which part of the configuration.

A learner is one folder, and one line here: a field of `LearningConfig`, or a name in the `Learners` of one. From that
follow its section of the configuration file, the fingerprint, what is learned and published, what is forgotten with a
user, and which learners the contract is tested on.
"""

from functools import cache
from typing import Annotated, Final, get_type_hints

from msgspec import Meta, Struct, field

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.strategy_history import StrategyHistory
from backchannel.agents.bandit.user_history import UserHistory
from backchannel.agents.learner import Learner
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.outcomes import RewardConfig
from backchannel.agents.quality.learner import AnswerQuality, QualityConfig
from backchannel.agents.ranking.learner import RankingConfig, ResultRanking
from backchannel.agents.rewrites.learner import RephraseConfig, RephraseGraph
from backchannel.agents.rewrites.personal import PersonalRewrites


class Learners:
    """Annotates a section of the configuration with the learners that come from it."""

    def __init__(self, *classes: type[Learner]) -> None:
        self.classes: Final = classes


class LearningConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is learned, and how. A subclass with another annotated field has another learner."""

    rewards: Annotated[RewardConfig, Meta(description="What feedback is worth.")] = field(default_factory=RewardConfig)
    bandit: Annotated[
        BanditConfig,
        Meta(description="The strategy bandit."),
        Learners(StrategyBandit, StrategyHistory, UserHistory),
    ] = field(default_factory=BanditConfig)
    memory: Annotated[MemoryConfig, Meta(description="The memory index."), Learners(MemoryIndex, PersonalMemory)] = (
        field(default_factory=MemoryConfig)
    )
    rephrases: Annotated[
        RephraseConfig, Meta(description="The rephrase graph."), Learners(RephraseGraph, PersonalRewrites)
    ] = field(default_factory=RephraseConfig)
    ranking: Annotated[RankingConfig, Meta(description="The order of results."), Learners(ResultRanking)] = field(
        default_factory=RankingConfig
    )
    quality: Annotated[
        QualityConfig, Meta(description="How the quality of the answers is watched."), Learners(AnswerQuality)
    ] = field(default_factory=QualityConfig)


def registered(config: LearningConfig) -> tuple[Learner, ...]:
    """Return one of every learner that there is, whether `config` wants it or not."""
    return tuple(one.configured(config) for classes in _classes(type(config)).values() for one in classes)


def wanted(config: LearningConfig) -> tuple[Learner, ...]:
    """Return the learners that `config` wants."""
    classes = (one for classes in _classes(type(config)).values() for one in classes)
    return tuple(one.configured(config) for one in classes if one.is_wanted(config))


def published(config: LearningConfig) -> tuple[Struct, ...]:
    """Return the sections of `config` that bear on the policy: those of the learners that something serves."""
    return tuple(
        getattr(config, section)
        for section, classes in _classes(type(config)).items()
        if any(one.serving is not None for one in classes)
    )


@cache
def _classes(config: type[LearningConfig]) -> dict[str, tuple[type[Learner], ...]]:
    """Section of the configuration -> its learners, in the order of the fields."""
    hints = get_type_hints(config, include_extras=True)
    return {
        section: one.classes
        for section in config.__struct_fields__
        for one in getattr(hints[section], "__metadata__", ())
        if isinstance(one, Learners)
    }
