"""Mixtures of allocations, with the exact probabilities of what is drawn from them.

With probability 1 - floor one of the parts is drawn, by its share; otherwise a random set of strategies. As the parts
are known when the decision is made, so is the probability of each strategy and of the whole allocation.
"""

from bisect import bisect
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from itertools import accumulate, combinations
from math import comb
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.random import Generator
from numpy.typing import NDArray

from backchannel.schemas.events import MAX_PLACES

Counts: TypeAlias = NDArray[Any]
"""Candidates by strategy, (..., strategies), whole numbers."""

MANY: Final = 4096
"""Most sets of strategies that are enumerated; if there are more, a sample is drawn."""


def places_of(counts: Counts, ranks: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the place of an item: the number of candidates, of all strategies, that have a better rank than it has.

    That is what stands before it if lists are merged in turns, but for duplicates.

    Args:
        counts: allocations, (..., strategies).
        ranks: its rank in each strategy's list, from 1, (..., strategies); infinite where it is not in the list.

    Returns:
        0 to MAX_PLACES - 1, (...); -1 where the allocation does not bring it.
    """
    best = np.where(counts >= ranks, ranks, np.inf).min(axis=-1, keepdims=True)
    before = np.minimum(np.minimum(best - 1.0, counts).sum(axis=-1), MAX_PLACES - 1)
    return np.where(np.isfinite(best[..., 0]), before, -1).astype(np.intp)


class RandomSets:
    """Random sets of strategies: each size equally often, and of one size each set.

    Strategies with a minimum are always asked, and are in no set. The budget beyond the minima is dealt evenly to the
    set, up to its maxima; the rest is dealt to the strategies that are always asked.

    Args:
        minima: by strategy.
        maxima: by strategy; 0 for one that is never asked.
        budget: at least the minima together.

    Attributes:
        arguments: the arguments, to make an equal one of.
        propensities: the probability that each strategy is asked, (strategies,).
    """

    def __init__(self, minima: Sequence[int], maxima: Sequence[int], budget: int) -> None:
        self.arguments: Final = (tuple(map(int, minima)), tuple(map(int, maxima)), int(budget))
        self._minima: Final = list(minima)
        self._maxima: Final = list(maxima)
        self._left: Final = budget - sum(minima)
        places = range(len(self._minima))
        self._always: Final = [place for place in places if minima[place]]
        self._optional: Final = [place for place in places if maxima[place] and not minima[place]]
        # The empty set only where somebody is asked without it.
        self._sizes: Final = range(0 if self._always else 1, min(len(self._optional), self._left) + 1)
        # Of a partial, not of a bound method, which would refer back to its owner.
        self._dealt: Final = lru_cache(MANY)(
            partial(_deal, self._minima, self._maxima, self._left, tuple(self._always))
        )
        self.propensities: Final = np.minimum(self._minima, 1).astype(float)
        if self._optional:
            self.propensities[self._optional] = (self._sizes[0] + self._sizes[-1]) / 2 / len(self._optional)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """The expected share of each strategy in the candidates, (strategies,)."""
        counts, probabilities = self.every()
        return np.asarray(probabilities @ (counts / counts.sum(axis=1, keepdims=True)))

    def draw(self, rng: Generator) -> list[int]:
        """Draw a set, and deal the budget; return counts by strategy."""
        size = self._sizes[rng.integers(len(self._sizes))]
        return list(self._dealt(tuple(sorted(rng.permutation(self._optional)[:size].tolist()))))

    def probability(self, counts: Sequence[int]) -> float:
        """Return the probability that `counts` are drawn."""
        members = tuple([place for place in self._optional if counts[place]])
        if len(members) not in self._sizes or self._dealt(members) != tuple(counts):
            return 0.0
        return 1.0 / len(self._sizes) / comb(len(self._optional), len(members))

    def every(self) -> tuple[Counts, NDArray[np.float64]]:
        """Return all that may be drawn, (allocations, strategies), with its probabilities, (allocations,).

        Of more than MANY a sample, always the same: as many of them, equally probable.
        """
        if 2 ** len(self._optional) > MANY:
            rng = np.random.default_rng(0)
            return np.array([self.draw(rng) for _ in range(MANY)]), np.full(MANY, 1.0 / MANY)
        drawn, shares = [], []
        for size in self._sizes:
            for members in combinations(self._optional, size):
                drawn.append(self._dealt(members))
                shares.append(1.0 / len(self._sizes) / comb(len(self._optional), size))
        return np.array(drawn), np.array(shares)


def _deal(
    minima: Sequence[int], maxima: Sequence[int], left: int, always: tuple[int, ...], members: tuple[int, ...]
) -> tuple[int, ...]:
    """Deal what the minima leave of the budget to `members` and then to `always`; return counts by strategy."""
    counts = list(minima)
    for group in (members, always):
        while left and (room := [place for place in group if counts[place] < maxima[place]]):
            share, over = divmod(left, len(room))
            for order, place in enumerate(room):
                dealt = min(share + (order < over), maxima[place] - counts[place])
                counts[place] += dealt
                left -= dealt
    return tuple(counts)


class Allocations:
    """Distinct allocations that mixtures are made of, in the forms in which decisions look them up.

    Args:
        counts: allocations, (allocations, strategies).

    Attributes:
        counts: as given.
        rows: the same as lists.
        asked: 1 for the strategies that are asked, 0 for the others, (allocations, strategies).
    """

    def __init__(self, counts: Counts) -> None:
        self.counts: Final = counts
        self.rows: Final[list[list[int]]] = counts.tolist()
        self.asked: Final = (counts > 0).astype(float)
        self._places: Final = {tuple(row): place for place, row in enumerate(self.rows)}

    def place(self, counts: Sequence[int]) -> int:
        """Return the place of an allocation; -1 if it is not listed."""
        return self._places.get(tuple(counts), -1)


class Mixture(Struct, frozen=True):
    """What a decision is drawn from.

    Attributes:
        allocations: the allocations to choose from.
        chosen: the parts, as places among them, (parts,).
        shares: of the parts, (parts,); they add up to 1.
        floor: the probability of a random set instead.
        sets: those.
    """

    allocations: Allocations
    chosen: NDArray[np.intp]
    shares: NDArray[np.float64]
    floor: float
    sets: RandomSets

    @classmethod
    def of(cls, parts: Counts, shares: NDArray[np.float64], floor: float, sets: RandomSets) -> "Mixture":
        """Return a mixture of any allocations, (parts, strategies)."""
        counts, chosen = np.unique(parts, axis=0, return_inverse=True)
        return cls(Allocations(counts), chosen.ravel(), shares, floor, sets)

    @property
    def parts(self) -> Counts:
        """The parts' allocations, (parts, strategies)."""
        return self.allocations.counts[self.chosen]

    def draw(self, rng: Generator) -> list[int]:
        """Draw an allocation; return counts by strategy."""
        # A few numbers: plain Python is faster than numpy from here on.
        chance = rng.random()
        if chance < self.floor:
            return self.sets.draw(rng)
        part = bisect(list(accumulate(self.shares.tolist())), (chance - self.floor) / (1.0 - self.floor))
        return list(self.allocations.rows[self.chosen[min(part, len(self.chosen) - 1)]])

    def propensities(self) -> list[float]:
        """Return the probability that each strategy is asked, by strategy."""
        asked = self.shares.dot(self.allocations.asked.take(self.chosen, axis=0)).tolist()
        at_random = self.sets.propensities.tolist()
        kept, floor = 1.0 - self.floor, self.floor
        return [min(kept * drawn + floor * other, 1.0) for drawn, other in zip(asked, at_random, strict=True)]

    def probability(self, counts: Sequence[int]) -> float:
        """Return the probability that `counts` are drawn."""
        place = self.allocations.place(counts)
        parts = zip(self.chosen.tolist(), self.shares.tolist(), strict=True)
        drawn = float(sum(share for part, share in parts if part == place))
        return min((1.0 - self.floor) * drawn + self.floor * self.sets.probability(counts), 1.0)

    def places(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability that an item is among the candidates of at least one strategy, by place.

        Args:
            ranks: its rank in each strategy's list, from 1, (strategies,); infinite where it is not in the list.

        Returns:
            For each place from 0, see `places_of`, (MAX_PLACES,).
        """
        sets, probabilities = self.sets.every()
        places = places_of(np.concatenate((self.parts, sets)), ranks)
        drawn = np.concatenate(((1.0 - self.floor) * self.shares, self.floor * probabilities))
        return np.bincount(places + 1, drawn, MAX_PLACES + 1)[1:].astype(float)


class Mixtures(Struct, frozen=True):
    """What the decisions on many contexts are drawn from, for one budget: for judging policies on logged decisions.

    Attributes:
        parts: allocations, (contexts, parts, strategies).
        shares: of the parts, (contexts, parts) or (1, parts); those of a context add up to 1.
        floor: the probability of a random set instead.
        sets: the random sets.
    """

    parts: Counts
    shares: NDArray[np.float64]
    floor: float
    sets: RandomSets

    def probability(self, counts: Counts) -> NDArray[np.float64]:
        """Return the probability of one allocation in each context, (contexts,).

        Args:
            counts: the allocations, (contexts, strategies).
        """
        same = (self.parts == counts[:, np.newaxis]).all(axis=2)
        at_random = np.array([self.sets.probability(row) for row in counts.tolist()]) if self.floor else 0.0
        drawn = (same * self.shares).sum(axis=1)
        return np.asarray(np.minimum((1.0 - self.floor) * drawn + self.floor * at_random, 1.0))

    def several(self) -> NDArray[np.float64]:
        """Return the probability that more than one strategy is asked, (contexts,)."""
        counts, probabilities = self.sets.every()
        at_random = probabilities @ ((counts > 0).sum(axis=1) > 1)
        drawn = (((self.parts > 0).sum(axis=2) > 1) * self.shares).sum(axis=1)
        return np.asarray((1.0 - self.floor) * drawn + self.floor * at_random)
