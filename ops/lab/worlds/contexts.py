"""Simulated worlds for contextual bandits, with late rewards and policies that are only refreshed now and then.

One strategy is asked per round. Contexts are a constant and Gaussian numbers; each strategy has weights of its own, of
expected length 1, and drift redraws all of them at equal distances. With z the product of the two, the expected reward
is 0.5 + 0.3 z with Gaussian noise of 0.3 (linear), or that of a click of rate 1 / (1 + exp(-0.65 z)) (logistic) or
1 / (1 + exp(3.3 - 0.6 z)), about 4% (low).
"""

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.random import Generator
from numpy.typing import NDArray

from backchannel.agents.sums import Matrix

Reward: TypeAlias = Literal["linear", "logistic", "low"]
Choices: TypeAlias = NDArray[np.intp]

EXPECTED: Final[dict[Reward, Callable[[Matrix], Matrix]]] = {
    "linear": lambda z: 0.5 + 0.3 * z,
    "logistic": lambda z: 1.0 / (1.0 + np.exp(-0.65 * z)),
    "low": lambda z: 1.0 / (1.0 + np.exp(3.3 - 0.6 * z)),
}
NOISE: Final = 0.3


class ContextualWorld(Struct, frozen=True):
    """A description of a simulated world.

    Attributes:
        reward: of which type.
        drifts: how often all weights are redrawn.
        rounds: decisions in all.
        strategies: to choose from.
        dimension: of contexts, the constant included.
        delay: rounds after which a reward is known.
        refresh: rounds between two versions of the policy.
    """

    reward: Reward = "logistic"
    drifts: int = 0
    rounds: int = 20_000
    strategies: int = 8
    dimension: int = 20
    delay: int = 1000
    refresh: int = 1000


class Contender(Protocol):
    """A bandit that is refreshed now and then."""

    def learn(self, contexts: Matrix, chosen: Choices, rewards: Matrix, first_round: int, /) -> None:
        """Take in consecutive rounds, the first of which is `first_round`."""

    def refresh(self, now: int, /) -> None:
        """Make the policy for the rounds from `now` on."""

    def choose(self, contexts: Matrix, rng: Generator, /) -> Choices:
        """Choose a strategy for each of `contexts`."""


def regret(world: ContextualWorld, contender: Contender, seed: int) -> Matrix:
    """Return the regret and that of a uniform choice, by refresh: (refreshes, 2). What happens depends on `seed` only.

    Regret is the expected reward of the best strategy less that of the chosen one.
    """
    nature, chance = (np.random.default_rng([seed, part]) for part in range(2))
    stages = world.drifts + 1
    weights = nature.standard_normal((stages, world.strategies, world.dimension)) / np.sqrt(world.dimension)
    pending: list[tuple[int, tuple[Any, ...]]] = []
    lost = []
    for first in range(0, world.rounds, world.refresh):
        rounds = np.arange(first, min(first + world.refresh, world.rounds))
        contexts = nature.standard_normal((len(rounds), world.dimension))
        contexts[:, 0] = 1.0
        stage = rounds * stages // world.rounds
        expected = EXPECTED[world.reward](np.einsum("nd,nkd->nk", contexts, weights[stage]))
        luck, noise = nature.random(len(rounds)), nature.standard_normal(len(rounds))
        while pending and pending[0][0] + world.delay <= first:
            contender.learn(*pending.pop(0)[1])
        contender.refresh(first)
        chosen = contender.choose(contexts, chance)
        got = expected[np.arange(len(rounds)), chosen]
        rewards = got + NOISE * noise if world.reward == "linear" else (luck < got).astype(float)
        pending.append((int(rounds[-1]) + 1, (contexts, chosen, rewards, first)))
        best = expected.max(axis=1)
        lost.append([(best - got).sum(), (best - expected.mean(axis=1)).sum()])
    return np.array(lost)
