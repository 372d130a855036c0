"""Position bias: how likely it is that somebody looks at a position, learned by intervention harvesting.

The position-based model (Craswell et al., "An experimental comparison of click position-bias models", WSDM 2008) says
that a click at position k has the probability p(k) times the attractiveness of what is shown there. When one
query-entity pair was shown both at k and at k', as a changing ranking makes happen, the attractiveness cancels out
(Agarwal et al., "Estimating position bias without intrusive interventions", WSDM 2019): with c(i, k) the clicks of pair
i at k and n(i, k) how often it was shown there,

    sum over i of c(i, k) n(i, k')  /  sum over i of c(i, k') n(i, k)    estimates    p(k) / p(k')

Both are inner products over all pairs, and those a tug-of-war sketch keeps in fixed space (Alon, Matias & Szegedy, "The
space complexity of approximating the frequency moments", STOC 1996): every pair is added to one of BUCKETS buckets,
with a sign, both by its hash; the buckets' products add up to the inner product, as unlike pairs cancel on average. So
what is learned is a sum.

A curve is a mixture of BASIS powers of the configured one, p(k) = sum of w(j) * k^(-decay * j), from flat to its
square. Exposure is linear in the curve: whoever sums the exposure to each power can weigh it by any curve, later.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import Key, Matrix, SumReader, Sums, SumTable

BASIS: Final = 3
"""The powers of the configured curve that are mixed: 0, 1 and 2."""
BUCKETS: Final = 1024
HARVESTED: Final = 10
"""Positions that are compared with each other; a curve goes on from there as its powers do."""

_CURVE: Final = "all"  # there is one, for everybody
_KEPT: Final = 10  # periods before the newest; what is older weighs less than a thousandth of it
_STEPS: Final = 20
_TRUST: Final = 0.5
"""The standard deviation of the logarithm of the ratio of two positions that the configured curve is believed to."""

_MIXTURES: Final = np.array([(i, j, _STEPS - i - j) for i in range(_STEPS + 1) for j in range(_STEPS + 1 - i)]) / _STEPS
_CONFIGURED: Final[Matrix] = np.eye(BASIS)[1]
_PAIRS: Final = np.array(list(combinations(range(HARVESTED), 2))).T


class Examination:
    """Learns the curve.

    Args:
        decay: of the configured curve, position^-decay.
        half_life_ms: of the evidence.

    Attributes:
        table: of the sketch: a packed vector per half-life, in which nothing fades; what was gained and how often it
            was shown, signed, by bucket and position.
        powers: the basis at the positions that events admit, (10,001, BASIS); nobody looks at position 0.
    """

    def __init__(self, decay: float, half_life_ms: int) -> None:
        self.table: Final = SumTable(name="examination", key=(("curve", str), ("period", int)))
        self._half_life_ms: Final = half_life_ms
        self.powers: Final[Matrix] = np.zeros((10_001, BASIS))
        self.powers[1:] = np.arange(1, 10_001.0)[:, np.newaxis] ** (-decay * np.arange(BASIS))
        logarithms = np.log(_MIXTURES @ self.powers[1 : HARVESTED + 1].T)
        self._ratios: Final[Matrix] = logarithms[:, _PAIRS[0]] - logarithms[:, _PAIRS[1]]
        configured = self._ratios[(_MIXTURES == _CONFIGURED).all(axis=1)]
        self._surprise: Final[Matrix] = ((self._ratios - configured) ** 2).mean(axis=1) / _TRUST**2

    def harvest(
        self,
        times: NDArray[np.int64],
        pairs: NDArray[np.uint32],
        positions: NDArray[np.intp],
        gains: Matrix,
        shown: Matrix,
    ) -> Sums:
        """Return what showing pairs adds.

        Args:
            times: of it (ms).
            pairs: their hashes, the same ones in every process.
            positions: where they were shown, from 1; 0 is left out.
            gains: there.
            shown: how often.
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
        """Return which rows of the sketch weigh next to nothing beside the newest: see `curve`."""
        keys = list(periods)
        newest = max((period for _, period in keys), default=0)
        return {key: None for key in keys if newest - key[1] > _KEPT}

    def curve(self, sums: SumReader) -> Matrix:
        """Return the weights of the mixture, (BASIS,): the configured curve, as far as nothing speaks against it.

        They minimise the squared errors of the logarithms of the ratios, each divided by its variance over the buckets,
        and how far they are from the configured curve. They are multiples of a twentieth, so that they stay the same
        from version to version.
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
        # Few buckets agree by chance: how many matter bounds the variance from below.
        effective = np.minimum(one**2 / (first**2).sum(axis=0), other**2 / (second**2).sum(axis=0))
        variance = ((first / one - second / other) ** 2).sum(axis=0) + 2.0 / effective
        # The comparisons of one position with all others share its clicks.
        variance *= (HARVESTED - 1) / 2
        errors = ((self._ratios[:, known] - np.log(one / other)) ** 2 / variance).sum(axis=1)
        best: Matrix = _MIXTURES[int(np.argmin(errors + self._surprise))]
        return best

    def examined(self, weights: Matrix, positions: int) -> Matrix:
        """Return the probability that positions 1, 2 ... are examined under a mixture, (positions,)."""
        examined: Matrix = self.powers[1 : positions + 1] @ weights
        return examined
