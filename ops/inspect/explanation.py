"""Explanation of why a query is rewritten or not."""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import SURE, RephraseGraph, Rewrites
from backchannel.agents.rewrites.rows import RewriteRow
from backchannel.agents.rewrites.rules import Rules
from backchannel.agents.sketches import distinct
from backchannel.agents.sums import ALL, SumReader


class Step(Struct, frozen=True):
    """A rephrase of one query to another.

    Attributes:
        source, target: the query, and the query that it was rephrased to.
        turns: number of such turns (decayed).
        people: lower estimate of the number of distinct people (decayed).
        share: share of the source's turns, which is the probability of this step, 0 to 1.
    """

    source: str
    target: str
    turns: float
    people: float
    share: float


class TrialRecord(Struct, frozen=True):
    """Number of turns (decayed), and the share of them that succeeded, 0 to 1."""

    turns: float
    success: float


class QueryState(Struct, frozen=True):
    """Evidence about a query (decayed).

    Attributes:
        query: the query's state.
        turns: number of turns that asked it and were served no rewrite.
        success, rephrased: shares of these turns that succeeded and that were rephrased, 0 to 1.
        lower, upper: bounds of the share that succeeds, each with 90% confidence.
    """

    query: str
    turns: float
    success: float
    rephrased: float
    lower: float
    upper: float


class Explanation(Struct, frozen=True):
    """Explanation of why a query is rewritten or not.

    Attributes:
        source, target: evidence about source and target; the target is None if there is no rewrite.
        probability: probability that somebody who starts with the source passes through the target and succeeds there;
            None for a pinned rewrite or none.
        verdict: the reason in words.
        path: the likeliest path from source to target.
        steps: all rephrases of the source, the likeliest first.
        served, held_out: records of the turns served this rewrite, and of the held-out sessions.
    """

    source: QueryState
    target: QueryState | None
    probability: float | None
    verdict: str
    path: list[Step]
    steps: list[Step]
    served: TrialRecord | None
    held_out: TrialRecord | None


def explain(graph: RephraseGraph, sums: SumReader, state: str, at: int) -> Explanation:
    """Explain the rewrite of `state`, or its lack, as of event time `at` (ms)."""
    rules = Rules(sums.read(graph.rules))
    solved = Rewrites(graph, sums, {state, rules.pins.get(state, state)}, rules, at)
    row = solved.rows().get(state, RewriteRow())
    source = _known(solved, state)
    target = _known(solved, row.target) if row.target else None
    path = solved.chain.path(state, row.target) if row.target else []
    taken = sums.read(graph.transitions, "state", {state, *path})
    support = {one: _known(solved, one).turns for one, _ in taken.keys}
    steps = {
        (one, other): Step(
            one, other, turns := float(mass @ solved.counted(one)), float(distinct(mass)), turns / support[one]
        )
        for (one, other), mass in zip(taken.keys, taken.at(at), strict=True)
    }
    records = {
        str(target): TrialRecord(sum(record), record[0] / sum(record))
        for (_, target), record in solved.records([state]).items()
        if sum(record)
    }
    own = sorted((step for step in steps.values() if step.source == state), key=lambda step: (-step.turns, step.target))
    return Explanation(
        source,
        target,
        row.probability if target and not row.pinned else None,
        _verdict(graph.config, rules, source, row, own),
        [steps[pair] for pair in pairwise(path)],
        own,
        records.get(row.target) if target else None,
        records.get(ALL),
    )


def _known(solved: Rewrites, query: str) -> QueryState:
    chain = solved.chain
    if not len(chain.numbers([query])):
        return QueryState(query, 0.0, 0.0, 0.0, 0.0, 1.0)
    (number,) = chain.numbers([query]).tolist()
    lower, upper = chain.bounds(SURE)
    turns = max(float(chain.support[number]), 1e-300)
    success, rephrased = float(chain.success[number]) / turns, float(chain.rephrased[number]) / turns
    return QueryState(query, turns, success, rephrased, float(lower[number]), float(upper[number]))


def _verdict(config: RephraseConfig, rules: Rules, source: QueryState, row: RewriteRow, steps: Sequence[Step]) -> str:
    """Return the first reason that holds, in words, with the names of the configuration."""
    query = source.query
    reasons = (
        (row.pinned, "pinned"),
        (bool(row.withdrawn), f"withdrawn: {row.withdrawn}"),
        (bool(row.target), "served"),
        (ALL in rules.blocked.get(query, ()), "blocked"),
        (not rules.allow_source(query), "not rewritten: another query is pinned to it"),
        (source.turns < config.min_support, f"{source.turns:.1f} turns are fewer than min_support"),
        (source.rephrased <= source.success, "it succeeds at least as often as it is rephrased"),
        (
            source.upper > config.max_source_success,
            f"up to {source.upper:.0%} may succeed, more than max_source_success",
        ),
        (
            all(step.people < config.min_users for step in steps),
            "no rephrase was made by min_users people",
        ),
    )
    nothing = (
        "no query that it leads to surely succeeds often enough, more often by the margin "
        f"{config.margin:g}, and is what most of those who ask it mean"
    )
    return next((reason for holds, reason in reasons if holds), nothing)
