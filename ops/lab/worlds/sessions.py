"""A simulated world of sessions whose true values are known: what is asked now decides how the session goes on.

In each turn one of three strategies is asked. People have a mood, from 0 (content) to 2 (annoyed). The first is
bait: it is clicked most, and annoys; the second is clicked least by content people, and pleases; the third is in
between. The more annoyed, the fewer clicks, and the likelier the session ends; after LONGEST turns it ends anyway. The
mood is logged as a number in the context, and no chance is a linear function of it.
"""

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.ope.session_models import Course
from backchannel.agents.ope.sessions import Places, Sessions
from backchannel.agents.sums import Floats, Integers

LONGEST: Final = 10
CLICKS: Final = np.array([[0.5, 0.35, 0.4], [0.45, 0.3, 0.3], [0.3, 0.2, 0.15]])
"""The probability of a click, by mood and strategy."""
ANNOYS: Final = np.array([0.6, 0.05, 0.25])
"""The probability that a strategy makes the mood worse by one."""
PLEASES: Final = np.array([0.05, 0.5, 0.2])
"""The probability that a strategy makes the mood better by one."""
ENDS: Final = np.array([0.1, 0.3, 0.6])
"""The probability that the session ends, by the mood after the turn."""
FOLDS: Final = 3
_MOODS: Final = len(ENDS)


class SessionWorld(Struct, frozen=True):
    """The world with one logged policy.

    Attributes:
        logged: the probability that the logged policy asks each strategy, by mood, (moods, strategies).
        discount: the discount per turn, 0 to 1.
    """

    logged: Floats
    discount: float

    def value(self, policy: Floats) -> float:
        """Return the true value of a policy, (moods, strategies), per session."""
        worth = np.zeros(_MOODS)
        for _ in range(LONGEST):
            stays = 1.0 - ENDS
            on = stays * worth
            better, worse = np.append(on[:1], on[:-1]), np.append(on[1:], on[-1:])
            later = (
                PLEASES * better[:, np.newaxis]
                + ANNOYS * worse[:, np.newaxis]
                + (1.0 - PLEASES - ANNOYS) * on[:, np.newaxis]
            )
            worth = (policy * (CLICKS + self.discount * later)).sum(axis=1)
        return float(worth[0])

    def log(self, sessions: int, rng: Generator) -> "SessionLog":
        """Return a log of sessions, all of which begin content."""
        mood, there = np.zeros(sessions, dtype=np.int64), np.arange(sessions)
        rows, moods, actions, clicks = [], [], [], []
        for _ in range(LONGEST):
            own = mood[there]
            action = (rng.random((len(there), 1)) > self.logged[own].cumsum(axis=1)[:, :-1]).sum(axis=1)
            rows.append(there)
            moods.append(own)
            actions.append(action)
            clicks.append((rng.random(len(there)) < CLICKS[own, action]).astype(float))
            moved = rng.random(len(there))
            worse, better = moved < ANNOYS[action], moved > 1.0 - PLEASES[action]
            mood[there] = np.clip(own + worse - better, 0, _MOODS - 1)
            there = there[rng.random(len(there)) >= ENDS[mood[there]]]
        return SessionLog(self, *(np.concatenate(each) for each in (rows, moods, actions, clicks)))


class SessionLog(Struct, frozen=True):
    """Logged turns, in order of time.

    Attributes:
        world: the world.
        sessions: the session of each turn, (turns,).
        moods: the mood before it, (turns,).
        actions: the strategy asked, (turns,).
        clicks: 1 if it was clicked, else 0, (turns,).
    """

    world: SessionWorld
    sessions: Integers
    moods: Integers
    actions: Integers
    clicks: Floats

    def weighed(self, policy: Floats) -> Sessions:
        """Return the log weighed for a policy, (moods, strategies), with a model of its values."""
        places = Places.of(self.sessions)
        contexts = np.column_stack((np.ones(len(self.moods)), self.moods / 2.0))[:, np.newaxis]
        drawn = np.eye(policy.shape[1])[self.actions]
        course = Course(contexts, drawn, places.following, self.clicks, self.sessions % FOLDS)
        expected, predicted = course.predict(policy[self.moods], self.world.discount)
        weights = (policy / self.world.logged)[self.moods, self.actions]
        return Sessions(
            places.table(weights, 1.0),
            places.table(self.clicks, 0.0),
            self.world.discount,
            places.table(expected, 0.0),
            places.table(predicted, 0.0),
        )

    def by_turn(self, policy: Floats) -> float:
        """Return what self-normalised scores of single turns say that a turn of the policy earns."""
        weights = (policy / self.world.logged)[self.moods, self.actions]
        return float(weights @ self.clicks / weights.sum())
