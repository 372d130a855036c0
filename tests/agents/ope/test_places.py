"""How clicks depend on places: exact where all that may happen is enumerated, in proportion to its probability."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from numpy.testing import assert_allclose

from backchannel.agents.bandit.mixture import places_of
from backchannel.agents.ope.places import Earnings, Examination, Items
from backchannel.agents.sums import Floats, Integers

ALLOCATIONS = np.array([[a, b, 4 - a - b] for a in range(5) for b in range(5 - a)])
"""All allocations of four candidates to three strategies."""

POWER = np.array([1.0, 2.0, 3.0, 4.0]) ** -0.7

RANKS = st.lists(
    st.lists(st.integers(1, 4) | st.just(np.inf), min_size=3, max_size=3).filter(lambda ranks: min(ranks) < 5),
    min_size=2,
    max_size=5,
)
CHANCES = st.lists(st.floats(0.05, 1.0), min_size=len(ALLOCATIONS), max_size=len(ALLOCATIONS)).map(
    lambda some: np.array(some) / sum(some)
)


def by_place(places: Integers, drawn: Floats) -> Floats:
    """Return the probability of each place, (items, places), by those of the allocations."""
    return np.stack([(places == place) @ drawn for place in range(4)], axis=1)


def every_click(places: Integers, drawn: Floats, exponent: float) -> tuple[Items, Integers]:
    """Return a click on each item under each allocation that brings it, worth the probability of that click, and which
    item it is.
    """
    item, allocation = np.nonzero(places >= 0)
    stood = places[item, allocation]
    worths = drawn[allocation] * (1.0 + item) * (1.0 + stood) ** -exponent
    return Items(np.arange(len(item)), worths, by_place(places, drawn)[item], stood), item


@given(RANKS, CHANCES, CHANCES, st.floats(-0.5, 2.0))
def test_of_all_possible_clicks_the_exponent_and_the_value_are_exact(
    ranks: list[list[float]], logged: Floats, target: Floats, exponent: float
) -> None:
    places = places_of(ALLOCATIONS, np.array(ranks)[:, np.newaxis])
    items, item = every_click(places, logged, exponent)
    found = Examination.of(items, len(item))
    if (by_place(places, logged) > 0).sum(axis=1).max() > 1:
        assert found.exponent == pytest.approx(exponent, abs=1e-6)
    else:
        assert (found.exponent, found.error) == (0.0, np.inf)
        found = structs.replace(found, exponent=exponent)
    falls = (1.0 + np.maximum(places, 0)) ** -exponent
    clicks = np.where(places >= 0, (1.0 + np.arange(len(places)))[:, np.newaxis] * falls, 0.0)
    earned = Earnings.of(items, by_place(places, target)[item], found)
    assert earned.values.sum() == pytest.approx((clicks @ target).sum(), rel=1e-5)
    assert found.misfit < 1e-3


@given(RANKS, CHANCES, CHANCES, st.floats(-0.5, 2.0))
def test_where_places_do_not_matter_items_count_by_the_probability_of_being_brought(
    ranks: list[list[float]], logged: Floats, target: Floats, exponent: float
) -> None:
    places = places_of(ALLOCATIONS, np.array(ranks)[:, np.newaxis])
    items, item = every_click(places, logged, exponent)
    flat = Examination.flat(len(item))
    earned = Earnings.of(items, by_place(places, target)[item], flat)
    brought = places >= 0
    assert_allclose(earned.values, items.worths * ((brought @ target) / (brought @ logged))[item])
    assert_allclose(earned.terms(flat).values, earned.values)


def drawn_clicks(seed: int, turns: int, examined: Floats) -> tuple[Items, Floats]:
    """Return clicked items of random pages, and the probability that some policy brings each at each place."""
    rng = np.random.default_rng(seed)
    logged, target = rng.dirichlet(np.ones(len(ALLOCATIONS)), 2)
    ranks = rng.integers(1, 6, (turns, 3)).astype(float)
    places = places_of(ALLOCATIONS, ranks[:, np.newaxis])
    stood = places[np.arange(turns), rng.choice(len(ALLOCATIONS), turns, p=logged)]
    clicked = np.flatnonzero((stood >= 0) & (rng.random(turns) < examined[stood]))
    items = Items(clicked, np.ones(len(clicked)), by_place(places[clicked], logged), stood[clicked])
    return items, by_place(places[clicked], target)


@pytest.mark.parametrize("turn", [0, 3, 11])
def test_the_influence_of_a_turn_is_how_exponent_and_value_change_with_its_weight(turn: int) -> None:
    items, brought = drawn_clicks(1, 400, POWER)

    def with_weight(weight: float) -> tuple[Examination, float]:
        weights = np.where(np.arange(len(items.turns)) == turn, weight, 1.0)
        told = structs.replace(items, worths=items.worths * weights)
        found = Examination.of(told, 400)
        return found, float(Earnings.of(told, brought, found).values.sum())

    (more, most), (less, least) = with_weight(1.001), with_weight(0.999)
    found = Examination.of(items, 400)
    row = items.turns[turn]
    assert found.influences[row] == pytest.approx((more.exponent - less.exponent) / 0.002, rel=1e-3)
    terms = Earnings.of(items, brought, found).terms(found)
    assert terms.values[row] == pytest.approx((most - least) / 0.002, rel=1e-3)
    assert found.influences.sum() == pytest.approx(0.0, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_clicks_does_not_matter(seed: int) -> None:
    items, _ = drawn_clicks(2, 100, POWER)
    order = np.random.default_rng(seed).permutation(len(items.turns))
    shuffled = Items(items.turns[order], items.worths[order], items.logged[order], items.stood[order])
    one, other = Examination.of(items, 100), Examination.of(shuffled, 100)
    assert other.exponent == pytest.approx(one.exponent, abs=1e-9)
    assert_allclose(other.influences, one.influences, atol=1e-9)


def test_clicks_that_fall_otherwise_than_by_a_power_are_noticed() -> None:
    fold = np.array([1.0, 1.0, 1.0, 0.1])
    misfits = [Examination.of(drawn_clicks(seed, 4_000, POWER)[0], 4_000).misfit for seed in range(40)]
    assert np.mean(misfits) == pytest.approx(1.0, abs=0.5)  # chi-squared: four places leave one degree of freedom
    assert min(Examination.of(drawn_clicks(seed, 4_000, fold)[0], 4_000).misfit for seed in range(10)) > 15.0


def test_without_clicks_nothing_is_known() -> None:
    none = Items(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    found = Examination.of(none, 7)
    assert (found.exponent, found.error, len(found.influences)) == (0.0, np.inf, 7)
    assert Earnings.of(none, np.zeros((0, 4)), found).values.tolist() == [0.0] * 7
