"""A model of what a policy earns in the rest of a session, for the doubly robust estimates of `sessions`.

Q(x, a) = w' phi(x, a) is the discounted return from a turn on, if the decision there is a and the target decides all
later ones: linear in features phi(x, a) of a context and a decision. Least-squares temporal differences give w as the
solution of sums over turns, in which nothing is iterated and whose order does not matter (Lagoudakis & Parr,
"Least-squares policy iteration", JMLR 2003; it is where linear fitted-Q evaluation ends, if it ends):

    w = (sum phi (phi - g phi')' + R I)^-1 sum phi r,    phi' = E[phi(x', a')], a' by the target in the next turn,

with phi' = 0 at the end of a session. The features are the context, and the context times the share of each strategy's
list that is drawn. As these are linear in the shares, so is Q, and V(x) = E[Q(x, a)] takes the expected shares only.
Each session is predicted by the sums of the other folds' sessions (see `reward_models`). A model that is wrong makes
the doubly robust estimates wide, not wrong.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Floats, Integers

RIDGE: Final = 10.0
"""Strength of the pull to 0, in turns."""
_PORTION: Final = 1 << 15  # turns whose features are in memory at once


class Course(Struct, frozen=True):
    """Turns in the course of their sessions.

    Attributes:
        contexts: encoded contexts, (turns, K, d), or (turns, 1, d) if all strategies share one.
        drawn: the share of each strategy's list that was drawn, (turns, K), 0 to 1.
        following: the index of the session's next turn, (turns,); -1 at its end.
        rewards: rewards, (turns,).
        folds: the fold of each turn's session, (turns,), from 0; at least two.
    """

    contexts: Floats
    drawn: Floats
    following: Integers
    rewards: Floats
    folds: Integers

    def predict(self, expected: Floats, discount: float) -> tuple[Floats, Floats]:
        """Return what is expected of a target from each turn on: V and, given the decision, Q; both (turns,).

        Args:
            expected: the expected shares that the target draws, (turns, K).
            discount: the discount per turn, 0 to 1.
        """
        count = int(self.folds.max(initial=1)) + 1
        size = self.contexts.shape[2] * (1 + self.drawn.shape[1])
        matrices, vectors = np.zeros((count, size, size)), np.zeros((count, size))
        for rows in self._portions():
            own, later, folds = self._features(self.drawn, rows), np.zeros((len(rows), size)), self.folds[rows]
            goes_on = self.following[rows] >= 0
            later[goes_on] = self._features(expected, self.following[rows[goes_on]])
            for fold in range(count):
                some = own[folds == fold]
                matrices[fold] += some.T @ (some - discount * later[folds == fold])
                vectors[fold] += some.T @ self.rewards[rows[folds == fold]]
        others = matrices.sum(axis=0) - matrices + RIDGE * np.eye(size)
        weights = np.linalg.solve(others, (vectors.sum(axis=0) - vectors)[..., np.newaxis])[..., 0]
        values, predicted = np.empty(len(self.rewards)), np.empty(len(self.rewards))
        for rows in self._portions():
            own = weights[self.folds[rows]]
            values[rows] = np.einsum("ij,ij->i", self._features(expected, rows), own)
            predicted[rows] = np.einsum("ij,ij->i", self._features(self.drawn, rows), own)
        return values, predicted

    def _portions(self) -> Iterator[Integers]:
        turns = len(self.rewards)
        return (np.arange(first, min(first + _PORTION, turns)) for first in range(0, turns, _PORTION))

    def _features(self, shares: Floats, rows: Integers) -> Floats:
        """Return phi for the shares drawn, (rows, size)."""
        contexts = self.contexts[rows]
        products = contexts * shares[rows][..., np.newaxis]
        return np.concatenate((contexts.mean(axis=1), products.reshape(len(rows), -1)), axis=1)
