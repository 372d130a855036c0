"""Decisions are replayed as what they were: with their own budget, of drawn or of distinct candidates."""

import numpy as np
import pytest

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.whole import Replayed, whole
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums

STRATEGIES = ("lexical", "semantic", "memory")
BUDGET = 6


def logged(distinct: bool) -> tuple[Allocator, list[LoggedDecision]]:
    bandit = StrategyBandit(BanditConfig(strategies=STRATEGIES, floor=0.2))
    policy = Allocator(live_rows(bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)))
    rng, decisions = np.random.default_rng(0), []
    for number in range(200):
        made = policy.allocate({}, BUDGET, rng, distinct=distinct)
        decisions.append(
            LoggedDecision(
                f"s{number}",
                number,
                {},
                made.allocation,
                made.propensities,
                {},
                allocation_propensity=made.allocation_propensity,
                planned=made.planned,
                distinct=made.distinct,
            )
        )
    return policy, decisions


@pytest.mark.parametrize("distinct", [False, True])
def test_a_policy_replays_its_own_decisions_with_the_probabilities_that_it_logged(distinct: bool) -> None:
    policy, decisions = logged(distinct)
    assert len({tuple(one.decided.items()) for one in decisions}) > 1
    assert whole({"own": Replayed(policy)}, decisions)["own"].weights == pytest.approx(1.0)


def test_the_budget_is_what_was_asked_for_however_deep_the_plan_goes() -> None:
    policy, decisions = logged(distinct=True)
    assert {one.budget for one in decisions} == {BUDGET}
    assert max(sum(one.planned.values()) for one in decisions) > BUDGET
    own = Replayed(policy)
    parts = own.mixture(decisions[0]).parts
    assert own.candidates(decisions[0], parts).sum(axis=1) == pytest.approx(BUDGET, abs=1)
    old = LoggedDecision("s", 0, {}, {"lexical": 9}, {}, {}, planned={"lexical": 3, "memory": 2})
    assert old.budget == 5
