"""The bandit itself, played in the simulated world: what a return is worth to it decides whom it asks."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.decision import Decision
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.section import with_worth
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.horizon.learner import HorizonConfig, Returns
from backchannel.agents.horizon.serving import Horizon
from backchannel.agents.horizon.worth import worths
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, Floats, Integers, MemorySums, merge
from backchannel.ops.lab.horizon.policies import DAY_MS
from backchannel.ops.lab.horizon.world import Strategies, Town
from backchannel.schemas.events import BargeIn, Click, Impression, Query, Result, Signal
from backchannel.schemas.turn import Turn

START: Final = 20_000 * DAY_MS
"""Event time at which the first day begins, ms."""
BEST: Final = "oracle"
"""The policy that always asks the strategy whose visits are worth the most."""


class Days(Struct, frozen=True):
    """What happened on each day.

    Attributes:
        visits: visits per place, (days,).
        clicks: clicks per visit, (days,).
    """

    visits: Floats
    clicks: Floats


def play(policy: str | float, days: int, places: int, delay: int, seed: int, *, holds: bool) -> Days:
    """Play the bandit, which learns and publishes once a day.

    Args:
        policy: what a return is worth to the bandit, in successes; or BEST, which asks the strategy whose visits are
            worth the most.
        days: number of days.
        places: number of people at a time.
        delay: days within which a return must follow.
        seed: the seed of the world.
        holds: whether surrogacy holds.
    """
    drawn, lived, chosen = np.random.default_rng(seed).spawn(3)
    strategies = Strategies.drawn(days, drawn, holds=holds)
    town = Town(places, strategies, lived)
    learning = _Learning(len(strategies.hidden), delay, 0.0 if isinstance(policy, str) else policy)
    visits, clicks = np.zeros(days), np.zeros(days)
    for day in range(days):
        present, visiting = strategies.present(day), town.visitors()
        decisions: list[Decision] = []
        if policy == BEST:
            asked = np.full(len(visiting), present[np.argmax(strategies.worth[present])])
        else:
            allocator, names = learning.solve(START + day * DAY_MS), [str(one) for one in present.tolist()]
            decisions = [allocator.allocate({}, 1, chosen, available=names) for _ in visiting]
            asked = np.array([int(next(iter(one.allocation))) for one in decisions], dtype=np.int64)
        people, signals = town.person(visiting), town.answer(visiting, asked)
        visits[day], clicks[day] = len(visiting) / places, signals[:, 0].mean()
        if decisions:
            learning.add(day, people, decisions, signals)
    return Days(visits, clicks)


class _Learning:
    """The learners of the bandit and of returns, and their sums.

    Args:
        strategies: the number of strategies that there will ever be.
        delay: days within which a return must follow.
        weight: what a return is worth, in successes.
    """

    def __init__(self, strategies: int, delay: int, weight: float) -> None:
        names = tuple(str(one) for one in range(strategies))
        self._bandit: Final = StrategyBandit(BanditConfig(strategies=names, features=()))
        salted = HorizonConfig(salt="simulated people only", least_days=0.9, days=delay + 0.1, half_life_days=1000.0)
        self._returns: Final = Returns(salted, names)
        self._judge: Final = Judge(RewardConfig())
        self._weight: Final = weight
        self._known: Delta = {}

    def add(self, day: int, people: Integers, decisions: list[Decision], signals: Floats) -> None:
        """Learn a day's visits; `signals` says whether each was clicked, interrupted and rephrased, (visits, 3)."""
        turns = list(_turns(START + day * DAY_MS, people.tolist(), decisions, signals.astype(bool).tolist()))
        outcomes = self._judge.judge(columns_of(turns))
        self._known = merge([self._known, self._bandit.learn(outcomes), self._returns.learn(outcomes)])

    def solve(self, at: int) -> Allocator:
        """Return what the bandit would publish at an event time, ms."""
        sums = MemorySums(self._known)
        section = self._bandit.solve(sums, {self._bandit.table.name: ()}, at)
        known = {}
        if self._weight and self._known:
            report = Horizon(live_rows(self._returns.solve(sums, {self._returns.table.name: ()}, at))).report
            known = report.strategies if report is not None else {}
        return Allocator(live_rows(with_worth(section, worths(known, self._weight))))


def _turns(at: int, people: list[int], decisions: list[Decision], signals: list[list[bool]]) -> Iterator[Turn]:
    for place, (person, decision, (clicked, stopped, again)) in enumerate(zip(people, decisions, signals, strict=True)):
        here: dict[str, Any] = {"session_id": f"{at}.{place}", "query_id": str(place)}
        query = Query(event_id="q", ts=at + place, text="play some jazz", user_id=f"u{person}", **here)
        (name,) = decision.allocation
        signals_of: list[Signal] = [
            Impression(
                event_id="i",
                ts=query.ts + 1,
                results=(Result("e", 1, (name,)),),
                allocation=decision.allocation,
                propensities=decision.propensities,
                allocation_propensity=decision.allocation_propensity,
                **here,
            )
        ]
        if clicked:
            signals_of.append(Click(event_id="c", ts=query.ts + 2, entity_id="e", **here))
        if stopped:
            signals_of.append(BargeIn(event_id="b", ts=query.ts + 3, **here))
        after = None
        if again:
            after = Query(
                event_id="n", ts=query.ts + 10_000, text="play jazz", session_id=query.session_id, query_id="n"
            )
        yield Turn.of(query, signals_of, after)
