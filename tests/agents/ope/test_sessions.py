"""Values over sessions against their equations, written as loops, and against a truth that is known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.sessions import SESSION_ESTIMATORS, Places, Sessions


def draw(seed: int, sessions: int, turns: int, discount: float) -> Sessions:
    rng = np.random.default_rng(seed)
    shape = sessions, turns
    lengths = rng.integers(1, turns + 1, sessions)
    on = np.arange(turns) < lengths[:, np.newaxis]
    weights = np.where(on, rng.exponential(size=shape), 1.0)
    return Sessions(weights, rng.random(shape) * on, discount, rng.random(shape) * on, rng.random(shape) * on)


def naive(log: Sessions, name: str) -> float:
    sessions, turns = log.rewards.shape
    assert log.expected is not None
    assert log.predicted is not None
    running = np.ones((sessions, turns + 1))  # shifted: running[s, t + 1] is R_st
    for s in range(sessions):
        for t in range(turns):
            running[s, t + 1] = running[s, t] * log.weights[s, t]
    means = [sum(running[s, t] for s in range(sessions)) / sessions for t in range(turns + 1)]
    total = 0.0
    for s in range(sessions):
        if name == "DR":
            value = 0.0
            for t in reversed(range(turns)):
                value = log.expected[s, t] + log.weights[s, t] * (
                    log.rewards[s, t] + log.discount * value - log.predicted[s, t]
                )
            total += value
            continue
        for t in range(turns):
            now, before = running[s, t + 1] / means[t + 1], running[s, t] / means[t]
            total += (
                log.discount**t
                * {
                    "PDIS": running[s, t + 1] * log.rewards[s, t],
                    "clipped PDIS": min(running[s, t + 1], sessions**0.5) * log.rewards[s, t],
                    "WPDIS": now * log.rewards[s, t],
                    "WDR": now * (log.rewards[s, t] - log.predicted[s, t]) + before * log.expected[s, t],
                }[name]
            )
    return float(total / sessions)


@pytest.mark.parametrize("name", SESSION_ESTIMATORS)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_estimators_are_their_equations(name: str, seed: int, sessions: int, turns: int, discount: float) -> None:
    log = draw(seed, sessions, turns, discount)
    assert SESSION_ESTIMATORS[name](log).value == pytest.approx(naive(log, name), rel=1e-9, abs=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6))
def test_on_policy_they_are_the_mean_return(seed: int, sessions: int, turns: int) -> None:
    log = draw(seed, sessions, turns, 0.9)
    log = Sessions(np.ones_like(log.weights), log.rewards, 0.9)
    returns = float((log.rewards @ log.discounts()).mean())
    for name in ("PDIS", "WPDIS"):
        assert SESSION_ESTIMATORS[name](log).value == pytest.approx(returns)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_turns_are_put_in_sessions_in_order(sessions: list[int]) -> None:
    places = Places.of(np.array(sessions))
    table = places.table(np.arange(len(sessions), dtype=float), -1.0)
    expected: dict[int, list[float]] = {}
    for turn, session in enumerate(sessions):
        expected.setdefault(session, []).append(float(turn))
    assert [[value for value in row if value >= 0] for row in table.tolist()] == list(expected.values())
    after = {now: later for turns in expected.values() for now, later in pairwise([*turns, -1.0])}
    assert places.following.tolist() == [after[turn] for turn in range(len(sessions))]
    short = Places.of(np.array(sessions), most=2)
    assert short.kept.tolist() == sorted(turn for turns in expected.values() for turn in turns[:2])
    assert short.table(short.kept.astype(float), -1.0).tolist() == table[:, :2].tolist()


def test_estimates_scatter_around_the_truth() -> None:
    """Two actions, two turns; the second turn's reward depends on both actions: what single decisions cannot see."""
    first, second = np.array([0.2, 0.5]), np.array([[0.1, 0.2], [0.9, 0.4]])
    logged, target = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    truth = float(target @ first + target @ second @ target)
    found: dict[str, list[float]] = {name: [] for name in SESSION_ESTIMATORS}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        actions = rng.choice(2, (400, 2), p=logged)
        gains = np.column_stack((first[actions[:, 0]], second[actions[:, 0], actions[:, 1]]))
        value_2 = second[actions[:, 0]] @ target
        predicted = np.column_stack((first[actions[:, 0]] + value_2, gains[:, 1])) * 0.8  # biased, on purpose
        expected = np.column_stack((np.full(400, truth), value_2)) * 0.8
        log = Sessions(
            (target / logged)[actions], (rng.random((400, 2)) < gains).astype(float), 1.0, expected, predicted
        )
        for name, values in found.items():
            values.append(SESSION_ESTIMATORS[name](log).value)
    for name, values in found.items():
        error = np.array(values) - truth
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error)) + (0.005 if "W" in name else 0.0), name


def test_a_session_of_one_turn_is_a_decision() -> None:
    log = draw(4, 50, 1, 1.0)
    assert SESSION_ESTIMATORS["PDIS"](log).value == pytest.approx(float((log.weights * log.rewards).mean()))
    assert log.first_turns().weights.shape == (50, 1)
    assert interval(SESSION_ESTIMATORS["DR"](log)).low < interval(SESSION_ESTIMATORS["DR"](log)).high


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ValueError, match="expected, predicted"):
        SESSION_ESTIMATORS["DR"](Sessions(np.ones((2, 2)), np.ones((2, 2))))
