"""Values of policies over whole sessions: a decision in one turn may affect later ones.

A session s has turns t = 0, 1, ..., each with the weight rho_st = pi(a|x) / p(a|x) of its whole decision and a
reward r_st. With discount g and the running product R_st = rho_s0 ... rho_st, R_s,-1 = 1:

    PDIS   sum_t g^t R_st r_st                      per-decision importance sampling: Precup, Sutton & Singh, ICML 2000
    WPDIS  sum_t g^t W_st r_st                      weighted: Thomas, PhD thesis, 2015
    DR     D_s0 of D_st = v_st + rho_st (r_st + g D_s,t+1 - q_st)         Jiang & Li, ICML 2016
    WDR    sum_t g^t (W_st (r_st - q_st) + W_s,t-1 v_st)                  Thomas & Brunskill, ICML 2016

Here W_st = R_st / mean_s R_st; v_st is the return from turn t on that a model expects of the target, and q_st the same
given the decision, both 0 after the session's end. A session that has ended continues with rewards of 0 and weights of
1, so it counts in every mean.
"""

from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.ope.estimators import Feedback, Terms
from backchannel.agents.sums import Floats


class Sessions(Struct, frozen=True):
    """Logged sessions, weighed for one target; all are padded to the longest.

    Attributes:
        weights: the weights rho, (sessions, turns); 1 after the end.
        rewards: the rewards r, (sessions, turns), in [0, 1]; 0 after the end.
        discount: the discount per turn, 0 to 1.
        expected: the values v, (sessions, turns), for the doubly robust forms; 0 after the end.
        predicted: the values q, (sessions, turns), for the doubly robust forms; 0 after the end.
    """

    weights: Floats
    rewards: Floats
    discount: float = 1.0
    expected: Floats | None = None
    predicted: Floats | None = None

    def first_turns(self) -> Feedback:
        """Return the sessions as single decisions with the weight of all their turns, for a diagnosis."""
        return Feedback(self.weights.prod(axis=1, keepdims=True), self._returns()[:, np.newaxis])

    def _returns(self) -> Floats:
        returns: Floats = self.rewards @ self.discounts()
        return returns

    def discounts(self) -> Floats:
        """Return g^t, (turns,)."""
        return np.asarray(self.discount ** np.arange(self.rewards.shape[1], dtype=float))

    def largest(self) -> float:
        """Return the largest possible term of a session, with all rewards 1."""
        return float((self.weights.cumprod(axis=1) @ self.discounts()).max(initial=0.0))


def in_sessions(sessions: NDArray[Any], values: Floats, padding: float) -> Floats:
    """Return one value per turn as (sessions, turns), sessions in order of their first turns.

    Args:
        sessions: the session of each turn, (turns,); sessions may be interleaved.
        values: the values, (turns,), in time order within each session.
        padding: the value after a session's end.
    """
    _, first, index = np.unique(sessions, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    row = rank[index]
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=len(first))
    column = np.empty(len(row), dtype=np.intp)
    column[order] = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
    table = np.full((len(first), int(counts.max(initial=0))), padding)
    table[row, column] = values
    return table


def per_decision(log: Sessions) -> Terms:
    """PDIS: unbiased; a reward is weighted by the decisions up to it only."""
    values = (log.weights.cumprod(axis=1) * log.rewards) @ log.discounts()
    return Terms(values, 0.0, log.largest())


def weighted_per_decision(log: Sessions) -> Terms:
    """WPDIS: consistent, with much lower variance. Its terms treat the mean weights as known."""
    values = (_normalised(log) * log.rewards) @ log.discounts()
    return Terms(values, 0.0, log.largest())


def doubly_robust(log: Sessions) -> Terms:
    """The doubly robust recursion: unbiased; the better the model, the lower the variance."""
    expected, predicted = _model(log)
    values = np.zeros(len(log.rewards))
    for turn in range(log.rewards.shape[1] - 1, -1, -1):
        values = expected[:, turn] + log.weights[:, turn] * (
            log.rewards[:, turn] + log.discount * values - predicted[:, turn]
        )
    largest = log.largest()
    return Terms(values, -largest, 2.0 * largest)


def weighted_doubly_robust(log: Sessions) -> Terms:
    """The weighted form: consistent. Its terms treat the mean weights as known."""
    expected, predicted = _model(log)
    weights = _normalised(log)
    before = np.column_stack((np.ones(len(weights)), weights[:, :-1]))[:, : weights.shape[1]]
    values = (weights * (log.rewards - predicted) + before * expected) @ log.discounts()
    largest = log.largest()
    return Terms(values, -largest, 2.0 * largest)


SESSION_ESTIMATORS: Final = {
    "PDIS": per_decision,
    "WPDIS": weighted_per_decision,
    "DR": doubly_robust,
    "WDR": weighted_doubly_robust,
}
"""Estimators by name. The doubly robust ones need a model."""


def _normalised(log: Sessions) -> Floats:
    running = log.weights.cumprod(axis=1)
    means = running.mean(axis=0) if len(running) else np.ones(running.shape[1])
    weights: Floats = np.divide(running, means, out=np.zeros_like(running), where=means > 0)
    return weights


def _model(log: Sessions) -> tuple[Floats, Floats]:
    if log.expected is None or log.predicted is None:
        raise ValueError("expected, predicted: this estimator needs a model of the sessions' values")
    return log.expected, log.predicted
