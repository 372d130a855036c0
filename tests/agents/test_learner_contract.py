"""What every learner must keep to: everything it learns is a sum."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from backchannel.agents.bandit.features import Binned, Categorical, Numeric
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.checks import CHECKS, Check, check, learn, solve, unlike
from backchannel.agents.failures.learner import FailureConfig
from backchannel.agents.failures.sample import LabelSample
from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.learner import Learner
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.quality.learner import QualityConfig
from backchannel.agents.ranking.learner import RankingConfig, ResultRanking
from backchannel.agents.ranking.personal import PersonalRanking
from backchannel.agents.registry import LearningConfig, registered
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habit_ranking import HabitRanking
from backchannel.agents.rewrites.habits import Habits
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.sums import merge
from backchannel.schemas.events import Canary, Result
from backchannel.schemas.turn import Turn
from tests.support.cases import leaves
from tests.support.turns import DAY, LAST, click, closed_turn, impression, judged, label, query, turns

LEARNERS: list[Learner] = [
    *registered(LearningConfig()),
    StrategyBandit(
        BanditConfig(
            strategies=("lexical", "semantic", "memory"),
            features=(
                Numeric("hour", center=12, scale=4),
                Categorical("device", ("car", "phone")),
                Categorical("driving", ("true",)),
                Numeric("query.characters", scale=100),
                Numeric("strategy.results", scale=10),
                Numeric("user.reward", scale=0.1),
            ),
        )
    ),
    # Rewrites that a few turns suffice for.
    RephraseGraph(
        RephraseConfig(min_support=0.5, min_users=0, margin=1e-6, max_source_success=1.0, depth=2, max_states=4)
    ),
    RephraseGraph(RephraseConfig(min_support=0.5, min_users=0, online_odds=1.0)),
    PersonalRewrites(RephraseConfig(personal=2, personal_support=0.25)),
    Habits(RephraseConfig(online_odds=1.0, habits=1)),
    HabitRanking(RephraseConfig(online_odds=0.01), size=2),
    MemoryIndex(MemoryConfig(min_users=2, top=2, challengers=1)),
    MemoryIndex(MemoryConfig(top=1, challengers=1, reserve=0)),
    PersonalMemory(MemoryIndex(MemoryConfig(personal=1))),
    PersonalRanking(
        ResultRanking(
            RankingConfig(features=(Categorical("brand", ("x", "y")),), prior={"brand=x": 1.0}, personal=("brand",))
        )
    ),
    LabelSample(FailureConfig(sampled=2)),
    ResultRanking(
        RankingConfig(
            features=(
                Numeric("score"),
                Binned("price", (0.0, 10.0)),
                Categorical("brand", ("x", "y")),
                Numeric("rank.lexical"),
            ),
            normalized=("score", "price"),
            query_features=(Categorical("device", ("car", "phone")),),
            crosses=(("device", "score"),),
        )
    ),
]
every_learner = pytest.mark.parametrize(
    "learner", LEARNERS, ids=lambda learner: f"{learner.name}-{LEARNERS.index(learner)}"
)

# Close together, months apart, and thousands of half-lives apart.
TIMES = st.integers(0, 10 * DAY) | st.integers(0, 3_000 * DAY) | st.integers(0, LAST)
TURNS = st.lists(turns(TIMES), max_size=8)


@every_learner
@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.__name__)
@given(TURNS, st.integers(0, 2**32))
@settings(max_examples=15)
def test_a_law_holds(learner: Learner, law: Check, some: list[Turn], seed: int) -> None:
    law(learner, some, np.random.default_rng(seed))


SHARING = registered(LearningConfig(horizon=HorizonConfig(salt="a salt for tests only", discount=0.9, share=0.5)))


TRIED = impression(
    Result("e1", 1, ("lexical",)),
    allocation={"lexical": 1},
    allocation_propensity=0.5,
    canary=Canary(trial=7, share=0.5, propensity=0.5),
)
LABELLED = Turn.of(query(DAY, user_id="ann"), [TRIED, click("e1"), label(goal="missed")])


@given(TURNS, st.permutations(SHARING))
@settings(max_examples=40)
def test_learners_share_work_and_nothing_else(some: list[Turn], order: list[Learner]) -> None:
    together = [*some, LABELLED]
    outcomes = judged(together)
    for learner in order:
        assert not unlike(learner.learn(outcomes), learner.learn(judged(together)), exact=True), learner.name


@every_learner
def test_the_checks_draw_turns_of_their_own(learner: Learner) -> None:
    check(learner, rounds=2)


@pytest.mark.parametrize("config", [BanditConfig, MemoryConfig, QualityConfig, RephraseConfig, RewardConfig])
def test_every_number_in_a_configuration_is_bounded(config: type) -> None:
    for info in leaves(inspect.type_info(config)):
        if isinstance(info, inspect.FloatType):
            assert info.gt is not None or info.ge is not None  # so NaN is refused, too
            assert info.lt is not None or info.le is not None


FULL = impression(*(Result(f"e{place}", place, ("lexical", "semantic")) for place in range(1, 501)))
EXTREMES = {
    "empty": closed_turn(query(text="")),
    "symbols": closed_turn(query(text="?!"), (FULL,), (click("e1"),)),
    "no impression": closed_turn(query(LAST), (), (click("e1"),)),
    "empty impression": closed_turn(query(), (impression(),)),
    "many results": closed_turn(query(), (FULL, FULL), (click("e500"), click("e1"))),
    "last place": closed_turn(query(), (impression(Result("e", 10_000, ("lexical",))),), (click("e"),)),
    "first moment": closed_turn(query(0), (FULL,), (click("e1"),), next=query(0)),
    "last moment": closed_turn(query(LAST), (FULL,), (click("e1"),), next=query(LAST)),
    "long": closed_turn(query(text="x" * 2000, interpretation="y" * 2000), (FULL,), next=query(1, text="z" * 2000)),
    "huge numbers": closed_turn(query(context={"hour": 1.7e308, "driving": -1.7e308, "device": 0.0}), (FULL,)),
    "strange strings": closed_turn(query(context={"hour": "noon", "driving": "", "device": "toaster"}), (FULL,)),
}


@every_learner
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_do_no_harm(learner: Learner, name: str) -> None:
    usual = closed_turn(query(DAY), (impression(Result("e1", 1, ("lexical",))),), (click("e1"),), next=query(DAY))
    both = merge([learn(learner, [usual]), learn(learner, [EXTREMES[name]])])
    assert not unlike(both, learn(learner, [EXTREMES[name], usual]), exact=False)
    for at in (0, DAY, LAST):
        for row in solve(learner, both, at).values():
            assert b"null" not in row
            assert orjson.loads(row)
