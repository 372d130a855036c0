"""Simulated pages that strategies share, with known true values, to judge off-policy estimates on.

A person wants one item. Strategy s has it with probability q_s, at a geometric rank. Its candidates and those of the
others make one page, in turns, each item once. The person examines position p with probability 1/p^0.5 and clicks the
wanted item if they see it. So strategies take clicks from each other in two ways: they bring the same item, and push
each other's items down the page. Worlds differ in what strategies have in common:

    independent   nothing: each has the item or not, independently of the others
    merged        half of the time, all strategies that have it take it from a common index, at the same rank
    twins         the best two are the same
    folded        the same, but people examine the first three positions, and those below with probability 1/4

There are few allocations, drawn with known probabilities, and a fixed number of queries, drawn uniformly. So the true
value of each allocation is known.
"""

from typing import Final, Literal, Self, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.bandit.mixture import places_of
from backchannel.agents.ope.estimators import Feedback, weigh
from backchannel.agents.ope.places import Items
from backchannel.agents.sums import Booleans, Floats, Integers

Kind: TypeAlias = Literal["independent", "merged", "twins", "folded"]

STRATEGIES: Final = 4
BUDGET: Final = 8
ALLOCATIONS: Final = 24
_QUERIES: Final = 40_000
_DECAY: Final = 0.8  # ratio of the probabilities of successive ranks
_LOOKED: Final = 0.5  # exponent of examination


class PageWorld(Struct, frozen=True):
    """The true results of allocations.

    Attributes:
        allocations: candidates by strategy, (allocations, strategies).
        ranks: rank of each query's wanted item in each strategy, from 1; infinite if missing, (queries, strategies).
        clicked: whether the item is clicked, (queries, allocations).
    """

    allocations: Floats
    ranks: Floats
    clicked: Booleans

    @property
    def clicks(self) -> Floats:
        """The probability of a click, (allocations,)."""
        return np.asarray(self.clicked.mean(axis=0))

    @classmethod
    def of(cls, kind: Kind, rate: float, rng: Generator) -> Self:
        """Return a world.

        Args:
            kind: the overlap of strategies; see the module.
            rate: the best strategy's q.
            rng: the random generator.
        """
        levels = rate * np.linspace(1.0, 0.4, STRATEGIES)
        cuts = np.sort(rng.integers(0, BUDGET + 1, (4 * ALLOCATIONS, STRATEGIES - 1)), axis=1)
        padded = np.column_stack((np.zeros(len(cuts)), cuts, np.full(len(cuts), BUDGET)))
        allocations = np.unique(np.diff(padded), axis=0)
        allocations = allocations[rng.permutation(len(allocations))[:ALLOCATIONS]]
        ranks = rng.geometric(1.0 - _DECAY, (_QUERIES, STRATEGIES)).astype(float)
        has = rng.random((_QUERIES, STRATEGIES)) < levels
        if kind == "merged":
            common = rng.random(_QUERIES) < 0.5
            ranks[common] = ranks[common, :1]
        if kind in {"twins", "folded"}:
            ranks[:, 1], has[:, 1] = ranks[:, 0], has[:, 0]
        ranks[~has] = np.inf
        looked = rng.random(_QUERIES)
        clicked = np.zeros((_QUERIES, len(allocations)), dtype=bool)
        for place, counts in enumerate(allocations):
            brought = ranks <= counts
            # Lists are merged in turns: by rank; among equal ranks, the first strategy's candidate.
            best = np.where(brought, ranks, np.inf).min(axis=1)
            before = np.minimum(np.maximum(best - 1.0, 0.0)[:, np.newaxis], counts).sum(axis=1)
            position = 1.0 + np.where(np.isfinite(before), before, 0.0)
            examined = np.where(position <= 3.0, 1.0, 0.25) if kind == "folded" else position**-_LOOKED
            clicked[:, place] = np.isfinite(best) & (looked < examined)
        return cls(allocations, ranks, clicked)

    def log(self, drawn: Floats, turns: int, rng: Generator) -> "PageLog":
        """Return a log of `turns` pages; `drawn` holds the probability of each allocation, (allocations,)."""
        actions = rng.choice(len(drawn), turns, p=drawn)
        queries = rng.integers(0, len(self.ranks), turns)
        return PageLog(self.allocations, drawn, actions, self.ranks[queries], self.clicked[queries, actions])


class PageLog(Struct, frozen=True):
    """Logged pages.

    Attributes:
        allocations: the allocations, (allocations, strategies).
        drawn: the probability of each allocation, (allocations,).
        actions: the index of each page's allocation, (turns,).
        ranks: rank of the wanted item in each strategy; infinite if missing, (turns, strategies).
        clicked: whether the item was clicked, (turns,).
    """

    allocations: Floats
    drawn: Floats
    actions: Integers
    ranks: Floats
    clicked: Booleans

    @property
    def clicks(self) -> Floats:
        """The clicks of each page, 0 or 1, (turns,)."""
        return self.clicked.astype(float)

    @property
    def credited(self) -> Floats:
        """Whether each strategy brought the clicked item, 0 or 1, (turns, strategies)."""
        return ((self.ranks <= self.allocations[self.actions]) & self.clicked[:, np.newaxis]).astype(float)

    def items(self) -> Items:
        """Return the clicked items, whose ranks in all strategies are known; see `places`."""
        turns = np.flatnonzero(self.clicked)
        places = self._places(turns)
        return Items(
            turns, np.ones(len(turns)), _chances(places, self.drawn), places[np.arange(len(turns)), self.actions[turns]]
        )

    def brought(self, target: Floats) -> Floats:
        """Return the probability that a policy brings each clicked item at each place, (items, BUDGET)."""
        return _chances(self._places(np.flatnonzero(self.clicked)), target)

    def _places(self, turns: Integers) -> Integers:
        """Return the place of each wanted item under each allocation, (turns, allocations); -1 where it is missing."""
        return places_of(self.allocations, self.ranks[turns, np.newaxis])

    def whole(self, target: Floats) -> Feedback:
        """Weight whole allocations for a policy with the probabilities `target`, (allocations,)."""
        return Feedback((target / self.drawn)[self.actions][:, np.newaxis], self.clicks[:, np.newaxis])

    def by_strategy(self, target: Floats) -> Feedback:
        """Weight each strategy by itself for a policy, as if strategies did not share pages; see `whole`."""
        asked = self.allocations > 0
        worth = 1.0 - _DECAY**self.allocations
        extents = np.broadcast_to(target @ worth, (len(self.actions), STRATEGIES))
        propensities = np.broadcast_to(self.drawn @ asked, extents.shape)
        drawn = worth[self.actions]
        rewards = np.divide(self.credited, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        return Feedback(weigh(extents, propensities, asked[self.actions]), rewards, float((target @ worth).sum()))


def _chances(places: Integers, drawn: Floats) -> Floats:
    """Return the probability of each place, (items, BUDGET), by those of the allocations, (allocations,)."""
    return np.stack([(places == place) @ drawn for place in range(BUDGET)], axis=1)


def policies(largest: float, rng: Generator) -> tuple[Floats, Floats]:
    """Return the allocation probabilities of two policies: a logged one, and one that leaps from it.

    Args:
        largest: the largest importance weight of the second policy, to within a tenth.
        rng: the random generator.
    """
    while True:
        logged = rng.dirichlet(np.full(ALLOCATIONS, 2.0)) + 0.2 / ALLOCATIONS
        logged /= logged.sum()
        leap = logged * np.exp(rng.uniform(0.1, 6.0) * rng.standard_normal(ALLOCATIONS))
        leap /= leap.sum()
        if abs((leap / logged).max() / largest - 1.0) < 0.1:
            return logged, leap
