"""Policies that choose by what is known, played in the simulated world."""

from collections.abc import Callable
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.horizon.learner import SIGNALS
from backchannel.agents.horizon.serving import LongTerm
from backchannel.agents.horizon.surrogate import PEOPLE, summarize
from backchannel.agents.horizon.visits import People, Times, paired
from backchannel.agents.sums import Floats, Integers
from backchannel.ops.lab.horizon.world import Strategies, Town

DAY_MS: Final = 86_400_000
EXPLORED: Final = 0.1
"""The share of visits that try something else: strategies that nothing is known about, if there are any, or all."""
MONTH: Final = 30
CLICKS: Final = "clicks only"
"""The policy that asks the strategy that is clicked most."""
ORACLE: Final = "oracle"
"""The policy that always asks the strategy whose visits are worth the most."""

Judged = Callable[[LongTerm], float | None]


def _in_full(one: LongTerm) -> float | None:
    if one.predicted is None or one.residual is None:
        return one.predicted
    return one.predicted + one.residual.value


JUDGES: Final[dict[str, Judged]] = {
    CLICKS: lambda one: one.success if one.visits >= PEOPLE else None,
    "wait for returns": lambda one: None if one.returned is None else one.returned.value,
    "surrogate": lambda one: one.predicted,
    "surrogate + residual": _in_full,
    "surrogate, corrected": lambda one: None if one.value is None else one.value.value,
}
"""Policy -> what a strategy is worth to it; None if it does not know."""


class Played(Struct, frozen=True):
    """What happened: visits per place and month, and clicks per visit in the first month."""

    visits: float
    first_clicks: float


def play(name: str, days: int, places: int, delay: int, seed: int, *, holds: bool) -> Played:
    """Play a policy.

    Args:
        name: one of `JUDGES`, or `ORACLE`.
        days: number of days.
        places: number of people at a time.
        delay: days within which a return must follow.
        seed: the seed of the world.
        holds: whether surrogacy holds.
    """
    drawn, lived, chosen = np.random.default_rng(seed).spawn(3)
    strategies = Strategies.drawn(days, drawn, holds=holds)
    town = Town(places, strategies, lived)
    log = _Log(delay)
    for day in range(days):
        present = strategies.present(day)
        visiting = town.visitors()
        if name == ORACLE:
            strategy = np.full(len(visiting), present[np.argmax(strategies.worth[present])])
        else:
            strategy = _choose(log.known(JUDGES[name], present, day), present, len(visiting), chosen)
        log.add(day, town.person(visiting), strategy, town.answer(visiting, strategy))
    clicked = log.signals[log.days < MONTH, 0]
    return Played(
        visits=len(log.days) / places / days * MONTH,
        first_clicks=float(clicked.mean()),
    )


def _choose(worth: Floats, present: Integers, visits: int, rng: Generator) -> Integers:
    """Return the strategy for each of today's visits.

    Args:
        worth: what each strategy is worth, (present,); NaN if that is unknown.
        present: the strategies that there are, (present,).
        visits: number of visits.
        rng: the source of randomness.
    """
    unknown = np.isnan(worth)
    others = present[unknown] if unknown.any() else present
    tried = rng.choice(others, visits)
    if unknown.all():
        return tried
    return np.where(rng.random(visits) < EXPLORED, tried, present[np.nanargmax(worth)])


class _Log:
    """All visits so far, and what they say.

    Args:
        delay: days within which a return must follow.
    """

    def __init__(self, delay: int) -> None:
        self._times: Final = Times(DAY_MS, delay * DAY_MS, 1000 * DAY_MS)
        self.days = np.zeros(0, dtype=np.int64)
        self._people = self.days
        self._strategies = self.days
        self.signals = np.zeros((0, len(SIGNALS)))

    def add(self, day: int, people: Integers, strategies: Integers, signals: Floats) -> None:
        """Add a day's visits; `signals` says whether each was clicked, interrupted and rephrased, (visits, 3)."""
        self.days = np.append(self.days, np.full(len(people), day))
        self._people = np.append(self._people, people)
        self._strategies = np.append(self._strategies, strategies)
        self.signals = np.vstack((self.signals, signals[:, [0, 0, 1, 2]]))  # success is a click here

    def known(self, judged: Judged, present: Integers, day: int) -> Floats:
        """Return what strategies are worth at the beginning of a day, (present,); NaN if that is unknown."""
        if not len(self.days):
            return np.full(len(present), np.nan)
        order = np.lexsort((self.days, self._people))
        total = np.column_stack((np.ones(len(order)), self.signals[order]))
        names, strategy = np.unique(self._strategies[order], return_inverse=True)
        visits = paired(
            People(self._people[order], self.days[order] * DAY_MS, total),
            [str(one) for one in names.tolist()],
            visit=np.arange(len(order)),
            strategy=strategy,
            own=total,
            times=self._times,
            at=day * DAY_MS,
        )
        found = summarize(visits, SIGNALS, self._times).strategies
        worth = [judged(found[str(one)]) if str(one) in found else None for one in present.tolist()]
        return np.array([np.nan if one is None else one for one in worth])
