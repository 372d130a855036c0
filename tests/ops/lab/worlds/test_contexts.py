"""The simulated worlds and the bandits in them, small to be quick; `bandits compare` gives the figures."""

from collections.abc import Callable

import numpy as np
import pytest

from backchannel.agents.sums import Floats
from backchannel.ops.lab.bandits.contenders import CONTENDERS
from backchannel.ops.lab.worlds.contexts import Contender, ContextualWorld, Reward, regret

SMALL = ContextualWorld(rounds=3000, strategies=4, dimension=5, delay=200, refresh=100)


def share(world: ContextualWorld, make: Callable[[ContextualWorld], Contender], seed: int = 0) -> float:
    """Return the contender's regret as a share of a uniform choice's."""
    lost = regret(world, make(world), seed).sum(axis=0)
    return float(lost[0] / lost[1])


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "uniform"])
@pytest.mark.parametrize("reward", ["linear", "logistic", "low"])
def test_every_contender_learns(name: str, reward: Reward) -> None:
    world = ContextualWorld(reward, rounds=6000, strategies=4, dimension=5, delay=200, refresh=100)
    assert share(world, CONTENDERS[name]) < 0.85


def test_a_uniform_choice_has_a_share_of_one() -> None:
    assert share(SMALL, CONTENDERS["uniform"]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", CONTENDERS)
def test_what_happens_depends_on_the_seed_only(name: str) -> None:
    one, again, other = (regret(SMALL, CONTENDERS[name](SMALL), seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    # Contexts are the same for all contenders, whatever they choose.
    assert (one[:, 1] == regret(SMALL, CONTENDERS["uniform"](SMALL), 1)[:, 1]).all()


class Watcher:
    """Chooses the first strategy, and records its calls."""

    def __init__(self) -> None:
        self.learned: list[tuple[int, int]] = []
        self.told: list[tuple[int, int]] = []

    def learn(self, contexts: Floats, chosen: object, rewards: Floats, first_round: int) -> None:
        self.learned.append((first_round, len(rewards)))

    def refresh(self, now: int) -> None:
        self.told += [(now, first + count) for first, count in self.learned]
        self.learned.clear()

    def choose(self, contexts: Floats, rng: object) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        return np.zeros(len(contexts), dtype=np.intp)


def test_rewards_come_late() -> None:
    watcher = Watcher()
    regret(SMALL, watcher, 0)
    assert all(last + SMALL.delay <= now for now, last in watcher.told)
    assert [last for _, last in watcher.told] == list(range(100, 2800, 100))


def test_a_drift_invalidates_what_was_learned() -> None:
    lost = regret(
        ContextualWorld("linear", 1, 4000, 4, 5, 100, 100),
        CONTENDERS["LinTS"](ContextualWorld(strategies=4, dimension=5)),
        3,
    )
    before, after = lost[15:20].sum(axis=0), lost[20:25].sum(axis=0)
    assert before[0] / before[1] < 0.1 < 0.3 < after[0] / after[1]
