"""The bandits compared in the simulated worlds: Backchannel's and textbook ones."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.random import Generator

from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.posterior import ModelAverage
from backchannel.agents.bandit.rounds import Rounds, draw_models
from backchannel.agents.bandit.serving import DRAWS
from backchannel.agents.sums import Floats
from backchannel.ops.lab.worlds.contexts import Choices, Contender, ContextualWorld

ROUND_MS: Final = 14_400
"""A round's event time: 250 rounds fill one of the default time buckets."""


class Uniform:
    """Chooses uniformly at random."""

    def __init__(self, world: ContextualWorld) -> None:
        self._strategies = world.strategies

    def learn(self, *_rounds: object) -> None:
        """Do nothing."""

    def refresh(self, _now: int) -> None:
        """Do nothing."""

    def choose(self, contexts: Floats, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        return rng.integers(self._strategies, size=len(contexts))


class Linear:
    """A ridge regression per strategy, with a rule for exploring.

    Args:
        world: the world to choose in.
        explore: the rule: takes expected rewards and their standard deviations, both (rounds, strategies), the number
            of rounds learned from and a generator; returns the chosen strategies, (rounds,).
        window: the number of rounds after which a round's weight has decayed to 1/e.
    """

    def __init__(
        self,
        world: ContextualWorld,
        explore: Callable[[Floats, Floats, float, Generator], Choices],
        window: float = np.inf,
    ) -> None:
        self._explore = explore
        self._window = window
        self._sums = np.zeros((world.strategies, world.dimension + 1, world.dimension + 1))

    def learn(self, contexts: Floats, chosen: Choices, rewards: Floats, _first_round: int) -> None:
        """See `Contender.learn`."""
        self._sums *= np.exp(-len(contexts) / self._window)
        self._sums += sums_of(contexts, chosen, rewards, len(self._sums))

    def refresh(self, _now: int) -> None:
        """See `Contender.refresh`."""
        gram, moment = self._sums[:, :-1, :-1], self._sums[:, :-1, -1:]
        self._whitener = np.linalg.inv(np.linalg.cholesky(gram + np.eye(gram.shape[-1])))
        self._theta = (self._whitener.swapaxes(-1, -2) @ (self._whitener @ moment))[..., 0]

    def choose(self, contexts: Floats, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        return self._explore(
            contexts @ self._theta.T, deviations(contexts, self._whitener), self._sums[:, 0, 0].sum(), rng
        )


class Backchannel:
    """The strategy bandit's own posterior, time buckets and exploration, with the default configuration."""

    def __init__(self, world: ContextualWorld) -> None:
        config = BanditConfig()
        average = ModelAverage([days * 86_400_000 for days in config.half_lives_days], config.ridges)
        self._rounds: Final = Rounds(average, world.strategies, world.dimension, round(config.bucket_s * 1000))
        self._exploration: Final = config.exploration
        self._step: Final = round(config.bucket_s * 1000) // ROUND_MS

    def learn(self, contexts: Floats, chosen: Choices, rewards: Floats, first_round: int) -> None:
        """See `Contender.learn`."""
        for first in range(0, len(contexts), self._step):
            rows = slice(first, first + self._step)
            self._rounds.add(contexts[rows], chosen[rows], rewards[rows], (first_round + first) * ROUND_MS)

    def refresh(self, now: int) -> None:
        """See `Contender.refresh`."""
        self._belief = self._rounds.infer(now * ROUND_MS)

    def choose(self, contexts: Floats, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        models = draw_models(self._belief, self._exploration, DRAWS, rng)
        part = rng.integers(DRAWS, size=len(contexts))
        return best_of(np.einsum("nd,nkd->nk", contexts, models[part]), rng)


def thompson(utilities: Floats, wide: Floats, _count: float, rng: Generator) -> Choices:
    """Linear Thompson sampling with v = 0.05. The arguments are those of `explore` in `Linear`."""
    return best_of(utilities + 0.05 * wide * rng.standard_normal(wide.shape), rng)


def upper_bound(utilities: Floats, wide: Floats, _count: float, rng: Generator) -> Choices:
    """LinUCB, with alpha = 0.05."""
    return best_of(utilities + 0.05 * wide, rng)


def greedy(utilities: Floats, _wide: Floats, _count: float, rng: Generator) -> Choices:
    """Epsilon-greedy: the strategy with the highest estimate, or a random one with probability 0.05."""
    best = best_of(utilities, rng)
    return np.where(rng.random(len(best)) < 0.05, rng.integers(utilities.shape[1], size=len(best)), best)


def inverse_gap(utilities: Floats, _wide: Floats, count: float, rng: Generator) -> Choices:
    """SquareCB: inverse gap weighting, with gamma = 10 sqrt(strategies * rounds) (Foster & Rakhlin, ICML 2020)."""
    rounds, strategies = utilities.shape
    best = utilities.argmax(axis=1)
    gaps = utilities.max(axis=1, keepdims=True) - utilities
    shares = 1.0 / (strategies + 10.0 * np.sqrt(strategies * max(count, 1.0)) * gaps)
    shares[np.arange(rounds), best] += 1.0 - shares.sum(axis=1)
    above: Floats = shares.cumsum(axis=1)
    chosen: Choices = (above > rng.random((rounds, 1))).argmax(axis=1)
    return chosen


def best_of(scores: Floats, rng: Generator) -> Choices:
    """Return the highest-scoring strategy of each round, (rounds,), from `scores`, (rounds, strategies).

    Ties are broken at random; otherwise the whole first batch would go to one strategy.
    """
    best: Choices = (scores + 1e-9 * rng.random(scores.shape)).argmax(axis=1)
    return best


def deviations(contexts: Floats, whitener: Floats) -> Floats:
    """Return the standard deviations of expected rewards, (rounds, strategies).

    Args:
        contexts: the context vectors, (rounds, d).
        whitener: each strategy's inverse Cholesky factor of its regularised Gram matrix, (strategies, d, d).
    """
    return np.stack([np.sqrt(((contexts @ one.T) ** 2).sum(axis=1)) for one in whitener], axis=1)


def sums_of(contexts: Floats, chosen: Choices, rewards: Floats, strategies: int) -> Floats:
    """Return Z'Z of each strategy's rounds, (strategies, d + 1, d + 1); a row of Z is a context and its reward.

    Args:
        contexts: the context vectors, (rounds, d).
        chosen: the chosen strategies, (rounds,).
        rewards: the rewards, (rounds,).
        strategies: the number of strategies.
    """
    rows = np.column_stack((contexts, rewards))
    own = (rows[chosen == strategy] for strategy in range(strategies))
    return np.array([each.T @ each for each in own])


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
