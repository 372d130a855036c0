"""Evidence on online rewrites: real errors of a recogniser, and what a real NLU makes of them.

SLURP's recordings are split into halves by utterance, so that two microphones of one utterance stay together. One
half makes the index: how often the NLU was right on each recognised text, and how often wrong. The queries are the
other half, and then the halves change places. The ranker is fitted to four fifths of the sentences, its threshold
is chosen on them, too, and both are applied to the queries of the last fifth.

A win is a query that the NLU got wrong, rewritten to a text on which it gives the query's true meaning. A loss is a
query that it got right, rewritten to a text on which it gives another. A defect is a query that it got wrong.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from backchannel.agents.rewrites.fitting import best_of, curve_of
from backchannel.agents.rewrites.likeness import CANDIDATES, NAMES, Asked, Record
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import Booleans, Floats, Integers
from backchannel.ops.lab.rephrases.ranker import Pairs, score, train_ranker
from backchannel.ops.lab.rephrases.recordings import Heard, Meaning, halves, records_of
from backchannel.schemas.snapshot import Estimate

ODDS: Final = (8.5, 11.8, 20.0)
FOLDS: Final = 5
FIXED: Final = 90.0  # RapidFuzz's ratio from which a fixed threshold rewrites
_SAMPLES: Final = 1_000  # of queries' sentences, for intervals
_COMPARED: Final = 1  # the way that others are compared with


class Outcome(Struct, frozen=True):
    """What one way of rewriting does.

    Attributes:
        name: the way.
        fixed: the shares of defects fixed at the best thresholds with at least `ODDS` wins per loss, 0 to 1.
        wins, losses: the counts at the threshold that was fixed beforehand.
        withdrawn: these counts if a rewrite is no longer served once it has failed more often than it succeeded, in an
            order of queries drawn at random; so the first failure withdraws it.
        more: how much larger the share of defects fixed there is than with RapidFuzz at a fixed threshold, with vetoes,
            and an interval of 95% over sentences.
    """

    name: str
    fixed: tuple[float, ...]
    wins: int
    losses: int
    withdrawn: tuple[int, int]
    more: Estimate


class Evidence(Struct, frozen=True):
    """The evidence.

    Attributes:
        queries: the number of queries, each of which is tested once.
        defects: those of them that the NLU got wrong.
        ceiling: the share of defects whose meaning is in the index, 0 to 1.
        reachable: the share of defects with such a candidate after all vetoes, 0 to 1.
        outcomes: one for each way of rewriting.
    """

    queries: int
    defects: int
    ceiling: float
    reachable: float
    outcomes: list[Outcome]


class Gathered(Struct, frozen=True):
    """All pairs.

    Attributes:
        pairs: the pairs of queries and candidates.
        sentences: the sentence of each query.
        defects: whether the NLU got each query wrong, (queries,).
        indexed: whether each query's meaning is in the index, (queries,).
        half: the half that each query is in, (queries,).
        rewrites: the number of each pair's texts, (pairs,): pairs with the same two are one rewrite.
        succeeds: whether each pair's candidate has the query's true meaning, (pairs,).
    """

    pairs: Pairs
    sentences: list[str]
    defects: Booleans
    indexed: Booleans
    half: Integers
    rewrites: Integers
    succeeds: Booleans


def gather(found: Sequence[Heard]) -> Gathered:
    """Return the pairs of all queries and of those near them."""
    gathering = Gathering(NAMES)
    for half in (0, 1):
        index, asked = halves(found, half)
        records = records_of(index)
        meanings = {one.query: one.meant for one in index if one.right}
        known, texts = set(meanings.values()), sorted(meanings)
        nearby = Nearby().updated(records, records)
        for one in asked:
            gathering.ask(one, half, indexed=one.meant in known)
            record = records.get(one.query, Record())
            described = Asked(one.query, record, nearby.count, nearby.size, one.hypotheses)
            similar = process.extract(one.query, texts, scorer=fuzz.ratio, limit=2)
            nearest = next(text for text, _, _ in similar if text != one.query)
            members = (text for text in one.hypotheses if text in records and text != one.query)
            candidates = dict.fromkeys((*members, *nearby.candidates(one.query, CANDIDATES)))
            for target in dict.fromkeys([nearest, *candidates]):
                if target in meanings:
                    reliable = records[target]
                    allowed = (
                        record.success <= record.failure
                        and reliable.success > reliable.failure
                        and target in candidates
                        and change(one.query, target) != Change.OPPOSITE
                    )
                    numbers = described.describe(target, reliable)
                    gathering.pair(target, meanings[target], numbers, allowed=allowed, first=target == nearest)
    return gathering.gathered()


class Gathering:
    """Gathers the pairs of queries and candidates.

    Args:
        names: the names of the numbers that describe them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._characters: Final = names.index("characters")
        self._asked: Final[list[tuple[Heard, int, bool]]] = []
        self._rows: Final[list[tuple[Any, ...]]] = []
        self._rewrites: Final[dict[tuple[str, str], int]] = {}

    def ask(self, query: Heard, half: int, *, indexed: bool) -> None:
        """Begin with another query; see `Gathered`."""
        self._asked.append((query, half, indexed))

    def pair(self, target: str, meaning: Meaning, numbers: Iterable[float], *, allowed: bool, first: bool) -> None:
        """Add a pair of the last query and a candidate; see `Pairs` for what is allowed and first."""
        query, known = self._asked[-1][0], tuple(numbers)
        good = meaning == query.meant
        row = (
            *(known, len(self._asked) - 1, int(unit_hash(query.sentence) * FOLDS)),
            *(good and not query.right, query.right and not good, 1.0),
            *(allowed, 100 * known[self._characters] if first else 0.0),
            *(self._rewrites.setdefault((query.query, target), len(self._rewrites)), good),
        )
        self._rows.append(row)

    def gathered(self) -> Gathered:
        """Return all pairs."""
        columns = zip(*self._rows, strict=True)
        kinds = (*(float, int, int, float, float, float), *(bool, float, int, bool))
        arrays: list[Any] = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        queries, half, indexed = zip(*self._asked, strict=True)
        return Gathered(
            Pairs(*arrays[:-2]),
            [one.sentence for one in queries],
            np.array([not one.right for one in queries], bool),
            np.array(indexed, bool),
            np.array(half),
            *arrays[-2:],
        )


def judge(found: Gathered, odds: float) -> Evidence:
    """Compare the ways of rewriting, each query being tested by a ranker that knows nothing of its sentence.

    Args:
        found: the pairs.
        odds: wins per loss, at least.
    """
    return judge_by(found, found.pairs.allowed, train_ranker, score, odds)


def judge_by(
    found: Gathered,
    known: Booleans,
    train: Callable[[Pairs, Booleans], Ranker],
    score_by: Callable[[Ranker, Floats], Floats],
    odds: float,
) -> Evidence:
    """Compare the ways of rewriting with some ranker.

    Args:
        found: the pairs.
        known: whether rankers and thresholds may be fitted to each pair, (pairs,).
        train: returns a ranker fitted to those pairs, (pairs,), that it is given.
        score_by: returns the ranker's scores of pairs described by such numbers.
        odds: wins per loss, at least.
    """
    pairs = found.pairs
    scores, served = np.full(len(pairs.query), -np.inf), np.zeros(len(pairs.query), np.bool_)
    plain = np.where(pairs.first > 0, pairs.first, -np.inf)
    vetoed = np.where(pairs.allowed, plain, -np.inf)
    as_sure = np.zeros(len(pairs.query), np.bool_)
    for fold in range(FOLDS):
        rows, test = known & (pairs.fold != fold), pairs.allowed & (pairs.fold == fold)
        ranker = train(pairs, rows)
        scores[test] = score_by(ranker, pairs.numbers[test])
        served[test] = scores[test] >= ranker.least(odds)
        rival = curve_of(np.where(rows & (pairs.first > 0), pairs.first, -np.inf), pairs)
        as_sure[test] = vetoed[test] >= least_of(rival, odds)
    fixed_at, bound = f"RapidFuzz ratio, fixed at {FIXED:.0f}", f"at a lower bound of {odds:g}:1"
    ways = (
        (fixed_at, plain, plain >= FIXED),
        (f"{fixed_at}, with vetoes", vetoed, vetoed >= FIXED),
        (f"RapidFuzz ratio, with vetoes, {bound}", vetoed, as_sure),
        (f"ranked, {bound}", scores, served),
    )
    defects = int(found.defects.sum())
    served_by = [best_of(np.where(chosen, values, -np.inf), pairs.query) for _, values, chosen in ways]
    wins = [np.bincount(pairs.query[some], pairs.win[some], len(found.sentences)) for some in served_by]
    outcomes = []
    for (name, values, _), some, won in zip(ways, served_by, wins, strict=True):
        best = best_of(values, pairs.query)
        fixed = fixed_of(values[best], pairs.win[best], pairs.loss[best], defects)
        kept = some[_not_withdrawn(found, some)]
        withdrawn = int(pairs.win[kept].sum()), int(pairs.loss[kept].sum())
        more = _more(found, won - wins[_COMPARED])
        outcomes.append(Outcome(name, fixed, int(won.sum()), int(pairs.loss[some].sum()), withdrawn, more))
    reachable = len(np.unique(pairs.query[pairs.allowed & (pairs.win > 0)])) / max(defects, 1)
    ceiling = float(found.indexed[found.defects].mean()) if defects else 0.0
    return Evidence(len(found.sentences), defects, ceiling, reachable, outcomes)


def least_of(curve: Sequence[tuple[float, float]], odds: float) -> float:
    """Return the least score on a curve with at least `odds`."""
    return min((least for least, bound in curve if bound >= odds), default=np.inf)


def _not_withdrawn(found: Gathered, served: Integers) -> Integers:
    """Return the places in `served`, pairs that were served first, of those that are still served in their turn."""
    kept, balance = [], Counter[int]()
    for place in np.random.default_rng(0).permutation(len(served)).tolist():
        rewrite, succeeds = int(found.rewrites[served[place]]), bool(found.succeeds[served[place]])
        if balance[rewrite] >= 0:
            kept.append(place)
            balance[rewrite] += 1 if succeeds else -1
    return np.array(sorted(kept), np.int64)


def _more(found: Gathered, wins: NDArray[Any]) -> Estimate:
    """Return the share of defects that `wins`, (queries,), are, with an interval of 95% by drawing sentences."""
    names, place = np.unique(found.sentences, return_inverse=True)
    sums, counts = np.bincount(place, wins), np.bincount(place, found.defects)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=_SAMPLES)
    low, high = np.quantile((drawn @ sums) / np.maximum(drawn @ counts, 1), (0.025, 0.975)).tolist()
    return Estimate(float(sums.sum() / max(counts.sum(), 1)), low, high)


def fixed_of(values: Floats, win: Floats, loss: Floats, defects: int) -> tuple[float, ...]:
    """Return the shares of defects fixed at the best thresholds of `values`, (pairs,), with at least `ODDS`."""
    order = np.argsort(-values, kind="stable")
    wins, losses = np.cumsum(win[order]), np.cumsum(loss[order])
    last = np.append(np.diff(values[order]) != 0, True)
    best = (wins[last & (wins >= odds * losses)].max(initial=0.0) for odds in ODDS)
    return tuple(float(one) / max(defects, 1) for one in best)
