"""What successes lead to: the goal's outcome as a reward of the bandit."""

import pytest

from backchannel.agents.checks import learn, solve
from backchannel.agents.goals.credits import PRIOR, CreditedGoals
from backchannel.agents.goals.learner import GoalConfig
from backchannel.agents.goals.serving import GoalCredits
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, click, closed_turn, impression, label, query

LEARNER = CreditedGoals(GoalConfig(half_life_days=10.0), ("bait", "plain", "new"))


def turn(strategy: str, following: str, *, clicked: bool = True, ts: int = 0) -> Turn:
    shown = impression(Result("e", 1, (strategy,)), allocation={strategy: 1, "new": 1})
    after = query(ts + 70_000, following)
    return closed_turn(query(ts, "red shoes"), (shown,), (click("e"),) if clicked else (), next=after)


def known(turns: list[Turn], at: int = 0) -> GoalCredits:
    return GoalCredits(solve(LEARNER, learn(LEARNER, turns), at))


def test_a_success_with_which_the_goal_goes_on_reaches_none() -> None:
    some = [turn("bait", "red shoes for women")] * 100 + [turn("plain", "set an alarm for seven")] * 50
    found = known([*some, *[turn("bait", "set an alarm for seven", clicked=False)] * 50]).strategies
    assert found.keys() == {"bait", "plain"}  # nobody clicked what `new` brought
    assert [found[name].successes for name in ("bait", "plain")] == [100.0, 50.0]
    usual = (100 * 0.0078 + 50 * 0.989) / 150
    assert found["bait"].reached == pytest.approx((100 * 0.0078 + PRIOR * usual) / (100 + PRIOR), abs=0.01)
    assert found["plain"].reached == pytest.approx((50 * 0.989 + PRIOR * usual) / (50 + PRIOR), abs=0.01)


def test_labels_count_more_than_texts() -> None:
    some = turn("bait", "red shoes for women")
    labelled = Turn.of(some.query, [*some.impressions, *some.clicks, label(goal="reached")], some.next)
    missed = Turn.of(some.query, [*some.impressions, *some.clicks, label(goal="missed")], some.next)
    assert known([labelled]).strategies["bait"].reached == 1.0
    assert known([labelled, missed]).strategies["bait"].reached == 0.5


def test_successes_fade() -> None:
    old, new = [turn("bait", "red shoes for women")] * 100, [turn("bait", "set an alarm for seven", ts=100 * DAY)] * 10
    assert known([*old, *new], 100 * DAY).strategies["bait"].reached > 0.95
    assert known([*old], 100 * DAY).strategies["bait"].successes == pytest.approx(100 / 1024, abs=1e-3)


def test_without_successes_nothing_is_known() -> None:
    assert known([turn("bait", "x", clicked=False)]).strategies == {}
