"""Values of policies from logged decisions, each taken as a whole: on any page, whatever strategies share.

What a page earns depends on all that was drawn for it: strategies have items in common, and take clicks from each
other. Estimates that weigh one strategy at a time miss that. Here a decision is one action, the whole allocation, with
weight

    pi(allocation | x) / p(allocation | x),

and the reward is that of the whole turn. That assumes nothing about pages. The price is support: an allocation that
was never drawn tells nothing, so where two policies have little in common the answer is that one cannot tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.mixture import Mixture
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.serving import Allocator, Retrieval, Source
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.estimators import Feedback, weigh
from backchannel.agents.sums import Floats


class Replayed:
    """A policy on logged decisions: what it would draw from in each. Equal contexts are decided once.

    Args:
        policy: which.

    Attributes:
        policy: as given.
    """

    def __init__(self, policy: Allocator) -> None:
        self.policy: Final = policy
        self._mixtures: Final[dict[Any, Mixture]] = {}

    def mixture(self, decision: LoggedDecision) -> Mixture:
        """Return what the policy would draw from with the decision's budget, or as near to it as it can."""
        budget = min(max(sum(decision.decided.values()), self.policy.least), MAX_BUDGET)
        key = (
            budget,
            _frozen(decision.context),
            tuple((name, _frozen(one)) for name, one in decision.strategy_context.items()),
        )
        if key not in self._mixtures:
            self._mixtures[key] = self.policy.mixture(decision.context, budget, decision.strategy_context)
        return self._mixtures[key]

    def probabilities(self, decision: LoggedDecision) -> tuple[float, float]:
        """Return the probability that the policy decides the same, and that a random set of strategies is the same."""
        known = all(name in self.policy.strategies for name in decision.decided)
        if not known or not self.policy.least <= sum(decision.decided.values()) <= MAX_BUDGET:
            return 0.0, 0.0
        mixture = self.mixture(decision)
        counts = [decision.decided.get(name, 0) for name in self.policy.strategies]
        return mixture.probability(counts), mixture.sets.probability(counts)

    def retrieval(self, decision: LoggedDecision, ranks: Mapping[str, int]) -> float:
        """Return the probability that the policy brings an item; see `Mixture.retrieval`.

        Args:
            decision: where.
            ranks: strategy -> rank of the item in its list, from 1; strategies whose lists lack it are left out.
        """
        return Retrieval((Source(self.policy.strategies, self.mixture(decision)),)).probability(ranks)


def whole(policies: Mapping[str, Replayed], decisions: Sequence[LoggedDecision], since: int = 0) -> dict[str, Feedback]:
    """Weigh logged decisions as wholes for each of some policies, and for `uniform`, random sets of strategies.

    Args:
        policies: by name; `uniform` is what the first of them would do at random.
        decisions: logged. Those whose allocation is logged without its probability are left out.
        since: event time (ms) before which they are left out.

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


def _frozen(context: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(context.items())
