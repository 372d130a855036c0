"""Plans: the allocations of a budget that a policy chooses from, and the value of each in a context.

A candidate is worth what it adds to the union. An item that s has in its bucket k is also among the first n of t with
probability o_t(n | s, k) = 1 - prod_j (1 - h_stkj)^e_tj(n). So the next candidate of s gains rate_sk(x) times its
rank's share of bucket k (see `ranks`) times prod_t (1 - o_t(a_t | s, k)), over its cost: greedy fills by that, for many
draws of the rates in many contexts, give the plans (cf. Yue & Guestrin, "Linear submodular bandits", NIPS 2011). The
value of a plan counts each item at the share of one of its producers,

    V(a | x) = sum_sk e_sk(a_s) F_sk(a) rate_sk(x),    F_sk(a) = integral_0^1 prod_t (1 - o_t(a_t | s, k) (1 - u)) du,

times a correction for what whole pages earn (see `elasticity`). It is linear in x, so the best plan under every draw is
found with one product.

Where the budget is one of *distinct* candidates, a candidate's gain is divided by the expected share of a new one, and
fills go on until so many new ones would be expected if no list ended. Where one does end, the walk goes on in the
others; plans that made up for it would take from every query what only queries with short lists need.

Lists are then walked in proportion to the plan, and that is the order of the page. A fill takes what is likeliest to be
wanted first, where it exists (the probability ranking principle; Robertson, "The probability ranking principle in IR",
Journal of Documentation, 1977). But its counts do not say so: a precise strategy with a short list has few candidates,
and would come after the first ones of a long list. So proportions are mostly those that a fill has reached at each
place, the mean over the page, place p counting 1 / p, as people look the less the deeper it is (`proportions`).
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.mixture import Counts
from backchannel.agents.bandit.ranks import BUCKETS, WIDTH, WORTH, covered, drawn
from backchannel.agents.sums import Floats

MOST: Final = 256
"""Most plans of one budget."""
STEPS: Final = 64
"""A fill takes about this many steps, each of one candidate if the budget is no larger."""
BY_PLACE: Final = 0.75
"""How much of proportions is the mean over the places; the rest is the whole fill, which has what long lists bring."""
_AHEAD: Final = 0.1  # candidates by which a page's leader is ahead of all others
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
_BUCKET: Final = np.repeat(np.arange(BUCKETS), WIDTH)  # of each rank, from 0


class Terms(Struct, frozen=True):
    """The terms of a fill.

    Attributes:
        least: fewest candidates of each strategy, (strategies,).
        most: most candidates of each strategy, (strategies,); 0 if it is not asked.
        costs: cost of a candidate of each strategy, (strategies,).
        budget: number of candidates.
        distinct: whether candidates that several strategies bring count once.
    """

    least: NDArray[np.int64]
    most: NDArray[np.int64]
    costs: Floats
    budget: int
    distinct: bool = False


class Overlap(Struct, frozen=True):
    """What lists have in common, as logarithms of the probabilities of not meeting an item.

    Attributes:
        clicked: log(1 - h) of clicked items, (t, BUCKETS j of t, s, BUCKETS k of s).
        shown: log(1 - h) of all shown items, of the same shape.
        available: number of candidates that a list has in a bucket, (strategies, BUCKETS).
    """

    clicked: Floats
    shown: Floats
    available: Floats


def overlap_of(hazards: Floats, shown: Floats, available: Floats) -> Overlap:
    """Return an `Overlap` from hazards (see `rates.hazards`) and `rates.available`."""
    clicked, all_shown = (np.log1p(-each).transpose(1, 3, 0, 2).copy() for each in (hazards, shown))
    return Overlap(clicked, all_shown, available)


def fill(rates: Floats, overlap: Overlap, terms: Terms, elasticities: Floats | float = 0.0) -> Counts:
    """Fill the budget greedily, once for each row of rates.

    Args:
        rates: rates in a context, (rows, strategies, BUCKETS).
        overlap: what lists have in common.
        terms: the terms of the fill.
        elasticities: of what pages earn to candidates of each strategy, (rows, strategies); see `elasticity`.

    Returns:
        counts, (rows, strategies).
    """
    for counts, _ in _steps(rates, overlap, terms, elasticities):
        found = counts
    return found


def proportions(rates: Floats, overlap: Overlap, terms: Terms) -> Floats:
    """Return the proportions in which to walk lists for distinct candidates, the mean of fills, (strategies,).

    Whoever has most of the places, weighted so, leads the page; minima are nobody's choice, and come in between.
    Proportions are in candidates, and within the limits.

    Args:
        rates: rates in a context, (rows, strategies, BUCKETS).
        overlap: what lists have in common.
        terms: the terms of the fills, of distinct candidates.
    """
    least = np.minimum(terms.least, terms.most)
    place = np.zeros((len(rates), 1))
    by_place = np.zeros(rates.shape[:2])
    for counts, new in _steps(rates, overlap, terms, 0.0):
        chosen = counts - least
        total = np.maximum(chosen.sum(axis=1, keepdims=True), 1)
        by_place += np.log1p(new / (1.0 + place)) * chosen / total
        place += new
    early = least + (by_place * total / np.maximum(np.log1p(place), 1e-9)).mean(axis=0)
    mean = BY_PLACE * early + (1.0 - BY_PLACE) * counts.mean(axis=0)
    mean[early.argmax()] = mean.max() + _AHEAD
    return np.asarray(np.clip(mean, least, terms.most))


def _steps(
    rates: Floats, overlap: Overlap, terms: Terms, elasticities: Floats | float
) -> Iterator[tuple[Counts, Floats]]:
    """Fill the budget greedily, see `fill`.

    Yields:
        counts, at first the minima, in one array, which changes, (rows, strategies); and how many of the candidates
        that the step added are expected to exist and to be new, (rows, 1).
    """
    rows, each = len(rates), np.arange(len(rates))
    gains = np.maximum(rates, 1e-9) / terms.costs[:, np.newaxis]
    counts = np.tile(np.minimum(terms.least, terms.most), (rows, 1))
    cover = covered(counts)
    missed = np.einsum("rtj,tjsk->rsk", cover, overlap.clicked)
    missed_shown = np.einsum("rtj,tjsk->rsk", cover, overlap.shown)
    strategies = np.arange(counts.shape[1])
    fresh = overlap.available / WIDTH
    left = np.full(rows, float(terms.budget))
    left -= (drawn(counts) * np.exp(missed_shown)).sum(axis=(1, 2)) if terms.distinct else counts.sum(axis=1)
    step = max(terms.budget // STEPS, 1)
    value = np.zeros((rows, 1))
    yield counts, np.zeros((rows, 1))
    while True:
        room = (counts < terms.most) & (left > 1e-9)[:, np.newaxis]
        active = room.any(axis=1)
        if not active.any():
            return
        rank = np.minimum(counts, len(_BUCKET) - 1)
        bucket = _BUCKET[rank]
        gain = gains[each[:, np.newaxis], strategies, bucket] * WORTH[rank]
        # Beyond the last bucket a rate falls by half as often as the depth doubles.
        gain = np.where(counts >= len(_BUCKET), gain * len(_BUCKET) / np.maximum(counts, 1) * 0.5, gain)
        gain *= np.exp(missed[each[:, np.newaxis], strategies, bucket])
        corrected = (value + gain) * ((2.0 + counts) / (1.0 + counts)) ** elasticities - value
        unmet = np.exp(missed_shown[each[:, np.newaxis], strategies, bucket])
        new = np.maximum(fresh[strategies, bucket] * unmet, 0.02)
        if terms.distinct:
            corrected = corrected / new
        best = np.where(room, corrected, -np.inf).argmax(axis=1)
        more = np.minimum(step, terms.most[best] - counts[each, best])
        if not terms.distinct:
            more = np.minimum(more, left.astype(np.int64))
        more = np.where(active, more, 0)
        value[:, 0] += more * gain[each, best]
        at = counts[each, best]
        counts[each, best] += more
        moved = covered(counts[each, best]) - covered(at)  # (rows, j)
        if step == 1:
            j = bucket[each, best]
            share = moved[each, j][:, np.newaxis, np.newaxis]
            missed += share * overlap.clicked[best, j]
            missed_shown += share * overlap.shown[best, j]
        else:
            missed += np.einsum("rj,rjsk->rsk", moved, overlap.clicked[best])
            missed_shown += np.einsum("rj,rjsk->rsk", moved, overlap.shown[best])
        left -= more * np.maximum(unmet[each, best], 0.02) if terms.distinct else more
        yield counts, (more * new[each, best])[:, np.newaxis]


def shares(counts: Counts, overlap: Overlap, costs: Floats) -> Floats:
    """Return by how much each rate adds to the value of each plan, e F / cost, (plans, strategies, BUCKETS)."""
    cover = covered(counts)
    # Log of the probability that t does not have the item: (plans, t, s, k).
    missed = np.einsum("ptj,tjsk->ptsk", cover, overlap.clicked)
    met = -np.expm1(missed)
    total = np.zeros(cover.shape)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        total += weight / 2.0 * np.prod(1.0 - met * (0.5 - node / 2.0), axis=1)
    return np.asarray(cover * total / costs[:, np.newaxis])


def corrections(counts: Counts, elasticities: Floats) -> Floats:
    """Return by what the values of plans are multiplied, (draws, plans).

    Args:
        counts: the plans, (plans, strategies).
        elasticities: under each draw, (draws, strategies).
    """
    return np.asarray(np.exp(elasticities @ np.log1p(counts).T))


def plans(rates: Floats, overlap: Overlap, terms: Terms, elasticities: Floats | float = 0.0) -> Counts:
    """Return the distinct allocations that greedy fills give, the most frequent first, at most MOST.

    Where a budget has few allocations, all are listed: for a single candidate, any strategy may be asked.

    Args:
        rates: rates in many contexts, (rows, strategies, BUCKETS).
        overlap: what lists have in common.
        terms: the terms of the fills.
        elasticities: see `fill`.
    """
    if terms.budget == 1 and not terms.distinct and not terms.least.any():
        return np.asarray(np.eye(len(terms.most), dtype=np.int64)[terms.most > 0])
    found, times = np.unique(fill(rates, overlap, terms, elasticities), axis=0, return_counts=True)
    return np.asarray(found[np.argsort(-times, kind="stable")[:MOST]])


def mean_context(gram: Floats) -> Floats:
    """Return the mean of the contexts seen, (d,); before any, only the constant. For the argument see `references`."""
    return np.asarray(gram[0] / max(gram[0, 0], 1e-9) if gram[0, 0] else np.eye(len(gram))[0])


def references(gram: Floats, count: int, seed: int) -> Floats:
    """Return contexts that stand for those seen: drawn from the normal of their mean and covariance, (count, d).

    Args:
        gram: sum of x x' over turns, (d, d).
        count: number of contexts.
        seed: seed of the draws.
    """
    turns = max(gram[0, 0], 1e-9)
    mean = mean_context(gram)
    covariance = gram / turns - np.outer(mean, mean) if gram[0, 0] else np.zeros_like(gram)
    values, vectors = np.linalg.eigh(covariance)
    normal = np.random.default_rng(seed).standard_normal((count, len(gram)))
    return np.asarray(mean + (normal * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
