"""The ranker of online rewrites, fitted to pairs of which it is known whether they are wins or losses."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from msgspec import Struct, structs
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from backchannel.agents.rewrites.likeness import HABIT_NAMES, HYPOTHESIS, NAMES
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import Booleans, Floats, Integers

_QUANTILES: Final = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.998)
_RIDGE: Final = 2.0
_ROUNDS: Final = 1_000  # it takes 80 to 200: stopped before that, the weights depend on how a machine rounds
_OWN: Final = 1.5
_CERTAIN: Final = 50.0  # the logarithm of odds beyond any, where scores are no logarithms of odds but likenesses
_SURE: Final = 1.2816  # standard deviations to a bound that holds with a probability of 90%


class Pairs(Struct, frozen=True):
    """Queries and their candidates.

    Attributes:
        numbers: the numbers that describe each pair, (pairs, HABIT_NAMES); the last ones only for habits.
        query: the query of each pair, (pairs,).
        fold: the fold of its sentence, (pairs,).
        win, loss: 1 if rewriting would be a win or a loss, else 0, (pairs,).
        allowed: whether no veto holds, (pairs,).
        first: RapidFuzz's ratio, 0 to 100, if the candidate is the most similar text of all, or of the habits, else 0,
            (pairs,).
        habit: whether the candidate is a habit of the person who asks, (pairs,).
    """

    numbers: Floats
    query: Integers
    fold: Integers
    win: Floats
    loss: Floats
    allowed: Booleans
    first: Floats
    habit: Booleans


def train_ranker(pairs: Pairs, rows: Booleans, names: Sequence[str]) -> Ranker:
    """Return a ranker fitted to some pairs, (pairs,), with the odds' lower bounds.

    The bounds are cross-fitted: each fold of the sentences is scored by a ranker of the other folds.
    """
    scores = np.full(len(rows), -np.inf)
    for fold in np.unique(pairs.fold[rows]).tolist():
        test = rows & (pairs.fold == fold)
        scores[test] = score(fit(pairs, rows & ~test, names), pairs.numbers[test])
    return structs.replace(fit(pairs, rows, names), curve=curve_of(scores, pairs))


def curve_of(scores: Floats, pairs: Pairs) -> tuple[tuple[float, float], ...]:
    """Return scores, ascending, and the lower bounds of wins to losses of queries whose best pair scores as high.

    Losses are few, so a run of luck looks like a bound that holds far down. So no bound is more than `_OWN` times the
    odds that the ranker gives the last pair by itself: its score is their logarithm.

    Args:
        scores: the score of each pair, (pairs,); minus infinity for those that do not count.
        pairs: the pairs.
    """
    best = best_of(scores, pairs.query)
    best = best[np.argsort(-scores[best], kind="stable")]
    wins, losses = np.cumsum(pairs.win[best]), np.cumsum(pairs.loss[best])
    lower, _ = wilson(wins, wins + losses, _SURE)
    bounds = np.minimum(lower / np.maximum(1.0 - lower, 1e-9), _OWN * np.exp(scores[best].clip(max=_CERTAIN)))
    curve: list[tuple[float, float]] = []
    for value, bound in zip(scores[best][::-1].tolist(), bounds[::-1].tolist(), strict=True):
        if bound >= (curve[-1][1] * 1.1 if curve else 1.0):
            curve.append((round(value, 4), round(bound, 2)))
    return tuple(curve)


def fit(pairs: Pairs, rows: Booleans, names: Sequence[str], known: Floats | None = None) -> Ranker:
    """Return a logistic model of wins against losses, on the bins of the named numbers of some pairs, (pairs,).

    Pairs that are neither do not count, so the score is the log of the odds. It has a ridge penalty.

    Args:
        pairs: the pairs.
        rows: whether each pair counts, (pairs,).
        names: the numbers, of `HABIT_NAMES`.
        known: scores to which the model's are added, (pairs,).
    """
    rows = rows & (pairs.win + pairs.loss > 0)
    values_of = {name: pairs.numbers[rows, HABIT_NAMES.index(name)] for name in names}
    win, offset = pairs.win[rows], np.zeros(rows.sum()) if known is None else known[rows]
    edges = {
        name: tuple(np.unique(np.round(np.quantile(values, _QUANTILES), 3)).tolist())
        for name, values in values_of.items()
    }
    ends = np.cumsum([1, *(len(edges[name]) + 1 for name in names)])
    columns = [np.zeros(len(win), np.int64)]
    columns += [_bin(edges[name], values) + end for (name, values), end in zip(values_of.items(), ends, strict=False)]
    starts = np.arange(len(win) + 1) * len(columns)
    features = csr_array((np.ones(starts[-1]), np.stack(columns, 1).ravel(), starts), (len(win), int(ends[-1])))

    def loss(weights: Floats) -> tuple[float, Floats]:
        values = offset + features @ weights
        penalty = _RIDGE * weights
        penalty[0] = 0.0
        slope = features.T @ (expit(values) - win) + penalty
        return float(np.sum(np.logaddexp(0.0, values) - win * values) + 0.5 * weights @ penalty), slope

    start = np.zeros(ends[-1])
    start[0] = np.log((win.sum() + 1) / (len(win) - win.sum() + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}).x.round(3)
    weights = {name: tuple(found[a:b].tolist()) for name, (a, b) in zip(names, pairwise(ends), strict=True)}
    return Ranker(float(found[0]), edges, weights)


def fit_hypotheses(ranker: Ranker, pairs: Pairs, rows: Booleans) -> Ranker:
    """Return the weights of the recogniser's hypotheses that some pairs, (pairs,), add to a ranker's score."""
    return fit(pairs, rows, (HYPOTHESIS,), score(ranker, without_hypotheses(pairs.numbers)))


def without_hypotheses(numbers: Floats) -> Floats:
    """Return the numbers of pairs, (pairs, HABIT_NAMES), as if there were no hypotheses."""
    unknown = numbers.copy()
    unknown[:, HABIT_NAMES.index(HYPOTHESIS)] = -1.0
    return unknown


def joined(ranker: Ranker, other: Ranker) -> Ranker:
    """Return a ranker with the weights of another one in place of its own, in the order of a pair's numbers."""
    edges, weights = {**ranker.edges, **other.edges}, {**ranker.weights, **other.weights}
    names = [name for name in HABIT_NAMES if name in edges]
    return structs.replace(
        ranker, edges={name: edges[name] for name in names}, weights={name: weights[name] for name in names}
    )


def score(ranker: Ranker, numbers: Floats) -> Floats:
    """Return the scores of pairs described by `numbers`, (pairs, HABIT_NAMES), as `Ranker.score` does one by one."""
    total = np.full(len(numbers), ranker.constant)
    for name, edges in ranker.edges.items():
        total += np.array(ranker.weights[name])[_bin(edges, numbers[:, HABIT_NAMES.index(name)])]
    return total


def best_of(values: Floats, query: Integers) -> Integers:
    """Return the place of each query's highest value, leaving out queries that have none."""
    order = np.lexsort((-values, query))
    first = order[np.append(True, query[order][1:] != query[order][:-1])]
    best: Integers = first[np.isfinite(values[first])]
    return best


def names_of(*, habit: bool) -> Sequence[str]:
    """Return the numbers by which habits, or everybody's queries, are ranked where there are no hypotheses."""
    return [name for name in (HABIT_NAMES if habit else NAMES) if name != HYPOTHESIS]


def module(everybody: Ranker, habits: Ranker) -> str:
    """Return the source of `likeness_weights`."""
    return f'''"""The numbers of the rankers of online rewrites.

`backchannel rephrases online --write` wrote them: do not edit.

They are fitted to spoken English commands (slurp_pipeline; those of hypotheses: dstc2), and say nothing about other
queries.
"""

from typing import Final

from backchannel.agents.rewrites.ranker import Ranker

# ruff: noqa: E501
# fmt: off
EVERYBODY: Final = {_source(everybody)}
"""Ranks queries of everybody."""

HABITS: Final = {_source(habits)}
"""Ranks habits of the user who asks."""
'''


def _source(ranker: Ranker) -> str:
    edges = "".join(f'        "{name}": {list(some)},\n' for name, some in ranker.edges.items())
    weights = "".join(f'        "{name}": {list(some)},\n' for name, some in ranker.weights.items())
    curve = "".join(f"        {one},\n" for one in ranker.curve)
    return f"Ranker(\n    {ranker.constant},\n    {{\n{edges}    }},\n    {{\n{weights}    }},\n    (\n{curve}    ),\n)"


def _bin(edges: Sequence[float], values: Floats) -> Integers:
    bins: Integers = np.searchsorted(np.array(edges), values, side="right")
    return bins
