"""Evidence on online rewrites: real errors of a recogniser, and what a real NLU makes of them.

SLURP's recordings are split into halves by utterance, so that two microphones of one utterance stay together. One
half makes the index: how often the NLU was right on each recognised text, and how often wrong. The queries are the
other half, and then the halves change places. The rankers are fitted to four fifths of the sentences, their thresholds
are chosen on them, too, and all is applied to the queries of the last fifth.

A win is a query that the NLU got wrong, rewritten to a text on which it gives the query's true meaning. A loss is a
query that it got right, rewritten to a text on which it gives another. A defect is a query that it got wrong.

The users with habits are made up; see `recordings.People`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from backchannel.agents.rewrites.likeness import CANDIDATES, HABIT_NAMES, NAMES, Asked, Record, nearest_habits
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import Booleans, Floats, Integers
from backchannel.ops.lab.rephrases.ranker import Pairs, best_of, curve_of, names_of, score, train_ranker
from backchannel.ops.lab.rephrases.recordings import HABITUAL, Heard, People, half_of, halves, records_of
from backchannel.schemas.snapshot import Estimate

ODDS: Final = (8.5, 11.8, 20.0)
FOLDS: Final = 5
FIXED: Final = 90.0  # RapidFuzz's ratio from which a fixed threshold rewrites
_SAMPLES: Final = 1_000  # of queries' sentences, for intervals
_CHARACTERS: Final = NAMES.index("characters")
_FIRST: Final = 1e6  # added to what is served first
_COMPARED: Final = 1  # the way that others are compared with


class Outcome(Struct, frozen=True):
    """What one way of rewriting does.

    Attributes:
        name: the way.
        habits: whether users with habits ask.
        fixed: the shares of defects fixed at the best thresholds with at least `ODDS` wins per loss, 0 to 1.
        wins, losses: the counts at the threshold that was fixed beforehand.
        withdrawn: these counts if a rewrite is no longer served once it has failed more often than it succeeded, in an
            order of queries drawn at random; so the first failure withdraws it.
        more: how much larger the share of defects fixed there is than with RapidFuzz at a fixed threshold, with vetoes,
            and an interval of 95% over sentences.
    """

    name: str
    habits: bool
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
        reachable: the share of defects with such a candidate after all vetoes, 0 to 1; among everybody's queries, and
            among these and the habits.
        outcomes: one for each way of rewriting.
    """

    queries: int
    defects: int
    ceiling: float
    reachable: tuple[float, float]
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


def gather(
    found: Sequence[Heard], rng: Generator | None = None, habitual: float = HABITUAL, *, alike: bool = True
) -> Gathered:
    """Return the pairs of all queries; the people who ask them are drawn with `rng`. See `recordings.People`.

    Without `rng`, nobody has habits.
    """
    rows: list[tuple[Any, ...]] = []
    rewrites: dict[tuple[str, str], int] = {}
    succeeds: list[tuple[int, bool]] = []
    every: list[Heard] = []
    indexed: list[bool] = []
    for half in (0, 1):
        index, asked = halves(found, half)
        records, people = records_of(index), rng and People(index, rng, habitual, alike=alike)
        meanings = {one.query: one.meant for one in index if one.right}
        known, texts = set(meanings.values()), sorted(meanings)
        nearby = Nearby().updated(records, records)
        for one in asked:
            number = len(every)
            every.append(one)
            indexed.append(one.meant in known)
            record = records.get(one.query, Record())
            described = Asked(one.query, record, nearby.count, nearby.size, one.hypotheses)
            similar = process.extract(one.query, texts, scorer=fuzz.ratio, limit=2)
            nearest = next(text for text, _, _ in similar if text != one.query)
            members = (text for text in one.hypotheses if text in records and text != one.query)
            candidates = dict.fromkeys((*members, *nearby.candidates(one.query, CANDIDATES)))
            pairs = [
                (target, False, target == nearest, tuple(described.describe(target, records[target])))
                for target in dict.fromkeys([nearest, *candidates])
                if target in meanings
            ]
            own = people.habits(one) if people else {}
            # A query that is a habit itself is not rewritten to another one.
            for place, (target, lead) in enumerate(nearest_habits(one.query, own) if one.query not in own else ()):
                numbers = tuple(described.describe_habit(target, records[target], own[target], lead))
                pairs.append((target, True, not place, numbers))
            for target, habit, first, numbers in pairs:
                good, reliable = meanings[target] == one.meant, records[target]
                allowed = (
                    record.success <= record.failure
                    and reliable.success > reliable.failure
                    and (habit or target in candidates)
                    and change(one.query, target) != Change.OPPOSITE
                )
                succeeds.append((rewrites.setdefault((one.query, target), len(rewrites)), good))
                rows.append(
                    (
                        (*numbers, *(0.0,) * (len(HABIT_NAMES) - len(numbers))),
                        number,
                        int(unit_hash(one.sentence) * FOLDS),
                        good and not one.right,
                        one.right and not good,
                        allowed,
                        100 * numbers[_CHARACTERS] if first else 0.0,
                        habit,
                    )
                )
    columns = zip(*rows, strict=True)
    kinds = (np.float64, np.int64, np.int64, np.float64, np.float64, np.bool_, np.float64, np.bool_)
    arrays: list[Any] = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return Gathered(
        Pairs(*arrays),
        [one.sentence for one in every],
        np.array([not one.right for one in every], np.bool_),
        np.array(indexed, np.bool_),
        np.array([half_of(one.group) for one in every]),
        np.array([number for number, _ in succeeds]),
        np.array([good for _, good in succeeds], np.bool_),
    )


def judge(found: Gathered, taught: Gathered, odds: float) -> Evidence:
    """Compare the ways of rewriting, each query being tested by rankers that know nothing of its sentence.

    Args:
        found: the pairs.
        taught: the pairs that rankers and thresholds are fitted to: of the same recordings, and the same people or
            others.
        odds: wins per loss, at least.
    """
    pairs, known = found.pairs, taught.pairs
    scores, served = np.full(len(pairs.query), -np.inf), np.zeros(len(pairs.query), np.bool_)
    plain = np.where(pairs.first > 0, pairs.first, -np.inf)
    vetoed = np.where(pairs.allowed, plain, -np.inf)
    as_sure = np.zeros(len(pairs.query), np.bool_)
    for fold in range(FOLDS):
        for habit in (False, True):
            train = known.allowed & (known.habit == habit) & (known.fold != fold)
            test = pairs.allowed & (pairs.habit == habit) & (pairs.fold == fold)
            ranker = train_ranker(known, train, names_of(habit=habit))
            scores[test] = score(ranker, pairs.numbers[test])
            served[test] = scores[test] >= least_of(ranker.curve, odds)
            rival = curve_of(np.where(train & (known.first > 0), known.first, -np.inf), known)
            as_sure[test] = vetoed[test] >= least_of(rival, odds)
    fixed_at, bound = f"RapidFuzz ratio, fixed at {FIXED:.0f}", f"at a lower bound of {odds:g}:1"
    ways = (
        (fixed_at, plain, plain >= FIXED),
        (f"{fixed_at}, with vetoes", vetoed, vetoed >= FIXED),
        (f"RapidFuzz ratio, with vetoes, {bound}", vetoed, as_sure),
        (f"ranked, {bound}", scores, served),
    )
    defects = int(found.defects.sum())
    outcomes = []
    for habits in (False, True):
        rows = habits | ~pairs.habit
        # Habits come first, and then what is served of everybody's.
        orders = [np.where(rows & chosen, values + _FIRST * pairs.habit, -np.inf) for _, values, chosen in ways]
        served_first = [best_of(order, pairs.query) for order in orders]
        wins = [np.bincount(pairs.query[some], pairs.win[some], len(found.sentences)) for some in served_first]
        for (name, values, _), some, won in zip(ways, served_first, wins, strict=True):
            best = best_of(np.where(rows, values, -np.inf), pairs.query)
            fixed = fixed_of(values[best], pairs.win[best], pairs.loss[best], defects)
            more = _more(found, won - wins[_COMPARED])
            kept = some[_not_withdrawn(found, some)]
            withdrawn = int(pairs.win[kept].sum()), int(pairs.loss[kept].sum())
            outcomes.append(Outcome(name, habits, fixed, int(won.sum()), int(pairs.loss[some].sum()), withdrawn, more))
    reachable = [
        len(np.unique(pairs.query[rows & pairs.allowed & (pairs.win > 0)])) / max(defects, 1)
        for rows in (~pairs.habit, pairs.habit | ~pairs.habit)
    ]
    ceiling = float(found.indexed[found.defects].mean()) if defects else 0.0
    return Evidence(len(found.sentences), defects, ceiling, (reachable[0], reachable[1]), outcomes)


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
