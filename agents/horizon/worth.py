"""What a strategy's successes are worth beyond themselves, so that whoever chooses by success looks further, too.

In a visit that strategy k answers, success is s_k and a return follows with probability L_k, the published value. If a
return is worth c successes, such a visit is worth s_k + c L_k. So each of k's successes stands for

    m_k = (s_k + c L_k) / s_k,

by which whoever plans by success multiplies it. On average that is what a visit is worth; in a context where k succeeds
more often than usual, returns are taken to follow more often, too. Only ratios of the m_k matter.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from backchannel.agents.horizon.serving import LongTerm

MOST: Final = 8.0
"""The largest worth, relative to the mean; its inverse is the smallest."""
_RARE: Final = 0.1
"""The share of the mean success that is assumed of strategies with less."""


def worths(strategies: Mapping[str, LongTerm], weight: float) -> dict[str, float]:
    """Return strategy -> what its successes are worth, relative to the mean; empty if nothing is known.

    Strategies with few people are taken to be followed by as many returns as the others.

    Args:
        strategies: strategy -> what is known about it.
        weight: what a return is worth, in successes.
    """
    known = {name: one.value.value for name, one in strategies.items() if one.value is not None}
    visits = np.array([one.visits for one in strategies.values()])
    success = np.array([one.success for one in strategies.values()])
    if not known or not weight or not visits @ success:
        return {}
    shares = visits / visits.sum()
    usual = float(np.average(list(known.values()), weights=[strategies[name].visits for name in known]))
    success = np.maximum(success, _RARE * (shares @ success))
    worth = 1.0 + weight * np.array([known.get(name, usual) for name in strategies]) / success
    worth = np.clip(worth / (shares @ worth), 1.0 / MOST, MOST)
    return dict(zip(strategies, worth.round(4).tolist(), strict=True))
