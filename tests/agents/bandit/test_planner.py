"""Plans: within budget and limits, and kept for those who ask for them again."""

import msgspec
import numpy as np
import pytest

from backchannel.agents.bandit.mixture import Counts
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.plans import Overlap, Terms, plans
from backchannel.agents.bandit.ranks import BUCKETS, WIDTH
from backchannel.agents.bandit.section import Limits
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.sums import Floats
from backchannel.schemas.events import MAX_DEPTH
from tests.support.bandits import CAR, section


@pytest.mark.parametrize("distinct", [False, True])
def test_what_is_not_available_is_not_asked(distinct: bool) -> None:
    allocator = Allocator(section(4, floor=0.5))
    for seed in range(30):
        decision = allocator.allocate(
            CAR, 6, np.random.default_rng(seed), distinct=distinct, available={"strategy0", "strategy2"}
        )
        assert set(decision.allocation) <= {"strategy0", "strategy2"}
        assert decision.propensities["strategy1"] == decision.propensities["strategy3"] == 0
    for nobody in ((), {"else"}):
        with pytest.raises(ValueError, match=r"available: .* name one of strategy0"):
            allocator.allocate(CAR, 6, np.random.default_rng(0), available=nobody)


def test_a_budget_of_distinct_candidates_has_one_plan_with_all_that_may_be_good() -> None:
    allocator = Allocator(section(3, floor=0.0))
    decision = allocator.allocate(CAR, 20, np.random.default_rng(0), distinct=True)
    assert decision.planned == decision.allocation
    assert decision.planned.keys() == set(allocator.strategies)
    assert decision.allocation_propensity == 1.0
    assert decision.distinct == 20
    drawn = allocator.allocate(CAR, 20, np.random.default_rng(0))
    assert (drawn.planned, drawn.distinct) == ({}, None)


def ranked(
    limits: dict[int, Limits] | None = None,
    floor: float = 0.5,
    levels: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001),
    shown: float = 0.0,
    hour: float = 0.0,
) -> Allocator:
    """A policy of strategies with sure rates.

    `shown`: the hazards of what lists have in common; `hour`: how the first strategy's rate changes with the hour.
    """
    count = len(levels)
    learned = section(count, limits=limits, floor=floor)
    for number, level in enumerate(levels):
        row = msgspec.json.decode(learned[f"strategy{number}"])
        row |= {"clicks": [1e6] * BUCKETS, "rates": (0.3 * level * WIDTH).tolist(), "prior": [0.0] * BUCKETS}
        row |= {"theta": [0.0, 0.0 if number else hour, 0.0, 0.0], "whitener": np.zeros((4, 4)).tolist()}
        row |= {"hazards": np.zeros((count, BUCKETS, BUCKETS)).tolist()}
        row |= {"shown": np.full((count, BUCKETS, BUCKETS), shown).tolist()}
        learned[f"strategy{number}"] = msgspec.json.encode(row)
    return Allocator(learned)


@pytest.mark.parametrize("hour", [-3.0, 3.0])
def test_a_plan_for_the_mean_context_takes_the_mean_as_it_is(hour: float) -> None:
    """Not that of a few contexts drawn: the rate of the first strategy would be off by half of its size or more."""
    (plain,), (steep,) = (
        ranked(levels=(1.0, 0.9, 0.8), shown=0.1, hour=slope).mixture(CAR, 20, distinct=True).allocations.counts
        for slope in (0.0, hour)
    )
    assert steep == pytest.approx(plain, abs=4)


@pytest.mark.parametrize("budget", [1, 3, 20, 100])
def test_where_the_best_list_ends_the_next_best_is_walked(budget: int) -> None:
    (planned,) = ranked().mixture(CAR, budget, distinct=True).allocations.counts
    best, *others = planned
    assert others[0] > 0
    assert (planned[2:] == 0).all()
    last_of_best, first_of_others = (budget - 0.5) / best, 0.5 / max(others)
    assert last_of_best < first_of_others, "as long as it goes on, others bring nothing"


def test_of_many_that_are_next_best_some_stand_in() -> None:
    (planned,) = ranked(levels=(1.0, *[0.1] * 12)).mixture(CAR, 20, distinct=True).allocations.counts
    assert planned[1:].sum() == 4


def test_whoever_stands_in_is_in_random_sets_like_all_others() -> None:
    mixture = ranked().mixture(CAR, 20, distinct=True)
    sets, probabilities = mixture.sets.every()
    asked = probabilities @ (sets > 0)
    assert mixture.allocations.counts[0][1] > 0
    assert asked == pytest.approx([1.0, 0.5, 0.5, 0.5])
    assert mixture.sets.shares == pytest.approx(probabilities @ (sets / sets.sum(axis=1, keepdims=True)))
    assert mixture.sets.shares[1:] == pytest.approx(mixture.sets.shares[1], rel=0.01)


@pytest.mark.parametrize("shown", [0.0, 0.2])
@pytest.mark.parametrize("limits", [{}, {1: Limits(minimum=2)}, {2: Limits(maximum=5)}, {3: Limits(on=False)}])
def test_random_sets_of_distinct_candidates_are_walked_beside_the_plan(limits: dict[int, Limits], shown: float) -> None:
    allocator = ranked(limits=limits, shown=shown)
    mixture = allocator.mixture(CAR, 20, distinct=True)
    (planned,) = mixture.allocations.counts
    sets, probabilities = mixture.sets.every()
    assert probabilities.sum() == pytest.approx(1.0)
    assert [mixture.sets.probability(one) for one in sets.tolist()] == pytest.approx(probabilities)
    assert (sets[:, 0] >= planned[0]).all()
    depth = planned.sum() / 16  # about the candidates that are walked for so many distinct ones
    for number, limit in limits.items():
        shares = sets[:, number] / sets.sum(axis=1)
        assert (shares >= 0.9 * limit.minimum / depth).all()
        assert (shares <= 1.1 * min(limit.maximum, 1000) / depth).all()
        assert limit.on or not sets[:, number].any()
    drawn = [allocator.allocate(CAR, 20, np.random.default_rng(seed), distinct=True) for seed in range(400)]
    for name, propensity in drawn[0].propensities.items():
        share = sum(name in one.planned for one in drawn) / len(drawn)
        assert share == pytest.approx(propensity, abs=0.1)


def test_where_every_decision_is_random_a_set_is_not_beside_a_plan() -> None:
    mixture = ranked(floor=1.0).mixture(CAR, 20, distinct=True)
    sets, _ = mixture.sets.every()
    assert (sets.sum(axis=1) == 20).all()
    assert ((sets > 0).sum(axis=1) == 1).any()


@pytest.mark.parametrize("budget", [1, 300, MAX_BUDGET])
def test_a_plan_of_any_distinct_budget_can_be_logged(budget: int) -> None:
    for allocator in (Allocator(section(2, floor=0.0)), ranked(floor=0.99)):
        planned = allocator.allocate(CAR, budget, np.random.default_rng(0), distinct=True).planned
        assert 0 < max(planned.values()) <= MAX_DEPTH


@pytest.mark.parametrize("budget", [0, -1, MAX_BUDGET + 1])
def test_a_budget_has_bounds(budget: int) -> None:
    allocator = Allocator(section(2))
    with pytest.raises(ValueError, match="budget: "):
        allocator.allocate({}, budget, np.random.default_rng(0))
    largest = allocator.allocate({}, MAX_BUDGET, np.random.default_rng(0))
    assert sum(largest.allocation.values()) == MAX_BUDGET


def test_a_budget_covers_the_minima() -> None:
    allocator = Allocator(section(3, limits={0: Limits(minimum=2), 2: Limits(minimum=3)}))
    with pytest.raises(ValueError, match="budget: 4 candidates; draw at least 5"):
        allocator.allocate({}, 4, np.random.default_rng(0))
    assert allocator.allocate({}, 5, np.random.default_rng(0)).allocation == {"strategy0": 2, "strategy2": 3}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The budgets of which plans are made, in that order."""
    budgets: list[int] = []

    def counted(rates: Floats, overlap: Overlap, terms: Terms, elasticities: Floats) -> Counts:
        budgets.append(terms.budget)
        return plans(rates, overlap, terms, elasticities)

    monkeypatch.setattr("backchannel.agents.bandit.planner.plans", counted)
    return budgets


def test_plans_are_prepared_of_what_the_version_before_was_asked_for_and_of_little_else(made: list[int]) -> None:
    versions, rng = [Allocator(section(3, seed=seed)) for seed in range(4)], np.random.default_rng(0)
    for budget in range(1, 21):
        versions[0].allocate(CAR, budget, rng)
    made.clear()
    versions[1].prepare(versions[0])
    assert made == [*range(1, 21)]
    made.clear()
    versions[1].allocate(CAR, 3, rng)
    versions[2].prepare(versions[1])
    assert made == [*range(13, 21), 3]
    made.clear()
    versions[3].prepare(versions[2])  # which was asked for nothing
    assert made == [*range(14, 21), 3]


def test_of_many_budgets_the_latest_plans_are_kept(made: list[int]) -> None:
    allocator, rng = Allocator(section(3)), np.random.default_rng(0)
    for budget in [*range(1, 141), *range(21, 141), 1]:
        allocator.allocate(CAR, budget, rng)
    assert made == [*range(1, 141), 1]
