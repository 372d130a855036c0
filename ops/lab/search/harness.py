"""The harness: every strategy's results for every query, computed once, and the value of allocations of them.

For experiments in Python::

    corpus = simulate(read(Path("icecat_chorus")), 3000, seed=1, encode=encoder.encode_cached)
    harness = build(corpus, 1, encoder)             # encoder = default_encoder(), or None: no dense strategy
    harness.strategies                              # ('lexical', 'all_words', 'trigrams', 'dense', ...)
    harness.lists_of(17)["dense"]                   # documents as indexes into the corpus, best first, to depth 100
    harness.context(17)                             # features of query 17, by name
    harness.corpus.queries[17].grades               # document id -> grade
    fixed = harness.best_fixed(20)                  # the allocation that is best on training queries
    oracle = harness.best_each(20, harness.held_out)
    harness.recall_at(fixed, harness.held_out)      # of each held-out query; distinct=20 for a distinct budget
    people = People(harness, seed=1)
    visits = people.visits()                        # an endless iterator
    people.clicks(next(visits), [4711, 42])         # the clicked ones of two documents shown
    loop.run(harness, Settings(turns=8_000), loop.configuration(harness, exploration=0.1))

Without `simulate`, the corpus has its own queries. `simulate` is in `simulator`, `read` in `readers`, `build` in
`build`, `default_encoder` in `generators.encoder`, `People` in `people`. Slow results are cached.

An allocation is an array of counts in the order of `strategies`: (strategies,), or one for each query, (queries,
strategies).
Recall at a budget is the number of relevant documents in the union, divided by the possible number: the relevant
documents, or the budget if that is smaller. See `union` for the two readings of a budget.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.sums import Floats
from backchannel.ops.lab.search.corpus import Corpus
from backchannel.ops.lab.search.query_features import numeric_features
from backchannel.ops.lab.search.union import UNASKED

DEPTH: Final = 100
"""Number of ranks of each list that are kept."""

Allocations: TypeAlias = NDArray[np.int64]
Queries: TypeAlias = NDArray[np.intp]
"""Queries, as indexes into the corpus, (n,)."""

_NONE: Final = 30_000  # the rank of documents that a strategy did not find


class Harness:
    """Every strategy's results for every query, and measures of them.

    Args:
        corpus: a corpus with judged queries.
        strategies: names of the strategies.
        lists: documents as indexes into the corpus, best first, -1 beyond the end of a list, (queries, strategies,
            depth).
        totals: the number of documents that each strategy has for each query, (queries, strategies).
        feature_names: names of the queries' features.
        features: their values, (queries, features).
        seed: the seed of the split.
        held_out_share: the share of queries to hold out, 0 to 1.

    Attributes:
        corpus, strategies, lists, totals, feature_names, features: as given.
        train, held_out: queries to learn from, and queries to measure on.
    """

    def __init__(
        self,
        corpus: Corpus,
        strategies: Sequence[str],
        lists: NDArray[np.int32],
        totals: NDArray[np.int32],
        *,
        feature_names: Sequence[str],
        features: Floats,
        seed: int,
        held_out_share: float = 0.3,
    ) -> None:
        self.corpus: Final = corpus
        self.strategies: Final = tuple(strategies)
        self.lists: Final = lists
        self.totals: Final = totals
        self.feature_names: Final = tuple(feature_names)
        self.features: Final = features
        self._seed: Final = seed
        self._held_out_share: Final = held_out_share
        self._shallow: Final[dict[int, Harness]] = {}
        order = np.random.default_rng([seed, 17]).permutation(len(corpus.queries))
        cut = round(len(order) * held_out_share)
        self.held_out: Final[Queries] = np.sort(order[:cut])
        self.train: Final[Queries] = np.sort(order[cut:])

    # Results

    def lists_of(self, query: int) -> dict[str, list[int]]:
        """Return strategy -> the documents that it finds for `query`, as indexes into the corpus, best first."""
        return {
            name: found[found >= 0].tolist() for name, found in zip(self.strategies, self.lists[query], strict=True)
        }

    def context(self, query: int) -> dict[str, float]:
        """Return the features of `query` by name."""
        return dict(zip(self.feature_names, self.features[query].tolist(), strict=True))

    @cached_property
    def bandit_features(self) -> tuple[Numeric, ...]:
        """The features as the bandit's configuration, centred and scaled on training queries."""
        return numeric_features(self.feature_names, self.features[self.train])

    @cached_property
    def grades(self) -> NDArray[np.float32]:
        """The grade of every document in every list, (queries, strategies, depth); NaN if it was not judged."""
        found = np.full(self.lists.shape, np.nan, np.float32)
        for number, query in enumerate(self.corpus.queries):
            judged = {self.corpus.number[doc_id]: grade for doc_id, grade in query.grades.items()}
            keys = np.array(sorted(judged), np.int32)
            values = np.array([judged[key] for key in keys.tolist()], np.float32)
            at = np.minimum(np.searchsorted(keys, self.lists[number]), len(keys) - 1)
            found[number] = np.where(keys[at] == self.lists[number], values[at], np.nan)
        return found

    def selected(self, names: Sequence[str]) -> "Harness":
        """Return the harness of these strategies only, in this order. A repeated name makes twins."""
        places = [self.strategies.index(name) for name in names]
        renamed = [
            f"{name}_{names[:at].count(name) + 1}" if name in names[:at] else name for at, name in enumerate(names)
        ]
        return self._like(renamed, self.lists[:, places], self.totals[:, places])

    def with_strategy(self, name: str, found: Mapping[int, Sequence[int]]) -> "Harness":
        """Return the harness with one more strategy.

        Args:
            name: the name of the strategy.
            found: query -> the documents that it finds, as indexes into the corpus; none for other queries.
        """
        lists = np.full((len(self.lists), 1, self.lists.shape[2]), -1, np.int32)
        totals = np.zeros((len(self.lists), 1), np.int32)
        for query, places in found.items():
            kept = places[: lists.shape[2]]
            lists[query, 0, : len(kept)] = kept
            totals[query, 0] = len(places)
        return self._like(
            (*self.strategies, name),
            np.concatenate([self.lists, lists], axis=1),
            np.concatenate([self.totals, totals], axis=1),
        )

    def swapped(self, one: str, other: str) -> "Harness":
        """Return the harness with the results of two strategies swapped."""
        places = list(range(len(self.strategies)))
        first, second = self.strategies.index(one), self.strategies.index(other)
        places[first], places[second] = second, first
        return self._like(self.strategies, self.lists[:, places], self.totals[:, places])

    def without(self, hidden: NDArray[np.bool_]) -> "Harness":
        """Return the harness without the `hidden` documents, (documents,); ranks close up."""
        gone = (self.lists < 0) | hidden[self.lists]
        order = np.argsort(gone, axis=2, kind="stable")
        lists = np.take_along_axis(np.where(gone, -1, self.lists), order, axis=2).astype(np.int32)
        return self._like(self.strategies, lists, np.minimum(self.totals, (lists >= 0).sum(axis=2)).astype(np.int32))

    def _like(self, strategies: Sequence[str], lists: NDArray[np.int32], totals: NDArray[np.int32]) -> "Harness":
        return Harness(
            self.corpus,
            strategies,
            lists,
            totals,
            feature_names=self.feature_names,
            features=self.features,
            seed=self._seed,
            held_out_share=self._held_out_share,
        )

    # Values of allocations

    def recall_at(self, allocation: Allocations, queries: Queries, distinct: int | None = None) -> NDArray[np.float64]:
        """Return the recall of each query, (queries,).

        Args:
            allocation: (strategies,), or (queries, strategies).
            queries: the queries.
            distinct: the budget of distinct candidates; None if the allocation's total is the budget.
        """
        asked = np.broadcast_to(allocation, (len(queries), len(self.strategies)))
        if distinct is None:
            found, budget = self._found(asked, queries), asked.sum(axis=1)
        else:
            found = self._cut(distinct)._found_distinct(asked, queries, distinct)
            budget = np.full(len(queries), distinct)
        recall: NDArray[np.float64] = found / np.maximum(np.minimum(self.relevant[queries], budget), 1)
        return recall

    def drawn_distinct(self, allocation: Allocations, queries: Queries) -> NDArray[np.int64]:
        """Return the number of distinct candidates drawn, (queries,)."""
        asked = np.broadcast_to(allocation, (len(queries), len(self.strategies)))
        count: NDArray[np.int64] = (self._ranks[queries] <= asked[:, np.newaxis]).any(axis=2).sum(axis=1)
        return count

    def even(self, budget: int) -> Allocations:
        """Return the even split; the first strategies take the remainder."""
        size = len(self.strategies)
        return np.array([budget // size + (place < budget % size) for place in range(size)])

    def alone(self, strategy: str, budget: int) -> Allocations:
        """Return the allocation of the whole budget to one strategy."""
        return np.array([budget * (name == strategy) for name in self.strategies])

    def best_fixed(self, budget: int, distinct: int | None = None, queries: Queries | None = None) -> Allocations:
        """Return the allocation with the best mean recall on training queries: the baseline to beat.

        It is found by hill climbing, which moves 8, 4, 2 and 1 candidates between strategies, from three
        starts: even, greedy, and the best single strategy. It need not be the optimum.

        Args:
            budget: the total number of candidates.
            distinct: see `recall_at`.
            queries: the queries to optimise on; by default the training queries.
        """
        known = self.train if queries is None else queries

        def worth(allocation: Allocations) -> float:
            return float(self.recall_at(allocation, known, distinct).mean())

        single = max((self.alone(name, budget) for name in self.strategies), key=worth)
        starts = [self.even(budget), single]
        if distinct is None:
            starts.append(self._greedy(budget, known))
        return max((self.climb(start, worth) for start in starts), key=worth)

    def best_each(self, budget: int, queries: Queries, distinct: int | None = None) -> Allocations:
        """Return the best allocation found for each query, given its judgements: the oracle, (queries, strategies).

        The search is that of `best_fixed`, so the true oracle may be better; it is at least as good as the best fixed
        allocation and any strategy alone.
        """
        size = len(self.strategies)
        fixed = self.best_fixed(budget, distinct)
        starts = [fixed, self.even(budget), *(self.alone(name, budget) for name in self.strategies)]
        best = np.tile(fixed, (len(queries), 1))
        worth = self.recall_at(best, queries, distinct)
        if distinct is None:
            starts_each = [np.tile(start, (len(queries), 1)) for start in starts] + [self._greedy_each(budget, queries)]
        else:
            starts_each = [np.tile(start, (len(queries), 1)) for start in starts]
        for start in starts_each:
            value = self.recall_at(start, queries, distinct)
            better = value > worth
            best[better], worth[better] = start[better], value[better]
        for step in (8, 4, 2, 1):
            for giver in range(size):
                for taker in range(size):
                    moved = best.copy()
                    amount = np.minimum(moved[:, giver], step) * (giver != taker)
                    moved[:, giver] -= amount
                    moved[:, taker] += amount
                    value = self.recall_at(moved, queries, distinct)
                    better = value > worth
                    best[better], worth[better] = moved[better], value[better]
        return best

    def order(self, query: int, allocation: Allocations, distinct: int | None = None) -> list[int]:
        """Return the ordered union of one query, as indexes into the corpus."""
        asked = np.asarray(allocation)
        at = self._points(asked[np.newaxis], np.array([query]))[0]
        usable = np.isfinite(at) if distinct is not None else (self._ranks[query] <= asked).any(axis=1)
        found = np.flatnonzero(usable)
        order = found[np.argsort(at[found], kind="stable")][:distinct]
        places: list[int] = self._documents[query][order].tolist()
        return places

    def fused(self, query: int, constant: float = 60.0) -> list[int]:
        """Return all results for one query by reciprocal rank fusion (Cormack et al. 2009), best first."""
        ranks = self._ranks[query]
        scores = np.where(ranks < _NONE, 1.0 / (constant + ranks), 0.0).sum(axis=1)
        found = np.flatnonzero(scores > 0)
        items = self._documents[query][found]
        places: list[int] = items[np.lexsort((items, -scores[found]))].tolist()
        return places

    @cached_property
    def relevant(self) -> NDArray[np.int64]:
        """The number of relevant documents for each query, found or not, (queries,)."""
        return np.array([len(self.corpus.relevant(query)) for query in self.corpus.queries])

    @cached_property
    def _united(self) -> tuple[NDArray[np.int32], NDArray[np.int16], int]:
        """The documents that any strategy found for each query, relevant ones first; and their ranks.

        Returns:
            documents as indexes, -1 for none, (queries, most); ranks from 1, _NONE for none, (queries, most,
            strategies); and the number of columns that hold relevant documents.
        """
        rows = []
        depth = np.arange(1, self.lists.shape[2] + 1, dtype=np.int16)
        for number, query in enumerate(self.corpus.queries):
            places, inverse = np.unique(self.lists[number], return_inverse=True)
            ranks = np.full((len(places), len(self.strategies)), _NONE, np.int16)
            for strategy, found in enumerate(inverse.reshape(self.lists.shape[1:])):
                ranks[found, strategy] = depth
            places, ranks = places[places >= 0], ranks[places >= 0]
            relevant = np.array([self.corpus.number[doc_id] for doc_id in self.corpus.relevant(query)])
            rows.append((places, ranks, np.isin(places, relevant)))
        most_relevant = max((int(own.sum()) for _, _, own in rows), default=0)
        most = most_relevant + max((int((~own).sum()) for _, _, own in rows), default=0)
        documents = np.full((len(rows), most), -1, np.int32)
        united = np.full((len(rows), most, len(self.strategies)), _NONE, np.int16)
        for number, (places, ranks, own) in enumerate(rows):
            for begin, among in ((0, own), (most_relevant, ~own)):
                end = begin + int(among.sum())
                documents[number, begin:end], united[number, begin:end] = places[among], ranks[among]
        return documents, united, most_relevant

    @property
    def _documents(self) -> NDArray[np.int32]:
        return self._united[0]

    @property
    def _ranks(self) -> NDArray[np.int16]:
        return self._united[1]

    def _found(self, asked: Allocations, queries: Queries) -> NDArray[np.int64]:
        relevant = self._ranks[queries, : self._united[2]]
        count: NDArray[np.int64] = (relevant <= asked[:, np.newaxis]).any(axis=2).sum(axis=1)
        return count

    def _cut(self, depth: int) -> "Harness":
        """Return the harness with lists cut at `depth`: the first n distinct candidates are within the first n of each
        list.
        """
        if depth not in self._shallow:
            deep = depth >= self.lists.shape[2]
            self._shallow[depth] = self if deep else self._like(self.strategies, self.lists[:, :, :depth], self.totals)
        return self._shallow[depth]

    def _found_distinct(self, asked: Allocations, queries: Queries, distinct: int) -> NDArray[np.int64]:
        at = self._points(asked, queries)
        own = at[:, : self._united[2]]
        last = np.partition(at, distinct - 1, axis=1)[:, distinct - 1, np.newaxis] if distinct < at.shape[1] else np.inf
        count: NDArray[np.int64] = ((own <= last) & np.isfinite(own)).sum(axis=1)
        return count

    def _points(self, asked: Allocations, queries: Queries) -> Floats:
        """Return each document's point in the union's order, (queries, most); infinite if it was not found."""
        ranks = self._ranks[queries]
        share = asked[:, np.newaxis]
        at = np.where(share > 0, (ranks - 0.5) / np.maximum(share, 1), UNASKED + ranks)
        # The order of strategies breaks ties. Points of different ranks differ by far more than this.
        at = at + 1e-9 * np.arange(len(self.strategies))
        first: Floats = np.where(ranks < _NONE, at, np.inf).min(axis=2)
        return first

    def climb(self, start: Allocations, worth: Callable[[Allocations], float]) -> Allocations:
        """Return the allocation that moving 8, 4, 2 and 1 candidates between strategies leads to, by its worth."""
        best, value = start, worth(start)
        for step in (8, 4, 2, 1):
            improved = True
            while improved:
                improved = False
                for giver in np.flatnonzero(best).tolist():
                    for taker in range(len(best)):
                        amount = min(step, int(best[giver]))
                        if giver == taker or amount == 0:
                            continue
                        moved = best.copy()
                        moved[giver] -= amount
                        moved[taker] += amount
                        other = worth(moved)
                        if other > value:
                            best, value, improved = moved, other, True
        return best

    def _greedy(self, budget: int, queries: Queries) -> Allocations:
        best = np.zeros(len(self.strategies), np.int64)
        eye = np.eye(len(best), dtype=np.int64)
        most = np.minimum(self.relevant[queries], budget)
        for _ in range(budget):
            gains = [
                (self._found(np.broadcast_to(best + one, (len(queries), len(best))), queries) / most).mean()
                for one in eye
            ]
            best = best + eye[int(np.argmax(gains))]
        return best

    def _greedy_each(self, budget: int, queries: Queries) -> Allocations:
        """Allocate each query greedily: draw where the next relevant document is nearest."""
        chosen = np.zeros((len(queries), len(self.strategies)), np.int64)
        for row, query in enumerate(queries.tolist()):
            ranks = self._ranks[query, : self._united[2]].astype(np.int64)
            depth = np.zeros(len(self.strategies), np.int64)
            while True:
                left = ranks[(ranks > depth).all(axis=1)]
                spare = budget - int(depth.sum())
                options = []
                for strategy in range(len(depth)):
                    for rank in np.unique(left[:, strategy]).tolist():
                        cost = rank - int(depth[strategy])
                        if cost <= spare:
                            options.append((float((left[:, strategy] <= rank).sum() / cost), strategy, rank))
                if not options:
                    break
                _, strategy, rank = max(options)
                depth[strategy] = rank
            depth[0] += budget - depth.sum()
            chosen[row] = depth
        return chosen
