"""What a success is worth in view of returns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.horizon.serving import LongTerm, Rest
from backchannel.agents.horizon.worth import MOST, worths
from backchannel.schemas.snapshot import Estimate


def known(visits: float, success: float, value: float | None) -> LongTerm:
    return LongTerm(
        visits=visits,
        mature=visits,
        people=50,
        success=success,
        value=None if value is None else Estimate(value, value - 0.02, value + 0.02),
    )


def test_success_times_worth_is_success_and_returns() -> None:
    strategies = {"bait": known(100.0, 0.8, 0.2), "plain": known(300.0, 0.4, 0.5)}
    found = worths(strategies, 2.0)
    ratio = (found["plain"] * 0.4) / (found["bait"] * 0.8)
    assert ratio == pytest.approx((0.4 + 2.0 * 0.5) / (0.8 + 2.0 * 0.2), rel=1e-3)
    assert 0.25 * found["bait"] + 0.75 * found["plain"] == pytest.approx(1.0, rel=1e-3)


def test_the_rest_of_a_session_counts_too() -> None:
    rest = {
        "bait": Rest(100.0, 50, 0.8, Estimate(0.1, 0.0, 0.2)),
        "plain": Rest(300.0, 50, 0.4, Estimate(0.9, 0.8, 1.0)),
        "new": Rest(0.0, 0, 0.0),
    }
    found = worths({}, 0.0, rest)
    assert set(found) == {"bait", "plain"}
    assert (found["plain"] * 0.4) / (found["bait"] * 0.8) == pytest.approx(1.3 / 0.9, rel=1e-3)
    returns = {"bait": known(100.0, 0.8, 0.2), "plain": known(300.0, 0.4, 0.5)}
    both = worths(returns, 2.0, rest)
    assert (both["plain"] * 0.4) / (both["bait"] * 0.8) == pytest.approx((1.3 + 1.0) / (0.9 + 0.4), rel=1e-3)


def test_goals_that_successes_reach_count_too() -> None:
    goals = {"bait": (70.0, 0.1), "plain": (40.0, 0.9)}
    found = worths({}, 0.0, {}, goals, 3.0)
    assert found["plain"] / found["bait"] == pytest.approx((1.0 + 3.0 * 0.9) / (1.0 + 3.0 * 0.1), rel=1e-3)
    assert worths({}, 0.0, {}, goals) == worths({}, 0.0, {}, {"new": (0.0, 0.0)}, 3.0) == {}
    returns = {"bait": known(100.0, 0.8, 0.2), "plain": known(300.0, 0.4, 0.5), "new": known(100.0, 0.4, 0.5)}
    both = worths(returns, 2.0, {}, goals, 3.0)
    assert both["plain"] / both["bait"] == pytest.approx((1.0 + 1.0 / 0.4 + 2.7) / (1.0 + 0.4 / 0.8 + 0.3), rel=1e-3)
    assert both["new"] < both["plain"]  # for goals, it is taken to be like the others


def test_a_strategy_that_few_met_is_taken_to_be_like_the_others() -> None:
    found = worths({"old": known(100.0, 0.5, 0.3), "new": known(1.0, 0.5, None)}, 1.0)
    assert found["old"] == found["new"]


def test_nothing_known_or_wanted_changes_nothing() -> None:
    assert worths({}, 1.0) == {}
    assert worths({"a": known(10.0, 0.5, None)}, 1.0) == {}
    assert worths({"a": known(10.0, 0.5, 0.3)}, 0.0) == {}
    assert worths({"a": known(10.0, 0.0, 0.3)}, 1.0) == {}


share = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(st.floats(0.01, 1e6), share, st.none() | share), max_size=8), st.floats(0.0, 1000.0))
def test_worths_are_bounded(rows: list[tuple[float, float, float | None]], weight: float) -> None:
    found = worths({str(place): known(*row) for place, row in enumerate(rows)}, weight)
    assert all(1.0 / MOST <= worth <= MOST for worth in found.values())
