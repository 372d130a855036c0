"""Intervals of rates, for every room. It needs NumPy only, as serving processes import it."""

from typing import TypeVar

import numpy as np

from backchannel.agents.sums import Floats

_T = TypeVar("_T", float, Floats)


def wilson(success: Floats, support: Floats, z: float) -> tuple[Floats, Floats]:
    """Return the bounds of the rate success / support, 0 to 1; 0 and 1 without support.

    This is Wilson's score interval (JASA 1927), which also holds for few trials.

    Args:
        success: the weights of the successes, (n,), 0 to `support`.
        support: the weights of all trials, (n,).
        z: half the width of the interval, in standard deviations.
    """
    center = success + z * z / 2
    spread = z * np.sqrt(np.maximum(success * (1 - success / np.maximum(support, 1e-300)), 0) + z * z / 4)
    total = support + z * z
    return np.maximum((center - spread) / total, 0.0), np.minimum((center + spread) / total, 1.0)


def gamma_rate(alpha: _T, beta: _T, deviations: float) -> tuple[_T, _T]:
    """Return the mean and a quantile of the gamma posterior of a click rate; both are at most 1.

    Clicks are Poisson distributed with mean rate times exposure. The quantile is Wilson and Hilferty's approximation
    ("The distribution of chi-square", PNAS 1931), and 0 where that is negative.

    Args:
        alpha: clicks, prior plus observed, a number or (n,); above 0.
        beta: exposures, prior plus observed, a number or (n,); above 0.
        deviations: the quantile in standard normal deviations; negative for a lower bound.
    """
    mean = alpha / beta
    cube_root = 1.0 - 1.0 / (9.0 * alpha) + deviations / (3.0 * alpha**0.5)
    quantile = mean * (cube_root > 0) * cube_root**3
    return mean - (mean > 1.0) * (mean - 1.0), quantile - (quantile > 1.0) * (quantile - 1.0)
