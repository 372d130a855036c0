"""Simulated worlds in which strategies share a page, each named after what a click does not say there.

A person wants one of ITEMS items. Strategy s has it with a probability that depends on the person's kind and the
time, at a geometric rank. The strategies' candidates make one page, each item once; the person examines position p with
probability p^-LOOKED, and clicks the wanted item if they see it.

=============  ==========================================================================================
twins          the first two of three strategies bring the same items; each alone is better than the third
depth          two equal strategies; until a policy is served, the first is asked for 8 of 10 candidates
position       three strategies, the weakest always shown on top
newcomer       budget 1: after half of the turns a strategy with 12% joins two with 5%
kinds          four kinds of people, by two features; which strategy is good follows from their product (declared)
three          three strategies, of which one is a little better
thirty         thirty strategies, of which three are good
rare           eight strategies with click rates of about 0.5%
drift          which of four strategies is good changes, gradually, over the whole run
night          one strategy is good by day, another by night; the context is the hour, as a cyclic number
cauchy         which strategy is good follows from the sign of one of two features with Cauchy distributions
=============  ==========================================================================================
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.bandit.features import Cross, Cyclic, Encoder, Feature, Numeric
from backchannel.agents.sums import Floats, Integers

DECAY: Final = 0.7
"""Ratio of the probabilities of successive ranks."""
LOOKED: Final = 0.7
"""Exponent of examination."""
DEPTH: Final = 20
"""Number of ranks of a list that may hold the wanted item."""
_TIE: Final = 1e-9


class People(Struct, frozen=True):
    """People, by turn.

    Attributes:
        kinds: their kinds, (turns,).
        features: the features of their queries.
        vectors: those, encoded, (turns, d).
    """

    kinds: Integers
    features: list[dict[str, float]]
    vectors: Floats

    def part(self, own: slice) -> "People":
        """Return some of them."""
        return People(self.kinds[own], self.features[own], self.vectors[own])


def _signs(kinds: Integers, rng: Generator) -> dict[str, Floats]:  # noqa: ARG001 - as others need
    return {"one": np.where(kinds % 2, 1.0, -1.0), "other": np.where(kinds // 2, 1.0, -1.0)}


class World(Struct, frozen=True):
    """A world.

    Attributes:
        name: see the module.
        budget: number of candidates to draw.
        chances: kinds of people, (turns,), and times, 0 to 1, (turns,) -> the probability that each strategy has the
            wanted item, (turns, strategies).
        strategies: the number of strategies.
        same: groups of strategies that have the item at the same rank, or not at all.
        order: the order of strategies on the page, list by list; None to merge lists in proportion to their counts.
        first: the allocation until a policy is served, (strategies,); None for random sets.
        joins: share of the turns after which the last strategy becomes available.
        kinds: the number of kinds of people.
        features: how queries' features are encoded.
        describe: kinds of people, (turns,), and a random generator -> feature -> its values, (turns,).
    """

    name: str
    budget: int
    chances: Callable[[Integers, Floats], Floats]
    strategies: int
    same: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] | None = None
    first: tuple[int, ...] | None = None
    joins: float = 0.0
    kinds: int = 4
    features: tuple[Feature, ...] = (Numeric("one"), Numeric("other"), Cross("one", "other"))
    describe: Callable[[Integers, Generator], dict[str, Floats]] = _signs

    def people(self, turns: int, rng: Generator) -> People:
        """Return people of all kinds, which are equally frequent."""
        kinds = rng.integers(0, self.kinds, turns)
        described = self.describe(kinds, rng)
        rows = zip(*(values.tolist() for values in described.values()), strict=True)
        features = [dict(zip(described, row, strict=True)) for row in rows]
        return People(kinds, features, Encoder(self.features).encode_all(features))

    def ranks(self, kinds: Integers, times: Floats, rng: Generator) -> Integers:
        """Return the rank of each person's wanted item in every list, 0 if it is missing, (turns, strategies)."""
        luck, ranks = rng.random((2, len(kinds), self.strategies))
        for group in self.same:
            luck[:, group], ranks[:, group] = luck[:, group[:1]], ranks[:, group[:1]]
        depths = 1 + np.floor(np.log(ranks) / np.log(DECAY)).astype(np.int64)
        return np.where((luck < self.chances(kinds, times)) & (depths <= DEPTH), depths, 0)

    def positions(self, counts: Integers, ranks: Integers) -> Integers:
        """Return the position of the wanted item on each person's page, 0 if it is missing, (turns,).

        Args:
            counts: the allocations, (turns, strategies).
            ranks: see `ranks`.
        """
        has = (ranks > 0) & (ranks <= counts)
        if self.order is None:
            # A candidate of rank r comes at the point (r - 1/2) / count; ties are in the order of strategies.
            order = _TIE * np.arange(self.strategies)
            at = np.where(has, (ranks - 0.5) / np.maximum(counts, 1) + order, np.inf).min(axis=1)
            finite = np.where(np.isfinite(at), at, 0.0)
            before = np.ceil((finite[:, np.newaxis] - order) * counts - 0.5 - _TIE / 10).clip(0).sum(axis=1)
        else:
            above = np.zeros(counts.shape, dtype=np.int64)
            for place, strategy in enumerate(self.order):
                above[:, strategy] = counts[:, list(self.order[:place])].sum(axis=1)
            before = np.where(has, above + ranks - 1, 10**6).min(axis=1)
        return np.where(has.any(axis=1), 1 + before.astype(np.int64), 0)


def _steady(*chances: float) -> Callable[[Integers, Floats], Floats]:
    return lambda kinds, times: np.tile(chances, (len(kinds), 1)) + 0.0 * times[:, np.newaxis]


def _kinds(kinds: Integers, times: Floats) -> Floats:
    odd = (kinds % 2) ^ (kinds // 2)
    return np.stack((0.15 + 0.5 * odd, 0.65 - 0.5 * odd, 0.3 + 0.0 * times), axis=1)


def _drifting(kinds: Integers, times: Floats) -> Floats:
    phases = np.arange(4) / 4.0 + 0.0 * kinds[:, np.newaxis]
    return np.asarray(0.3 + 0.2 * np.cos(2.0 * np.pi * (0.75 * times[:, np.newaxis] - phases)))


def _hour(kinds: Integers, rng: Generator) -> dict[str, Floats]:  # noqa: ARG001 - as others need
    return {"hour": kinds.astype(float)}


def _by_day(kinds: Integers, times: Floats) -> Floats:
    day = (kinds >= 8) & (kinds < 20)
    return np.stack((0.15 + 0.5 * day, 0.65 - 0.5 * day, 0.3 + 0.0 * times), axis=1)


def _heavy(kinds: Integers, rng: Generator) -> dict[str, Floats]:
    one, other = rng.standard_cauchy((2, len(kinds)))
    return {"one": np.where(kinds % 2, 1.0, -1.0) * np.abs(one), "other": other}


def _by_sign(kinds: Integers, times: Floats) -> Floats:
    positive = kinds % 2
    return np.stack((0.15 + 0.5 * positive, 0.65 - 0.5 * positive, 0.3 + 0.0 * times), axis=1)


WORLDS: Final = {
    world.name: world
    for world in (
        World("twins", 10, _steady(0.5, 0.5, 0.4), 3, same=((0, 1),)),
        World("depth", 10, _steady(0.4, 0.4), 2, first=(8, 2)),
        World("position", 9, _steady(0.15, 0.45, 0.3), 3, order=(0, 1, 2)),
        World("newcomer", 1, _steady(0.05, 0.05, 0.12), 3, joins=0.5),
        World("kinds", 6, _kinds, 3),
        World("three", 6, _steady(0.4, 0.35, 0.3), 3),
        World("thirty", 10, _steady(*(0.4 if place in (7, 13, 22) else 0.1 for place in range(30))), 30),
        World("rare", 8, _steady(*(0.01, 0.01, 0.03, 0.01, 0.01, 0.01, 0.02, 0.01)), 8),
        World("drift", 6, _drifting, 4),
        World("night", 6, _by_day, 3, kinds=24, features=(Cyclic("hour"),), describe=_hour),
        World("cauchy", 6, _by_sign, 3, features=(Numeric("one"), Numeric("other")), describe=_heavy),
    )
}
