"""Rankers fitted to pairs of which it is known whether they are wins or losses, and how sure they are."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import Booleans, Floats, Integers

_QUANTILES: Final = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.998)
_RIDGE: Final = 2.0
_ROUNDS: Final = 1_000  # it takes 80 to 200: stopped before that, the weights depend on how a machine rounds
_OWN: Final = 1.5
_CERTAIN: Final = 50.0  # the logarithm of odds beyond any, where scores are no logarithms of odds but likenesses
_SURE: Final = 1.2816  # standard deviations to a bound that holds with a probability of 90%


class Known(Struct, frozen=True):
    """Pairs of queries and candidates of which it is known what rewriting would do.

    Attributes:
        numbers: the numbers that describe each pair, (pairs, names).
        query: the number of each pair's query, (pairs,).
        fold: the fold of each pair, (pairs,): pairs of one query are in the same.
        win, loss: 1 if rewriting would be a win or a loss, else 0, (pairs,).
        weights: how often each pair counts, (pairs,).
    """

    numbers: Floats
    query: Integers
    fold: Integers
    win: Floats
    loss: Floats
    weights: Floats

    def of(self, rows: Booleans, columns: Sequence[int] | slice = slice(None)) -> "Known":
        """Return some of the pairs, with some of the numbers that describe them."""
        numbers, query, fold = self.numbers[rows][:, columns], self.query[rows], self.fold[rows]
        return Known(numbers, query, fold, self.win[rows], self.loss[rows], self.weights[rows])


def calibrated(known: Known, names: Sequence[str]) -> Ranker:
    """Return a ranker fitted to pairs, with the odds' lower bounds.

    The bounds are cross-fitted: each fold is scored by a ranker of the other folds.

    Args:
        known: the pairs.
        names: the names of their numbers.
    """
    scores = np.full(len(known.fold), -np.inf)
    for fold in np.unique(known.fold).tolist():
        test = known.fold == fold
        scores[test] = scores_of(fit(known.of(~test), names), known.numbers[test])
    return structs.replace(fit(known, names), curve=curve_of(scores, known))


def fit(known: Known, names: Sequence[str], offset: Floats | None = None) -> Ranker:
    """Return a logistic model of wins against losses, on the bins of the numbers of pairs.

    Pairs that are neither do not count, so the score is the log of the odds. It has a ridge penalty.

    Args:
        known: the pairs.
        names: the names of their numbers.
        offset: scores to which the model's are added, (pairs,).
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - slow to import, and needed only to solve
    from scipy.sparse import csr_array  # noqa: PLC0415
    from scipy.special import expit  # noqa: PLC0415

    rows = known.win + known.loss > 0
    numbers, win, counts = known.numbers[rows], known.win[rows], known.weights[rows]
    start_at = np.zeros(len(win)) if offset is None else offset[rows]
    edges = {
        name: tuple(np.unique(np.round(np.quantile(values, _QUANTILES), 3)).tolist()) if len(win) else ()
        for name, values in zip(names, numbers.T, strict=True)
    }
    ends = np.cumsum([1, *(len(some) + 1 for some in edges.values())])
    columns = [np.zeros(len(win), np.int64)]
    columns += [
        _bin(some, values) + end for some, values, end in zip(edges.values(), numbers.T, ends[:-1], strict=True)
    ]
    starts = np.arange(len(win) + 1) * len(columns)
    features = csr_array((np.ones(starts[-1]), np.stack(columns, 1).ravel(), starts), (len(win), int(ends[-1])))

    def cost(found: Floats) -> tuple[float, Floats]:
        values = start_at + features @ found
        penalty = _RIDGE * found
        penalty[0] = 0.0
        slope = features.T @ (counts * (expit(values) - win)) + penalty
        return float(counts @ (np.logaddexp(0.0, values) - win * values) + 0.5 * found @ penalty), slope

    start = np.zeros(ends[-1])
    start[0] = np.log((counts @ win + 1) / (counts @ (1.0 - win) + 1))
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}).x.round(3)
    weight_of = {name: tuple(found[a:b].tolist()) for name, (a, b) in zip(names, pairwise(ends), strict=True)}
    return Ranker(float(found[0]), edges, weight_of)


def scores_of(ranker: Ranker, numbers: Floats) -> Floats:
    """Return the scores of pairs described by `numbers`, (pairs, names), as `Ranker.score` does one by one."""
    total = np.full(len(numbers), ranker.constant)
    for edges, weights, values in zip(ranker.edges.values(), ranker.weights.values(), numbers.T, strict=True):
        total += np.array(weights)[_bin(edges, values)]
    return total


def curve_of(scores: Floats, known: Known) -> tuple[tuple[float, float], ...]:
    """Return scores, ascending, and the lower bounds of wins to losses among pairs that score at least as high.

    What counts is each query's best pair. Losses are few, so a run of luck looks like a bound that holds far down. So
    no bound is more than `_OWN` times the odds that the ranker gives the last pair by itself: its score is their
    logarithm.

    Args:
        scores: the score of each pair, (pairs,); minus infinity for those that do not count.
        known: the pairs.
    """
    best = best_of(scores, known.query)
    best = best[np.argsort(-scores[best], kind="stable")]
    weights = known.weights[best]
    wins, losses = np.cumsum(weights * known.win[best]), np.cumsum(weights * known.loss[best])
    lower, _ = wilson(wins, wins + losses, _SURE)
    bounds = np.minimum(lower / np.maximum(1.0 - lower, 1e-9), _OWN * np.exp(scores[best].clip(max=_CERTAIN)))
    curve: list[tuple[float, float]] = []
    for value, bound in zip(scores[best][::-1].tolist(), bounds[::-1].tolist(), strict=True):
        if bound >= (curve[-1][1] * 1.1 if curve else 1.0):
            curve.append((round(value, 4), round(bound, 2)))
    return tuple(curve)


def best_of(values: Floats, query: Integers) -> Integers:
    """Return the place of each query's highest value, leaving out queries that have none."""
    order = np.lexsort((-values, query))
    first = order[np.append(True, query[order][1:] != query[order][:-1])[: len(order)]]
    best: Integers = first[np.isfinite(values[first])]
    return best


def _bin(edges: Sequence[float], values: Floats) -> Integers:
    bins: Integers = np.searchsorted(np.array(edges), values, side="right")
    return bins
