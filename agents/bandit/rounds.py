"""Decisions for one candidate each, in memory: for simulations, and where there is no ledger.

The posterior is that of the learner after turns in which one candidate was drawn.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.bandit.belief import Belief, draw
from backchannel.agents.bandit.evidence import FOLDS, StrategySums
from backchannel.agents.bandit.posterior import ModelAverage, coarsen
from backchannel.agents.bandit.rates import believe, exposures
from backchannel.agents.sums import Floats


class Rounds:
    """Sums of rounds as they come in, by time bucket.

    Args:
        average: the model average, which decides how much time buckets count.
        strategies: number of strategies.
        dimension: length of an encoded context.
        bucket_ms: length of a time bucket, ms.
    """

    def __init__(self, average: ModelAverage, strategies: int, dimension: int, bucket_ms: int) -> None:
        self._average: Final = average
        self._shape = strategies, FOLDS, dimension + 1, dimension + 1
        self._bucket_ms: Final = bucket_ms
        self._sums: Final[dict[int, Floats]] = {}
        self._seen = 0

    def add(self, contexts: Floats, chosen: NDArray[np.intp], rewards: Floats, at: int) -> None:
        """Add rounds of one time bucket.

        Args:
            contexts: encoded contexts, (rounds, d).
            chosen: codes of the chosen strategies, (rounds,).
            rewards: their rewards, (rounds,).
            at: event time (ms).
        """
        start = at - at % self._bucket_ms
        sums = self._sums.setdefault(start, np.zeros(self._shape))
        rows = np.column_stack((contexts, rewards))
        groups = chosen * FOLDS + (self._seen + np.arange(len(rows))) % FOLDS
        for group in np.unique(groups).tolist():
            own = rows[groups == group]
            sums[divmod(group, FOLDS)] += own.T @ own
        self._seen += len(rows)

    def grow(self, strategies: int) -> None:
        """Make room for more strategies."""
        more = strategies - self._shape[0]
        self._shape = strategies, *self._shape[1:]
        for start, sums in self._sums.items():
            self._sums[start] = np.pad(sums, ((0, more), *((0, 0),) * 3))

    def infer(self, at: int) -> Belief:
        """Return the posterior at event time `at` (ms), and coarsen old time buckets."""
        starts = sorted(self._sums)
        sums = np.array([self._sums[start] for start in starts]).reshape(-1, *self._shape)
        seen = self._average.infer(exposures(np.array(starts, dtype=float), _evidence(sums)), at)
        for old, new in coarsen(starts, seen.changes, self._bucket_ms, at, seen.changed).items():
            self._sums[new] = self._sums.get(new, 0.0) + self._sums.pop(old)
        return believe(_evidence(np.tensordot(seen.discounts, sums, axes=1)))


def _evidence(sums: Floats) -> StrategySums:
    """Return sums of rounds, (..., strategies, FOLDS, d + 1, d + 1), as evidence about the first rank bucket."""
    sums = sums[..., np.newaxis, :, :, :]
    return StrategySums(
        sums[..., :-1, :-1], sums[..., :-1, -1], sums[..., -1, -1].sum(axis=-1), sums[..., 0, -1].sum(axis=(-1, -2))
    )


def draw_models(belief: Belief, width: float, count: int, rng: np.random.Generator) -> Floats:
    """Draw linear models of the reward of one candidate, (count, strategies, d)."""
    rates, phi = draw(belief, width, count, rng)
    models = rates[..., :1] * phi
    models[..., 0] += rates[..., 0]
    return np.asarray(models)
