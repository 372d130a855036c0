"""Model averaging against direct computations, and what it does when the world changes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from river.drift import ADWIN

from backchannel.agents.bandit.posterior import CUT, PAST, SHARE, STEADY, Exposures, ModelAverage, Posterior
from backchannel.agents.sums import Floats

HOUR = 3_600_000
DAY = 24 * HOUR


def logged(means: list[list[float]], count: int = 200, seed: int = 0) -> tuple[Exposures, Floats]:
    """Exposures of buckets, hours apart, in which each strategy clicks at the given rate: `count` contexts of each.

    Returns:
        it, and the rows that it sums, (buckets, strategies, count, 4).
    """
    rng = np.random.default_rng(seed)
    rates = np.array(means)
    rows = rng.standard_normal((*rates.shape, count, 4)).round(3)
    rows[..., 0] = 1
    rows[..., -1] = rng.random((*rates.shape, count)) < rates[..., np.newaxis]
    return exposures(HOUR * np.arange(len(means), dtype=float), rows.swapaxes(-1, -2) @ rows), rows


def exposures(starts: Floats, sums: Floats) -> Exposures:
    """Exposures of turns with one candidate each."""
    return Exposures(starts, sums, sums[..., 0, 0].sum(axis=-1))


def test_one_model_is_the_closed_form() -> None:
    evidence, rows = logged([[0.2, 0.6], [0.3, 0.5], [0.2, 0.7]])
    at, ridge = 10 * HOUR, 3.0
    found = ModelAverage((), (ridge,)).infer(evidence, at)
    every = rows.transpose(1, 0, 2, 3).reshape(2, -1, 4)
    contexts, rewards = every[..., :-1], every[..., -1]
    together = contexts.reshape(-1, 3)
    prior = np.linalg.solve(together.T @ together + ridge * np.eye(3), together.T @ rewards.ravel())
    for strategy in range(2):
        precision = contexts[strategy].T @ contexts[strategy] + ridge * np.eye(3)
        error = contexts[strategy].T @ (rewards[strategy] - contexts[strategy] @ prior)
        assert found.theta[strategy] == pytest.approx(prior + np.linalg.solve(precision, error))
        assert found.whitener[strategy].T @ found.whitener[strategy] == pytest.approx(np.linalg.inv(precision))
    assert found.discounts.tolist() == [1, 1, 1]
    assert found.weights.tolist() == [1]


def test_the_weights_are_those_of_the_predictive_likelihood() -> None:
    """Observation by observation, against the closed form by buckets."""
    half_life, ridge = 2 * HOUR, 5.0
    evidence, rows = logged([[0.2, 0.3], [0.5, 0.3], [0.5, 0.6]], count=30, seed=3)
    weights = np.array([STEADY, 1 - STEADY])
    prior = weights
    for bucket in range(3):
        log_likelihood, losses = np.zeros(2), np.zeros(2)
        for member, decay in enumerate((1.0, 2.0 ** (-HOUR / half_life))):
            past = [rows[earlier] * np.sqrt(decay ** (bucket - earlier)) for earlier in range(bucket)]
            seen = np.concatenate(past, axis=1) if past else np.zeros((2, 0, 4))
            together = seen.reshape(-1, 4)
            pooled = np.linalg.solve(
                together[:, :3].T @ together[:, :3] + ridge * np.eye(3), together[:, :3].T @ together[:, 3]
            )
            for strategy in range(2):
                precision = seen[strategy][:, :3].T @ seen[strategy][:, :3] + ridge * np.eye(3)
                moment = seen[strategy][:, :3].T @ seen[strategy][:, 3] + ridge * pooled
                for row in rows[bucket, strategy]:
                    context, reward = row[:3], row[3]
                    wider = 1 + context @ np.linalg.solve(precision, context)
                    error = reward - context @ np.linalg.solve(precision, moment)
                    losses[member] += error**2 / wider / 2
                    log_likelihood[member] -= np.log(wider) / 2
                    precision += np.outer(context, context)
                    moment = moment + context * reward
        noise = 2 * weights @ losses / 60
        likelihood = weights * np.exp(log_likelihood - losses / noise)
        weights = (1 - SHARE) * likelihood / likelihood.sum() + SHARE * prior
    assert ModelAverage([half_life], (ridge,)).infer(evidence, 3 * HOUR).weights == pytest.approx(weights)


STEADY_RATES = [[0.3, 0.5]] * 20
FALLING = [[0.3, 0.5]] * 15 + [[0.3, 0.1]] * 5
RISING = [[0.3, 0.5]] * 15 + [[0.3, 0.9]] * 5


def test_evidence_from_before_a_fall_is_cut() -> None:
    evidence, _ = logged(FALLING)
    found = ModelAverage((), (1.0,)).infer(evidence, 20 * HOUR)
    assert [start // HOUR for start in found.changes] == [15]
    assert found.discounts == pytest.approx([CUT] * 15 + [1.0] * 5)
    assert found.theta[1, 0] == pytest.approx(0.1, abs=0.1)
    # What has been set apart counts as little, and is no change anew.
    past = exposures(
        np.concatenate(([PAST], evidence.starts[15:])),
        np.concatenate((evidence.sums[:15].sum(axis=0, keepdims=True), evidence.sums[15:])),
    )
    again = ModelAverage((), (1.0,)).infer(past, 20 * HOUR)
    assert again.changes == ()
    assert again.theta == pytest.approx(found.theta)
    later = ModelAverage((), (1.0,)).infer(exposures(evidence.starts[:15], evidence.sums[:15]), 15 * HOUR)
    assert later.theta[1, 0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("rates", [STEADY_RATES, RISING])
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_cut_unless_reward_falls(rates: list[list[float]], seed: int) -> None:
    evidence, _ = logged(rates, seed=seed)
    assert ModelAverage((), (1.0,)).infer(evidence, 20 * HOUR).changes == ()


def test_a_reward_that_several_are_credited_with_is_one_observation() -> None:
    """A fall that single rewards show is chance where each was counted for eight strategies."""
    evidence, _ = logged([[0.5, 0.5]] * 15 + [[0.5, 0.3]] * 2)
    average, often = ModelAverage((), (1.0,)), structs.replace(evidence, shared=8.0)
    single, shared = (average.infer(one, 17 * HOUR) for one in (evidence, often))
    assert single.changed is not None
    assert shared.changed is None


@pytest.mark.parametrize("seed", range(10))
def test_that_what_looked_best_disappoints_is_no_change(seed: int) -> None:
    """At first the choice is random, then of what is best by the little that is known of it."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((8, 12)) / np.sqrt(12)
    average, starts, sums = ModelAverage((), (1.0, 10.0)), list[float](), list[Floats]()

    def infer() -> Posterior:
        return average.infer(exposures(np.array(starts), np.array(sums).reshape(-1, 8, 13, 13)), len(sums) * HOUR)

    for hour in range(6):
        contexts = np.column_stack((np.ones(500), rng.standard_normal((500, 11))))
        theta = infer().theta
        chosen = (contexts @ theta.T).argmax(axis=1) if hour else rng.integers(8, size=500)
        rates = 1.0 / (1.0 + np.exp(-(contexts * weights[chosen]).sum(axis=1)))
        rows = np.column_stack((contexts, rng.random(500) < rates))
        starts.append(hour * HOUR)
        sums.append(np.array([rows[chosen == strategy].T @ rows[chosen == strategy] for strategy in range(8)]))
        assert infer().changes == ()


@pytest.mark.parametrize(("rates", "changed"), [(STEADY_RATES, False), (FALLING, True)])
def test_it_sees_the_changes_that_river_sees(rates: list[list[float]], changed: bool) -> None:
    evidence, rows = logged(rates, seed=5)
    adwin: Any = ADWIN
    detector = adwin()
    seen = False
    for reward in rows[:, 1, :, -1].ravel().tolist():
        detector.update(reward)
        seen |= detector.drift_detected
    assert seen == changed
    assert bool(ModelAverage((), (1.0,)).infer(evidence, 20 * HOUR).changes) == changed


def test_the_half_life_that_predicts_best_gets_the_weight() -> None:
    average = ModelAverage([2 * HOUR], (1.0,))
    steady, _ = logged([[0.3, 0.5]] * 40)
    wandering, _ = logged([[0.3, 0.5 + 0.4 * (-1) ** (hour // 8)] for hour in range(40)])
    assert average.infer(steady, 40 * HOUR).weights[0] > 0.8
    assert average.infer(wandering, 40 * HOUR).weights[1] > 0.9


@given(
    st.lists(st.sampled_from(["more", "late", "merge"]), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_what_is_remembered_of_the_last_time_changes_nothing(steps: list[str], seed: int) -> None:
    """Buckets come, grow, and are coarsened; what was gone through before is as if gone through anew."""
    evidence, _ = logged([[0.8, 0.5]] * 6 + [[0.1, 0.5]] * 6, seed=seed)
    rng = np.random.default_rng(seed)
    remembering = ModelAverage((2 * HOUR,), (1.0, 10.0))
    known = 2
    for step in steps:
        known = min(known + (step == "more"), 12)
        sums, starts = evidence.sums.copy(), evidence.starts
        if step == "late":
            sums[rng.integers(known)] *= 1.5
        if step == "merge":
            sums[1] += sums[0]
            sums, starts = sums[1:], starts[1:]
        now = exposures(starts[:known], sums[:known])
        found = remembering.infer(now, known * HOUR)
        expected = ModelAverage((2 * HOUR,), (1.0, 10.0)).infer(now, known * HOUR)
        for one, other in zip(structs.astuple(found), structs.astuple(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_without_evidence_there_is_the_prior() -> None:
    found = ModelAverage([DAY], (4.0, 4.0)).infer(exposures(np.zeros(0), np.zeros((0, 2, 4, 4))), 0)
    assert not found.theta.any()
    assert found.whitener == pytest.approx(np.broadcast_to(np.eye(3) / 2, (2, 3, 3)))
    assert found.deviation == 0.5
    assert found.weights == pytest.approx([STEADY, 1 - STEADY])


@given(
    st.lists(st.integers(0, 2**60), min_size=1, max_size=4),
    st.integers(1, 10**9),
    st.sampled_from([0.001, 1.0, 1e6]),
    st.lists(st.sampled_from([0.0, 1 / 1024, 1.0, 8.0, -8.0]), min_size=2, max_size=2),
)
@settings(max_examples=60)
def test_near_singular_sums_do_no_harm(starts: list[int], repeats: int, ridge: float, context: list[float]) -> None:
    """The same context again and again is a Gram matrix of rank 1."""
    rising = sorted(set(starts))
    row = np.array([1.0, *context, 0.5])
    sums = repeats * np.broadcast_to(np.outer(row, row), (len(rising), 2, 4, 4))
    found = ModelAverage([DAY, 365 * DAY], (ridge,)).infer(exposures(np.array(rising, dtype=float), sums), 2**60)
    for numbers in (found.theta, found.whitener, found.discounts, found.weights, np.array(found.deviation)):
        assert np.isfinite(numbers).all()
    assert found.weights.sum() == pytest.approx(1)
    assert ((found.discounts >= 0) & (found.discounts <= 1 + 1e-12)).all()
