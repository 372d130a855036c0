"""Measures of a ranking: raw and condensed nDCG, and judged@k; and paired intervals over queries.

On pooled judgements, raw nDCG penalises finding documents that the pool's engine did not: unjudged documents count as
irrelevant. Condensed nDCG removes them from the list (Sakai 2007); judged@k says how many of the first k were judged.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

_RESAMPLED = 2000


class Ranking(Struct, frozen=True):
    """The quality of a ranking; see the module. All numbers are in [0, 1]."""

    raw: float
    condensed: float
    judged: float


def ranking(shown: Sequence[int], grades: Mapping[int, float], k: int = 10) -> Ranking:
    """Measure a ranking.

    Args:
        shown: the documents, from the top.
        grades: document -> grade, for judged documents.
        k: the number of positions to measure.
    """
    ideal = _dcg(sorted(grades.values(), reverse=True)[:k])
    judged = [grades[item] for item in shown if item in grades]
    raw = _dcg([grades.get(item, 0.0) for item in shown[:k]])
    known = sum(item in grades for item in shown[:k])
    return (
        Ranking(raw / ideal, _dcg(judged[:k]) / ideal, known / max(len(shown[:k]), 1))
        if ideal
        else Ranking(0.0, 0.0, 0.0)
    )


def paired(values: NDArray[np.float64], others: NDArray[np.float64] | float = 0.0, seed: int = 0) -> Estimate:
    """Return the mean of `values` less `others`, (queries,), with its interval by bootstrap over queries."""
    differences: Floats = np.asarray(values - others, dtype=np.float64)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(differences), np.full(len(differences), 1 / len(differences)), size=_RESAMPLED)
    low, high = np.percentile(weights @ differences / len(differences), [2.5, 97.5])
    return Estimate(float(differences.mean()), float(low), float(high))


def _dcg(grades: Sequence[float]) -> float:
    gains = 2.0 ** np.asarray(grades, dtype=np.float64) - 1.0
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
