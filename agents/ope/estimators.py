"""Values of policies, estimated from logged decisions, one decision at a time.

In turn i, with context x_i, the logged policy asked some of K strategies, each with a known probability p_ik, and each
that was asked got a reward r_ik. The policy to evaluate, the target, would ask strategy k to the extent tau_k(x_i).
Its value is

    V = E[sum_k tau_k(x) q_k(x)],    q_k(x) = E[r_k | x, k is asked],

if a strategy's reward does not depend on which others are asked: the semi-bandit form, as in the item-position
estimator of Li et al., "Offline evaluation of ranking policies with click models", KDD 2018. Where one of K actions is
chosen, tau is the target's probability of each, and this is the textbook value.

Each estimator returns one term per turn; their mean is the estimate. With weights w_ik = tau_k(x_i) / p_ik for
strategies that were asked, and 0 for those that were not:

    IPS          sum_k w_ik r_ik                                    Horvitz & Thompson, JASA 1952
    clipped IPS  sum_k min(w_ik, c) r_ik                            Ionides, JCGS 2008
    SNIPS        IPS, over the mean of sum_k w_ik / tau             Swaminathan & Joachims, NIPS 2015
    DM           sum_k tau_k(x_i) q'_k(x_i)                         Dudik, Langford & Li, ICML 2011
    DR           DM + sum_k w_ik (r_ik - q'_k(x_i))                 the same
    switch-DR    DM + sum_k w_ik [w_ik <= c] (r_ik - q'_k(x_i))     Wang, Agarwal & Dudik, ICML 2017

where tau is the mean of sum_k tau_k(x_i), which is 1 if one action is chosen, and q' is a reward model that was not
fitted to turn i; see `reward_models`.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.sums import Floats
from backchannel.schemas.errors import BackchannelError

_TINY: Final = 1e-12


class SupportError(BackchannelError, ValueError):
    """A logged decision is impossible by its propensity; the message names the first such turn."""


class Model(Struct, frozen=True):
    """The predictions of a reward model for logged turns and a target.

    Attributes:
        expected: sum_k tau_k(x_i) q'_k(x_i), (turns,).
        predicted: q'_k(x_i), in the shape of the log's rewards.
    """

    expected: Floats
    predicted: Floats


class Feedback(Struct, frozen=True):
    """Logged turns, weighed for one target.

    Attributes:
        weights: w_ik, (turns, strategies), or (turns, 1) if only the chosen action is kept.
        rewards: r_ik, in the same shape, at least 0; any finite number for strategies that were not asked.
        total: the mean of sum_k tau_k(x_i) over the turns.
        ceiling: the maximum possible reward, as one number or in the shape of the rewards.
        model: the reward model, for estimators that need one.
    """

    weights: Floats
    rewards: Floats
    total: float = 1.0
    ceiling: Floats | float = 1.0
    model: Model | None = None

    @property
    def turns(self) -> int:
        """How many."""
        return len(self.weights)


class Terms(Struct, frozen=True):
    """An estimate as a mean over turns, or as a ratio of two.

    Attributes:
        values: the terms, (turns,).
        divisors: for a ratio, (turns,): the estimate is sum(values) / sum(divisors).
        low, high: bounds of the values, given the weights and the maximum rewards.
    """

    values: Floats
    low: float
    high: float
    divisors: Floats | None = None

    @property
    def value(self) -> float:
        """The estimate; NaN without turns, and for a ratio whose divisors are all zero."""
        if not len(self.values):
            return float("nan")
        if self.divisors is None:
            return float(self.values.mean())
        divisor = float(self.divisors.sum())
        return float(self.values.sum()) / divisor if divisor else float("nan")

    def linear(self) -> Floats:
        """Return terms, (turns,), whose mean is the estimate; for a ratio, by its first-order expansion."""
        if self.divisors is None:
            return self.values
        value = self.value
        linear: Floats = value + (self.values - value * self.divisors) / self.divisors.mean()
        return linear

    def minus(self, other: "Terms") -> "Terms":
        """Return the terms of the difference of two estimates from the same turns."""
        return Terms(self.linear() - other.linear(), self.low - other.high, self.high - other.low)


def weigh(extents: Floats, propensities: Floats, asked: NDArray[np.bool_]) -> Floats:
    """Return the importance weights w_ik = tau_k(x_i) / p_ik; 0 for strategies that were not asked.

    Args:
        extents: tau, at least 0, in any shape.
        propensities: p, in the same shape; ignored for strategies that were not asked.
        asked: whether each strategy was asked, in the same shape.

    Raises:
        SupportError: a strategy was asked with a propensity of 0, or one that is not a probability.
    """
    bad = asked & ~((propensities > 0) & (propensities <= 1.0 + _TINY))
    if bad.any():
        first = np.argwhere(bad)[0]
        where = f"turn {first[0]}" + (f", strategy {first[1]}" if len(first) > 1 else "")
        raise SupportError(
            f"{where}: it was asked with propensity {propensities[tuple(first)]:g}; log the probability with which it "
            f"was to be asked, more than 0 and at most 1, or leave such turns out ({int(bad.sum())} in all)"
        )
    weights: Floats = np.divide(extents, propensities, out=np.zeros_like(extents, dtype=float), where=asked)
    return weights


def ips(log: Feedback) -> Terms:
    """Inverse propensity scores. Unbiased if the logged policy may ask everything that the target may."""
    return Terms(_dots(log.weights, log.rewards), 0.0, _largest(log, log.weights))


def clipped(log: Feedback, cap: float | None = None) -> Terms:
    """IPS with weights clipped at `cap`, by default the square root of the number of turns: biased down, less
    variance.
    """
    weights = np.minimum(log.weights, threshold(log) if cap is None else cap)
    return Terms(_dots(weights, log.rewards), 0.0, _largest(log, weights))


def snips(log: Feedback) -> Terms:
    """Self-normalised IPS: invariant to shifts of the rewards. Consistent, with a bias of O(1 / turns)."""
    divisors = log.weights.sum(axis=1) / max(log.total, _TINY)
    return Terms(_dots(log.weights, log.rewards), 0.0, _largest(log, log.weights), divisors)


def direct(log: Feedback) -> Terms:
    """The direct method: as good as the reward model, whose error is in no interval."""
    expected = _model(log).expected
    return Terms(expected, float(expected.min(initial=0.0)), float(expected.max(initial=0.0)))


def doubly_robust(log: Feedback) -> Terms:
    """Doubly robust: unbiased as IPS is; the better the model, the lower the variance."""
    return _corrected(log, log.weights)


def switch(log: Feedback, cap: float | None = None) -> Terms:
    """Doubly robust where the weight is at most `cap`, see `clipped`; the direct method elsewhere."""
    return _corrected(log, np.where(log.weights <= (threshold(log) if cap is None else cap), log.weights, 0.0))


ESTIMATORS: Final[dict[str, Callable[[Feedback], Terms]]] = {
    "IPS": ips,
    "clipped IPS": clipped,
    "SNIPS": snips,
    "DM": direct,
    "DR": doubly_robust,
    "switch-DR": switch,
}
"""Estimators by name. Those after SNIPS need a model."""


def threshold(log: Feedback) -> float:
    """Return Ionides' truncation level: the square root of the number of turns, for weights of mean 1."""
    return float(np.sqrt(log.turns)) * max(log.total, _TINY)


class Diagnosis(Struct, frozen=True):
    """The fitness of a log for evaluating a target.

    Attributes:
        turns: the number of logged turns.
        effective: the effective sample size (Kish, "Survey sampling", 1965): (sum w)^2 / sum w^2 over turns.
        largest: the largest weight of a turn, relative to the average.
        heaviest: the share of the total weight that this turn has, 0 to 1.
        mean: the mean weight; 1 up to chance, if the propensities are correct and cover the target.
        error: the standard error of `mean`.
    """

    turns: int
    effective: float
    largest: float
    heaviest: float
    mean: float
    error: float

    def faults(self, minimum: float = 100.0, of: str = "turn") -> list[str]:
        """Return the reasons not to rely on estimates by weights; empty if there are none.

        Args:
            minimum: the minimum effective sample size.
            of: what is weighed.
        """
        found = []
        if self.effective < minimum:
            found.append(f"effective sample size {self.effective:.0f} of {self.turns:,} {of}s is below {minimum:.0f}")
        if self.heaviest > 0.1:
            found.append(f"one {of} has {self.heaviest:.0%} of all weight")
        if abs(self.mean - 1.0) > max(4.0 * self.error, 1e-9):
            found.append(
                f"the mean weight is {self.mean:.2f}, not 1: propensities are wrong, or do not cover the policy"
            )
        return found


def diagnose(log: Feedback) -> Diagnosis:
    """Return the diagnosis of the weights, which does not depend on rewards."""
    if not log.turns:
        return Diagnosis(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    weights = log.weights.sum(axis=1) / max(log.total, _TINY)
    total, squares, largest = float(weights.sum()), float(weights @ weights), float(weights.max())
    return Diagnosis(
        turns=log.turns,
        effective=total**2 / squares if squares else 0.0,
        largest=largest,
        heaviest=largest / total if total else 0.0,
        mean=total / log.turns,
        error=float(weights.std(ddof=1) / np.sqrt(log.turns)) if log.turns > 1 else float("inf"),
    )


class Replay(Struct, frozen=True):
    """The result of a replay: the mean reward of the turns that it kept.

    Attributes:
        terms: the rewards of the kept turns.
        kept: the number of kept turns.
    """

    terms: Terms
    kept: int


def replay(log: Feedback, rng: np.random.Generator) -> Replay:
    """Keep each turn with probability w_i / max w: the rest is distributed as if the target had logged it.

    Rejection sampling: the replay of Li, Chu, Langford & Wang, WSDM 2011, for any propensities. For one chosen
    action.

    Args:
        log: the log, with weights of shape (turns, 1).
        rng: the source of randomness.

    Raises:
        ValueError: the log has more than one action a turn.
    """
    if log.weights.shape[1] != 1:
        raise ValueError(f"weights: {log.weights.shape[1]} columns; a replay needs one action per turn")
    weights = log.weights[:, 0]
    largest = weights.max(initial=0.0)
    kept = rng.random(len(weights)) * largest < weights if largest else np.zeros(len(weights), dtype=bool)
    return Replay(Terms(log.rewards[kept, 0], 0.0, 1.0), int(kept.sum()))


def _corrected(log: Feedback, weights: Floats) -> Terms:
    model = _model(log)
    if not log.turns:
        return Terms(model.expected, 0.0, 0.0)
    values = model.expected + _dots(weights, log.rewards - model.predicted)
    least = model.expected - _dots(weights, model.predicted)  # for rewards of 0
    most = least + _at_most(log, weights)
    return Terms(values, float(least.min()), float(most.max()))


def _model(log: Feedback) -> Model:
    if log.model is None:
        raise ValueError("model: this estimator needs a model of the rewards; see reward_models.cross_fitted")
    return log.model


def _dots(left: Floats, right: Floats) -> Floats:
    """Return the dot products of rows, (turns,), without a copy of both."""
    return np.asarray(np.einsum("ik,ik->i", left, right))


def _at_most(log: Feedback, weights: Floats) -> Floats:
    """Return the maximum sum of the weighted rewards of each turn, (turns,)."""
    return _dots(weights, np.broadcast_to(log.ceiling, weights.shape))


def _largest(log: Feedback, weights: Floats) -> float:
    return float(_at_most(log, weights).max(initial=0.0))
