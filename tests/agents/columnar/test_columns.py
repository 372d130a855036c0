"""Columns say what the turns say: judge and learners give what they gave from one object after the other."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.bandit.features import Encoder, Numeric
from backchannel.agents.bandit.pages import pages_of
from backchannel.agents.checks import unlike
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.learner import Learner
from backchannel.agents.ope.decisions import decisions_of, is_logged
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.schemas.turn import Turn
from tests.agents.test_learner_contract import LEARNERS
from tests.support import oracle
from tests.support.turns import DAY, LAST, judged, outcomes_of, turns

PLAIN = Encoder([Numeric("hour"), Numeric("query.words"), Numeric("time.hour")])
OF_STRATEGIES = Encoder([Numeric("query.characters"), Numeric("strategy.results"), Numeric("user.reward")])
TIMES = st.integers(0, 100 * DAY) | st.sampled_from([0, LAST])
TURNS = st.lists(turns(TIMES), max_size=12)
REWARDS = st.builds(
    RewardConfig,
    click_gain=st.just({"click": 1.0}) | st.just({"click": 0.3, "play": 0.7}),
    dwell_s=st.sampled_from([0.0, 10.0]),
    unclicked_gain=st.sampled_from([0.0, 0.5, 0.3]),
    barge_in_weight=st.sampled_from([0.5, 0.3]),
    rephrase_weight=st.sampled_from([1.0, 0.7]),
)


@given(TURNS, REWARDS)
@settings(max_examples=150)
def test_the_judge_judges_as_before(some: list[Turn], config: RewardConfig) -> None:
    expected = oracle.Judge(config).judge(some)
    for found, one in zip(outcomes_of(some, config), expected, strict=True):
        for name in oracle.Outcome.__struct_fields__[1:]:
            wanted = getattr(one, name)
            if name == "credited":  # of what was not asked nobody wants to know
                wanted = {key: credit for key, credit in wanted.items() if key in one.asked}
            assert getattr(found, name) == wanted, name


@pytest.mark.parametrize(
    "learner",
    [one for one in LEARNERS if oracle.knows(one)],
    ids=lambda learner: f"{learner.name}-{LEARNERS.index(learner)}",
)
@given(TURNS, REWARDS)
@settings(max_examples=60)
def test_learners_learn_as_before(learner: Learner, some: list[Turn], config: RewardConfig) -> None:
    expected = oracle.learn(learner, oracle.Judge(config).judge(some))
    assert not unlike(learner.learn(judged(some, config)), expected, exact=True)


@given(TURNS, REWARDS, st.booleans())
@settings(max_examples=60)
def test_pages_are_as_before(some: list[Turn], config: RewardConfig, of_strategies: bool) -> None:
    encoder, strategies = OF_STRATEGIES if of_strategies else PLAIN, ("lexical", "memory", "semantic")
    codes = {name: code for code, name in enumerate(strategies)}
    expected = oracle.pages_of(oracle.Judge(config).judge(some), encoder, codes)
    found = pages_of(judged(some, config), encoder, strategies)
    for name in expected.__struct_fields__:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@given(TURNS, REWARDS)
@settings(max_examples=60)
def test_decisions_are_as_before(some: list[Turn], config: RewardConfig) -> None:
    expected = {row: turn for row, turn in enumerate(some) if oracle.is_logged(turn)}
    rows = np.flatnonzero(is_logged(columns_of(some))).tolist()
    assert rows == list(expected)
    outcomes = oracle.Judge(config).judge(list(expected.values()))
    assert decisions_of(judged(some, config), rows) == [oracle.decision_of(outcome) for outcome in outcomes]


@given(st.lists(TURNS, max_size=6), st.integers(1, 8))
@settings(max_examples=50)
def test_portions_are_the_turns_in_their_order(several: list[list[Turn]], together: int) -> None:
    every = [columns_of(some) for some in several]
    with patch("backchannel.agents.columnar.columns.TOGETHER", together):
        portions = list(Columns.portions(every))
    assert all(len(one) >= together for one in portions[:-1])
    assert all(len(one) < together + max(map(len, every)) for one in portions)
    ids = [one.pools.people[session] for one in portions for session in one.turns.query.session.tolist()]
    assert ids == [turn.query.session_id for some in several for turn in some]
