"""Position bias: the probability that a position is examined, learned by intervention harvesting.

In the position-based model (Craswell et al., "An experimental comparison of click position-bias models", WSDM 2008) the
probability of a click at position k is p(k), the probability that k is examined, times the attractiveness of what is
shown there. If a changing ranking showed one query-entity pair both at k and at k', the attractiveness cancels out
(Agarwal et al., "Estimating position bias without intrusive interventions", WSDM 2019). With c(i, k) the clicks of pair
i at k, and n(i, k) its showings there,

    sum over i of c(i, k) n(i, k')  /  sum over i of c(i, k') n(i, k)    estimates    p(k) / p(k')

Both are inner products over all pairs, which a tug-of-war sketch estimates in fixed space (Alon, Matias & Szegedy, "The
space complexity of approximating the frequency moments", STOC 1996): a pair's hash chooses one of BUCKETS buckets and a
sign, with which the pair is added. The products of the buckets add up to the inner product, as different pairs cancel
on average. The sketch is a sum.

A curve is a mixture of BASIS powers of the configured curve, p(k) = sum of w(j) * k^(-decay * j), from flat to its
square. Exposure is linear in the curve, so the exposure to each power is summed, and weighted by a curve when read.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import Floats, Key, SumReader, Sums, SumTable

BASIS: Final = 3
"""Number of powers of the configured curve in the mixture: 0, 1 and 2."""
BUCKETS: Final = 1024
HARVESTED: Final = 10
"""Positions that are compared with each other; the powers extend the curve beyond them."""

_CURVE: Final = "all"  # one curve for all queries
_KEPT: Final = 10  # periods before the newest; older ones weigh less than a thousandth of it
_STEPS: Final = 20
_TRUST: Final = 0.5
"""Prior standard deviation of the logarithm of the ratio of two positions, around that of the configured curve."""

_MIXTURES: Final = np.array([(i, j, _STEPS - i - j) for i in range(_STEPS + 1) for j in range(_STEPS + 1 - i)]) / _STEPS
_CONFIGURED: Final[Floats] = np.eye(BASIS)[1]
_PAIRS: Final = np.array(list(combinations(range(HARVESTED), 2))).T


class Examination:
    """Learns the examination curve.

    Args:
        decay: the exponent d of the configured curve, position^-d.
        half_life_ms: the half-life of the evidence, ms.

    Attributes:
        table: the sketch: for each half-life a packed vector, undecayed, of signed gains and then signed showings by
            bucket and position.
        powers: the powers of the configured curve at positions 0 to 10,000, (10,001, BASIS), each a probability of
            examination; 0 at position 0.
    """

    def __init__(self, decay: float, half_life_ms: int) -> None:
        self.table: Final = SumTable(name="examination", key=(("curve", str), ("period", int)))
        self._half_life_ms: Final = half_life_ms
        self.powers: Final[Floats] = np.zeros((10_001, BASIS))
        self.powers[1:] = np.arange(1, 10_001.0)[:, np.newaxis] ** (-decay * np.arange(BASIS))
        logarithms = np.log(_MIXTURES @ self.powers[1 : HARVESTED + 1].T)
        self._ratios: Final[Floats] = logarithms[:, _PAIRS[0]] - logarithms[:, _PAIRS[1]]
        configured = self._ratios[(_MIXTURES == _CONFIGURED).all(axis=1)]
        self._surprise: Final[Floats] = ((self._ratios - configured) ** 2).mean(axis=1) / _TRUST**2

    def harvest(
        self,
        times: NDArray[np.int64],
        pairs: NDArray[np.uint32],
        positions: NDArray[np.intp],
        gains: Floats,
        shown: Floats,
    ) -> Sums:
        """Return the delta contributed by showings and clicks of query-entity pairs.

        Args:
            times: event times, ms, (n,).
            pairs: hashes of the pairs, the same in every process, (n,).
            positions: positions of the showings, from 1, (n,); those at 0, unknown, are left out.
            gains: gains of the clicks, 0 to 1, (n,); 0 for a showing.
            shown: 1 for a showing and 0 for a click, (n,).
        """
        near = (positions > 0) & (positions <= HARVESTED)
        times, pairs = times[near], pairs[near]
        cells = (pairs % BUCKETS) * HARVESTED + positions[near] - 1
        signs = np.where(pairs // BUCKETS % 2, 1.0, -1.0)
        signed = signs * gains[near], signs * shown[near]
        periods = times // self._half_life_ms
        found = np.unique(periods).tolist()
        values = np.zeros((len(found), 2, BUCKETS * HARVESTED))
        for period, row in zip(found, values, strict=True):
            within = periods == period
            for sums, some in zip(row, signed, strict=True):
                sums[:] = np.bincount(cells[within], some[within], BUCKETS * HARVESTED)
        keys = [(_CURVE, period) for period in found]
        return Sums(self.table, keys, values.reshape(-1, 2 * BUCKETS * HARVESTED))

    def faded(self, periods: Iterable[Key]) -> dict[Key, None]:
        """Return the rows of the sketch to drop: those too old to matter beside the newest (see `curve`)."""
        keys = list(periods)
        newest = max((period for _, period in keys), default=0)
        return {key: None for key in keys if newest - key[1] > _KEPT}

    def curve(self, sums: SumReader) -> Floats:
        """Return the weights of the mixture, (BASIS,), each 0 to 1; without evidence, those of the configured curve.

        The weights minimise the squared errors of the logarithms of the ratios, each divided by its variance over the
        buckets, plus the squared distance to the configured curve. They are multiples of 1/20, so that small changes of
        the evidence do not change them.
        """
        rows = sums.read(self.table)
        if not rows.keys:
            return _CONFIGURED
        ages = max(period for _, period in rows.keys) - np.array([period for _, period in rows.keys])
        gains, shown = (0.5**ages @ rows.values).reshape(2, BUCKETS, HARVESTED)
        first = gains[:, _PAIRS[0]] * shown[:, _PAIRS[1]]
        second = gains[:, _PAIRS[1]] * shown[:, _PAIRS[0]]
        known = (first.sum(axis=0) > 0) & (second.sum(axis=0) > 0)
        first, second = first[:, known], second[:, known]
        if not known.any():
            return _CONFIGURED
        one, other = first.sum(axis=0), second.sum(axis=0)
        # Shares, whose squares do not underflow however long ago the evidence is.
        first, second = first / one, second / other
        # Few buckets may agree by chance: their effective number bounds the variance from below.
        effective = 1.0 / np.maximum((first**2).sum(axis=0), (second**2).sum(axis=0))
        variance = ((first - second) ** 2).sum(axis=0) + 2.0 / effective
        # All comparisons of a position share its clicks, so they are not independent.
        variance *= (HARVESTED - 1) / 2
        errors = ((self._ratios[:, known] - np.log(one / other)) ** 2 / variance).sum(axis=1)
        best: Floats = _MIXTURES[int(np.argmin(errors + self._surprise))]
        return best

    def examined(self, weights: Floats, positions: int) -> Floats:
        """Return the probabilities that positions 1, 2 ... are examined, (positions,).

        Args:
            weights: the weights of the mixture, (BASIS,).
            positions: the number of positions.
        """
        examined: Floats = self.powers[1 : positions + 1] @ weights
        return examined
