"""The evidence about strategies, as sums over turns.

Ranks are kept in buckets that double in width: rank 1, 2, 3-4, 5-8 and so on. A depth of a_s candidates covers the
share e_sk of bucket k, in which rank r counts 1 / r (see `ranks`). A clicked item weighs its gain over the probability
that its position is examined, and is credited in full to *every* strategy that produced it: what strategies have in
common is told apart by the pair sums, not by the credit. Per strategy s and rank bucket k:

    G_sk = sum of e_sk x x'                over the turns, x being the encoded context: how often, and where, it drew
    b_sk = sum of x w                      over the clicked items that it produced there, of weight w
    q_sk = sum of w^2

G and b are kept in two folds, by a hash of the query, so that the weight of contexts can be chosen on queries that
were not learned from. Per pair of strategies s and t, s having produced an item in its bucket k:

    risk_stkj  = sum of w e_tj             through t's buckets j, until the item is met in t's list or its depth ends
    event_stkj = sum of w                  in the bucket j where it is met

for the clicked items; and again with w = 1 for all that was shown, from a sample of the turns, for budgets of distinct
candidates. e, x and w lie on dyadic grids, so all of these are exact: they do not depend on order.

How the sums treat a shared page: *overlap* by the pairs; *depth* as clicks are divided by what was covered;
*position* by the examination in w. Positions are taken to be examined by one curve: where people trust the top more
than that, or never scroll, w is wrong in the same way for everybody at a position. An item that was drawn but
left off a page shorter than the union counts as drawn and not clicked.
"""

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.pages import Integers, Pages
from backchannel.agents.bandit.ranks import BUCKETS, UPPER, WIDTH, bucket_of, covered, drawn
from backchannel.agents.sums import GRID, Floats

FOLDS: Final = 2
SAMPLED: Final = 4
"""One in this many queries adds all its shown items to the pair sums."""
_TOGETHER: Final = 4_096
"""Producers whose pairs are counted together. This bounds memory, whatever a commit holds, and fits into caches."""


class Layout(Struct, frozen=True):
    """Where the sums of one strategy in one time bucket lie in a packed row.

    A row is, per rank bucket and fold, the upper triangle of G and b, then q by rank bucket, and last the turns' own
    rewards for the strategy, for people to read.

    Attributes:
        dimension: d, the length of an encoded context.
    """

    dimension: int

    @property
    def triangle(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The places of the upper triangle of G."""
        return np.triu_indices(self.dimension)

    @property
    def width(self) -> int:
        """The number of values of one rank bucket and fold."""
        return self.dimension * (self.dimension + 1) // 2 + self.dimension

    @property
    def size(self) -> int:
        """The number of values of a row."""
        return BUCKETS * (FOLDS * self.width + 1) + 1

    def unpack(self, rows: Floats) -> "StrategySums":
        """Return packed rows, (..., size), as evidence."""
        before = rows.shape[:-1]
        packed = rows[..., : -BUCKETS - 1].reshape(*before, BUCKETS, FOLDS, self.width)
        upper, d = packed[..., : -self.dimension], self.dimension
        gram = np.zeros((*before, BUCKETS, FOLDS, d, d))
        gram[..., *self.triangle] = upper
        gram += np.triu(gram, 1).swapaxes(-1, -2)
        return StrategySums(gram, packed[..., -d:], rows[..., -BUCKETS - 1 : -1], rows[..., -1])


class StrategySums(Struct, frozen=True):
    """The sums of strategies, by rank bucket.

    Attributes:
        gram: G, (..., BUCKETS, FOLDS, d, d).
        moment: b, (..., BUCKETS, FOLDS, d).
        squares: q, (..., BUCKETS).
        rewards: the best gain of each turn that the strategy is credited with, added up, (...,).
    """

    gram: Floats
    moment: Floats
    squares: Floats
    rewards: Floats

    @property
    def drawn(self) -> Floats:
        """How often each rank bucket was drawn, in whole buckets, (..., BUCKETS)."""
        return np.asarray(self.gram[..., 0, 0].sum(axis=-1))

    @property
    def weight(self) -> Floats:
        """The weight of clicks in each rank bucket, (..., BUCKETS)."""
        return np.asarray(self.moment[..., 0].sum(axis=-1))


def rows_of(pages: Pages, examined: Floats, groups: Integers, layout: Layout) -> tuple[Integers, Floats]:
    """Return the packed rows that pages add.

    Args:
        pages: turns as pages.
        examined: the probability that each position is examined; the last one applies to all deeper positions.
        groups: the time bucket of each turn, (turns,).
        layout: the layout of the rows.

    Returns:
        the time buckets, (groups,), rising; and the rows, (groups, strategies, size).
    """
    strategies, d = pages.depths.shape[1], layout.dimension
    starts, group = np.unique(groups, return_inverse=True)
    fold = pages.queries % FOLDS
    cover = covered(pages.depths)
    packed = np.zeros((len(starts), FOLDS, strategies, BUCKETS, layout.width))
    left, right = layout.triangle
    shared = pages.contexts.shape[1] == 1
    order = np.argsort(group * FOLDS + fold, kind="stable")
    ends = np.searchsorted((group * FOLDS + fold)[order], np.arange(len(starts) * FOLDS + 1))
    products = pages.contexts[..., left] * pages.contexts[..., right]
    for place in range(len(starts) * FOLDS):
        rows = order[ends[place] : ends[place + 1]]
        target = packed[place // FOLDS, place % FOLDS, :, :, :-d]
        if shared:
            weights = cover[rows].reshape(len(rows), strategies * BUCKETS)
            target[:] = (weights.T @ products[rows, 0]).reshape(target.shape)
        else:
            target[:] = cover[rows].transpose(1, 2, 0) @ products[rows].swapaxes(0, 1)
    clicked, bucket, weights = clicks_of(pages, examined)
    turns, codes = pages.turns[pages.results[clicked]], pages.strategies[clicked]
    vectors = pages.contexts[turns, 0 if shared else codes]
    np.add.at(packed[..., -d:], (group[turns], fold[turns], codes, bucket), vectors * weights[:, np.newaxis])
    squares = np.zeros((len(starts), strategies, BUCKETS))
    np.add.at(squares, (group[turns], codes, bucket), weights**2)
    sums = packed.transpose(0, 2, 3, 1, 4).reshape(len(starts), strategies, layout.size - BUCKETS - 1)
    best = np.zeros(pages.depths.shape)
    clicked = np.flatnonzero(pages.gains[pages.results] > 0)
    results = pages.results[clicked]
    np.maximum.at(best, (pages.turns[results], pages.strategies[clicked]), pages.gains[results])
    rewards = np.zeros((len(starts), strategies))
    np.add.at(rewards, group, np.rint(best * GRID) / GRID)
    return starts, np.concatenate((sums, squares, rewards[..., np.newaxis]), axis=-1)


def clicks_of(pages: Pages, examined: Floats) -> tuple[Integers, Integers, Floats]:
    """Return the producers of what was clicked: their places among all, the rank buckets, and the items' weights w."""
    bucket = bucket_of(pages.ranks)
    places = np.flatnonzero((pages.gains[pages.results] > 0) & (bucket < BUCKETS))
    results = pages.results[places]
    chance = examined[np.minimum(pages.positions[results], len(examined)) - 1]
    return places, bucket[places], np.rint(pages.gains[results] / chance * GRID) / GRID


class Pairs(Struct, frozen=True):
    """What pairs of strategies have in common, (strategies s, strategies t, BUCKETS k of s, BUCKETS j of t) each.

    Attributes:
        risk: weight of the items that s produced in its bucket k and that were searched for in bucket j of t, as they
            had not been met before.
        event: weight of those that were met there.
    """

    risk: Floats
    event: Floats


def pairs_of(pages: Pages, places: Integers, weights: Floats) -> Pairs:
    """Return the pair sums of some producers.

    Args:
        pages: turns as pages.
        places: indexes of the producers that count as s, rising, (places,).
        weights: weights w of their items, (places,).
    """
    strategies = pages.depths.shape[1]
    total = np.zeros((2, strategies * BUCKETS, strategies * BUCKETS))
    for first in range(0, len(places), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        own = pages.strategies[places[part]] * BUCKETS + np.minimum(bucket_of(pages.ranks[places[part]]), BUCKETS - 1)
        order = np.argsort(own.astype(np.int16), kind="stable")  # few bits are sorted by radix
        groups, starts = np.unique(own[order], return_index=True)
        results, row = np.unique(pages.results[places[part]], return_inverse=True)
        for target, values in zip(total, _met(pages, results), strict=True):
            target[groups] += np.add.reduceat(values[row[order]] * weights[part][order, np.newaxis], starts, axis=0)
    risk, event = total.reshape(2, strategies, BUCKETS, strategies, BUCKETS).swapaxes(2, 3)
    return Pairs(risk, event)


def _met(pages: Pages, results: Integers) -> tuple[Floats, Floats]:
    """Return where results were searched for, and where they were met, (results, strategies t * BUCKETS j) each.

    Args:
        pages: turns as pages.
        results: indexes of results, rising, (results,).
    """
    strategies = pages.depths.shape[1]
    # The rank bucket in which each strategy has each of the results; BUCKETS if it lacks it.
    bucket = np.full((len(results), strategies, 1), BUCKETS)
    first, last = np.searchsorted(pages.results, (results[0], results[-1] + 1))
    producers = first + np.flatnonzero(np.isin(pages.results[first:last], results))
    rows = np.searchsorted(results, pages.results[producers])
    bucket[rows, pages.strategies[producers], 0] = bucket_of(pages.ranks[producers])
    cover = covered(pages.depths[pages.turns[results]])  # (results, t, j)
    looked, found = np.where(np.arange(BUCKETS) <= bucket, cover, 0.0), (np.arange(BUCKETS) == bucket).astype(float)
    return looked.reshape(len(results), -1), found.reshape(len(results), -1)


def shown_pairs(pages: Pages) -> Pairs:
    """Return the pair sums of all shown items, for a sample of the queries.

    The diagonal, where a strategy would meet itself, describes its list: `risk` says how often bucket k was drawn,
    and `event` how many items of it were shown.
    """
    sampled = pages.queries // FOLDS % SAMPLED == 0
    places = np.flatnonzero(sampled[pages.turns[pages.results]] & (pages.ranks <= UPPER[-1]))
    pairs = pairs_of(pages, places, np.ones(len(places)))
    strategies, buckets = np.arange(pages.depths.shape[1]), np.arange(BUCKETS)
    risk = pairs.risk.copy()
    risk[strategies, strategies] = 0.0
    walked = (drawn(pages.depths[sampled]) / WIDTH).sum(axis=0)
    risk[strategies[:, np.newaxis], strategies[:, np.newaxis], buckets, buckets] = walked
    return Pairs(risk, pairs.event)


def clicked_pairs(pages: Pages, examined: Floats) -> Pairs:
    """Return the pair sums of clicked items; see `rows_of` for the arguments."""
    places, _, weights = clicks_of(pages, examined)
    return pairs_of(pages, places, weights)
