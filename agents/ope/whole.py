"""Values of policies from logged decisions, each taken as a whole: valid on any page, whatever strategies share.

A page's reward depends on everything drawn for it: strategies have items in common, and take clicks from each
other. Estimates that weight one strategy at a time miss that. Here a decision is one action, the whole allocation, with
weight

    pi(allocation | x) / p(allocation | x),

and the reward is the whole turn's. That assumes nothing about pages. The price is support: an allocation that
was never drawn says nothing, so if two policies have little in common, the log cannot tell which is better.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from backchannel.agents.bandit.decision import Retrieval, Source
from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.mixture import Counts, Mixture, RandomSets
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.estimators import Feedback, weigh
from backchannel.agents.sums import Floats


class Replayed:
    """A policy replayed on logged decisions: the mixture that it would draw from in each. Equal contexts are computed
    once.

    Args:
        policy: the policy.

    Attributes:
        policy: the policy.
    """

    def __init__(self, policy: Allocator) -> None:
        self.policy: Final = policy
        self._mixtures: Final[dict[Any, Mixture]] = {}
        self._sets: Final[dict[int, RandomSets]] = {}
        self._probabilities: Final[dict[Any, tuple[float, float]]] = {}

    def mixture(self, decision: LoggedDecision) -> Mixture:
        """Return the mixture that the policy would draw from with the decision's budget, or the nearest that it
        supports.
        """
        budget = min(max(decision.budget, self.policy.least), MAX_BUDGET)
        key = budget, _conditions(decision)
        if key not in self._mixtures:
            self._mixtures[key] = self.policy.mixture(
                decision.context, budget, decision.strategy_context, distinct=bool(decision.planned)
            )
        return self._mixtures[key]

    def candidates(self, decision: LoggedDecision, counts: Counts) -> Counts:
        """Return how many candidates allocations draw, (allocations, strategies), if the policy made them for a
        decision. Those of budgets of distinct candidates are proportions.
        """
        if not decision.planned:
            return counts
        return np.asarray(np.rint(counts * (decision.budget / counts.sum(axis=1, keepdims=True))).astype(np.int64))

    def probabilities(self, decision: LoggedDecision) -> tuple[float, float]:
        """Return the probabilities that the policy decides the same, and that a random set of strategies is the
        same.
        """
        decided = decision.decided
        key = _conditions(decision), decision.budget, tuple(decided.items())
        if key not in self._probabilities:
            self._probabilities[key] = self._computed(decision, decided)
        return self._probabilities[key]

    def _computed(self, decision: LoggedDecision, decided: Mapping[str, int]) -> tuple[float, float]:
        strategies = self.policy.strategies
        if not decided.keys() <= set(strategies) or not self.policy.least <= decision.budget <= MAX_BUDGET:
            return 0.0, 0.0
        counts = [decided.get(name, 0) for name in strategies]
        if decision.budget not in self._sets:
            self._sets[decision.budget] = self.policy.random_sets(decision.budget)
        return self.mixture(decision).probability(counts), self._sets[decision.budget].probability(counts)

    def places(self, decision: LoggedDecision, ranks: Mapping[str, int]) -> tuple[float, ...]:
        """Return the probabilities that the policy brings an item, by place; see `Retrieval.places`.

        Args:
            decision: where.
            ranks: strategy -> rank of the item in its list, from 1; strategies whose lists lack it are left out.
        """
        return Retrieval((Source(self.policy.strategies, self.mixture(decision)),)).places(ranks)


def whole(policies: Mapping[str, Replayed], decisions: Sequence[LoggedDecision], since: int = 0) -> dict[str, Feedback]:
    """Weight logged decisions as wholes, for each policy and for `uniform`, which draws random sets of strategies.

    Args:
        policies: policies by name; `uniform` is the first of them with random sets.
        decisions: logged decisions. Those that log no probability of the allocation are left out.
        since: event time (ms) before which decisions are left out.

    Returns:
        name -> weights and rewards, both (decisions, 1).

    Raises:
        SupportError: an allocation was logged with probability 0.
    """
    told = [one for one in decisions if one.allocation_propensity is not None and one.decided and one.ts >= since]
    logged = _column([one.allocation_propensity for one in told])
    rewards = _column([one.success for one in told])
    asked = np.ones(logged.shape, dtype=bool)
    found: dict[str, Feedback] = {}
    for name, policy in policies.items():
        own, random = zip(*map(policy.probabilities, told), strict=True) if told else ((), ())
        found[name] = Feedback(weigh(_column(own), logged, asked), rewards)
        if "uniform" not in found:
            found["uniform"] = Feedback(weigh(_column(random), logged, asked), rewards)
    return found


def _column(values: Sequence[Any]) -> Floats:
    return np.array(values, dtype=float).reshape(-1, 1)


def _conditions(decision: LoggedDecision) -> Any:
    """Return what a policy's decision depends on, besides the size of the budget."""
    known = decision.strategy_context
    by_strategy = tuple((name, _frozen(one)) for name, one in known.items()) if known else ()
    return bool(decision.planned), _frozen(decision.context), by_strategy


def _frozen(context: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(context.items())
