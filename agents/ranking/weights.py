"""From the ranking's sums to weights: a ridge towards a prior order, with its strength chosen on held-out queries.

The prior is a direction: declared weights, scaled to fit the clicks. Queries are in one of two folds by
their hash. For each half-life and each strength of the ridge, the weights are fitted on one fold and scored on the
other, both ways, so repeated queries never vouch for themselves. The weights leave the prior order only if the best
score exceeds the prior's by more than its standard deviation: with few clicks, the caller's order is served.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.ranking.sums import unpacked
from backchannel.agents.sums import Floats

RIDGES: Final = (10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 100_000.0)
"""Strengths of the pull towards the prior, in lists."""
_LEAST_SCALE: Final = 1e-3  # of the prior, which stays the prior even if clicks speak against it
_PRIOR_CLICKS: Final = 0.05
_PRIOR_LISTS: Final = 1.0


class Weights(Struct, frozen=True):
    """The learned weights of the features.

    Attributes:
        mean: The weights, in gain per unit of a column, (d,).
        prior: The weights of the prior order, at the scale that fits the clicks best, (d,).
        factor: A matrix L for which LL' is their covariance, (d, d); zeros while the prior order is served.
        learned: Whether clicks affect the order; if False, it is the prior's.
        gain: The held-out improvement over the prior, in squared gain per list, of the best ridge and half-life.
        deviation: The standard deviation of `gain`.
        ridge: The strength of the pull towards the prior, in lists.
        half_life: The chosen half-life, ms; None if nothing is forgotten.
        lists: The number of lists, decayed.
        logged: The share of these whose curve of examination was logged with them, 0 to 1.
    """

    mean: Floats
    prior: Floats
    factor: Floats
    learned: bool
    gain: float
    deviation: float
    ridge: float
    half_life: float | None
    lists: float
    logged: float


def solve(
    starts: Floats,
    rows: Floats,
    prior: Floats,
    half_lives: Sequence[float | None],
    at: float,
    *,
    evidence: float = 1.0,
) -> Weights:
    """Return the weights as of `at`.

    Args:
        starts: The start of each time bucket (ms), (buckets,).
        rows: The sums of each bucket and fold, (buckets, 2, width).
        prior: The weights of the prior order, (d,).
        half_lives: Half-lives to choose from (ms); None for no forgetting.
        at: Event time (ms).
        evidence: By how many of its standard deviations the held-out improvement must exceed zero.
    """
    dimension = len(prior)
    best: tuple[float, Weights] | None = None
    for half_life in half_lives:
        ages = np.maximum(at - starts, 0.0)
        discounts = np.ones(len(starts)) if half_life is None else np.exp2(-ages / half_life)
        folds = np.tensordot(discounts, rows, axes=1) if len(starts) else np.zeros((2, rows.shape[-1]))
        parts = [unpacked(fold, dimension) for fold in folds]
        total = folds.sum(axis=0)
        gram, moment = unpacked(total, dimension)
        lists, noise = float(total[0]), float(total[2] / max(total[1], 1e-9))
        spread = np.diag(gram) / max(lists, 1.0) + 1e-6
        base = _scaled(prior, gram, moment)
        for ridge in RIDGES:
            gain, variance = 0.0, 0.0
            for (own, own_moment), (other, other_moment) in (parts, parts[::-1]):
                own_base = _scaled(prior, own, own_moment)
                step = _step(own, own_moment, own_base, ridge * spread)
                width = float(step @ other @ step)
                gain += float(step @ (other_moment - other @ own_base)) - 0.5 * width
                variance += noise * width
            margin = gain - evidence * variance**0.5
            if best is None or margin > best[0]:
                learned, scale = margin > 0.0, max(lists, 1.0)
                best = (
                    margin,
                    Weights(
                        mean=base + _step(gram, moment, base, ridge * spread) if learned else base,
                        prior=base,
                        factor=_factor(gram, ridge * spread, noise) if learned else np.zeros_like(gram),
                        learned=learned,
                        gain=gain / scale,
                        deviation=variance**0.5 / scale,
                        ridge=ridge,
                        half_life=half_life,
                        lists=lists,
                        logged=float(total[4]) / scale,
                    ),
                )
    assert best is not None, "at least one half-life"
    return best[1]


def _factor(gram: Floats, ridge: Floats, noise: float) -> Floats:
    """Return a square root of the covariance, (d, d), given the variance of the residuals.

    Gains are at most 1, and so, about, are weights. Otherwise that of a column in which no list has differed yet, as
    the memory index's first scores, could be anything, and draws would follow nothing else.
    """
    precision = gram + np.diag(ridge + noise)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(precision)).T * noise**0.5)


def _scaled(prior: Floats, gram: Floats, moment: Floats) -> Floats:
    """Return the prior weights at the scale that fits the clicks best, never reversed."""
    scale = (prior @ moment + _PRIOR_CLICKS) / (prior @ gram @ prior + _PRIOR_LISTS)
    scaled: Floats = prior * max(float(scale), _LEAST_SCALE)
    return scaled


def _step(gram: Floats, moment: Floats, base: Floats, ridge: Floats) -> Floats:
    """Return the ridge solution's difference from `base`, (d,)."""
    return np.asarray(np.linalg.solve(gram + np.diag(ridge), moment - gram @ base))
