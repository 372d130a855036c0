"""Statistics that more than one room needs: intervals of rates. NumPy only, as serving processes import it."""

from typing import TypeVar

import numpy as np

from backchannel.agents.sums import Floats

_T = TypeVar("_T", float, Floats)


def wilson(success: Floats, support: Floats, z: float) -> tuple[Floats, Floats]:
    """Return the bounds of the rate success / support, 0 to 1; 0 and 1 without support.

    Wilson's score interval (JASA 1927), which holds for few trials, too.

    Args:
        success: weights of the successes, (n,), at most `support`.
        support: weights of all trials, (n,).
        z: half the width, in standard deviations.
    """
    center = success + z * z / 2
    spread = z * np.sqrt(np.maximum(success * (1 - success / np.maximum(support, 1e-300)), 0) + z * z / 4)
    total = support + z * z
    return np.maximum((center - spread) / total, 0.0), np.minimum((center + spread) / total, 1.0)


def gamma_rate(alpha: _T, beta: _T, deviations: float) -> tuple[_T, _T]:
    """Return the mean of a gamma posterior of a click rate, and one of its quantiles; both at most 1.

    Clicks are Poisson with the rate times the exposure. The quantile is that of Wilson & Hilferty ("The distribution of
    chi-square", PNAS 1931), 0 where it would be negative.

    Args:
        alpha: clicks, prior plus observed, a number or (n,); above 0.
        beta: exposures, prior plus observed, a number or (n,); above 0.
        deviations: the quantile in normal deviations; negative for a lower bound.
    """
    mean = alpha / beta
    cube_root = 1.0 - 1.0 / (9.0 * alpha) + deviations / (3.0 * alpha**0.5)
    quantile = mean * (cube_root > 0) * cube_root**3
    return mean - (mean > 1.0) * (mean - 1.0), quantile - (quantile > 1.0) * (quantile - 1.0)
