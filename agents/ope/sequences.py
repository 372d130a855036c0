"""Confidence sequences: bounds that hold at every look together, however often and whenever one looks.

`gain_bounds` bounds the relative gain of one policy over another with which it shares the traffic by the toss of a
coin. It is a betting bound (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B
2024; for off-policy evaluation Waudby-Smith et al., "Anytime-valid off-policy inference for contextual bandits", 2022),
computed from sums, so evidence can be added in any order and on any number of workers. It only looks at rewarded turns,
so its power depends on the number of rewards, not on their rate, like that of the conditional test of two Poisson
rates.

It mixes over a fixed grid of bets, and Ville's inequality makes the mixture's wealth a test at all looks together.
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
"""The ratios of two policies' rewards to bet on, relative to the ratio that is tested."""
_ON_MORE: Final = np.log([0.25, 0.3, 0.25, 0.15, 0.05])
_ON_LESS: Final = np.log([0.15, 0.2, 0.35, 0.2, 0.1])
"""Log stakes of these bets: better policies are mostly a little better; the worse ones that matter are much worse."""
FEWEST: Final = 50
"""Units below which asymptotic bounds say nothing."""
TIGHTEST: Final = 500.0
"""Units at which asymptotic bounds are narrowest, for their number."""
UNKNOWN: Final = Estimate(0.0, -np.inf, np.inf)
"""A ratio of which nothing is known."""
_MOST: Final = 1e6  # the largest gain that is searched for, relative to the other policy's rewards
_STEPS: Final = 40  # steps of a bisection


class Contrast(Struct, frozen=True):
    """The rewards of two policies, A and B, that share the traffic: A decides with probability `share`, otherwise B
    does.

    A turn's weight is the probability, given the decision, that A made it. It is the coin's
    outcome if the two would never decide the same, and more informative than the coin if they might (Rao-Blackwell).

    Attributes:
        shares: probabilities that A decides, (n,), above 0 and below 1.
        weights: probabilities that A decided, given the decision, (n,), 0 to 1.
        rewards: sums of the rewards of the turns with that share and weight, (n,); each turn's is in [0, 1].
        turns: the total number of turns, with and without rewards.
    """

    shares: Floats
    weights: Floats
    rewards: Floats
    turns: float = 0.0

    @property
    def value(self) -> float:
        """B's mean reward per turn; NaN without turns."""
        if not self.turns:
            return float("nan")
        return float(self._others() @ self.rewards) / self.turns

    @property
    def gain(self) -> float:
        """The relative gain of A over B; NaN without rewards."""
        own, others = float(self._own() @ self.rewards), float(self._others() @ self.rewards)
        return own / others - 1.0 if others else float("nan")

    def _own(self) -> Floats:
        own: Floats = self.weights / self.shares
        return own

    def _others(self) -> Floats:
        others: Floats = (1.0 - self.weights) / (1.0 - self.shares)
        return others

    def is_more(self, gain: float, confidence: float) -> bool:
        """Return whether A's gain is surely more than `gain`, at any look."""
        return self._log_wealth(gain, MORE, _ON_MORE) >= -log1p(-confidence)

    def is_less(self, gain: float, confidence: float) -> bool:
        """Return whether A's gain is surely less than `gain`, at any look."""
        return self._log_wealth(gain, LESS, _ON_LESS) >= -log1p(-confidence)

    def _log_wealth(self, gain: float, ratios: Floats, weights: Floats) -> float:
        """Return the log wealth of betting that A earns `ratios` times as much as with a gain of `gain`.

        If the policies never decide the same, a reward is A's with odds u = share (1 + gain) / (1 - share), or with
        odds u * ratio if the bet is right. The bet pays the ratio of the likelihoods, which is linear in the weight,
        so the bet is fair for any weight. A fractional reward, in [0, 1], counts in
        proportion: by concavity, that is at most what the bet pays.
        """
        ratio = ratios[:, np.newaxis]
        odds = self.shares * (1.0 + gain) / (1.0 - self.shares)
        logs = np.log1p(self.weights * (ratio - 1.0)) + np.log1p(odds) - np.log1p(odds * ratio)
        return _log_mean(logs @ self.rewards, weights)


def gain_bounds(contrast: Contrast, confidence: float) -> Estimate:
    """Return the relative gain of A over B, with a confidence sequence.

    If the gain is constant, each bound holds at all looks together with probability `confidence`. If it
    changes, as a learning policy's does, the low bound is below the largest gain so far, and the high bound above
    the smallest. Shares may depend on earlier turns.

    Args:
        contrast: the rewards of both policies.
        confidence: the confidence of either bound by itself, between 0 and 1.

    Returns:
        the gain, with bounds of -1 and infinity if there are no rewards.
    """
    low, high = -1.0, float("inf")
    if contrast.is_more(-1.0 + 1.0 / _MOST, confidence):
        low = _threshold(lambda gain: contrast.is_more(gain, confidence))
    if contrast.is_less(_MOST, confidence):
        high = _threshold(lambda gain: not contrast.is_less(gain, confidence))
    return Estimate(contrast.gain, low, high)


def ratio_bounds(changes: Floats, totals: Floats, confidence: float) -> Estimate:
    """Return the sum of `changes` relative to that of `totals`, with an asymptotic confidence sequence.

    If the ratio is constant, each bound holds at all looks together with about the given probability, once there are
    FEWEST units (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 2024). It is narrowest at TIGHTEST units.

    Args:
        changes: of independent units, such as people, (units,).
        totals: of the same units, (units,), at least 0.
        confidence: the confidence of either bound by itself, between 0 and 1.

    Returns:
        the ratio; UNKNOWN if there are too few units, or all totals are 0.
    """
    units, total = len(changes), float(totals.sum())
    if units < FEWEST or not total:
        return UNKNOWN
    ratio = float(changes.sum()) / total
    alpha = min(2.0 * (1.0 - confidence), 0.99)  # of both bounds
    scale = units * (-2.0 * np.log(alpha) + np.log1p(-2.0 * np.log(alpha))) / TIGHTEST
    radius = np.sqrt(2.0 * (scale + 1.0) / scale * np.log1p(np.sqrt(scale + 1.0) / alpha) / units)
    spread = float(radius * (changes - ratio * totals).std()) * units / total
    return Estimate(ratio, ratio - spread, ratio + spread)


def _log_mean(logs: Floats, weights: Floats) -> float:
    weighted = logs + weights
    most = float(weighted.max())
    return most + float(np.log(np.exp(weighted - most).sum()))


def _threshold(holds: Callable[[float], bool]) -> float:
    """Return the gain up to which `holds` is true, found by bisecting its logarithm."""
    low, high = np.log(1.0 / _MOST), np.log1p(_MOST)
    return float(np.expm1(_bisect(lambda log: holds(float(np.expm1(log))), low, high)))


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the number between `low` and `high` up to which `holds` is true."""
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2.0
