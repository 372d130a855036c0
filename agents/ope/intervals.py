"""Confidence intervals of estimates that are means over turns, or ratios of two."""

from math import log, log1p, sqrt
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

import numpy as np

from backchannel.agents.ope.estimators import Terms
from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

Method: TypeAlias = Literal["normal", "bootstrap", "bernstein", "sequence"]

RESAMPLES: Final = 1000
BLOCKS: Final = 2_000
"""With more turns, runs of consecutive turns are resampled together (Künsch, Annals of Statistics 1989)."""
NARROWEST: Final = 1_000
"""The number of turns at which the intervals of a sequence are narrowest, relative to others of the same size."""
_DRAWN: Final = 1 << 20  # random numbers to draw at a time


def interval(
    terms: Terms, method: Method = "normal", confidence: float = 0.95, rng: np.random.Generator | None = None
) -> Estimate:
    """Return the estimate with a two-sided interval.

    Args:
        terms: the terms of an estimator.
        method: `normal`, the central limit theorem; `bootstrap`, percentiles of 1000 resamples in which turns have
            exponential weights (Rubin, "The Bayesian bootstrap", Annals of Statistics 1981); `bernstein`, the empirical
            Bernstein bound (Maurer & Pontil, COLT 2009, theorem 4), which holds for any number of turns and is wide. It
            takes the largest weight in the log for the largest possible one, and the first-order expansion of a ratio;
            `sequence`, an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform
            central limit theory and asymptotic confidence sequences", Annals of Statistics 2024): all intervals of a
            growing log together hold the value, if the first one has enough turns for the central limit theorem.
        confidence: the probability that the interval covers the value, between 0 and 1.
        rng: the source of randomness of the bootstrap.

    Raises:
        ValueError: a bootstrap without `rng`.
    """
    value, turns = terms.value, len(terms.values)
    if turns < 2 or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    if method == "bootstrap":
        if rng is None:
            raise ValueError("rng: a bootstrap needs one")
        tails = [(1.0 - confidence) / 2, (1.0 + confidence) / 2]
        low, high = np.nanquantile(_resampled(terms, rng), tails).tolist()
        return Estimate(value, low, high)
    deviation = float(terms.linear().std(ddof=1))
    if method == "normal":
        half = NormalDist().inv_cdf((1.0 + confidence) / 2) * deviation / np.sqrt(turns)
    elif method == "sequence":
        half = deviation * _radius(turns, 1.0 - confidence)
    else:
        # Two-sided: half of the error probability on either side.
        doubt = np.log(4.0 / (1.0 - confidence))
        half = deviation * np.sqrt(2.0 * doubt / turns) + 7.0 * (terms.high - terms.low) * doubt / (3.0 * (turns - 1))
    return Estimate(value, value - float(half), value + float(half))


def _radius(turns: int, error: float) -> float:
    """Return half the width of an interval of a sequence, in standard deviations of a term."""
    spread = (-2.0 * log(error) + log1p(-2.0 * log(error))) / NARROWEST
    grown = turns * spread + 1.0
    return sqrt(2.0 * grown / (turns**2 * spread) * log(sqrt(grown) / error))


def _resampled(terms: Terms, rng: np.random.Generator) -> Floats:
    """Return the estimate from each of RESAMPLES resamples of the turns, (RESAMPLES,)."""
    turns = len(terms.values)
    columns = np.column_stack((terms.values, np.ones(turns) if terms.divisors is None else terms.divisors))
    if turns > BLOCKS:
        columns = np.add.reduceat(columns, np.arange(BLOCKS) * turns // BLOCKS)
    estimates = np.empty(RESAMPLES)
    step = max(_DRAWN // len(columns), 1)
    for first in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - first)
        drawn = rng.standard_exponential((size, len(columns))) @ columns
        with np.errstate(invalid="ignore", divide="ignore"):
            estimates[first : first + size] = drawn[:, 0] / drawn[:, 1]
    return estimates
