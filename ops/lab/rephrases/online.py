"""Evidence on online rewrites: real errors of a recogniser, and what a real NLU makes of them.

SLURP's recordings are split into halves by utterance, so that two microphones of one utterance stay together. One
half makes the index: how often the NLU was right on each recognised text, and how often wrong. The queries are the
other half, and then the halves change places. The ranker is fitted to four fifths of the sentences, its threshold is
chosen on them, too, and both are applied to the queries of the last fifth.

A win is a query that the NLU got wrong, rewritten to a text on which it gives the query's true meaning. A loss is a
query that it got right, rewritten to a text on which it gives another. A defect is a query that it got wrong.
"""

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from rapidfuzz import fuzz, process
from scipy.optimize import minimize
from scipy.special import expit

from backchannel.agents.rewrites.likeness import CANDIDATES, NAMES, Asked, Record, Scorer
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.sketches import unit_hash
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import Booleans, Floats, Integers
from backchannel.schemas.text import normalize

ODDS: Final = (8.5, 11.8, 20.0)
_FOLDS: Final = 5
_QUANTILES: Final = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.998)
_RIDGE: Final = 2.0
_SURE: Final = 1.2816  # standard deviations to a bound that holds with a probability of 90%
_FIXED: Final = 90.0  # RapidFuzz's ratio from which a fixed threshold rewrites

Meaning: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
Curve: TypeAlias = tuple[tuple[float, float], ...]


class Heard(Struct, frozen=True):
    """A recording.

    Attributes:
        query: the normalised text that was recognised.
        sentence: the text that was read out.
        utterance: the name that both microphones' recordings share.
        understood: what the NLU made of the recognised text.
        meant: the annotated meaning.
    """

    query: str
    sentence: str
    utterance: str
    understood: Meaning
    meant: Meaning

    @property
    def right(self) -> bool:
        """Whether the NLU understood what was meant."""
        return self.understood == self.meant


class Outcome(Struct, frozen=True):
    """What one way of rewriting does.

    Attributes:
        name: the way.
        fixed: the shares of defects fixed at the best thresholds with at least `ODDS` wins per loss, 0 to 1.
        wins, losses: the counts at the threshold that was fixed beforehand.
    """

    name: str
    fixed: tuple[float, ...]
    wins: int
    losses: int


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


class Pairs(Struct, frozen=True):
    """Queries and their candidates.

    Attributes:
        numbers: the numbers that describe each pair, (pairs, NAMES).
        query: the query of each pair, (pairs,).
        fold: the fold of its sentence, (pairs,).
        win, loss: 1 if rewriting would be a win or a loss, else 0, (pairs,).
        allowed: whether no veto holds, (pairs,).
        first: RapidFuzz's ratio, 0 to 100, if the candidate is the most similar text of all, else 0, (pairs,).
    """

    numbers: Floats
    query: Integers
    fold: Integers
    win: Floats
    loss: Floats
    allowed: Booleans
    first: Floats


def gather(folder: Path) -> tuple[Pairs, int, int, float]:
    """Return all pairs, the numbers of queries and of defects, and the share of defects with their meaning indexed."""
    recordings = list(_recordings(folder))
    rows: list[tuple[Any, ...]] = []
    queries = defects = indexed = 0
    for half in (0, 1):
        index, asked = _halves(recordings, half)
        right, wrong = defaultdict[str, Counter[Meaning]](Counter), Counter[str]()
        for one in index:
            if one.right:
                right[one.query][one.meant] += 1
            else:
                wrong[one.query] += 1
        records = {
            query: Record(right[query].total() if query in right else 0, wrong[query]) for query in {*right, *wrong}
        }
        meanings = {query: counts.most_common(1)[0][0] for query, counts in right.items()}
        known, texts = set(meanings.values()), sorted(meanings)
        nearby = Nearby().updated(records, records)
        for one in asked:
            defects += not one.right
            indexed += not one.right and one.meant in known
            record = records.get(one.query, Record())
            described = Asked(one.query, record, nearby.count, nearby.size)
            similar = process.extract(one.query, texts, scorer=fuzz.ratio, limit=2)
            nearest, ratio = next((text, ratio) for text, ratio, _ in similar if text != one.query)
            candidates = nearby.candidates(one.query, CANDIDATES)
            for target in dict.fromkeys([nearest, *candidates]):
                if target not in meanings:
                    continue
                numbers = described.describe(target, records[target])
                good = meanings[target] == one.meant
                allowed = (
                    target in candidates
                    and record.success <= record.failure
                    and records[target].success > records[target].failure
                    and change(one.query, target) != Change.OPPOSITE
                )
                rows.append(
                    (
                        numbers,
                        queries,
                        int(unit_hash(one.sentence) * _FOLDS),
                        good and not one.right,
                        one.right and not good,
                        allowed,
                        ratio if target == nearest else 0.0,
                    )
                )
            queries += 1
    columns = list(zip(*rows, strict=True))
    kinds = (np.float64, np.int64, np.int64, np.float64, np.float64, np.bool_, np.float64)
    arrays: list[Any] = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return Pairs(*arrays), queries, defects, indexed / max(defects, 1)


def judge(pairs: Pairs, queries: int, defects: int, ceiling: float, odds: float) -> Evidence:
    """Compare the ways of rewriting, each query being tested by a ranker that knows nothing of its sentence."""
    scores, served = np.full(len(pairs.query), -np.inf), np.zeros(len(pairs.query), np.bool_)
    for fold in range(_FOLDS):
        train, test = pairs.allowed & (pairs.fold != fold), pairs.allowed & (pairs.fold == fold)
        scorer, curve = train_ranker(pairs, train)
        scores[test] = score(scorer, pairs.numbers[test])
        enough = [least for least, bound in curve if bound >= odds]
        served[test] = scores[test] >= min(enough, default=np.inf)
    plain = np.where(pairs.first > 0, pairs.first, -np.inf)
    vetoed = np.where(pairs.allowed, plain, -np.inf)
    ways = (
        (f"RapidFuzz ratio, fixed at {_FIXED:.0f}", plain, plain >= _FIXED),
        (f"RapidFuzz ratio, fixed at {_FIXED:.0f}, with vetoes", vetoed, vetoed >= _FIXED),
        (f"ranked, at a lower bound of {odds:g}:1", scores, served),
    )
    outcomes = []
    for name, values, chosen in ways:
        best = _best(values, pairs.query)
        win, loss, kept = pairs.win[best], pairs.loss[best], chosen[best]
        fixed = _fixed(values[best], win, loss, defects)
        outcomes.append(Outcome(name, fixed, int(win[kept].sum()), int(loss[kept].sum())))
    winnable = np.unique(pairs.query[pairs.allowed & (pairs.win > 0)])
    return Evidence(queries, defects, ceiling, len(winnable) / max(defects, 1), outcomes)


def train_ranker(pairs: Pairs, rows: Booleans) -> tuple[Scorer, Curve]:
    """Return a ranker fitted to some pairs, (pairs,), and its scores with the odds' lower bounds, ascending.

    The bounds are cross-fitted: each fold of the sentences is scored by a ranker of the other folds.
    """
    scores = np.full(len(rows), -np.inf)
    for fold in np.unique(pairs.fold[rows]).tolist():
        test = rows & (pairs.fold == fold)
        scores[test] = score(fit(pairs, rows & ~test), pairs.numbers[test])
    chosen = np.flatnonzero(rows)
    best = chosen[_best(scores[chosen], pairs.query[chosen])]
    best = best[np.argsort(-scores[best], kind="stable")]
    wins, losses = np.cumsum(pairs.win[best]), np.cumsum(pairs.loss[best])
    lower, _ = wilson(wins, wins + losses, _SURE)
    bounds = lower / np.maximum(1.0 - lower, 1e-9)
    curve: list[tuple[float, float]] = []
    for value, bound in zip(scores[best][::-1].tolist(), bounds[::-1].tolist(), strict=True):
        if bound >= (curve[-1][1] * 1.1 if curve else 1.0):
            curve.append((round(value, 4), round(bound, 2)))
    return fit(pairs, rows), tuple(curve)


def fit(pairs: Pairs, rows: Booleans) -> Scorer:
    """Return a logistic model of wins against losses, on the bins of the numbers of some pairs, (pairs,).

    Pairs that are neither do not count, so the score is the log of the odds. It has a ridge penalty.
    """
    rows = rows & (pairs.win + pairs.loss > 0)
    numbers, win = pairs.numbers[rows], pairs.win[rows]
    edges = {
        name: tuple(np.unique(np.round(np.quantile(numbers[:, place], _QUANTILES), 4)).tolist())
        for place, name in enumerate(NAMES)
    }
    bins = [
        np.eye(len(edges[name]) + 1, dtype=np.float32)[_bin(edges[name], numbers[:, place])]
        for place, name in enumerate(NAMES)
    ]
    features = np.concatenate([np.ones((len(win), 1), np.float32), *bins], axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        values = (features @ weights.astype(np.float32)).astype(np.float64)
        penalty = _RIDGE * weights
        penalty[0] = 0.0
        slope = (features.T @ (expit(values) - win).astype(np.float32)).astype(np.float64) + penalty
        return float(np.sum(np.logaddexp(0.0, values) - win * values) + 0.5 * weights @ penalty), slope

    start = np.zeros(features.shape[1])
    start[0] = np.log((win.sum() + 1) / (len(win) - win.sum() + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x.round(3)
    ends = np.cumsum([1, *(len(edges[name]) + 1 for name in NAMES)])
    weights = {name: tuple(found[a:b].tolist()) for name, (a, b) in zip(NAMES, pairwise(ends), strict=True)}
    return Scorer(float(found[0]), edges, weights)


def module(scorer: Scorer, curve: Curve) -> str:
    """Return the source of `likeness_weights`."""
    edges = "".join(f'        "{name}": {list(some)},\n' for name, some in scorer.edges.items())
    weights = "".join(f'        "{name}": {list(some)},\n' for name, some in scorer.weights.items())
    return f'''"""The numbers of the ranker of online rewrites.

`backchannel rephrases online --write` wrote them: do not edit.

They are fitted to spoken English commands (slurp_pipeline), and say nothing about other queries.
"""

from typing import Final

from backchannel.agents.rewrites.likeness import Scorer

# fmt: off
SCORER: Final = Scorer(
    {scorer.constant},
    {{
{edges}    }},
    {{
{weights}    }},
)
"""The weights of the bins of the numbers in `likeness.NAMES`."""

CURVE: Final = (
{"".join(f"    {one},{chr(10)}" for one in curve)})
"""Scores, ascending, and the lower bounds (90%) of wins to losses among pairs that score at least as high."""
'''


def score(scorer: Scorer, numbers: Floats) -> Floats:
    """Return the scores of pairs described by `numbers`, (pairs, NAMES), as `Scorer.score` does one by one."""
    total = np.full(len(numbers), scorer.constant)
    for place, name in enumerate(NAMES):
        total += np.array(scorer.weights[name])[_bin(scorer.edges[name], numbers[:, place])]
    return total


def _bin(edges: Sequence[float], values: Floats) -> Integers:
    bins: Integers = np.searchsorted(np.array(edges), values, side="right")
    return bins


def _best(values: Floats, query: Integers) -> Integers:
    """Return the place of each query's highest value, leaving out queries that have none."""
    order = np.lexsort((-values, query))
    first = order[np.append(True, query[order][1:] != query[order][:-1])]
    best: Integers = first[np.isfinite(values[first])]
    return best


def _fixed(values: Floats, win: Floats, loss: Floats, defects: int) -> tuple[float, ...]:
    order = np.argsort(-values, kind="stable")
    wins, losses = np.cumsum(win[order]), np.cumsum(loss[order])
    last = np.append(np.diff(values[order]) != 0, True)
    best = (wins[last & (wins >= odds * losses)].max(initial=0.0) for odds in ODDS)
    return tuple(float(one) / max(defects, 1) for one in best)


def _halves(recordings: Sequence[Heard], half: int) -> tuple[list[Heard], list[Heard]]:
    """Return the recordings of the index and those that are asked."""
    asked = [one for one in recordings if int(unit_hash(one.utterance) * 2) == half]
    return [one for one in recordings if int(unit_hash(one.utterance) * 2) != half], asked


def _recordings(folder: Path) -> Iterator[Heard]:
    sentences = {one["slurp_id"]: one for one in _lines(folder / "sentences.jsonl.gz")}
    for one in _lines(folder / "recordings.jsonl.gz"):
        query, sentence = normalize(one["asr"]), sentences[one["slurp_id"]]
        if query and one["nlu"]:
            utterance = one["file"].partition(".")[0].removesuffix("-headset")
            meant = _meaning(sentence["intent"], sentence["entities"])
            yield Heard(query, sentence["sentence"], utterance, _meaning(*one["nlu"]), meant)


def _meaning(intent: str, entities: Sequence[Sequence[str]]) -> Meaning:
    return intent, tuple(sorted((kind, filler) for kind, filler in entities))


def _lines(path: Path) -> Iterator[Any]:
    with gzip.open(path) as lines:
        yield from map(msgspec.json.decode, lines)
