"""Other libraries' bandits as contenders in the simulated worlds; `make rivals` installs them."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from numpy.random import Generator
from vowpalwabbit import pyvw

from backchannel.agents.sums import Floats
from backchannel.ops.lab.worlds.contexts import Choices, Contender, ContextualWorld

VOWPAL_WABBIT: Final = (
    "--cb_explore_adf --squarecb --gamma_scale 1000 -q SA --cb_type mtr -l 0.5 --quiet --random_seed 1"
)


class VowpalWabbit:
    """Vowpal Wabbit's SquareCB, with strategy features crossed with the context.

    Args:
        world: the world to choose in.
        options: Vowpal Wabbit's command line; the default was the best of a grid in these worlds.

    Attributes:
        workspace: the Vowpal Wabbit workspace.
    """

    def __init__(self, world: ContextualWorld, options: str = VOWPAL_WABBIT) -> None:
        self.workspace: Any = pyvw.Workspace(options)
        self._actions: Final = [f"|A s{strategy}" for strategy in range(world.strategies)]
        self._probabilities: dict[int, float] = {}
        self._next = 0

    def learn(self, contexts: Floats, chosen: Choices, rewards: Floats, first_round: int) -> None:
        """See `Contender.learn`."""
        for number, (context, strategy, reward) in enumerate(zip(contexts, chosen.tolist(), rewards, strict=True)):
            probability = self._probabilities.pop(first_round + number)
            self.workspace.learn(self.example(context, strategy, -reward, probability))

    def refresh(self, _now: int) -> None:
        """Do nothing: the policy learns with each batch."""

    def choose(self, contexts: Floats, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        chosen = []
        for context in contexts:
            shares = np.array(self.workspace.predict(self.example(context)))
            strategy = int(rng.choice(len(shares), p=shares / shares.sum()))
            self._probabilities[self._next] = float(shares[strategy])
            self._next += 1
            chosen.append(strategy)
        return np.array(chosen)

    def example(self, context: Floats, chosen: int | None = None, cost: float = 0.0, share: float = 1.0) -> list[str]:
        """Return the lines of one example, labelled if a strategy was chosen.

        Args:
            context: the context vector, (d,).
            chosen: the chosen strategy.
            cost: the negative reward of that choice.
            share: the probability of that choice.
        """
        lines = ["shared |S " + " ".join(f"{place}:{value:.4f}" for place, value in enumerate(context.tolist()))]
        for strategy, action in enumerate(self._actions):
            lines.append(f"0:{cost:.4f}:{share:.5f} {action}" if strategy == chosen else action)
        return lines


class MabWiser:
    """A linear policy from MABWiser."""

    def __init__(self, world: ContextualWorld, policy: Any) -> None:
        self._bandit: Any = MAB(list(range(world.strategies)), policy, seed=1)
        self._strategies: Final = world.strategies
        self._fitted = False

    def learn(self, contexts: Floats, chosen: Choices, rewards: Floats, _first_round: int) -> None:
        """See `Contender.learn`."""
        learn = self._bandit.partial_fit if self._fitted else self._bandit.fit
        learn(chosen.tolist(), rewards, contexts)
        self._fitted = True

    def refresh(self, _now: int) -> None:
        """Do nothing: the policy learns with each batch."""

    def choose(self, contexts: Floats, rng: Generator) -> Choices:
        """See `Contender.choose`."""
        if not self._fitted:
            return rng.integers(self._strategies, size=len(contexts))
        return np.array(self._bandit.predict(contexts))


RIVALS: Final[dict[str, Callable[[ContextualWorld], Contender]]] = {
    "Vowpal Wabbit squarecb": VowpalWabbit,
    "MABWiser LinUCB": lambda world: MabWiser(world, LearningPolicy.LinUCB(alpha=0.05)),
    "MABWiser LinTS": lambda world: MabWiser(world, LearningPolicy.LinTS(alpha=0.05)),
}
