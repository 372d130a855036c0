"""The contenders in the worlds of the shared page: the bandit, and the rivals that a user would try first.

The rivals choose among fixed allocations: everything to one strategy, an even split over two, and over all. *Best
fixed* is the allocation that `climb` finds from these on many people of the world's last quarter: it has nothing to
learn.
"""

from itertools import combinations
from typing import Final, Protocol

import numpy as np
from msgspec import structs
from numpy.random import Generator

from backchannel.agents.bandit.features import Encoder
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.pages import Pages
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, Integers, MemorySums, merge
from backchannel.ops.lab.shared_page.worlds import LOOKED, People, World

EPSILON: Final = 0.1
GAP_MS: Final = 60_000
"""Time between two people, ms."""


class Contender(Protocol):
    """Allocates, and learns from the clicks."""

    def allocate(self, people: People, on: int) -> Integers:
        """Return allocations, (turns, strategies), over the first `on` strategies, for people."""

    def learn(self, people: People, counts: Integers, ranks: Integers, positions: Integers, turn: int) -> None:
        """Learn from turns.

        Args:
            people: the people.
            counts: the allocations, (turns, strategies).
            ranks: rank of the wanted item in each list, 0 if missing, (turns, strategies).
            positions: position of the click, 0 without one, (turns,).
            turn: number of the first turn.
        """


def even(members: tuple[int, ...], world: World) -> Integers:
    """Return the even split of the budget over some strategies, (strategies,)."""
    counts = np.zeros(world.strategies, dtype=np.int64)
    for place, member in enumerate(members):
        counts[member] = world.budget // len(members) + (place < world.budget % len(members))
    return counts


def choices(world: World, on: int) -> Integers:
    """Return the allocations that the rivals choose from, (allocations, strategies)."""
    pairs = list(combinations(range(on), 2)) if on <= 8 else []
    return np.array([even(members, world) for members in [(s,) for s in range(on)] + pairs + [tuple(range(on))]])


def climb(start: Integers, world: World, kinds: Integers, ranks: Integers) -> tuple[float, Integers]:
    """Move candidates between strategies as long as that earns more; return the clicks per turn, and the allocation."""

    def earned(counts: Integers) -> float:
        positions = world.positions(np.tile(counts, (len(kinds), 1)), ranks)
        return float(np.where(positions, np.maximum(positions, 1.0) ** -LOOKED, 0.0).mean())

    best, counts, improved = earned(start), start, True
    while improved:
        improved = False
        for giver in np.flatnonzero(counts).tolist():
            for taker in range(len(counts)):
                moved = counts.copy()
                moved[giver] -= 1
                moved[taker] += 1
                if giver != taker and counts[giver] and (value := earned(moved)) > best + 1e-9:
                    best, counts, improved = value, moved, True
    return best, counts


class Fixed:
    """Always the same allocation."""

    def __init__(self, counts: Integers) -> None:
        self._counts = counts

    def allocate(self, people: People, on: int) -> Integers:  # noqa: ARG002 - Contender's
        """See `Contender`."""
        return np.tile(self._counts, (len(people.kinds), 1))

    def learn(self, people: People, counts: Integers, ranks: Integers, positions: Integers, turn: int) -> None:
        """See `Contender`."""


class Segments:
    """Epsilon-greedy on the mean clicks of each allocation among people of a kind."""

    def __init__(self, world: World, rng: Generator) -> None:
        self._arms, self._rng = choices(world, world.strategies), rng
        self._clicks, self._shown = np.zeros((2, world.kinds, len(self._arms)))

    def allocate(self, people: People, on: int) -> Integers:
        """See `Contender`."""
        able = ~self._arms[:, on:].any(axis=1)
        means = np.where(able, (self._clicks + 1.0) / (self._shown + 2.0), -1.0)
        kinds = people.kinds
        random = self._rng.choice(np.flatnonzero(able), len(kinds))
        return np.asarray(
            self._arms[np.where(self._rng.random(len(kinds)) < EPSILON, random, means.argmax(axis=1)[kinds])]
        )

    def learn(self, people: People, counts: Integers, ranks: Integers, positions: Integers, turn: int) -> None:  # noqa: ARG002
        """See `Contender`."""
        for kind, own, position in zip(people.kinds, counts, positions, strict=True):
            arms = (self._arms == own).all(axis=1)
            self._shown[kind] += arms
            self._clicks[kind] += arms * (position > 0)


class LinTS:
    """Linear Thompson sampling with one ridge regression for each allocation (Agrawal & Goyal, ICML 2013)."""

    def __init__(self, world: World, rng: Generator, width: float = 0.1) -> None:
        self._arms, self._rng, self._width = choices(world, world.strategies), rng, width
        dimension = Encoder(world.features).dimension
        self._gram = np.tile(np.eye(dimension), (len(self._arms), 1, 1))
        self._moment = np.zeros((len(self._arms), dimension))

    def allocate(self, people: People, on: int) -> Integers:
        """See `Contender`."""
        able = ~self._arms[:, on:].any(axis=1)
        covariance = np.linalg.inv(self._gram)
        theta = (covariance @ self._moment[..., np.newaxis])[..., 0]
        root = np.linalg.cholesky(covariance)
        normal = self._rng.standard_normal((len(people.kinds), *theta.shape))
        drawn = theta + self._width * np.einsum("aij,naj->nai", root, normal)
        values = np.where(able, np.einsum("nai,ni->na", drawn, people.vectors), -np.inf)
        return np.asarray(self._arms[values.argmax(axis=1)])

    def learn(self, people: People, counts: Integers, ranks: Integers, positions: Integers, turn: int) -> None:  # noqa: ARG002
        """See `Contender`."""
        for x, own, position in zip(people.vectors, counts, positions, strict=True):
            arm = (self._arms == own).all(axis=1)
            self._gram[arm] += np.outer(x, x)
            self._moment[arm] += x * (position > 0)


class Learned:
    """The bandit with its defaults, from the learner's own sums."""

    def __init__(self, world: World, rng: Generator) -> None:
        self._world, self._rng = world, rng
        self._names = tuple(f"s{place}" for place in range(world.strategies))
        config = BanditConfig(self._names, world.features)
        self._bandit = StrategyBandit(structs.replace(config, position_decay=LOOKED))
        self._sums: Delta = {}
        self._allocator: Allocator | None = None
        self._at = 0

    def allocate(self, people: People, on: int) -> Integers:
        """See `Contender`."""
        world = self._world
        if self._allocator is None:
            if world.first is not None:
                return np.tile(world.first, (len(people.kinds), 1))
            sets = [tuple(self._rng.permutation(on)[: self._rng.integers(1, on + 1)].tolist()) for _ in people.kinds]
            return np.array([even(members[: world.budget], world) for members in sets])
        up = self._names[:on]
        drawn = [
            self._allocator.allocate(own, world.budget, self._rng, available=up).allocation for own in people.features
        ]
        return np.array([[own.get(name, 0) for name in self._names] for own in drawn])

    def learn(self, people: People, counts: Integers, ranks: Integers, positions: Integers, turn: int) -> None:
        """See `Contender`."""
        clicked = np.flatnonzero(positions)
        results, strategies = np.nonzero((ranks[clicked] > 0) & (ranks[clicked] <= counts[clicked]))
        pages = Pages(
            times=GAP_MS * (turn + np.arange(len(counts))),
            queries=self._rng.integers(0, 2**32, len(counts)),
            contexts=people.vectors[:, np.newaxis],
            depths=counts,
            distinct=np.zeros(len(counts), dtype=bool),
            turns=clicked,
            positions=positions[clicked],
            gains=np.ones(len(clicked)),
            results=results,
            strategies=strategies,
            ranks=ranks[clicked][results, strategies],
        )
        self._sums = merge([self._sums, self._bandit.learn_pages(pages, self._names)])
        at = GAP_MS * (turn + len(counts))
        changed: dict[str, set[str]] = {self._bandit.table.name: set()}
        self._allocator = Allocator(live_rows(self._bandit.solve(MemorySums(self._sums), changed, at)))
