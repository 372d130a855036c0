"""Plans: within budget and limits, and kept for those who ask for them again."""

import numpy as np
import pytest

from backchannel.agents.bandit.mixture import Counts
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.plans import Overlap, Terms, plans
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


@pytest.mark.parametrize("budget", [1, 300, MAX_BUDGET])
def test_a_plan_of_any_distinct_budget_can_be_logged(budget: int) -> None:
    planned = Allocator(section(2, floor=0.0)).allocate(CAR, budget, np.random.default_rng(0), distinct=True).planned
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
