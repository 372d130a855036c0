"""The quality of learned orders of results: five folds over queries, from grades and from simulated clicks.

A query's candidates are the documents that any strategy found; only judged ones, unless all are judged, so nDCG is
condensed. Their features are one over their rank in each strategy's list, and the caller's own score,
by reciprocal rank fusion. The strategy `popular` is left out, because it knows the relevant
documents of other queries. Clicks follow position-based examination with a mixture of exponents unknown to the learner,
which assumes its default curve. Pages show the caller's first ten.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.ranking.features import RANK, SCORE, CandidateEncoder
from backchannel.agents.ranking.learner import EXAMINED
from backchannel.agents.ranking.sums import Lists, sums_of
from backchannel.agents.ranking.weights import solve
from backchannel.agents.sums import Floats, Integers
from backchannel.ops.lab.search.build import quiet
from backchannel.ops.lab.search.harness import Harness
from backchannel.ops.lab.search.measures import paired
from backchannel.ops.lab.search.people import ETAS, attraction
from backchannel.ops.lab.search.server import FUSION
from backchannel.ops.progress import Progress
from backchannel.schemas.snapshot import Estimate

FOLDS: Final = 5
SHOWN: Final = 10
POPULAR: Final = "popular"
TURNS: Final = (1_000, 10_000, 100_000)
_CHUNK: Final = 10_000  # number of turns to simulate at a time
_LEAST_EXAMINED: Final = 0.05  # lower bound of the divisor of clicks

Score: TypeAlias = Callable[[Floats], Floats]
"""Vectors of candidates -> scores, (candidates,)."""


class Order(Struct, frozen=True):
    """A way to order candidates.

    Attributes:
        name: its name.
        turns: number of turns whose clicks it was learned from; 0 if from grades, or not learned.
        ndcg: nDCG, the mean over queries, each measured in its held-out fold.
        less_bm25, less_caller: nDCG less that of BM25 and of the caller's order, paired over queries.
    """

    name: str
    turns: int
    ndcg: Estimate
    less_bm25: Estimate
    less_caller: Estimate


class Candidates(Struct, frozen=True):
    """The candidates of all queries, query by query, in the caller's order.

    Attributes:
        lengths: the number of candidates of each query, (queries,).
        ranks: one over the rank in each strategy's list; 0 if it is not in the list, (candidates, strategies).
        vectors: the encoded candidates, (candidates, d).
        gains: the gains (2^grade - 1) / (2^top - 1), (candidates,).
        attracts: the probability that each is clicked if examined, (candidates,).
        grades, places: the grades, and the indexes in the corpus, (candidates,).
    """

    lengths: Integers
    ranks: Floats
    vectors: Floats
    gains: Floats
    attracts: Floats
    grades: Floats
    places: Integers

    @property
    def starts(self) -> Integers:
        """The index of each query's first candidate, (queries,)."""
        return np.asarray(self.lengths.cumsum() - self.lengths)


def candidates_of(harness: Harness) -> Candidates:
    """Return the candidates of every query that has at least two."""
    corpus, encoder = harness.corpus, _encoder(harness)
    lengths, rows, scores, grades, places = [], [], [], [], []
    for query, searched in enumerate(corpus.queries):
        judged = {corpus.number[doc_id]: grade for doc_id, grade in searched.grades.items()}
        ranks: dict[int, list[float]] = {}
        for column, found in enumerate(harness.lists_of(query).values()):
            for rank, place in enumerate(found, 1):
                if corpus.complete or place in judged:
                    ranks.setdefault(place, [0.0] * len(harness.strategies))[column] = 1.0 / rank
        fused = {place: sum(1.0 / (FUSION + 1.0 / own) for own in row if own) for place, row in ranks.items()}
        order = sorted(fused, key=lambda place: (-fused[place], place))
        if len(order) > 1:
            lengths.append(len(order))
            rows += [ranks[place] for place in order]
            scores += [fused[place] for place in order]
            grades += [judged.get(place, 0.0) for place in order]
            places += order
    sizes, brought, top = np.array(lengths), np.array(rows), corpus.top_grade
    numbers = np.column_stack((scores, brought))
    vectors = encoder.encode(numbers, encoder.normalizers(numbers, sizes), (), (), sizes)
    gains = (2.0 ** np.array(grades) - 1.0) / (2.0**top - 1.0)
    attracts = np.array([attraction(grade, top) for grade in grades])
    return Candidates(sizes, brought, vectors, gains, attracts, np.array(grades), np.array(places))


def orders(
    harness: Harness, seed: int, turns: Sequence[int] = TURNS, k: int = 10, *, progress: Progress = quiet
) -> Iterator[Order]:
    """Yield every order, measured on held-out folds.

    Args:
        harness: queries, judgements and results of the strategies.
        seed: the seed of folds and clicks.
        turns: numbers of turns of clicks to learn from.
        k: the number of positions that nDCG covers.
        progress: called at every step.
    """
    harness = harness.selected([name for name in harness.strategies if name != POPULAR])
    every = candidates_of(harness)
    queries = len(every.lengths)
    folds = np.random.default_rng([seed, 43]).permutation(queries) % FOLDS
    ideal = _dcg(every, every.gains, k)

    def measure(scores: Floats) -> Floats:
        return np.divide(_dcg(every, scores, k), ideal, out=np.zeros(queries), where=ideal > 0)

    alone = {name: measure(every.ranks[:, column]) for column, name in enumerate(harness.strategies)}
    caller = measure(every.vectors[:, 0])
    bm25 = alone.get("lexical", caller)

    def order(name: str, ndcg: Floats, learned_from: int = 0) -> Order:
        return Order(name, learned_from, paired(ndcg), paired(ndcg, bm25), paired(ndcg, caller))

    for name, ndcg in alone.items():
        yield order(f"{name} alone", ndcg)
    yield order("rank fusion", caller)
    learners = {"ridge": _ridge, **({"LambdaMART": _lambdamart} if _lightgbm_is_there() else {})}
    for name, learn in learners.items():
        scores = np.zeros(len(every.gains))
        for fold in range(FOLDS):
            progress(f"{name}, from grades", fold / FOLDS)
            rows = np.repeat(folds != fold, every.lengths)
            lengths = every.lengths[folds != fold]
            shown = _Shown(
                np.arange(len(lengths)) % 2,
                lengths,
                every.vectors[rows],
                np.ones(int(rows.sum())),
                every.gains[rows],
                every.grades[rows],
            )
            scores[~rows] = learn(shown)(every.vectors[~rows])
        yield order(f"{name}, from grades", measure(scores))

    def from_clicks(name: str, scores: Floats, count: int) -> Order:
        return order(name, measure(scores), count)

    yield from _from_clicks(every, folds, seed, turns, from_clicks, progress=progress)


class _Shown(Struct, frozen=True):
    """Lists to learn from.

    `examined` is the curve that the learner assumes, `labels` are grades for learners that need them, and `halves` are
    the folds of the learner's own cross-validation: all lists of a query are in the same one.
    """

    halves: Integers
    lengths: Integers
    vectors: Floats
    examined: Floats
    gains: Floats
    labels: Floats


def _from_clicks(
    every: Candidates,
    folds: Integers,
    seed: int,
    turns: Sequence[int],
    order: Callable[[str, Floats, int], Order],
    *,
    progress: Progress,
) -> Iterator[Order]:
    learners: dict[str, Callable[[_Shown], Score]] = {
        "ridge, from clicks": _ridge,
        "ridge, position ignored": lambda shown: _ridge(_uncorrected(shown)),
        "ridge, clicks / examination": lambda shown: _ridge(_divided(shown)),
    }
    if _lightgbm_is_there():
        learners["LambdaMART, from clicks"] = _lambdamart
    for count in turns:
        scores = {name: np.zeros(len(every.gains)) for name in learners}
        for fold in range(FOLDS):
            shown = _clicked(every, np.flatnonzero(folds != fold), count, np.random.default_rng([seed, 47, fold]))
            held = np.repeat(folds == fold, every.lengths)
            for place, (name, learn) in enumerate(learners.items()):
                progress(f"{name}, {count:,} turns", (fold + place / len(learners)) / FOLDS)
                scores[name][held] = learn(shown)(every.vectors[held])
        for name, own in scores.items():
            yield order(name, own, count)


def _clicked(every: Candidates, queries: Integers, turns: int, rng: np.random.Generator) -> _Shown:
    """Return pages of the caller's first SHOWN candidates, and people's clicks on them."""
    asked = rng.choice(queries, turns)
    lengths = np.minimum(every.lengths[asked], SHOWN)
    at = np.repeat(every.starts[asked], lengths)
    position = np.arange(int(lengths.sum())) - np.repeat(lengths.cumsum() - lengths, lengths)
    rows = at + position
    eta = np.repeat(rng.choice(ETAS, turns), lengths)
    clicks = (rng.random(len(rows)) < every.attracts[rows]) & (rng.random(len(rows)) < (position + 1.0) ** -eta)
    assumed = np.array(EXAMINED[:SHOWN])[position]
    labels = clicks.astype(float)
    return _Shown(asked % 2, lengths, every.vectors[rows], assumed, labels, labels)


def _uncorrected(shown: _Shown) -> _Shown:
    return structs.replace(shown, examined=np.ones_like(shown.examined))


def _divided(shown: _Shown) -> _Shown:
    gains = shown.gains / np.maximum(shown.examined, _LEAST_EXAMINED)
    return structs.replace(shown, examined=np.ones_like(shown.examined), gains=gains)


def _ridge(shown: _Shown) -> Score:
    """Return what `ResultRanking` learns from such lists: the same sums, in the same two folds, solved in the same
    way.
    """
    total: Floats | float = 0.0
    starts = shown.lengths.cumsum() - shown.lengths
    for begin in range(0, len(shown.lengths), _CHUNK):
        own = shown.lengths[begin : begin + _CHUNK]
        rows = slice(starts[begin], starts[begin] + int(own.sum()))
        lists = Lists(
            own,
            shown.vectors[rows],
            shown.examined[rows],
            shown.gains[rows],
            shown.halves[begin : begin + _CHUNK],
            np.zeros(len(own), dtype=bool),
        )
        total = total + sums_of(lists, 2)
    prior = np.zeros(shown.vectors.shape[1])
    prior[0] = 1.0
    weights = solve(np.zeros(1), np.asarray(total)[np.newaxis], prior, (None,), 0.0)
    return lambda rows: np.asarray(rows @ weights.mean)


def _lambdamart(shown: _Shown) -> Score:
    """Fit LightGBM's LambdaMART with its defaults, except for small data; on clicks, it also gets the positions."""
    import lightgbm  # noqa: PLC0415 - for comparison only

    clicks = bool(np.isin(shown.labels, (0.0, 1.0)).all() and (shown.examined < 1.0).any())
    starts = np.repeat(shown.lengths.cumsum() - shown.lengths, shown.lengths)
    data = lightgbm.Dataset(
        shown.vectors,
        np.rint(shown.labels).astype(int),
        group=shown.lengths,
        position=np.arange(len(starts)) - starts if clicks else None,
    )
    settings = {"objective": "lambdarank", "num_leaves": 15, "learning_rate": 0.05, "verbosity": -1, "num_threads": 1}
    model = lightgbm.train({**settings, "seed": 1}, data, 100)
    return lambda rows: np.asarray(model.predict(rows))


def _lightgbm_is_there() -> bool:
    return find_spec("lightgbm") is not None


def _dcg(every: Candidates, scores: Floats, k: int) -> Floats:
    """Return the discounted gain of each query's first k candidates by descending score, (queries,)."""
    query = np.repeat(np.arange(len(every.lengths)), every.lengths)
    order = np.lexsort((np.arange(len(scores)), -scores, query))
    position = np.arange(len(scores)) - np.repeat(every.starts, every.lengths)
    worth = np.where(position < k, every.gains[order] / np.log2(position + 2.0), 0.0)
    return np.add.reduceat(worth, every.starts)


def _encoder(harness: Harness) -> CandidateEncoder:
    features = (Numeric(SCORE), *(Numeric(f"{RANK}{name}", scale=0.25) for name in harness.strategies))
    return CandidateEncoder(features, normalized=(SCORE,))
