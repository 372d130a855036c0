"""Simulated worlds for contextual bandits, with late rewards and periodically refreshed policies.

One strategy is chosen per round. A context is a constant and Gaussian numbers; each strategy has its own weight vector,
of expected length 1, and drift redraws all weights at equal intervals. With z the dot product of context and weights,
the reward is 0.5 + 0.3 z plus Gaussian noise with a standard deviation of 0.3 (linear), or a click with probability
1 / (1 + exp(-0.65 z)) (logistic) or 1 / (1 + exp(3.3 - 0.6 z)), about 4% (low).
"""

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.random import Generator
from numpy.typing import NDArray

from backchannel.agents.sums import Floats

Reward: TypeAlias = Literal["linear", "logistic", "low"]
Choices: TypeAlias = NDArray[np.intp]

EXPECTED: Final[dict[Reward, Callable[[Floats], Floats]]] = {
    "linear": lambda z: 0.5 + 0.3 * z,
    "logistic": lambda z: 1.0 / (1.0 + np.exp(-0.65 * z)),
    "low": lambda z: 1.0 / (1.0 + np.exp(3.3 - 0.6 * z)),
}
NOISE: Final = 0.3


class ContextualWorld(Struct, frozen=True):
    """A description of a simulated world.

    Attributes:
        reward: the type of reward.
        drifts: number of times that all weights are redrawn.
        rounds: number of decisions.
        strategies: number of strategies.
        dimension: length of a context, including the constant.
        delay: number of rounds after which a reward is known.
        refresh: number of rounds between two versions of the policy.
    """

    reward: Reward = "logistic"
    drifts: int = 0
    rounds: int = 20_000
    strategies: int = 8
    dimension: int = 20
    delay: int = 1000
    refresh: int = 1000


class Contender(Protocol):
    """A bandit whose policy is refreshed periodically."""

    def learn(self, contexts: Floats, chosen: Choices, rewards: Floats, first_round: int, /) -> None:
        """Learn from consecutive rounds.

        Args:
            contexts: the context vectors, (rounds, dimension).
            chosen: the chosen strategies, (rounds,).
            rewards: the rewards, (rounds,).
            first_round: the number of the first round.
        """

    def refresh(self, now: int, /) -> None:
        """Update the policy for the rounds from `now` on."""

    def choose(self, contexts: Floats, rng: Generator, /) -> Choices:
        """Return a strategy for each of `contexts`, (rounds, dimension), as an array (rounds,)."""


def regret(world: ContextualWorld, contender: Contender, seed: int) -> Floats:
    """Return the contender's regret and that of a uniform choice, summed between refreshes, (refreshes, 2).

    Regret is the expected reward of the best strategy less that of the chosen one. Contexts, rewards and the generator
    passed to the contender depend on `seed` only.
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
