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

The curve is free at the first HARVESTED positions, except that it never rises: it is the isotonic regression of the
ratios, drawn towards the configured curve. Beyond, it falls like the configured one.

People also click what is on top because they trust the order (Agarwal et al., "Addressing trust bias for unbiased
learning-to-rank", WWW 2019): they click a result that does not attract them with probability t / k at an examined
position k. So clicks are affine in attractiveness (Vardasbi et al., "When inverse propensity scoring does not work",
CIKM 2020). The ratios of positions hardly distinguish trust from examination, so its strength t is configured:
measuring it takes an experiment with results that are known to be useless. Given the strength, the ratios are corrected
for trust.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.sums import Floats, Integers, Key, SumReader, Sums, SumTable, unique_inverse

BUCKETS: Final = 4096
HARVESTED: Final = 10
"""Number of first positions that are compared with each other, and at which the curve is free."""
SHOWINGS: Final = (*(f"at_{position}" for position in range(1, HARVESTED + 1)), "beyond")
"""The sums of showings at each of the first positions; and beyond them, each relative to the last of these."""

_CURVE: Final = "all"  # one curve for all queries
_KEPT: Final = 10  # periods before the newest; older ones weigh less than a thousandth as much
_CERTAIN: Final = 0.5
"""Prior standard deviation of the logarithm of the ratio of two positions, around that of the configured curve."""
_ROUNDS: Final = 8
"""Rounds of fitting alternately the curve and the attractiveness that trust adds to."""

_PAIRS: Final = np.array(list(combinations(range(HARVESTED), 2))).T
_BETWEEN: Final = np.array(
    [[first <= step < second for step in range(HARVESTED - 1)] for first, second in _PAIRS.T], dtype=np.float64
)
"""Whether each step from one position to the next lies between the positions of each pair, (pairs, HARVESTED - 1)."""


class Curve(Struct, frozen=True):
    """How clicks depend on positions: at position k, slopes[k] * attractiveness + offsets[k] are expected.

    Attributes:
        slopes: for each of `SHOWINGS`, (11,), above 0.
        offsets: for each of `SHOWINGS`, (11,), at least 0; 0 without trust.
    """

    slopes: Floats
    offsets: Floats

    @property
    def examined(self) -> Floats:
        """The probabilities that positions 1 to HARVESTED are examined, (HARVESTED,)."""
        return (self.slopes + self.offsets)[:HARVESTED]

    def evidence(self, gain: Floats, shown: Floats) -> tuple[Floats, Floats]:
        """Return the gains less those due to trust, and the exposures, each (pairs,).

        Gains due to trust are as uncertain as the others. So both are scaled down such that the standard error of
        their ratio is that of all gains.

        Args:
            gain: all gains, (pairs,).
            shown: the showings, (pairs, 11), see `SHOWINGS`.
        """
        exposure, trust = shown @ self.slopes, shown @ self.offsets
        attracted = np.maximum(gain - trust, 0.0)
        certain = (attracted + 1.0) / (attracted + 1.0 + trust)
        return certain * attracted, certain * exposure


class Examination:
    """Learns the examination curve.

    Args:
        decay: the exponent d of the configured curve, position^-d.
        half_life_ms: the half-life of the evidence, ms.
        trust: the strength t of trust, 0 to 0.9.

    Attributes:
        table: the sketch: for each half-life a packed vector, undecayed, of signed gains and then signed showings by
            bucket and position.
        relative: the examination of positions 0 to 10,000 relative to the first, or beyond HARVESTED to the last, of
            the positions that they are summed with, (10,001,); 0 at position 0.
    """

    def __init__(self, decay: float, half_life_ms: int, trust: float = 0.0) -> None:
        self.table: Final = SumTable(name="examination", key=(("curve", str), ("period", int)))
        self._half_life_ms: Final = half_life_ms
        self.relative: Final[Floats] = np.ones(10_001)
        self.relative[0] = 0.0
        self.relative[HARVESTED + 1 :] = (np.arange(HARVESTED + 1.0, 10_001) / HARVESTED) ** -decay
        self._steps: Final[Floats] = -np.diff(np.log(np.arange(1.0, HARVESTED + 1) ** -decay))
        self._trust: Final[Floats] = trust / np.arange(1.0, HARVESTED + 1)
        self._configured: Final = self._curve(self._steps)

    def showings(self, keys: Integers, positions: Integers, weights: Floats, size: int) -> Floats:
        """Return the sums of `SHOWINGS` by key, (size, 11).

        Args:
            keys: the key of each showing, (n,), 0 to size - 1.
            positions: positions of the showings, from 1, (n,); those at 0, unknown, are left out.
            weights: weights of the showings, (n,).
            size: the number of keys.
        """
        columns = np.clip(positions, 1, HARVESTED + 1) - 1
        cells = keys * len(SHOWINGS) + columns
        sums: Floats = np.zeros((size, len(SHOWINGS)))
        sums += np.bincount(cells, weights * self.relative[positions], sums.size).reshape(sums.shape)
        return sums

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
        found = unique_inverse(periods)[0].tolist()
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

    def curve(self, sums: SumReader) -> Curve:
        """Return the learned curve; without evidence, the configured one.

        The curve minimises the squared errors of the logarithms of the ratios, each divided by its variance over the
        buckets, plus the squared distance to the configured curve. What trust adds to a ratio follows from the
        attractiveness that the lower of both positions shows.
        """
        rows = sums.read(self.table)
        if not rows.keys:
            return self._configured
        ages = max(period for _, period in rows.keys) - np.array([period for _, period in rows.keys])
        gains, shown = (0.5**ages @ rows.values).reshape(2, BUCKETS, HARVESTED)
        first = gains[:, _PAIRS[0]] * shown[:, _PAIRS[1]]
        second = gains[:, _PAIRS[1]] * shown[:, _PAIRS[0]]
        both = (shown[:, _PAIRS[0]] * shown[:, _PAIRS[1]]).sum(axis=0)
        known = (first.sum(axis=0) > 0) & (second.sum(axis=0) > 0) & (both > 0)
        if not known.any():
            return self._configured
        first, second, both = first[:, known], second[:, known], both[known]
        one, other = first.sum(axis=0), second.sum(axis=0)
        # Shares, whose squares do not underflow however old the evidence is.
        first, second = first / one, second / other
        # Few buckets may agree by chance: their effective number bounds the variance from below.
        effective = 1.0 / np.maximum((first**2).sum(axis=0), (second**2).sum(axis=0))
        variance = ((first - second) ** 2).sum(axis=0) + 2.0 / effective
        # All comparisons of a position share its clicks, so they are not independent.
        variance *= (HARVESTED - 1) / 2
        return self._curve(self._fit(np.log(one / other), other / both, variance, known))

    def _fit(self, ratios: Floats, lower: Floats, variance: Floats, known: NDArray[np.bool_]) -> Floats:
        """Return the steps of the best curve's logarithm from one position to the next, (HARVESTED - 1,).

        Args:
            ratios: logarithms of the ratios of the clicks at the positions of each known pair, (known,).
            lower: the rate of clicks at the lower position of each known pair, (known,).
            variance: variances of the ratios, (known,).
            known: whether each pair of positions is known, (pairs,).
        """
        from scipy.optimize import nnls  # noqa: PLC0415 - slow to import, and needed only to solve

        upper_trust, lower_trust = self._trust[_PAIRS[:, known]]
        weights = np.append(variance**-0.5, np.full(len(_BETWEEN), len(_BETWEEN) ** -0.5 / _CERTAIN))
        design = np.concatenate((_BETWEEN[known], _BETWEEN)) * weights[:, np.newaxis]
        prior = _BETWEEN @ self._steps
        steps: Floats = self._steps
        for _ in range(_ROUNDS if self._trust.any() else 1):
            examined = np.exp(-np.append(0.0, np.cumsum(steps)))[_PAIRS[1, known]]
            attractive = np.clip((lower / examined - lower_trust) / (1.0 - lower_trust), 1e-3, 1.0)
            added = np.log(attractive + upper_trust * (1.0 - attractive))
            added -= np.log(attractive + lower_trust * (1.0 - attractive))
            steps, _ = nnls(design, np.append(ratios - added, prior) * weights)
        return steps

    def _curve(self, steps: Floats) -> Curve:
        """Return the curve with the `steps` of its logarithm from one position to the next, (HARVESTED - 1,)."""
        examined = np.exp(-np.append(0.0, np.cumsum(steps)))
        offsets = examined * self._trust
        slopes = examined - offsets
        return Curve(np.append(slopes, slopes[-1]), np.append(offsets, offsets[-1]))
