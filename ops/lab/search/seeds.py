"""Findings over several seeds: each seed splits the queries and draws people and their luck anew."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from scipy.special import stdtrit

from backchannel.ops.lab.search.findings import FIXED, FIXED_RANKED, LEARNED, RERANKED, Findings, Method
from backchannel.schemas.snapshot import Estimate


class OverSeeds(Struct, frozen=True):
    """A method's means over seeds, with 95% intervals by Student's t over the seeds.

    Attributes:
        method: the name of the method.
        recall: recall by the run's reading of its budget.
        against_fixed: recall less that of the best fixed allocation of the same seed.
        raw_gain, condensed_gain: relative gain of nDCG over BM25 alone; raw, and of judged documents only.
    """

    method: str
    recall: Estimate
    against_fixed: Estimate
    raw_gain: Estimate
    condensed_gain: Estimate


def over_seeds(runs: Sequence[Findings]) -> list[OverSeeds]:
    """Return the policy and the best fixed allocation over at least two runs that differ only in their seeds."""
    distinct = bool(runs[0].settings["distinct"])
    names = {method.name for method in runs[0].methods}

    def mean(name: str, read: Callable[[Findings, Method], float]) -> Estimate:
        return _estimate([read(one, one.method(name)) for one in runs])

    return [
        OverSeeds(
            name,
            mean(name, lambda _, own: (own.distinct if distinct else own.drawn).value),
            mean(name, lambda _, own: own.against_fixed.value),
            mean(name, lambda run, own: own.raw / run.bm25.raw - 1.0),
            mean(name, lambda run, own: own.condensed / run.bm25.condensed - 1.0),
        )
        for name in (LEARNED, RERANKED, FIXED, FIXED_RANKED)
        if name in names
    ]


def _estimate(values: Sequence[float]) -> Estimate:
    mean, count = float(np.mean(values)), len(values)
    half = float(stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / count**0.5)
    return Estimate(mean, mean - half, mean + half)
