"""What a policy surely keeps of what the served one earns: a lower bound from logged decisions.

Whoever clicked an item would have clicked it on another page that has it. So of each logged reward a policy keeps at
least

    min(1, P(it brings the item) / P(the served policy brings it)),

whatever else it brings. A strategy that brought an item among its first a candidates has it among its first c with
probability 1 if c >= a, and F(c) / F(a) otherwise, where F is its rank curve. Turns are weighted as if the served
policy had made all decisions, as in `whole`.

The bound needs no support for the policy, so it tells of leaps. It says nothing about gains. It assumes that people
click an item wherever it stands, and knows only the strategies that were seen to bring it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.estimators import Terms, diagnose
from backchannel.agents.ope.whole import Replayed, whole
from backchannel.agents.sums import Floats

_REWARDED: Final = 500  # rewarded decisions looked at
_EFFECTIVE: Final = 30.0  # effective sample size for the served policy below which nothing is said
_TINY: Final = 1e-12


def kept(own: Replayed, served: Replayed, decisions: Sequence[LoggedDecision]) -> Terms:
    """Return terms, one per rewarded decision, whose ratio estimates the least share of rewards that a policy keeps.

    There are none if the log says too little about the served policy.

    Args:
        own: the policy.
        served: the served policy.
        decisions: logged decisions.
    """
    told = [one for one in decisions if one.allocation_propensity is not None and one.decided]
    log = whole({"live": served}, told)["live"]
    if diagnose(log).effective < _EFFECTIVE:
        return Terms(np.zeros(0), 0.0, 1.0, np.zeros(0))
    weights = log.weights[:, 0] * log.rewards[:, 0]
    rows = np.flatnonzero(weights)[:_REWARDED].tolist()
    curves = dict(zip(served.policy.strategies, served.policy.worth(MAX_BUDGET), strict=True))
    shares = [_brought(own, told[row], curves) / max(_brought(served, told[row], curves), _TINY) for row in rows]
    return Terms(weights[rows] * np.minimum(shares, 1.0), 0.0, float(weights.max(initial=0.0)), weights[rows])


def _brought(policy: Replayed, decision: LoggedDecision, curves: dict[str, Floats]) -> float:
    """Return the probability that a policy brings an item that was rewarded in a turn, by who brought it there."""
    mixture, strategies = policy.mixture(decision), policy.policy.strategies
    sets, chances = mixture.sets.every()
    allocations = policy.candidates(decision, np.concatenate((mixture.parts, sets)))
    shares = np.concatenate(((1.0 - mixture.floor) * mixture.shares, mixture.floor * chances))
    found = np.zeros(len(allocations))
    for name in decision.rewards.keys() & curves.keys() & set(strategies):
        curve, counts = curves[name], allocations[:, strategies.index(name)]
        drawn = max(float(curve[min(decision.allocation[name], MAX_BUDGET)]), _TINY)
        found = np.maximum(found, np.minimum(curve[counts] / drawn, 1.0))
    return float(shares @ found)
