"""The estimators against their equations, written as loops, and against truths that are known."""

from collections.abc import Callable
from math import isclose, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backchannel.agents.ope.estimators import (
    ESTIMATORS,
    Feedback,
    Model,
    SupportError,
    clipped,
    diagnose,
    direct,
    doubly_robust,
    ips,
    replay,
    snips,
    switch,
    weigh,
)
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.reward_models import cross_fitted, folds_of
from backchannel.agents.sums import Floats


class Raw:
    """A log as it may be drawn: everything that an equation mentions."""

    def __init__(self, seed: int, turns: int, strategies: int, one_action: bool) -> None:
        rng = np.random.default_rng(seed)
        self.turns, self.strategies = turns, strategies
        self.rewards = rng.random((turns, strategies))
        self.model = rng.random((turns, strategies))
        self.propensities = rng.uniform(0.01, 1.0, (turns, strategies))
        self.extents = rng.random((turns, strategies)) * rng.integers(0, 2, (turns, strategies))
        if one_action:
            self.propensities /= self.propensities.sum(axis=1, keepdims=True)
            self.extents += 1e-3
            self.extents /= self.extents.sum(axis=1, keepdims=True)
            self.asked = np.zeros((turns, strategies), dtype=bool)
            self.asked[np.arange(turns), rng.integers(strategies, size=turns)] = True
        else:
            self.asked = rng.random((turns, strategies)) < self.propensities

    def feedback(self) -> Feedback:
        return Feedback(
            weigh(self.extents, self.propensities, self.asked),
            self.rewards,
            total=float(self.extents.sum(axis=1).mean()),
            model=Model((self.extents * self.model).sum(axis=1), self.model),
        )

    def feedback_of_the_chosen(self) -> Feedback:
        """The same where one action a turn is chosen, and no more than that is kept."""
        chosen = self.asked.argmax(axis=1)[:, np.newaxis]
        kept = [
            np.take_along_axis(one, chosen, axis=1)
            for one in (self.extents, self.propensities, self.rewards, self.model)
        ]
        return Feedback(
            weigh(kept[0], kept[1], np.ones_like(chosen, dtype=bool)),
            kept[2],
            model=Model((self.extents * self.model).sum(axis=1), kept[3]),
        )


def naive(raw: Raw, name: str, cap: float) -> float:
    """The equations of the module, by the letter."""
    total, divisor, extent = 0.0, 0.0, 0.0
    for i in range(raw.turns):
        for k in range(raw.strategies):
            tau, q, r = raw.extents[i, k], raw.model[i, k], raw.rewards[i, k]
            w = tau / raw.propensities[i, k] if raw.asked[i, k] else 0.0
            extent += tau
            divisor += w
            match name:
                case "IPS" | "SNIPS":
                    total += w * r
                case "clipped IPS":
                    total += min(w, cap) * r
                case "DM":
                    total += tau * q
                case "DR":
                    total += tau * q + w * (r - q)
                case "switch-DR":
                    total += tau * q + (w * (r - q) if w <= cap else 0.0)
    if name == "SNIPS":
        return total / divisor * (extent / raw.turns) if divisor else float("nan")
    return total / raw.turns


RAWS = st.builds(Raw, st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 6), st.booleans())


@pytest.mark.parametrize("name", ESTIMATORS)
@given(RAWS)
def test_estimators_are_their_equations(name: str, raw: Raw) -> None:
    log = raw.feedback()
    cap = sqrt(raw.turns) * log.total
    expected = naive(raw, name, max(cap, 1e-12))
    found = ESTIMATORS[name](log).value
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 6))
def test_the_chosen_action_is_enough(name: str, seed: int, turns: int, actions: int) -> None:
    raw = Raw(seed, turns, actions, one_action=True)
    all_of_it, chosen = (ESTIMATORS[name](log).value for log in (raw.feedback(), raw.feedback_of_the_chosen()))
    assert chosen == pytest.approx(all_of_it, rel=1e-9, abs=1e-12)


@given(RAWS, st.floats(0.01, 100.0))
def test_clipping_and_switching_at_a_given_cap(raw: Raw, cap: float) -> None:
    log = raw.feedback()
    assert clipped(log, cap).value == pytest.approx(naive(raw, "clipped IPS", cap), rel=1e-9, abs=1e-12)
    assert switch(log, cap).value == pytest.approx(naive(raw, "switch-DR", cap), rel=1e-9, abs=1e-12)


@given(RAWS)
def test_how_the_estimators_relate(raw: Raw) -> None:
    log = raw.feedback()
    assert switch(log, np.inf).value == pytest.approx(doubly_robust(log).value)
    assert switch(log, -1.0).value == direct(log).value
    assert clipped(log, np.inf).value == ips(log).value
    without_model = Feedback(
        log.weights, log.rewards, log.total, model=Model(np.zeros(raw.turns), np.zeros_like(log.rewards))
    )
    assert doubly_robust(without_model).value == pytest.approx(ips(log).value)
    if (log.weights.sum(axis=1) > 0).all():  # SNIPS moves with the rewards' origin, IPS does not
        higher = Feedback(log.weights, log.rewards + 1.0, log.total)
        assert snips(higher).value == pytest.approx(snips(log).value + log.total)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(RAWS)
def test_terms_lie_within_their_bounds(name: str, raw: Raw) -> None:
    terms = ESTIMATORS[name](raw.feedback())
    assert (terms.values >= terms.low - 1e-9).all()
    assert (terms.values <= terms.high + 1e-9).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_of_no_turns_there_is_no_estimate(name: str) -> None:
    nothing = Feedback(np.zeros((0, 3)), np.zeros((0, 3)), 0.0, model=Model(np.zeros(0), np.zeros((0, 3))))
    terms = ESTIMATORS[name](nothing)
    assert np.isnan(terms.value)
    assert np.isnan(interval(terms).low)
    assert diagnose(nothing).effective == 0


def test_what_cannot_have_happened_is_named() -> None:
    extents, asked = np.full((3, 2), 0.5), np.array([[True, False], [True, True], [False, True]])
    for bad in (0.0, -0.1, 1.5, np.nan):
        propensities = np.full((3, 2), 0.5)
        propensities[1, 1] = bad
        with pytest.raises(SupportError, match=r"turn 1, strategy 1: .* propensity .*1 in all"):
            weigh(extents, propensities, asked)
    propensities = np.full((3, 2), 0.5)
    propensities[0, 1] = 0.0  # was not asked, and could not be
    assert weigh(extents, propensities, asked)[0].tolist() == [1.0, 0.0]


def test_estimators_that_need_a_model_say_so() -> None:
    log = Feedback(np.ones((2, 1)), np.ones((2, 1)))
    for name in ("DM", "DR", "switch-DR"):
        with pytest.raises(ValueError, match="model"):
            ESTIMATORS[name](log)


def truth(rng: np.random.Generator, turns: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Contexts, expected rewards, propensities and a target of a world with four strategies."""
    contexts = np.column_stack((np.ones(turns), rng.standard_normal((turns, 2))))
    theta = np.array([[0.2, 0.1, 0.0], [0.5, -0.1, 0.1], [0.3, 0.0, 0.2], [0.4, 0.1, 0.1]])
    expected = 1.0 / (1.0 + np.exp(-contexts @ theta.T))
    propensities = np.clip(0.5 + 0.3 * contexts[:, 1:2] * np.array([1, -1, 1, -1]), 0.1, 1.0)
    extents = np.clip(0.5 + 0.2 * contexts[:, 2:] * np.array([1, 1, -1, -1]), 0.0, 1.0)
    return contexts, expected, propensities, extents


@pytest.mark.parametrize("name", ["IPS", "SNIPS", "DR", "DM", "switch-DR"])
def test_estimates_scatter_around_the_truth(name: str) -> None:
    errors = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        contexts, expected, propensities, extents = truth(rng, 500)
        asked = rng.random(expected.shape) < propensities
        rewards = (rng.random(expected.shape) < expected).astype(float)
        modelled = cross_fitted(contexts[:, np.newaxis], asked.astype(float), rewards, np.arange(500) % 3, 1.0)
        log = Feedback(
            weigh(extents, propensities, asked),
            rewards,
            float(extents.sum(axis=1).mean()),
            model=Model((extents * modelled).sum(axis=1), modelled),
        )
        errors.append(ESTIMATORS[name](log).value - float((extents * expected).sum(axis=1).mean()))
    error = np.array(errors)
    assert abs(error.mean()) < 4 * error.std() / sqrt(len(error)) + (0.02 if name == "DM" else 0.0)


def test_doubly_robust_has_less_variance() -> None:
    deviation: dict[Callable[..., object], float] = {}
    for estimator in (ips, doubly_robust):
        values = []
        for seed in range(100):
            rng = np.random.default_rng(seed)
            _, expected, propensities, extents = truth(rng, 300)
            asked = rng.random(expected.shape) < propensities
            rewards = (rng.random(expected.shape) < expected).astype(float)
            model = Model((extents * expected).sum(axis=1), expected)
            log = Feedback(weigh(extents, propensities, asked), rewards, model=model)
            values.append(estimator(log).value - float((extents * expected).sum(axis=1).mean()))
        deviation[estimator] = float(np.std(values))
    assert deviation[doubly_robust] < 0.9 * deviation[ips]


def test_a_replay_keeps_what_the_target_would_have_done() -> None:
    rng = np.random.default_rng(1)
    propensities, target, gains = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.2, 0.7]), np.array([0.2, 0.5, 0.8])
    chosen = rng.choice(3, 60_000, p=propensities)
    rewards = (rng.random(60_000) < gains[chosen]).astype(float)[:, np.newaxis]
    log = Feedback((target / propensities)[chosen][:, np.newaxis], rewards)
    found = replay(log, rng)
    assert found.kept == pytest.approx(60_000 / 7, rel=0.05)  # the largest weight is 7
    assert found.terms.value == pytest.approx(float(target @ gains), abs=0.02)
    assert replay(Feedback(np.zeros((5, 1)), np.ones((5, 1))), rng).kept == 0
    with pytest.raises(ValueError, match="one action"):
        replay(Feedback(np.ones((5, 2)), np.ones((5, 2))), rng)


@given(arrays(float, st.tuples(st.integers(1, 50), st.integers(1, 4)), elements=st.just(0.0) | st.floats(1e-3, 1e6)))
def test_the_effective_sample_size_lies_between_one_and_all(weights: Floats) -> None:
    found = diagnose(Feedback(weights, np.zeros_like(weights)))
    if weights.sum() > 0:
        assert 1.0 - 1e-9 <= found.effective <= len(weights) + 1e-6
        assert isclose(found.largest, weights.sum(axis=1).max())
    else:
        assert found.effective == 0


def test_bad_logs_are_found() -> None:
    rng = np.random.default_rng(0)
    good = Feedback(rng.uniform(0.5, 1.5, (5000, 1)), np.ones((5000, 1)))
    assert diagnose(good).faults() == []
    heavy = good.weights.copy()
    heavy[7] = 5000.0
    (fault, *others) = diagnose(Feedback(heavy, good.rewards)).faults()
    assert "effective sample size 4 of 5,000" in fault
    assert "one turn has 50% of all weight" in others
    (fault,) = diagnose(Feedback(good.weights * 0.7, good.rewards)).faults()
    assert "the mean weight is 0.70" in fault


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 4))
def test_cross_fitting_never_looks_at_the_own_fold(seed: int, folds: int, strategies: int) -> None:
    rng = np.random.default_rng(seed)
    contexts = np.column_stack((np.ones(40), rng.standard_normal(40)))
    vectors = contexts[:, np.newaxis]
    drawn = rng.random((40, strategies)) * (rng.random((40, strategies)) < 0.7)
    rewards = rng.random((40, strategies))
    fold = rng.integers(folds, size=40)
    modelled = cross_fitted(vectors, drawn, rewards, fold, 2.0)
    changed = rewards.copy()
    changed[fold == 0] = 1.0 - changed[fold == 0]
    assert cross_fitted(vectors, drawn, changed, fold, 2.0)[fold == 0] == pytest.approx(modelled[fold == 0])
    of_each = np.repeat(vectors, strategies, axis=1)
    assert cross_fitted(of_each, drawn, rewards, fold, 2.0) == pytest.approx(modelled)
    # By the letter: weighted least squares on the other folds, pulled towards the pooled solution.
    for own in range(folds):
        others = fold != own
        grams, moments = [], []
        for k in range(strategies):
            design = contexts[others] * drawn[others, k, np.newaxis]
            grams.append(design.T @ design)
            moments.append(design.T @ rewards[others, k])
        common = np.linalg.solve(sum(grams) + 1e-6 * np.eye(2), sum(moments))
        for k in range(strategies):
            theta = np.linalg.solve(grams[k] + 2.0 * np.eye(2), moments[k] + 2.0 * common)
            assert modelled[fold == own, k] == pytest.approx(contexts[fold == own] @ theta, rel=1e-6, abs=1e-9)


def test_folds_keep_together_what_belongs_together() -> None:
    keys = np.array([5, 5, 8, 8, 8, 2**63], dtype=np.uint64)
    folds = folds_of(keys, 3)
    assert folds.tolist() == [2, 2, 2, 2, 2, 2**63 % 3]
