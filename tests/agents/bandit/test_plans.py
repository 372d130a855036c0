"""Plans: filled as well as can be where lists share nothing, and no better for twins than for one of them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.bandit.plans import (
    Overlap,
    Terms,
    fill,
    mean_context,
    overlap_of,
    plans,
    proportions,
    references,
    shares,
)
from backchannel.agents.bandit.ranks import BUCKETS, LOWER, UPPER, WIDTH, covered
from backchannel.agents.sums import Floats


def terms(strategies: int, budget: int, distinct: bool = False) -> Terms:
    none = np.zeros(strategies, dtype=np.int64)
    return Terms(none, np.full(strategies, 10_000), np.ones(strategies), budget, distinct)


def overlap(hazard: Floats) -> Overlap:
    """Each strategy's items are met anywhere in another's list with the same hazard, (strategies, strategies)."""
    strategies = len(hazard)
    all_ranks = np.broadcast_to(hazard[:, :, np.newaxis, np.newaxis], (strategies, strategies, BUCKETS, BUCKETS))
    return overlap_of(all_ranks, all_ranks, np.tile(WIDTH.astype(float), (strategies, 1)))


def value(counts: Floats, rates: Floats, lists: Overlap) -> Floats:
    return np.asarray((shares(counts, lists, np.ones(len(rates))) * rates).sum(axis=(1, 2)))


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 7), st.booleans())
@settings(max_examples=60)
def test_disjoint_lists_are_filled_as_well_as_can_be(seed: int, strategies: int, budget: int, limited: bool) -> None:
    rng = np.random.default_rng(seed)
    falling = np.sort(rng.random((strategies, BUCKETS)), axis=1)[:, ::-1]
    rates = falling * np.add.reduceat(1.0 / np.arange(1, UPPER[-1] + 1), LOWER)
    costs = rng.choice([0.5, 1.0, 3.0], strategies)
    least = rng.integers(0, 2, strategies) * limited
    most = np.where(limited, least + rng.integers(1, 4, strategies), 10_000)
    if not least.sum() <= budget <= most.sum():
        return
    lists = overlap(np.zeros((strategies, strategies)))
    (found,) = fill(rates[np.newaxis], lists, Terms(least, most, costs, budget))
    allowed = [range(low, min(high, budget) + 1) for low, high in zip(least.tolist(), most.tolist(), strict=True)]
    worth = {
        counts: float((covered(np.array(counts)) * rates / costs[:, np.newaxis]).sum())
        for counts in product(*allowed)
        if sum(counts) == budget
    }
    assert found.sum() == budget
    assert worth[tuple(found.tolist())] == pytest.approx(max(worth.values()))


def test_twins_are_worth_one() -> None:
    """Two strategies with the same items, and a third with others that are a little worse."""
    hazard = np.array([[0.0, 0.999, 0.0], [0.999, 0.0, 0.0], [0.0, 0.0, 0.0]])
    rates = np.array([[0.3] * BUCKETS, [0.3] * BUCKETS, [0.25] * BUCKETS])
    (found,) = fill(rates[np.newaxis], overlap(hazard), terms(3, 10))
    assert found[2] >= 4
    assert min(found[0], found[1]) <= 1
    twins, one = value(np.array([[5, 5, 0], [5, 0, 0]]), rates, overlap(hazard))
    assert twins == pytest.approx(one, rel=0.01)


def test_the_value_counts_each_item_of_the_union_once() -> None:
    """Simulated: whether each other strategy has an item is left to chance, as the hazards say."""
    hazard = np.array([[0.0, 0.4, 0.2], [0.4, 0.0, 0.7], [0.2, 0.7, 0.0]])
    rates = np.array([[0.3], [0.2], [0.5]]) * np.eye(BUCKETS)[0]
    counts = np.array([[1, 1, 1], [1, 0, 1]])
    found = value(counts, rates, overlap(hazard))
    rng = np.random.default_rng(0)
    for plan, expected in zip(counts, found, strict=True):
        total = 0.0
        for s in np.flatnonzero(plan):
            has = rng.random((40_000, 3)) < hazard[s] * (plan > 0)
            total += rates[s, 0] * float((1.0 / (1.0 + has.sum(axis=1))).mean())
        assert total == pytest.approx(expected, abs=0.01)


def test_plans_do_not_make_up_for_lists_that_end() -> None:
    """Six in ten lists of the first strategy end after 8 candidates; nobody wants what the second one has."""
    lists = overlap(np.zeros((2, 2)))
    lists.available[0] *= np.where(WIDTH > 4, 0.4, 1.0)
    rates = np.stack((lists.available[0] * 0.1, WIDTH * 0.01))
    (found,) = fill(rates[np.newaxis], lists, terms(2, 20, distinct=True))
    assert found.tolist() == [20, 0]


def test_fills_for_distinct_candidates_expect_so_many() -> None:
    hazard = np.array([[0.0, 0.1], [0.1, 0.0]])
    lists = overlap(hazard)
    (found,) = fill(np.full((1, 2, BUCKETS), 0.3), lists, terms(2, 20, distinct=True))
    # Each candidate is new unless the other list had it before: the second half of the union meets the first.
    assert 22 < found.sum() < 30
    (alone,) = fill(np.full((1, 2, BUCKETS), 0.3), overlap(np.zeros((2, 2))), terms(2, 20, distinct=True))
    assert alone.sum() == 20


def test_who_is_likeliest_to_be_wanted_leads_the_page_however_short_the_list() -> None:
    """Six in ten queries have a candidate of the first strategy, a good one; the second one always has more."""
    lists = overlap(np.full((2, 2), 0.1))
    lists.available[0] = np.array([0.6, 0.4, 0.5, 0.7, 0.9, 1.0, 1.0, 1.0])
    rates = np.array([[[0.4, 0.15, 0.1, 0.05, 0, 0, 0, 0], [0.3, 0.1, 0.12, 0.2, 0.25, 0.3, 0.3, 0.3]]])
    asked = terms(2, 20, distinct=True)
    ((few, many),) = fill(rates, lists, asked)
    assert few < many
    few, many = proportions(rates, lists, asked)
    assert few > many


@given(st.integers(0, 1000), st.integers(1, 30))
@settings(max_examples=30)
def test_proportions_are_within_the_limits(seed: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    least = rng.integers(0, 3, 3)
    most = least + rng.integers(0, 3, 3)
    most[2] += 1
    found = proportions(
        rng.random((4, 3, BUCKETS)), overlap(np.full((3, 3), 0.1)), Terms(least, most, np.ones(3), budget, True)
    )
    assert (least <= found).all()
    assert (found <= most).all()
    assert found.sum() > 0


def test_minima_do_not_lead_the_page() -> None:
    rates = np.array([[0.3], [0.001]]) * np.ones((1, 2, BUCKETS))
    asked = Terms(np.array([0, 3]), np.array([99, 99]), np.ones(2), 20, True)
    assert proportions(rates, overlap(np.zeros((2, 2))), asked) == pytest.approx([17.1, 3.0])


def test_a_single_candidate_may_come_from_anybody_who_is_on() -> None:
    some = Terms(np.zeros(3, dtype=np.int64), np.array([9, 0, 9]), np.ones(3), 1)
    assert plans(np.ones((1, 3, BUCKETS)), overlap(np.zeros((3, 3))), some).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("budget", [65, 1000, 10_000])
def test_large_budgets_are_spent_whole(budget: int) -> None:
    rates = np.random.default_rng(1).random((2, 3, BUCKETS))
    assert fill(rates, overlap(np.full((3, 3), 0.1)), terms(3, budget)).sum(axis=1).tolist() == [budget] * 2


def test_references_have_the_mean_and_the_covariance_of_what_was_seen() -> None:
    rng = np.random.default_rng(2)
    seen = np.column_stack((np.ones(5000), rng.multivariate_normal([1, -1], [[1.0, 0.5], [0.5, 2.0]], 5000)))
    found = references(seen.T @ seen, 5000, seed=3)
    assert found.mean(axis=0) == pytest.approx(seen.mean(axis=0), abs=0.1)
    assert np.cov(found.T) == pytest.approx(np.cov(seen.T), abs=0.15)
    assert mean_context(seen.T @ seen) == pytest.approx(seen.mean(axis=0), abs=1e-12)
    assert (references(np.zeros((3, 3)), 2, seed=0) == [1.0, 0.0, 0.0]).all()
