"""A simulated world whose people remember: satisfaction builds over visits, and decides who comes back.

Each day, a person visits with a probability that rises with their satisfaction. One strategy answers. Clicks,
interruptions and rephrases follow from the strategy's quality, but bait is clicked whatever its quality. What the visit
was worth moves satisfaction; after a visit that leaves a person dissatisfied, they may leave for good, and only some
time later somebody new takes the place. So a policy that is clicked more today has fewer visits in a month.

Where surrogacy holds, signals tell what a visit was worth: bait is interrupted more often. Where it fails, some
strategies, bait or not, disappoint by HIDDEN more than any signal shows. Every RENEWED days the oldest strategy is
replaced by a new one with another name, so there is always something to learn.
"""

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.sums import Booleans, Floats, Integers

STRATEGIES: Final = 8
"""Strategies at a time."""
RENEWED: Final = 10
BAIT: Final = 0.4
"""The share of strategies that are bait, and, where surrogacy fails, of those that disappoint."""
LURE: Final = 0.4
"""What bait adds to the probability of a click."""
HIDDEN: Final = 0.5
_BUILDS: Final = 0.4
_BASE: Final = 0.5
_WORTH: Final = np.array([0.5, -0.7, -0.4])
"""What a click, an interruption and a rephrase add to the worth of a visit, which is _BASE otherwise."""


class Strategies(Struct, frozen=True):
    """All strategies there will ever be, in the order in which they appear; the first STRATEGIES are there at first.

    Attributes:
        chances: the probabilities of a click, an interruption and a rephrase, (strategies, 3).
        hidden: what each takes from the worth of a visit that signals do not show, (strategies,).
    """

    chances: Floats
    hidden: Floats

    @classmethod
    def drawn(cls, days: int, rng: Generator, *, holds: bool) -> "Strategies":
        """Return strategies for a number of days; see the module for `holds`, whether surrogacy holds."""
        count = STRATEGIES + days // RENEWED
        quality = rng.uniform(0.2, 0.9, count)
        bait, worse = rng.random((2, count)) < BAIT
        clicks = 0.2 + 0.3 * quality + LURE * bait
        interrupted = 0.05 + 0.4 * (1.0 - quality) + LURE * bait
        chances = np.column_stack((clicks, interrupted, 0.4 * (1.0 - quality)))
        return cls(chances, np.zeros(count) if holds else HIDDEN * worse)

    def present(self, day: int) -> Integers:
        """Return the strategies that there are on a day."""
        return np.arange(STRATEGIES) + day // RENEWED

    @property
    def worth(self) -> Floats:
        """The mean worth of a visit that each answers, (strategies,)."""
        return np.asarray(_BASE + self.chances @ _WORTH - self.hidden)


class Town:
    """The people, and their places: as many as there can be at a time.

    Args:
        places: number of places.
        strategies: what answers.
        rng: the source of randomness.
    """

    def __init__(self, places: int, strategies: Strategies, rng: Generator) -> None:
        self._strategies: Final = strategies
        self._rng: Final = rng
        self._person = np.arange(places)
        self._known = places
        self._satisfaction = np.full(places, 0.5)
        self._gone: Booleans = np.zeros(places, dtype=bool)

    def visitors(self) -> Integers:
        """Return the places whose people visit today."""
        arrives = self._gone & (self._rng.random(len(self._gone)) < 0.04)
        self._person[arrives] = self._known + np.arange(arrives.sum())
        self._known += int(arrives.sum())
        self._satisfaction[arrives] = 0.5
        self._gone &= ~arrives
        comes = self._rng.random(len(self._gone)) < 0.05 + 0.5 * self._satisfaction
        return np.flatnonzero(comes & ~self._gone)

    def person(self, places: Integers) -> Integers:
        """Return who is in places now; nobody is twice."""
        return self._person[places]

    def answer(self, places: Integers, strategy: Integers) -> Floats:
        """Answer visits, and return whether each was clicked, interrupted and rephrased, (visits, 3)."""
        rng = self._rng
        signals = (rng.random((len(places), 3)) < self._strategies.chances[strategy]).astype(float)
        worth = np.clip(_BASE + signals @ _WORTH - self._strategies.hidden[strategy], 0.0, 1.0)
        now = self._satisfaction[places] + _BUILDS * (worth - self._satisfaction[places])
        self._satisfaction[places] = now
        self._gone[places] = rng.random(len(places)) < 0.01 + 0.3 * (1.0 - now) ** 2
        return signals
