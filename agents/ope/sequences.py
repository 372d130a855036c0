"""Confidence sequences: bounds that hold at every look together, however often and whenever one looks.

Two kinds, both from sums alone, so that evidence can be added in any order and on any number of workers:

- `mean_bounds`, for the mean of bounded terms: an empirical Bernstein bound, from their number, sum and sum of squares
  (Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
  Statistics 2021, with the inequality of Fan, Grama & Liu, Electronic Journal of Probability 2015).
- `gain_bounds`, for how much more one policy earns than another with which it shares the traffic by a coin: a betting
  bound (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024; for off-policy
  evaluation Waudby-Smith et al., "Anytime-valid off-policy inference for contextual bandits", 2022). It only looks at
  rewarded turns, so its power depends on the number of rewards and not on their rate, as that of the conditional test
  of two Poisson rates does.

Both mix over a fixed grid of bets, and Ville's inequality makes the mixture's wealth a test at all looks together.
"""

from collections.abc import Callable
from math import log1p
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

MORE: Final = np.array([1.1, 1.25, 1.6, 3.0, 10.0])
LESS: Final = np.array([0.9, 0.75, 0.5, 0.25, 0.02])
"""Ratios of what two policies earn that are bet on, relative to the ratio that is doubted."""
_ON_MORE: Final = np.log([0.25, 0.3, 0.25, 0.15, 0.05])
_ON_LESS: Final = np.log([0.15, 0.2, 0.35, 0.2, 0.1])
"""How much: better policies mostly are so by little, and the worse ones that matter by much."""
_STAKES: Final = np.geomspace(0.0005, 0.9, 24)  # in units of one over the largest term
_MOST: Final = 1e6  # times what the other earns: the largest gain that is looked for
_STEPS: Final = 40  # of a bisection


class Contrast(Struct, frozen=True):
    """The rewards of two policies, A and B, that share the traffic: A decides with probability `share`, B otherwise.

    Given what was done, it is known with which probability it was A who decided: its weight. That is the coin's
    outcome where the two would never do the same, and says more than the coin where they might (Rao-Blackwell).

    Attributes:
        shares: probability that A decides, (n,), above 0 and below 1.
        weights: probability that A decided, given what was done, (n,), 0 to 1.
        rewards: of the turns with that share and weight, added up, (n,); those of one turn lie in [0, 1].
        turns: in all, with and without rewards.
    """

    shares: Floats
    weights: Floats
    rewards: Floats
    turns: float = 0.0

    @property
    def value(self) -> float:
        """What B earns a turn; NaN without turns."""
        if not self.turns:
            return float("nan")
        return float(self._others() @ self.rewards) / self.turns

    @property
    def gain(self) -> float:
        """How much more A earns than B, as a share of what B earns; NaN without rewards."""
        own, others = float(self._own() @ self.rewards), float(self._others() @ self.rewards)
        return own / others - 1.0 if others else float("nan")

    def _own(self) -> Floats:
        own: Floats = self.weights / self.shares
        return own

    def _others(self) -> Floats:
        others: Floats = (1.0 - self.weights) / (1.0 - self.shares)
        return others

    def is_more(self, gain: float, confidence: float) -> bool:
        """Whether A's gain is surely more than `gain`, at whichever look."""
        return self._log_wealth(gain, MORE, _ON_MORE) >= -log1p(-confidence)

    def is_less(self, gain: float, confidence: float) -> bool:
        """Whether A's gain is surely less than `gain`, at whichever look."""
        return self._log_wealth(gain, LESS, _ON_LESS) >= -log1p(-confidence)

    def _log_wealth(self, gain: float, ratios: Floats, weights: Floats) -> float:
        """The logarithm of the wealth of who bets that A earns `ratios` times as much as with a gain of `gain`.

        Where policies never do the same, a reward is A's with odds u = share (1 + gain) / (1 - share), and with odds
        u * ratio if the bet is right. The bet's worth is the ratio of the likelihoods, which is linear in the weight,
        so that it is a fair bet for any weight. A reward that was had in part, being a number in [0, 1], counts in
        proportion: by concavity that is at most what the bet is worth.
        """
        ratio = ratios[:, np.newaxis]
        odds = self.shares * (1.0 + gain) / (1.0 - self.shares)
        logs = np.log1p(self.weights * (ratio - 1.0)) + np.log1p(odds) - np.log1p(odds * ratio)
        return _log_mean(logs @ self.rewards, weights)


def gain_bounds(contrast: Contrast, confidence: float) -> Estimate:
    """Return the gain of A over B as a share of what B earns, with a confidence sequence.

    If the gain is the same all the time, each bound holds at all looks together with probability `confidence`. If it
    changes, as a learning policy's does, the low one is below the largest gain that there was, and the high one above
    the least. Shares may depend on what was seen before.

    Args:
        contrast: what there is to see.
        confidence: of either bound by itself, between 0 and 1.

    Returns:
        bounds of -1 and infinity where there is nothing to see.
    """
    low, high = -1.0, float("inf")
    if contrast.is_more(-1.0 + 1.0 / _MOST, confidence):
        low = _threshold(lambda gain: contrast.is_more(gain, confidence))
    if contrast.is_less(_MOST, confidence):
        high = _threshold(lambda gain: not contrast.is_less(gain, confidence))
    return Estimate(contrast.gain, low, high)


class Moments(Struct, frozen=True):
    """Sums of bounded terms.

    Attributes:
        count: of the terms.
        total: their sum.
        squares: the sum of their squares.
        lowest: the least that a term can be, at most 0.
        highest: the most that a term can be, at least 0.
    """

    count: float
    total: float
    squares: float
    lowest: float
    highest: float


def mean_bounds(moments: Moments, confidence: float) -> Estimate:
    """Return the mean of bounded terms with a confidence sequence.

    Args:
        moments: of the terms.
        confidence: of either bound by itself, between 0 and 1.

    Returns:
        `lowest` and `highest` as bounds where there is nothing to tell from.
    """
    if not moments.count:
        return Estimate(float("nan"), moments.lowest, moments.highest)
    mean = moments.total / moments.count
    more = _deviation(moments.squares, moments.highest, confidence) / moments.count
    less = _deviation(moments.squares, -moments.lowest, confidence) / moments.count
    return Estimate(mean, max(mean - more, moments.lowest), min(mean + less, moments.highest))


def _deviation(squares: float, scale: float, confidence: float) -> float:
    """By how much a sum of terms of at most `scale` may exceed its expectation.

    With a stake l in (0, 1 / scale), exp(l (sum - expected) - psi(l) squares) is a supermartingale, where
    psi(l) = (-log(1 - l scale) - l scale) / scale^2; mixed over stakes, as the best one depends on the squares.
    """
    if scale <= 0.0:
        return 0.0
    stakes = _STAKES / scale
    costs = (-np.log1p(-_STAKES) - _STAKES) / scale**2 * squares
    enough = -np.log1p(-confidence)
    weights = np.full(len(stakes), -np.log(len(stakes)))
    high = scale
    while _log_mean(stakes * high - costs, weights) < enough:
        high *= 2.0
    return _bisect(lambda deviation: _log_mean(stakes * deviation - costs, weights) < enough, 0.0, high)


def _log_mean(logs: Floats, weights: Floats) -> float:
    weighted = logs + weights
    most = float(weighted.max())
    return most + float(np.log(np.exp(weighted - most).sum()))


def _threshold(holds: Callable[[float], bool]) -> float:
    """Return the gain up to which `holds` is true, to be sought by its logarithm."""
    low, high = np.log(1.0 / _MOST), np.log1p(_MOST)
    return float(np.expm1(_bisect(lambda log: holds(float(np.expm1(log))), low, high)))


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return up to where between `low` and `high` it holds."""
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2.0
