"""The gate's second look: a policy that wins clicks and loses goals or returns is held, and it says why."""

from typing import Any

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.horizon.serving import LongTerm
from backchannel.agents.ope.gate import REST, Case, GateConfig, Judgement, judge
from backchannel.agents.ope.later import Later, reviewed
from backchannel.agents.ope.sequences import UNKNOWN, Contrast
from backchannel.schemas.snapshot import Estimate
from tests.agents.ope.test_gate import BAD, GOOD, LIVE, case, policy, tried

CONFIG = GateConfig()


def returns(spread: float = 0.02, **values: float) -> dict[str, LongTerm]:
    return {
        name: LongTerm(
            visits=500.0, mature=400.0, people=200, success=0.4, value=Estimate(value, value - spread, value + spread)
        )
        for name, value in values.items()
    }


def second(one: Case, later: Later) -> Judgement:
    return reviewed(judge(one, CONFIG), one, later, CONFIG)


def goals(own: float, others: float) -> Contrast:
    """The goals reached by the policy on trial, and by the served one, with a share of a half."""
    return Contrast(np.full(2, 0.5), np.array([1.0, 0.0]), np.array([own, others]))


def test_without_anything_known_the_gate_decides() -> None:
    for one in (case(GOOD), case(BAD), case(policy(semantic=0.4)), Case(candidate=LIVE, served=None)):
        assert second(one, Later()) == judge(one, CONFIG)


def test_a_leap_that_loses_returns_is_held() -> None:
    assert judge(case(GOOD), CONFIG).verdict in ("publish", "canary")
    found = second(case(GOOD), Later(returns(lexical=0.4, semantic=0.45, memory=0.3)))
    assert (found.verdict, found.trial) == ("hold", None)
    assert found.reason.startswith("fewer people would come back, from 4")
    # The same where it is not sure, where nothing is lost, or where it is a small step.
    for known in (returns(0.2, lexical=0.4, semantic=0.45, memory=0.3), returns(lexical=0.4, semantic=0.4, memory=0.4)):
        assert second(case(GOOD), Later(known)) == judge(case(GOOD), CONFIG)
    small = case(policy(semantic=0.4))
    assert second(small, Later(returns(lexical=0.4, semantic=0.45, memory=0.3))) == judge(small, CONFIG)


def test_of_a_strategy_that_few_met_nothing_is_sure() -> None:
    assert second(case(GOOD), Later(returns(lexical=0.2, semantic=0.45))) == judge(case(GOOD), CONFIG)


def test_a_policy_on_trial_that_loses_goals_is_held_and_rests() -> None:
    on = {"tried": tried(600.0, 400.0, 0.5), "at": 3000}
    assert judge(case(BAD, **on), CONFIG).verdict == "publish"
    found = second(case(BAD, **on), Later(goals=goals(300.0, 600.0)))
    assert found.verdict == "hold"
    assert found.reason.startswith("fewer goals are reached, -50.0%")
    assert found.trial is not None
    assert (found.trial.share, found.trial.until) == (0.0, 3000 + REST * 2000)
    # It still says so while it rests, and does not rest for longer.
    resting: dict[str, Any] = {"tried": tried(600.0, 400.0, 0.5, until=11_000), "at": 4000}
    found = second(case(BAD, **resting), Later(goals=goals(300.0, 600.0)))
    assert found.reason.startswith("fewer goals are reached")
    assert found.trial is not None
    assert found.trial.until == 11_000
    assert second(case(BAD, **on), Later(goals=goals(500.0, 500.0))) == judge(case(BAD, **on), CONFIG)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("sessions", "whole sessions bring less"),
        ("sessions_goals", "whole sessions reach fewer goals"),
        ("followed", "fewer people come back"),
    ],
)
def test_a_policy_on_trial_that_loses_sessions_or_returns_is_held(kind: str, told: str) -> None:
    """The longer, the more often it has lost; and it does not take the served one's place if it leaps again."""
    less = Estimate(-0.3, -0.5, -0.1)
    known: dict[str, Any] = {"sessions": less} if kind == "sessions" else {}
    later = Later() if known else structs.replace(Later(), **{kind: less})
    on = case(BAD, tried=tried(600.0, 400.0, 0.5, lost=1), at=3000, **known)
    found = second(on, later)
    assert (found.verdict, found.reason.startswith(f"{told}, -30.0% (-50.0% to -10.0%); ")) == ("hold", True)
    assert found.trial is not None
    assert (found.trial.share, found.trial.until, found.trial.lost) == (0.0, 3000 + REST**2 * 2000, 2)
    assert found.trial.turns == 4000
    leapt = case(GOOD, tried=tried(600.0, 400.0, 0.5, until=11_000), at=3000, **known)
    assert not second(leapt, later).succeeds


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (None, "publish"),
        (UNKNOWN, "canary"),
        (Estimate(0.1, -0.3, 0.5), "canary"),
        (Estimate(0.1, -0.2, 0.4), "publish"),
        (Estimate(-0.02, -0.2, 0.1), "canary"),
        (Estimate(-0.02, -0.07, 0.03), "publish"),
    ],
)
def test_a_trial_goes_on_until_sessions_are_known(gain: Estimate | None, verdict: str) -> None:
    on: dict[str, Any] = {"tried": tried(600.0, 400.0, 0.5), "at": 3000, "sessions": gain}
    found = second(case(BAD, **on), Later())
    assert found.verdict == verdict
    assert ("in whole sessions" in found.reason) == (gain is not None)
    # But not for ever, and nothing goes live without a trial.
    short = GateConfig(trial_turns=4000)
    assert judge(case(BAD, **on), short).verdict == "publish"
    assert judge(case(GOOD, sessions=gain), CONFIG).verdict == ("publish" if gain is None else "canary")


@pytest.mark.parametrize(("weight", "verdict"), [(0.0, "hold"), (0.1, "hold"), (5.0, "publish")])
def test_what_loses_clicks_but_wins_returns_goes_live_if_these_are_worth_it(weight: float, verdict: str) -> None:
    on = {"tried": tried(200.0, 600.0, 0.5), "at": 3000}
    assert judge(case(BAD, **on), CONFIG).verdict == "hold"
    found = second(case(BAD, **on), Later(returns(lexical=0.5, semantic=0.3, memory=0.3), weight))
    assert found.verdict == verdict
    assert found.reason.startswith("more people would come back" if verdict == "publish" else "-")
