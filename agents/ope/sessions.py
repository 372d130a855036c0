"""Values of policies over whole sessions: a decision in one turn may affect later ones.

A session s has turns t = 0, 1, ..., each with the weight rho_st = pi(a|x) / p(a|x) of its whole decision and a
reward r_st. With discount g and the running product R_st = rho_s0 ... rho_st, R_s,-1 = 1:

    PDIS   sum_t g^t R_st r_st                      per-decision importance sampling: Precup, Sutton & Singh, ICML 2000
    cPDIS  sum_t g^t min(R_st, c) r_st              clipped: Ionides, JCGS 2008
    WPDIS  sum_t g^t W_st r_st                      weighted: Thomas, PhD thesis, 2015
    DR     D_s0 of D_st = v_st + rho_st (r_st + g D_s,t+1 - q_st)         Jiang & Li, ICML 2016
    WDR    sum_t g^t (W_st (r_st - q_st) + W_s,t-1 v_st)                  Thomas & Brunskill, ICML 2016

Here W_st = R_st / mean_s R_st; v_st is the return from turn t on that a model expects of the target, and q_st the same
given the decision, both 0 after the session's end. A session that has ended continues with rewards of 0 and weights of
1, so it counts in every mean. The weighted forms are sums of ratios of means; their terms are the first-order
expansion, so intervals allow for the chance in the mean weights.
"""

from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.ope.estimators import Feedback, Terms
from backchannel.agents.sums import Floats, Integers


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

    def logged(self) -> Terms:
        """Return the returns of the logged policy as terms."""
        return Terms(self._returns(), 0.0, float(self.discounts().sum()))

    def largest(self) -> float:
        """Return the largest possible term of a session, with all rewards 1."""
        return float((self.weights.cumprod(axis=1) @ self.discounts()).max(initial=0.0))


class Places(Struct, frozen=True):
    """The places of turns in tables of (sessions, turns), sessions in the order of their first turns.

    Attributes:
        kept: the indexes of the turns that have a place, (kept,), rising.
        rows: the session of each, (kept,).
        columns: its place within the session, from 0, (kept,).
    """

    kept: Integers
    rows: Integers
    columns: Integers

    @classmethod
    def of(cls, sessions: NDArray[Any], most: int | None = None) -> "Places":
        """Return the places of turns in time order.

        Args:
            sessions: the session of each turn, (turns,); sessions may be interleaved.
            most: the number of turns of a session that have a place, from its first; None: all.
        """
        _, first, index = np.unique(sessions, return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        rows = rank[index]
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=len(first))
        columns = np.empty(len(rows), dtype=np.int64)
        columns[order] = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        kept = np.arange(len(rows)) if most is None else np.flatnonzero(columns < most)
        return cls(kept, rows[kept], columns[kept])

    @property
    def following(self) -> Integers:
        """The place in `kept` of the next turn of the same session, (kept,); -1 at its end."""
        order = np.lexsort((self.columns, self.rows))
        same = self.rows[order[1:]] == self.rows[order[:-1]]
        following = np.full(len(order), -1, dtype=np.int64)
        following[order[:-1][same]] = order[1:][same]
        return following

    def table(self, values: Floats, padding: float) -> Floats:
        """Return values, (kept,), as (sessions, turns), with `padding` after a session's end."""
        table = np.full((int(self.rows.max(initial=-1)) + 1, int(self.columns.max(initial=-1)) + 1), padding)
        table[self.rows, self.columns] = values
        return table


def per_decision(log: Sessions) -> Terms:
    """PDIS: unbiased; a reward is weighted by the decisions up to it only."""
    values = (log.weights.cumprod(axis=1) * log.rewards) @ log.discounts()
    return Terms(values, 0.0, log.largest())


def clipped_per_decision(log: Sessions) -> Terms:
    """PDIS with running products clipped at the square root of the number of sessions: biased down, less variance."""
    cap = max(len(log.rewards), 1) ** 0.5
    running = np.minimum(log.weights.cumprod(axis=1), cap)
    return Terms((running * log.rewards) @ log.discounts(), 0.0, float((running @ log.discounts()).max(initial=0.0)))


def weighted_per_decision(log: Sessions) -> Terms:
    """WPDIS: consistent, with much lower variance."""
    return Terms(_expanded(_normalised(log), log.rewards) @ log.discounts(), 0.0, log.largest())


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
    """The weighted form: consistent."""
    expected, predicted = _model(log)
    weights = _normalised(log)
    before = np.column_stack((np.ones(len(weights)), weights[:, :-1]))[:, : weights.shape[1]]
    values = (_expanded(weights, log.rewards - predicted) + _expanded(before, expected)) @ log.discounts()
    largest = log.largest()
    return Terms(values, -largest, 2.0 * largest)


SESSION_ESTIMATORS: Final = {
    "PDIS": per_decision,
    "clipped PDIS": clipped_per_decision,
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


def _expanded(weights: Floats, values: Floats) -> Floats:
    """Return terms, (sessions, turns), with the means of weights * values by turn, for weights that are normalised.

    They are the first-order expansion of the ratio of two means: a session adds w y - w mean(w y) to the mean.
    """
    products = weights * values
    means = products.mean(axis=0) if len(products) else 0.0
    return np.asarray(products + means * (1.0 - weights))


def _model(log: Sessions) -> tuple[Floats, Floats]:
    if log.expected is None or log.predicted is None:
        raise ValueError("expected, predicted: this estimator needs a model of the sessions' values")
    return log.expected, log.predicted
