"""The ranker of online rewrites, trained when a version is published, and kept for a while (see `keeping`).

What it is shipped with was fitted to spoken English commands. It is the prior: evidence moves the weights away from it,
as far as there is evidence. The pairs are those of a sample of queries (see `sample`):

- a query that fails, and the next one that succeeds for those who rephrase it: a win;
- a query that succeeds, and another one near it that succeeds, in other words than the same: had the first not been
  known yet, serving the second would have been a loss. A pair counts for all that were not sampled: by the inverse of
  the probability that both are in one block.

A query that fails is looked up each time, so its turns count; one that succeeds only until it is known, so it counts
once. What all pairs of one bucket of people (see `sketches`) count for is bounded, as elsewhere. Rarities of words are
those in the sample. The odds of a score stay what they were: scores are their logarithms, and are what is learned.
Likelihoods of hypotheses have no evidence here, so their weights stay, too.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct, structs
from rapidfuzz import process
from rapidfuzz.fuzz import ratio

from backchannel.agents.rewrites.likeness import CANDIDATES, HYPOTHESIS, NAMES, Asked, Record
from backchannel.agents.rewrites.meanings import Change, change, same_meaning
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.sample import resemblance
from backchannel.agents.sketches import BUCKETS, bounded_shares
from backchannel.agents.sums import Floats, Sums

_RIDGE: Final = 200.0  # how much the prior of a weight counts
_FREE: Final = 40.0  # the same of the constant: how often queries fail differs most between systems
_LOSSES: Final = 500  # succeeding queries that are compared with those near them; they stand for all in the sample
_NEAREST: Final = 0.15  # resemblance from which a query is a candidate of another
_ROUNDS: Final = 30  # of Newton's method, which takes six or so
_LONGEST: Final = 2.0  # step of a weight, so that no round overshoots
_CLOSE: Final = 1e-6
_DIGITS: Final = 3


class Evidence(Struct, frozen=True):
    """Pairs of a query and a candidate.

    Attributes:
        numbers: what describes each pair, (pairs, NAMES).
        wins: 1 for a win, 0 for a loss, (pairs,).
        weights: how often each pair counts, (pairs,).
    """

    numbers: Floats
    wins: Floats
    weights: Floats


def evidence_of(blocks: Sequence[Sequence[str]], steps: Sums, ends: Sums, at: int, one_person: float) -> Evidence:
    """Return the pairs of sampled queries.

    Args:
        blocks: the sampled queries, by block.
        steps: the rows of `RephraseGraph.transitions` of these.
        ends: the rows of `RephraseGraph.absorptions` of these, and of those that they lead to.
        at: the event time (ms) that sums are decayed to.
        one_person: the pairs of one person that always count in full.
    """
    asked = _Asked(steps, ends, at)
    words = Counter(word for block in blocks for state in block for word in set(state.split()))
    size = sum(map(len, blocks))
    rows: list[tuple[tuple[float, ...], float, Floats]] = []

    def compare(state: str, own: Record, targets: Mapping[str, Floats], win: float) -> None:
        query = Asked(state, own, words.__getitem__, size)
        for target, weight in targets.items():
            alike = resemblance(state, target)
            if alike >= _NEAREST and change(state, target) != Change.OPPOSITE:
                numbers = tuple(query.describe(target, asked.records[target]))
                rows.append((numbers, win, weight if win else weight / alike))

    succeeding = [[state for state in block if asked.succeeds(state)] for block in blocks]
    left, factor = _LOSSES, max(1.0, sum(map(len, succeeding)) / _LOSSES)
    for block, good in zip(blocks, succeeding, strict=True):
        for state in sorted(set(block).difference(good)):
            following = sorted(asked.steps[state].items())
            compare(state, asked.records[state], {one: turns for one, turns in following if asked.succeeds(one)}, 1.0)
        for state in good[:left]:
            # A query is among those that are most like it.
            near = [one for one, _, _ in process.extract(state, good, scorer=ratio, limit=1 + CANDIDATES)]
            weight = asked.people[state] * factor
            others = {one: weight for one in near if one != state and not same_meaning(state, one)}
            compare(state, Record(), others, 0.0)
        left -= min(len(good), left)
    numbers, wins, weights = zip(*rows, strict=True) if rows else ((), (), ())
    by_person = np.array(weights).reshape(-1, len(BUCKETS))
    counted = (by_person * bounded_shares(by_person.sum(axis=0)[np.newaxis], one_person)).sum(axis=1)
    return Evidence(np.array(numbers).reshape(-1, len(NAMES)), np.array(wins), counted)


class _Asked:
    """What became of queries.

    Attributes:
        records: the record of each query.
        people: the share of each bucket of people among those with whom it succeeded, (buckets,).
        steps: query -> the next one -> the turns of each bucket of people that led there, (buckets,).
    """

    def __init__(self, steps: Sums, ends: Sums, at: int) -> None:
        self.records: Final[defaultdict[str, Record]] = defaultdict(Record)
        self.people: Final[dict[str, Floats]] = {}
        self.steps: Final[defaultdict[str, dict[str, Floats]]] = defaultdict(dict)
        for (state,), row in zip(ends.keys, ends.at(at).reshape(-1, 2, len(BUCKETS)), strict=True):
            self.records[state] = Record(*row.sum(axis=1).tolist())
            self.people[state] = row[0] / max(row[0].sum(), 1e-300)
        for (state, following), row in zip(steps.keys, steps.at(at), strict=True):
            self.steps[state][following] = row
            before = self.records[state]
            self.records[state] = Record(before.success, before.failure + float(row.sum()))

    def succeeds(self, state: str) -> bool:
        """Return whether a query has succeeded more often than not."""
        return self.records[state].success > self.records[state].failure


def trained(prior: Ranker, evidence: Evidence) -> Ranker:
    """Return the ranker that is likeliest, given its prior and the evidence: a logistic model by Newton's method."""
    edges = list(prior.edges.values())
    weights = np.array([prior.constant, *(weight for some in prior.weights.values() for weight in some)])
    starts = np.cumsum([1, *(len(some) + 1 for some in edges)])
    places = np.zeros((len(evidence.wins), len(edges) + 1), np.int64)
    for column, (some, start) in enumerate(zip(edges, starts.tolist(), strict=False)):
        if NAMES[column] != HYPOTHESIS:  # about which there is no evidence
            places[:, column + 1] = start + np.searchsorted(some, evidence.numbers[:, column], side="right")
    design = np.zeros((len(evidence.wins), len(weights)))
    np.put_along_axis(design, places, 1.0, axis=1)
    ridge = np.full(len(weights), _RIDGE)
    ridge[0] = _FREE
    found = weights.copy()
    for _ in range(_ROUNDS):
        odds = 1.0 / (1.0 + np.exp(-np.clip(design @ found, -30, 30)))
        slope = design.T @ (evidence.weights * (odds - evidence.wins)) + ridge * (found - weights)
        curvature = (design.T * (evidence.weights * odds * (1.0 - odds))) @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        found -= step * min(1.0, _LONGEST / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < _CLOSE:
            break
    rounded = found.round(_DIGITS).tolist()
    ends = [*starts.tolist()]
    return structs.replace(
        prior,
        constant=rounded[0],
        weights={
            name: tuple(rounded[first:last])
            for name, first, last in zip(prior.weights, ends[:-1], ends[1:], strict=True)
        },
    )
