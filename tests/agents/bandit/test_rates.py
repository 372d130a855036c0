"""What is believed after sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backchannel.agents.bandit.belief import draw
from backchannel.agents.bandit.evidence import FOLDS, Pairs, StrategySums
from backchannel.agents.bandit.ranks import BUCKETS
from backchannel.agents.bandit.rates import believe, exposures, hazards, producers
from backchannel.agents.sums import Floats


def evidence(contexts: Floats, chosen: NDArray[np.int64], rewards: Floats, strategies: int) -> StrategySums:
    """Rounds in which one candidate was drawn."""
    d = contexts.shape[1]
    gram, moment = np.zeros((strategies, 1, 2, d, d)), np.zeros((strategies, 1, 2, d))
    squares = np.zeros((strategies, 1))
    for number, (x, s, r) in enumerate(zip(contexts, chosen, rewards, strict=True)):
        gram[s, 0, number % 2] += np.outer(x, x)
        moment[s, 0, number % 2] += x * r
        squares[s, 0] += r * r
    return StrategySums(gram, moment, squares, moment[:, 0, :, 0].sum(axis=1))


def rounds(seed: int, count: int) -> StrategySums:
    rng = np.random.default_rng(seed)
    contexts = np.column_stack((np.ones(count), rng.choice([-1.0, 1.0], size=(count, 2))))
    chosen = rng.integers(2, size=count)
    rates = np.where(chosen == 0, 0.3 + 0.2 * contexts[:, 1], 0.2 - 0.1 * contexts[:, 2])
    return evidence(contexts, chosen, (rng.random(count) < rates).astype(float), 2)


def test_with_much_evidence_rates_are_the_regressions() -> None:
    found = believe(rounds(1, 20_000))
    linear = found.rates * (np.array([1.0, 0.0, 0.0]) + found.theta)
    assert linear == pytest.approx(np.array([[0.3, 0.2, 0.0], [0.2, 0.0, -0.1]]), abs=0.02)
    assert (found.prior < 0.01).all()


def by_rank(clicks: Floats) -> StrategySums:
    """Each bucket of two strategies drawn 1,000 times, and its clicks, (2, BUCKETS); half in each fold."""
    gram, moment = np.full((2, BUCKETS, 2, 1, 1), 500.0), np.zeros((2, BUCKETS, 2, 1))
    moment[..., 0] = clicks[..., np.newaxis] / 2
    return StrategySums(gram, moment, clicks, clicks.sum(axis=1))


def test_departures_of_single_ranks_are_believed_if_they_recur() -> None:
    """Where strategies differ in level only, small departures are chance; where they differ by rank, they are not."""
    alike = np.full((2, BUCKETS), 40.0)
    alike[0, 0] += 12.0
    unlike = 40.0 + 30.0 * np.where(np.arange(BUCKETS) % 2, 1.0, -1.0) * np.array([[1.0], [-1.0]])
    unlike[0, 0] = alike[0, 0]
    share = [believe(by_rank(clicks)).prior[0, 0] for clicks in (alike, unlike)]
    assert share[0] > 1.5 * share[1]


def test_rare_heavy_clicks_far_down_tell_less() -> None:
    """In each bucket the same weight of clicks: many of weight 1, but the last ones of weight 8."""
    clicks = np.full((2, BUCKETS), 40.0)
    sums = by_rank(clicks)
    heavy = np.where(np.arange(BUCKETS) == BUCKETS - 1, 8.0, 1.0)
    seen = believe(StrategySums(sums.gram, sums.moment, clicks * heavy, sums.rewards)).clicks
    assert seen[:, 0] / seen[:, -1] == pytest.approx(8.0, rel=0.15)
    assert seen[:, 0] == pytest.approx(40.0, rel=0.1)


def test_contexts_that_mean_nothing_are_not_believed() -> None:
    rng = np.random.default_rng(2)
    contexts = np.column_stack((np.ones(300), rng.standard_normal((300, 8))))
    found = believe(evidence(contexts, rng.integers(2, size=300), (rng.random(300) < 0.3).astype(float), 2))
    assert np.abs(found.theta).mean() < 0.15


def test_of_many_columns_only_those_that_mean_something_are_evident() -> None:
    rng = np.random.default_rng(8)
    contexts = np.column_stack((np.ones(1_200), rng.choice([-1.0, 1.0], size=(1_200, 9))))
    chosen = rng.integers(6, size=1_200)
    clicked = rng.random(1_200) < 0.3 + np.where(chosen % 2, 0.15, -0.15) * contexts[:, 1]
    belief = believe(evidence(contexts, chosen, clicked.astype(float), 6))
    theta, evident = (each[1::2] - each[::2] for each in (belief.theta, belief.evident))
    assert evident[:, 1].mean() == pytest.approx(1.0, abs=0.2)
    assert np.linalg.norm(evident[:, 2:]) < 0.5 * np.linalg.norm(theta[:, 2:])


def test_what_contexts_tell_does_not_move_a_rate_in_the_mean_of_its_contexts() -> None:
    """Though the contexts of a strategy are far from the middle, and priors pull all that they tell towards 0."""
    rng = np.random.default_rng(10)
    contexts = np.column_stack((np.ones(400), rng.normal(3.0, 0.5, 400), rng.normal(-2.0, 0.5, 400)))
    chosen = rng.integers(3, size=400)
    clicked = rng.random(400) < np.array([0.2, 0.4, 0.6])[chosen] + 0.1 * (contexts[:, 1] - 3.0)
    belief = believe(evidence(contexts, chosen, clicked.astype(float), 3))
    factors = [1.0 + contexts[chosen == own].mean(axis=0) @ belief.evident[own] for own in range(3)]
    promised = belief.rates[:, 0] * factors
    assert promised == pytest.approx([clicked[chosen == own].mean() for own in range(3)], rel=0.06)
    assert (belief.evident[:, 1] > 0.05).all()


def test_without_evidence_every_column_may_mean_something() -> None:
    """A few turns suffice for a strong difference to be followed."""
    rng = np.random.default_rng(9)
    contexts = np.column_stack((np.ones(80), rng.choice([-1.0, 1.0], size=(80, 3))))
    chosen = rng.integers(2, size=80)
    clicked = rng.random(80) < 0.4 + np.where(chosen, 0.35, -0.35) * contexts[:, 1]
    evident = believe(evidence(contexts, chosen, clicked.astype(float), 2)).evident
    assert evident[1, 1] - evident[0, 1] > 0.5


def test_draws_have_the_mean_of_the_belief_and_narrow_with_evidence() -> None:
    widths = []
    for count in (50, 5000):
        belief = believe(rounds(3, count))
        rates, phi = draw(belief, 0.5, 4000, np.random.default_rng(4))
        assert rates.mean(axis=0) == pytest.approx(belief.rates, rel=0.1)
        assert phi.mean(axis=0) == pytest.approx(belief.theta, abs=0.1)
        widths.append(float((rates.std(axis=0) / belief.rates).mean()))
    assert widths[1] < widths[0] / 3
    still, same = draw(belief, 0.0, 3, np.random.default_rng(5))
    assert (still == belief.rates).all()
    assert (same == belief.theta).all()


def test_a_newcomer_is_wide_not_low() -> None:
    known = rounds(5, 2000)
    gram, moment, squares = (
        np.concatenate((own, np.zeros((1, *own.shape[1:])))) for own in (known.gram, known.moment, known.squares)
    )
    belief = believe(StrategySums(gram, moment, squares, np.zeros(3)))
    assert belief.rates[2, 0] == pytest.approx(belief.rates[:2, 0].mean(), rel=0.05)
    rates, _ = draw(belief, 0.1, 2000, np.random.default_rng(6))
    assert 0.1 < (rates[:, 2, 0] > rates[:, :2, 0].max(axis=1)).mean() < 0.6


def test_one_candidate_a_turn_is_one_exposure() -> None:
    """Then model averaging goes by the plain sums of a linear regression."""
    known = rounds(7, 100)
    some = StrategySums(*(getattr(known, field)[np.newaxis] for field in StrategySums.__struct_fields__))
    exposed = exposures(np.zeros(1), some)
    found = exposed.sums[0]
    assert exposed.turns == found[:, 0, 0].sum()
    assert (found[:, :3, :3] == known.gram[:, 0].sum(axis=1)).all()
    assert (found[:, :3, 3] == known.moment[:, 0].sum(axis=1)).all()
    assert found[:, 3, 3] == pytest.approx(known.squares[:, 0])


def test_a_deep_turn_is_more_exposure_but_one_observation() -> None:
    gram, moment = np.ones((1, 1, 4, FOLDS, 1, 1)), np.full((1, 1, 4, FOLDS, 1), 0.25)
    exposed = exposures(np.zeros(1), StrategySums(gram, moment, moment[..., 0, 0], np.zeros((1, 1))))
    assert exposed.turns == FOLDS
    assert exposed.sums[0, 0, 0, 0] > exposed.turns


def test_ranks_count_as_exposure_by_what_they_tell() -> None:
    """Rare heavy clicks far down are neither much exposure nor much reward."""
    clicks = np.full((2, BUCKETS), 40.0)
    sums = by_rank(clicks)
    heavy = np.where(np.arange(BUCKETS) == BUCKETS - 1, 8.0, 1.0)

    def of(weights: Floats, buckets: slice) -> Floats:
        gram, moment = sums.gram[np.newaxis, :, buckets], sums.moment[np.newaxis, :, buckets]
        some = StrategySums(gram, moment, (clicks * weights)[np.newaxis, :, buckets], sums.rewards[np.newaxis])
        return np.asarray(exposures(np.zeros(1), some).sums[0, 0])

    top = of(np.ones(BUCKETS), slice(0, -1))
    even, uneven = (of(weights, slice(None)) - top for weights in (np.ones(BUCKETS), heavy))
    assert even[0] / uneven[0] == pytest.approx(8.0, rel=0.2)
    assert even[0, 0] > 0


def test_a_click_is_credited_to_as_many_strategies_as_bring_it() -> None:
    """Counted among the clicks of all configurations alike, as pairs are."""
    event = np.zeros((3, 3, BUCKETS, BUCKETS))
    assert producers(Pairs(event, event)) == 1.0
    event[[0, 1], [0, 1], 0, 0] = 50.0
    assert producers(Pairs(event, event)) == 1.0
    event[[0, 1], [1, 0], 3, 2] = 50.0
    assert producers(Pairs(event, event)) == 2.0
    event[0, 1, 3, 2] = 52.0
    assert producers(Pairs(event, event)) == 2.0, "small changes would begin model averaging anew"
    event[2, 0] = 1e9
    assert producers(Pairs(event, event)) == pytest.approx(3.0, rel=0.1)


def test_hazards_shrink_to_the_pair_and_to_all_pairs() -> None:
    risk, event = np.zeros((2, 3, 3, BUCKETS, BUCKETS))
    risk[0, 1, 0, 0], event[0, 1, 0, 0] = 1000.0, 900.0
    risk[0, 2, 0, 0] = 1000.0
    found = hazards(Pairs(risk, event))
    assert found[0, 1, 0, 0] == pytest.approx(0.9, abs=0.02)
    assert found[0, 2, 0, 0] < 0.02
    assert found[0, 1, 3, 3] > 0.6 > found[1, 2, 3, 3] > 0.3 > found[0, 2, 3, 3]
    assert (found[np.arange(3), np.arange(3)] == 0).all()


def test_deep_ranks_have_no_more_in_common_than_they_have_elsewhere() -> None:
    """Of a pair that was only seen at the top, much in common there says little about what is further down."""
    risk, event = np.zeros((2, 3, 3, BUCKETS, BUCKETS))
    risk[0, 1, 0, 0] = risk[0, 2, 0, 0] = risk[0, 1, 4, 0] = 1000.0
    event[0, 1, 0, 0], event[0, 2, 0, 0], event[0, 1, 4, 0] = 900.0, 800.0, 50.0
    found = hazards(Pairs(risk, event))
    assert found[0, 2, 4, 0] < 0.1
    assert found[0, 2, 0, 0] == pytest.approx(0.8, abs=0.02)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1e-9, 1.0, 1e6]), st.sampled_from([0.0, 0.5, 4.0]))
def test_hazards_are_probabilities_whatever_was_met(seed: int, scale: float, most: float) -> None:
    """More may be met than was searched for: what covers a part of a bucket meets the whole item."""
    risk, met = np.random.default_rng(seed).random((2, 3, 3, BUCKETS, BUCKETS))
    found = hazards(Pairs(scale * risk, scale * risk * most * met))
    assert ((found >= 0.0) & (found < 1.0)).all()
