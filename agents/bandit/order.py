"""The order of a page: which strategies push the results of others down.

An item of strategy s at rank r of its a_s candidates stands at u = (r - 1/2) / a_s of its list. If lists are merged in
proportion, u is also the share of each other strategy t's candidates that stand above it. How much larger or smaller
that share really is, delta_st(u), follows from how the caller orders pages: if lists are shown one after the other, it
is 1 - u or -u. It is learned from the shown results, in QUARTERS of a list. So under a plan the item is expected at
position

    1 + sum_t a_t (u + delta_st(u)),

and is examined more or less often than in the proportional order, as `seen_more` says. So plans are compared by what
they bring, wherever it stands in the proportional order, and by what the page's own order costs that.
"""

from typing import Final

import numpy as np

from backchannel.agents.bandit.mixture import Counts
from backchannel.agents.bandit.ranks import LOWER, UPPER
from backchannel.agents.sums import Floats

QUARTERS: Final = 4
PRIOR: Final = 20.0
"""Strength of the prior that lists are merged in proportion, in candidates above or below."""


def departures(sums: Floats) -> Floats:
    """Return delta, (strategies s, strategies t, QUARTERS), from the sums of `evidence.order_of`."""
    return np.asarray(sums[:, :, 0] / (sums[:, :, 1] + PRIOR))


def seen_more(counts: Counts, beyond: Floats, decay: float) -> Floats:
    """Return how many times as often as in the proportional order items are examined, (plans, strategies, BUCKETS).

    Args:
        counts: plans, (plans, strategies).
        beyond: delta; see `departures`.
        decay: the exponent of examination.
    """
    middle = (LOWER + np.clip(counts[..., np.newaxis], LOWER + 1, UPPER)) / 2.0
    share = np.minimum(middle / np.maximum(counts, 1)[..., np.newaxis], 1.0)
    at = np.clip(share * QUARTERS - 0.5, 0.0, QUARTERS - 1.0)
    nearness = np.maximum(1.0 - np.abs(at[..., np.newaxis] - np.arange(QUARTERS)), 0.0)
    proportional = 0.5 + share * counts.sum(axis=1)[:, np.newaxis, np.newaxis]
    moved = np.einsum("pskq,stq,pt->psk", nearness, beyond, counts.astype(float), optimize=True)
    return np.asarray((np.maximum(proportional + moved, 1.0) / np.maximum(proportional, 1.0)) ** -decay)
