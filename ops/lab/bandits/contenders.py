"""The bandits that are compared in the simulated worlds: Backchannel's, and the textbook ones."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.random import Generator

from backchannel.agents.bandit.learner import BanditConfig, by_group
from backchannel.agents.bandit.posterior import Bank, Buckets
from backchannel.agents.bandit.serving import DRAWS
from backchannel.agents.sums import Matrix
from backchannel.ops.lab.worlds.contexts import Choices, Contender, ContextualWorld

ROUND_MS: Final = 14_400
"""A round's event time: 250 rounds fill one of the default time buckets."""


class Uniform:
    """Chooses at random."""

    def __init__(self, world: ContextualWorld) -> None:
        self._strategies = world.strategies

    def learn(self, *_rounds: object) -> None:
        """Nothing."""

    def refresh(self, _now: int) -> None:
        """Nothing."""

    def choose(self, contexts: Matrix, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        return rng.integers(self._strategies, size=len(contexts))


class Linear:
    """Per strategy a ridge regression; by default linear Thompson sampling.

    Args:
        world: to choose in.
        explore: utilities and deviations, both (rounds, strategies), and the rounds learned from -> choices.
        window: rounds after which one counts 1/e.
    """

    def __init__(
        self,
        world: ContextualWorld,
        explore: Callable[[Matrix, Matrix, float, Generator], Choices],
        window: float = np.inf,
    ) -> None:
        self._explore = explore
        self._window = window
        self._sums = np.zeros((world.strategies, world.dimension + 1, world.dimension + 1))

    def learn(self, contexts: Matrix, chosen: Choices, rewards: Matrix, _first_round: int) -> None:
        """See `Contender.learn`."""
        self._sums *= np.exp(-len(contexts) / self._window)
        self._sums += sums_of(contexts, chosen, rewards, len(self._sums))

    def refresh(self, _now: int) -> None:
        """See `Contender.refresh`."""
        gram, moment = self._sums[:, :-1, :-1], self._sums[:, :-1, -1:]
        self._whitener = np.linalg.inv(np.linalg.cholesky(gram + np.eye(gram.shape[-1])))
        self._theta = (self._whitener.swapaxes(-1, -2) @ (self._whitener @ moment))[..., 0]

    def choose(self, contexts: Matrix, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        return self._explore(
            contexts @ self._theta.T, deviations(contexts, self._whitener), self._sums[:, 0, 0].sum(), rng
        )


class Backchannel:
    """The strategy bandit's own posterior, time buckets and exploration, as they are by default."""

    def __init__(self, world: ContextualWorld) -> None:
        config = BanditConfig()
        bank = Bank([days * 86_400_000 for days in config.half_lives_days], config.ridges)
        self._buckets: Final = Buckets(bank, world.strategies, world.dimension, round(config.bucket_s * 1000))
        self._exploration: Final = config.exploration
        self._strategies: Final = world.strategies
        self._step: Final = round(config.bucket_s * 1000) // ROUND_MS

    def learn(self, contexts: Matrix, chosen: Choices, rewards: Matrix, first_round: int) -> None:
        """See `Contender.learn`."""
        for first in range(0, len(contexts), self._step):
            rows = slice(first, first + self._step)
            sums = sums_of(contexts[rows], chosen[rows], rewards[rows], self._strategies)
            self._buckets.add(sums, (first_round + first) * ROUND_MS)

    def refresh(self, now: int) -> None:
        """See `Contender.refresh`."""
        self._posterior = self._buckets.infer(now * ROUND_MS)

    def choose(self, contexts: Matrix, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        posterior, part = self._posterior, rng.integers(DRAWS, size=len(contexts))
        normal = rng.standard_normal((len(posterior.theta), DRAWS, posterior.theta.shape[1]))
        width = self._exploration * posterior.deviation
        models = posterior.theta[:, np.newaxis] + normal @ (width * posterior.whitener)
        return best_of(np.einsum("nd,knd->nk", contexts, models[:, part]), rng)


def thompson(utilities: Matrix, wide: Matrix, _count: float, rng: Generator) -> Choices:
    """Linear Thompson sampling, with v = 0.05."""
    return best_of(utilities + 0.05 * wide * rng.standard_normal(wide.shape), rng)


def upper_bound(utilities: Matrix, wide: Matrix, _count: float, rng: Generator) -> Choices:
    """LinUCB, with alpha = 0.05."""
    return best_of(utilities + 0.05 * wide, rng)


def greedy(utilities: Matrix, _wide: Matrix, _count: float, rng: Generator) -> Choices:
    """The best looking one, or in one of twenty rounds any."""
    best = best_of(utilities, rng)
    return np.where(rng.random(len(best)) < 0.05, rng.integers(utilities.shape[1], size=len(best)), best)


def inverse_gap(utilities: Matrix, _wide: Matrix, count: float, rng: Generator) -> Choices:
    """SquareCB: the larger the gap to the best looking one, the rarer (Foster & Rakhlin, ICML 2020)."""
    rounds, strategies = utilities.shape
    best = utilities.argmax(axis=1)
    gaps = utilities.max(axis=1, keepdims=True) - utilities
    shares = 1.0 / (strategies + 10.0 * np.sqrt(strategies * max(count, 1.0)) * gaps)
    shares[np.arange(rounds), best] += 1.0 - shares.sum(axis=1)
    above: Matrix = shares.cumsum(axis=1)
    chosen: Choices = (above > rng.random((rounds, 1))).argmax(axis=1)
    return chosen


def best_of(scores: Matrix, rng: Generator) -> Choices:
    """Return the best strategy of each round. Ties go at random, or all of a first batch would go to one strategy."""
    best: Choices = (scores + 1e-9 * rng.random(scores.shape)).argmax(axis=1)
    return best


def deviations(contexts: Matrix, whitener: Matrix) -> Matrix:
    """Return the standard deviations of the strategies' expected rewards, (contexts, strategies)."""
    return np.stack([np.sqrt(((contexts @ one.T) ** 2).sum(axis=1)) for one in whitener], axis=1)


def sums_of(contexts: Matrix, chosen: Choices, rewards: Matrix, strategies: int) -> Matrix:
    """Return Z'Z of each strategy's rounds, (strategies, d + 1, d + 1)."""
    parts = by_group(np.column_stack((contexts, rewards)), chosen)
    width = contexts.shape[1] + 1
    sums = np.zeros((strategies, width, width))
    sums[parts.groups] = parts.products
    return sums


CONTENDERS: Final[dict[str, Callable[[ContextualWorld], Contender]]] = {
    "backchannel": Backchannel,
    "LinTS": lambda world: Linear(world, thompson),
    "LinTS, window 2,000": lambda world: Linear(world, thompson, 2_000),
    "LinTS, window 30,000": lambda world: Linear(world, thompson, 30_000),
    "LinUCB": lambda world: Linear(world, upper_bound),
    "SquareCB": lambda world: Linear(world, inverse_gap),
    "greedy, floor 5%": lambda world: Linear(world, greedy),
    "uniform": Uniform,
}
