"""What a strategy's successes are worth beyond themselves, so that whoever chooses by success looks further, too.

In a turn that strategy k answers, success is s_k, the rest of the session brings R_k more, discounted, and a return
follows with probability L_k, the published value; and each success reaches a goal with probability q_k. If a return is
worth c successes and a goal g, such a turn is worth s_k + R_k + c L_k + g q_k s_k. So each of k's successes stands for

    m_k = (s_k + R_k + c L_k) / s_k + g q_k,

by which whoever plans by success multiplies it. On average that is what a turn is worth; in a context where k succeeds
more often than usual, more is taken to follow, too. Only ratios of the m_k matter.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from backchannel.agents.horizon.serving import LongTerm, Rest
from backchannel.agents.sums import Floats

MOST: Final = 8.0
"""The largest worth, relative to the mean; its inverse is the smallest."""
_RARE: Final = 0.1
"""The share of the mean success that is assumed of strategies with less."""
_NOTHING: Final[Mapping[str, Rest]] = {}
_NO_GOALS: Final[Mapping[str, tuple[float, float]]] = {}


def worths(
    returns: Mapping[str, LongTerm],
    weight: float,
    rest: Mapping[str, Rest] = _NOTHING,
    goals: Mapping[str, tuple[float, float]] = _NO_GOALS,
    goal: float = 0.0,
) -> dict[str, float]:
    """Return strategy -> what its successes are worth, relative to the mean; empty if nothing is known.

    Strategies with few people or no successes are taken to be followed by as much as the others.

    Args:
        returns: strategy -> what is known about returns.
        weight: what a return is worth, in successes.
        rest: strategy -> what is known about the rest of sessions.
        goals: strategy -> its successes, and the share of them with which a goal is reached.
        goal: what a goal reached is worth, in successes.
    """
    beyond = _later(returns, weight, rest)
    known = {name: (successes, None) for name, (successes, _) in goals.items() if goal} | beyond
    mass = np.array([one for one, _ in known.values()])
    if not mass.sum():
        return {}
    worth = 1.0 + _filled([one for _, one in known.values()], mass)
    reached = [goals[name][1] if name in goals else None for name in known]
    worth += goal * _filled(reached, mass)
    if (worth == 1.0).all():
        return {}
    worth = np.clip(worth / np.average(worth, weights=mass), 1.0 / MOST, MOST)
    return dict(zip(known, worth.round(4).tolist(), strict=True))


def _later(
    returns: Mapping[str, LongTerm], weight: float, rest: Mapping[str, Rest]
) -> dict[str, tuple[float, float | None]]:
    """Return strategy -> its visits or turns, and what these bring later for each success; empty if that is unknown."""
    common = {name: (one.visits, one.success) for name, one in returns.items()}
    common |= {name: (one.turns, one.success) for name, one in rest.items() if one.turns}
    if not common:
        return {}
    mass, success = np.array(list(common.values())).T
    values = weight * _filled([_value(returns.get(name)) for name in common], mass)
    values += _filled([_value(rest.get(name)) for name in common], mass)
    if not values.any() or not mass @ success:
        return {}
    success = np.maximum(success, _RARE * (mass @ success) / mass.sum())
    later = np.maximum(values, 0.0) / success
    return dict(zip(common, zip(mass.tolist(), later.tolist(), strict=True), strict=True))


def _value(known: LongTerm | Rest | None) -> float | None:
    return None if known is None or known.value is None else known.value.value


def _filled(values: Sequence[float | None], mass: Floats) -> Floats:
    """Return values, (n,), with the mean by `mass` where one is unknown; 0 if all are."""
    found = np.array([np.nan if one is None else one for one in values], dtype=float)
    known = ~np.isnan(found)
    if not mass[known].sum():
        return np.zeros(len(found))
    return np.where(known, found, np.average(found[known], weights=mass[known]))
