"""The posterior of the strategies' rates, which `rates` computes, and draws from it."""

from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Floats

LEVEL_PRIOR: Final = 2.0
"""Strength of the prior of a strategy's level, in clicks."""
RATE_PRIOR: Final = 2.0
"""Strength of the weakest prior of a bucket's rate, in clicks; draws are as wide as it leaves them."""


class Belief(Struct, frozen=True):
    """The posterior of the strategies' rates.

    Attributes:
        clicks: clicks seen in each rank bucket, in units of the dispersion, (strategies, BUCKETS).
        rates: the posterior mean of c, (strategies, BUCKETS).
        prior: the share of each rate that is still the prior's, (strategies, BUCKETS).
        theta: the posterior mean of phi, (strategies, d).
        whitener: (strategies, d, d); W'W is the covariance of phi.
        evident: the mean of phi for pages of several candidates, (strategies, d): next to nothing but for what all
            strategies have in common, where nothing shows that they differ.
    """

    clicks: Floats
    rates: Floats
    prior: Floats
    theta: Floats
    whitener: Floats
    evident: Floats


def draw(belief: Belief, width: float, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw from the posterior. What the prior leaves open keeps its width; what was learned gets `width` times its own.

    Returns:
        c, (count, strategies, BUCKETS), and phi, (count, strategies, d).
    """
    if not width:
        return (np.repeat(each[np.newaxis], count, axis=0) for each in (belief.rates, belief.theta))  # type: ignore[return-value]
    shape = belief.clicks.sum(axis=1) / width**2 + LEVEL_PRIOR
    level = rng.gamma(shape, 1.0 / shape, (count, *shape.shape))[..., np.newaxis]
    shape = belief.clicks / width**2 + RATE_PRIOR / width**2
    noise = rng.gamma(shape, 1.0 / shape, (count, *shape.shape))
    # The share of the rate that is the prior's moves with the level.
    drawn = belief.rates * noise * ((1.0 - belief.prior) + belief.prior * level)
    normal = rng.standard_normal((count, *belief.theta.shape))
    phi = belief.theta + width * np.einsum("nsi,sij->nsj", normal, belief.whitener)
    return drawn, phi
