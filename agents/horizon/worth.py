"""What a strategy's successes are worth beyond themselves, so that whoever chooses by success looks further, too.

In a turn that strategy k answers, success is s_k, the rest of the session brings R_k more, discounted, and a return
follows with probability L_k, the published value. If a return is worth c successes, such a turn is worth
s_k + R_k + c L_k. So each of k's successes stands for

    m_k = (s_k + R_k + c L_k) / s_k,

by which whoever plans by success multiplies it. On average that is what a turn is worth; in a context where k succeeds
more often than usual, more is taken to follow, too. Only ratios of the m_k matter.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from backchannel.agents.horizon.serving import LongTerm, Rest
from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

MOST: Final = 8.0
"""The largest worth, relative to the mean; its inverse is the smallest."""
_RARE: Final = 0.1
"""The share of the mean success that is assumed of strategies with less."""
_NOTHING: Final[Mapping[str, Rest]] = {}


def worths(returns: Mapping[str, LongTerm], weight: float, rest: Mapping[str, Rest] = _NOTHING) -> dict[str, float]:
    """Return strategy -> what its successes are worth, relative to the mean; empty if nothing is known.

    Strategies with few people are taken to be followed by as much as the others.

    Args:
        returns: strategy -> what is known about returns.
        weight: what a return is worth, in successes.
        rest: strategy -> what is known about the rest of sessions.
    """
    common = {name: (one.visits, one.success) for name, one in returns.items()}
    common |= {name: (one.turns, one.success) for name, one in rest.items() if one.turns}
    if not common:
        return {}
    mass, success = np.array(list(common.values())).T
    later = weight * _filled({name: one.value for name, one in returns.items()}, common, mass)
    later += _filled({name: one.value for name, one in rest.items()}, common, mass)
    if not later.any() or not mass @ success:
        return {}
    shares = mass / mass.sum()
    success = np.maximum(success, _RARE * (shares @ success))
    worth = 1.0 + np.maximum(later, 0.0) / success
    worth = np.clip(worth / (shares @ worth), 1.0 / MOST, MOST)
    return dict(zip(common, worth.round(4).tolist(), strict=True))


def _filled(values: Mapping[str, Estimate | None], names: Mapping[str, object], mass: Floats) -> Floats:
    """Return the values of `names`, (names,), with the mean by `mass` where one is unknown; 0 if all are."""
    found = np.array([np.nan if (one := values.get(name)) is None else one.value for name in names])
    known = ~np.isnan(found)
    if not mass[known].sum():
        return np.zeros(len(found))
    return np.where(known, found, np.average(found[known], weights=mass[known]))
