"""Policies with River's interface as contenders: Backchannel's and River's own, one decision at a time."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from river.bandit import EpsilonGreedy, LinUCBDisjoint

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.river_policy import LinearThompsonSampling
from backchannel.agents.sums import Floats
from backchannel.ops.lab.worlds.contexts import Choices, Contender, ContextualWorld


class RiverPolicy:
    """A policy with River's interface, which draws its random numbers from its own seed.

    Args:
        world: the world to choose in.
        policy: the policy; it learns from rewards as they become known.
        contextual: whether the policy takes contexts.
    """

    def __init__(self, world: ContextualWorld, policy: Any, *, contextual: bool = True) -> None:
        self._arms: Final = list(range(world.strategies))
        self._policy: Final = policy
        self._contextual: Final = contextual

    def learn(self, contexts: Floats, chosen: Choices, rewards: Floats, _first_round: int) -> None:
        """See `Contender.learn`."""
        for context, arm, reward in zip(named(contexts), chosen.tolist(), rewards.tolist(), strict=True):
            self._policy.update(arm, *([context] if self._contextual else []), reward)

    def refresh(self, _now: int) -> None:
        """Do nothing: the policy learns with each reward."""

    def choose(self, contexts: Floats, _rng: Generator) -> Choices:
        """See `Contender.choose`."""
        pull = self._policy.pull
        chosen = [pull(self._arms, *([context] if self._contextual else [])) for context in named(contexts)]
        return np.array(chosen, dtype=np.intp)


def named(contexts: Floats) -> list[dict[str, float]]:
    """Return the rows of `contexts`, (rounds, d), as dictionaries of named features, River's input."""
    names = [f"x{place}" for place in range(contexts.shape[1])]
    return [dict(zip(names, row, strict=True)) for row in contexts.tolist()]


def ours(world: ContextualWorld) -> RiverPolicy:
    """Return Backchannel's bandit as a River policy with default settings; its encoder adds the constant itself."""
    features = [Numeric(f"x{place}") for place in range(1, world.dimension)]
    return RiverPolicy(world, LinearThompsonSampling(features, seed=1))


RIVER: Final[dict[str, Callable[[ContextualWorld], Contender]]] = {
    "backchannel in River": ours,
    "River LinUCBDisjoint": lambda world: RiverPolicy(world, LinUCBDisjoint(seed=1)),
    "River EpsilonGreedy": lambda world: RiverPolicy(world, EpsilonGreedy(epsilon=0.05, seed=1), contextual=False),
}
