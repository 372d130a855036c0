"""What whole pages earn beyond what their candidates promise, by how many each strategy brought.

The rates and overlaps tell what is wanted in the union of the lists. What that earns depends on the rest of the page,
too: weak candidates on top push the others down, and long lists tire. So the value V of a plan is corrected by

    prod_s (1 + a_s)^beta_s,

beta_s being the elasticity of what a page earns to the candidates of s. It is learned from the gains of whole pages, as
sums per allocation: a quasi-Poisson regression of the gains on log(1 + a_s), with log V as the offset, which is linear
in the context and so follows from the sum of contexts. Its prior is normal around 0, its precision one of RIDGES, which
are weighed by their marginal likelihood (Laplace's approximation), so that nothing is corrected where pages earn
what they promise. Whatever all pages have in common, such as positions that are seldom examined, is left out.

Turns with one candidate tell nothing, and those with budgets of distinct candidates are left out: how deep their lists
are walked depends on the query.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.belief import Belief
from backchannel.agents.bandit.pages import Integers, Pages
from backchannel.agents.bandit.plans import Overlap, shares
from backchannel.agents.columnar.frames import distinct
from backchannel.agents.sums import GRID, Floats

RIDGES: Final = np.array([1000.0, 100.0, 30.0, 10.0, 3.0])
"""Prior precisions of elasticities; the first is all but certain that there are none."""
STEEPEST: Final = 1.5
"""The largest elasticity, up or down."""
FEWEST: Final = 5.0
"""Fewest gains to learn from."""
_STEPS: Final = 5


class Elasticities(Struct, frozen=True):
    """The posterior of the elasticities.

    Attributes:
        mean: (strategies,).
        whitener: (strategies, strategies); W'W is the covariance.
    """

    mean: Floats
    whitener: Floats


def plans_of(pages: Pages, strategies: Sequence[str]) -> tuple[list[str], Floats]:
    """Return the allocations of pages, and what came of them.

    Args:
        pages: turns as pages.
        strategies: names; their indexes are the codes in `pages`.

    Returns:
        allocations as text, see `counts_of`; and their rows, (allocations, 2 + d): the gains of whole pages added up,
        their squares added up, and the contexts added up. Strategies' own contexts are averaged.
    """
    kept = (pages.depths.sum(axis=1) > 1) & ~pages.distinct
    gains = np.zeros(len(pages.times))
    np.add.at(gains, pages.turns, np.rint(pages.gains * GRID) / GRID)
    contexts = np.rint(pages.contexts.mean(axis=1) * GRID) / GRID
    allocations = _coarse(pages.depths[kept])
    first, place = distinct(*allocations.T)
    rows = np.zeros((len(first), 2 + contexts.shape[1]))
    np.add.at(rows, place, np.column_stack((gains, gains**2, contexts))[kept])
    texts = [
        msgspec.json.encode({name: depth for name, depth in zip(strategies, own, strict=True) if depth}, order="sorted")
        for own in allocations[first].tolist()
    ]
    return [text.decode() for text in texts], rows


def counts_of(text: str) -> Mapping[str, int]:
    """Return the allocation that a text of `plans_of` says: strategy -> candidates."""
    return msgspec.json.decode(text, type=dict[str, int])


def promised(
    counts: Integers, rows: Floats, belief: Belief, overlap: Overlap, contexts: Floats | None = None
) -> Floats:
    """Return what pages promised: the values of their plans, added up, (allocations,).

    Args:
        counts: allocations, (allocations, strategies).
        rows: their rows; see `plans_of`.
        belief: the posterior of the rates.
        overlap: what lists have in common.
        contexts: mean contexts of the strategies, (strategies, d), if they have contexts of their own.
    """
    worth = np.einsum("psk,sk->ps", shares(counts, overlap, np.ones(counts.shape[1])), belief.rates)
    if contexts is None:
        return np.asarray((worth * (rows[:, 2:3] + rows[:, 2:] @ belief.theta.T)).sum(axis=1))
    return np.asarray(rows[:, 2] * (worth @ (1.0 + (belief.theta * contexts).sum(axis=1))))


def elasticities(counts: Integers, rows: Floats, promises: Floats) -> Elasticities:
    """Return the posterior of elasticities.

    Args:
        counts: allocations, (allocations, strategies).
        rows: their rows; see `plans_of`.
        promises: what their pages promised; only ratios matter. See `promised`.
    """
    size, gains, squares = counts.shape[1], rows[:, 0], rows[:, 1]
    if gains.sum() < FEWEST:
        return Elasticities(np.zeros(size), np.zeros((size, size)))
    logs = np.log1p(counts)
    dispersion = squares.sum() / gains.sum()
    free, _, _ = _fit(logs, gains, promises, dispersion, RIDGES[-1])
    expected = _expected(logs, gains, promises, free)
    # Pages with the same allocation may differ more than chance says: queries come again and again.
    dispersion = max(dispersion, float(((gains - expected) ** 2).sum() / expected.sum()))
    means, covariances, evidence = zip(
        *(_fit(logs, gains, promises, dispersion, ridge) for ridge in RIDGES.tolist()), strict=True
    )
    weights = np.exp(np.array(evidence) - max(evidence))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    apart = np.array(means) - mean
    covariance = np.tensordot(weights, np.array(covariances) + apart[:, :, np.newaxis] * apart[:, np.newaxis], axes=1)
    return Elasticities(mean, np.linalg.cholesky(covariance).T)


def _fit(
    logs: Floats, gains: Floats, promises: Floats, dispersion: float, ridge: float
) -> tuple[Floats, Floats, float]:
    """Return the mode of the elasticities, their covariance, and the logarithm of the marginal likelihood."""
    beta = np.zeros(logs.shape[1])
    prior = ridge * np.eye(len(beta))
    for _ in range(_STEPS):
        expected = _expected(logs, gains, promises, beta)
        centred = logs - (expected @ logs) / expected.sum()
        precision = (centred.T * expected) @ centred / dispersion + prior
        slope = centred.T @ (gains - expected) / dispersion - ridge * beta
        beta = np.clip(beta + np.linalg.solve(precision, slope), -STEEPEST, STEEPEST)
    likelihood = (gains * np.log(_expected(logs, gains, promises, beta))).sum() / dispersion
    occam = 0.5 * (len(beta) * np.log(ridge) - np.linalg.slogdet(precision)[1])
    return beta, np.linalg.inv(precision), float(likelihood - 0.5 * ridge * beta @ beta + occam)


def _expected(logs: Floats, gains: Floats, promises: Floats, beta: Floats) -> Floats:
    """Return the expected gains of each allocation, which add up to those seen."""
    expected = np.maximum(promises, 1e-9) * np.exp(logs @ beta)
    return np.asarray(expected * (gains.sum() / expected.sum()))


def _coarse(depths: Integers) -> Integers:
    """Return depths to three significant bits, so that allocations of large budgets are few."""
    step = 2 ** np.maximum(np.floor(np.log2(np.maximum(depths, 1))).astype(np.int64) - 2, 0)
    return np.asarray(depths - depths % step)
