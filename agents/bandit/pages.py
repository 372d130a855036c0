"""Turns as pages: what was asked of each strategy, what was shown, and what came of it.

This is the seam between how turns arrive and how the bandit learns. Rank buckets, the examination of positions and time
buckets are the learner's.

A result's producers are the strategies that brought it to the page, each with the rank that the result has in its
list. Where ranks are logged (`Result.ranks`), they are used. Where they are not, a result's rank is its place among
the results of that strategy on the page, in the order of their positions. That is exact for a strategy whose
candidates were all shown; candidates that were dropped from the page (another strategy's duplicates are not: they are
shown once, for both) make ranks too good.
"""

from collections.abc import Sequence
from typing import TypeAlias
from zlib import crc32

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Encoder
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, firsts, spans
from backchannel.agents.outcomes.judge import POSITIONS, ranks_in
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Floats
from backchannel.schemas.events import MAX_DEPTH

Integers: TypeAlias = NDArray[np.int64]


class Pages(Struct, frozen=True):
    """Turns, the results that they showed, and the producers of those: three ragged levels, each in the outer's order.

    Attributes:
        times: event time of the query, ms, (turns,).
        queries: hash of each normalised query, see `hash_of`, (turns,).
        contexts: encoded contexts, (turns, strategies, d), or (turns, 1, d) if all strategies have the same.
        depths: candidates asked of each strategy, (turns, strategies); 0 if it was not asked, MAX_DEPTH if its list was
            walked to the end. A list that ended early was still asked that deep.
        distinct: whether the budget was one of distinct candidates, (turns,).
        turns: the turn that each result was shown in, (results,), rising.
        positions: position of each result on the page, from 1, (results,).
        gains: gain of the click on each result, in [0, 1]; 0 without a click, (results,).
        results: the result that each producer produced, (producers,), rising.
        strategies: codes of the producers, (producers,).
        ranks: rank of the result in the producer's list, from 1, (producers,).
    """

    times: Integers
    queries: Integers
    contexts: Floats
    depths: Integers
    distinct: NDArray[np.bool_]
    turns: Integers
    positions: Integers
    gains: Floats
    results: Integers
    strategies: Integers
    ranks: Integers

    def only(self, wanted: NDArray[np.bool_]) -> "Pages":
        """Return some of the turns.

        Args:
            wanted: whether to keep each, (turns,).
        """
        if wanted.all():
            return self
        shown = wanted[self.turns]
        produced = shown[self.results]
        return Pages(
            times=self.times[wanted],
            queries=self.queries[wanted],
            contexts=self.contexts[wanted],
            depths=self.depths[wanted],
            distinct=self.distinct[wanted],
            turns=(wanted.cumsum() - 1)[self.turns[shown]],
            positions=self.positions[shown],
            gains=self.gains[shown],
            results=(shown.cumsum() - 1)[self.results[produced]],
            strategies=self.strategies[produced],
            ranks=self.ranks[produced],
        )


def hash_of(query: str) -> int:
    """Return the hash of a normalised query, 32 bits; the same in every process."""
    return crc32(query.encode(errors="surrogatepass"))


def pages_of(outcomes: Outcomes, encoder: Encoder, strategies: Sequence[str]) -> Pages:
    """Return judged turns as pages.

    A turn with several impressions, as when somebody turns to the next page, is one page: each entity counts where it
    was shown first, and each strategy as deep as it was ever asked.

    Args:
        outcomes: the outcomes of turns.
        encoder: the encoder of contexts.
        strategies: names; their codes are their indexes. Other strategies are ignored.
    """
    columns, asked = outcomes.columns, outcomes.asked_of(strategies)
    impressions, names = columns.turns.impressions, columns.pools.strategies
    results = impressions.rows.results
    depths = np.zeros((len(outcomes), len(strategies)), dtype=np.int64)
    depths[asked.rows, asked.codes] = asked.drawn
    distinct_budget = np.zeros(len(outcomes), dtype=bool)
    distinct_budget[impressions.parents[impressions.rows.planned.parents]] = True
    # The results of each impression, in the order of their positions.
    order = np.argsort(results.parents * POSITIONS + results.rows.position, kind="stable")
    lists, positions = results.parents[order], results.rows.position[order].astype(np.int64)
    turns, entities = impressions.parents[lists], results.rows.entity[order]
    shown = firsts(turns, entities)
    gained = np.zeros(len(results.rows))
    gained[outcomes.gains.shown] = outcomes.gains.gains[outcomes.gains.of_shown]
    # The producers of each result, with ranks that are logged or else counted.
    producers, code = results.rows.producers, {name: place for place, name in enumerate(strategies)}
    counts = producers.counts[order]
    lines = np.repeat(np.arange(len(order)), counts)
    places = spans(producers.starts[order], counts)
    produced = producers.rows.strategy[places].astype(np.int64)
    ranks = ranks_in(lists[lines] * len(names) + produced, lines)
    logged, size = results.rows.ranks, max(len(names), 1)
    known = logged.parents * size + logged.rows.strategy
    by_known = np.argsort(known)
    wanted = order[lines] * size + produced
    found = np.searchsorted(known, wanted, sorter=by_known)
    found[found == len(known)] = 0
    if len(known):
        at = by_known[found]
        ranks = np.where(known[at] == wanted, logged.rows.rank[at], ranks)
    codes = np.array([code.get(name, MISSING) for name in names], dtype=np.int64)[produced]
    kept = np.flatnonzero(shown[lines] & (codes != MISSING))
    lines, codes, ranks = lines[kept], codes[kept], ranks[kept].astype(np.int64)
    # A list must have been at least this deep, whatever the allocation says.
    np.maximum.at(depths, (turns[lines], codes), np.minimum(ranks, MAX_DEPTH))
    hashes = np.array([hash_of(key) for key in outcomes.keys], dtype=np.int64)
    return Pages(
        times=outcomes.times,
        queries=hashes[outcomes.query],
        contexts=_contexts(columns, encoder, strategies),
        depths=depths,
        distinct=distinct_budget,
        turns=turns[shown],
        positions=positions[shown],
        gains=gained[order][shown],
        results=(shown.cumsum() - 1)[lines],
        strategies=codes,
        ranks=ranks,
    )


def _contexts(columns: Columns, encoder: Encoder, strategies: Sequence[str]) -> Floats:
    """Return the encoded contexts that decisions were made with; see `Pages.contexts`."""
    if not encoder.of_strategies:
        return np.asarray(encoder.vectors(columns)[:, np.newaxis])
    rows = np.repeat(np.arange(len(columns)), len(strategies))
    codes = np.tile(np.arange(len(strategies)), len(columns))
    return encoder.vectors_of(columns, rows, codes, strategies).reshape(
        len(columns), len(strategies), encoder.dimension
    )
