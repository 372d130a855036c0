"""Findings of a run: the policy beside every baseline, on held-out queries, with paired intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct, to_builtins
from numpy.typing import NDArray

from backchannel.agents.sums import Floats
from backchannel.ops.lab.search.costs import Costs
from backchannel.ops.lab.search.harness import Allocations, Harness, Queries
from backchannel.ops.lab.search.loop import OFTEN, Run
from backchannel.ops.lab.search.measures import paired, ranking
from backchannel.ops.lab.search.server import MEMORY
from backchannel.schemas.snapshot import Estimate

RANKED = 10
"""Number of positions that nDCG and the share of judged documents cover."""

LEARNED = "learned"
FIXED = "best fixed"
CLICKED = "most clicked"
RERANKED = "learned, ranked"
FIXED_RANKED = "best fixed, ranked"
"""Methods whose candidates the policy orders."""
BM25 = "lexical alone"
_ORDERED = {RERANKED: "learned", FIXED_RANKED: "fixed"}  # method -> key of its unions in `Run.ranked`

ORIGINS = {
    "real": "real queries with judgements",
    "simulated": "simulated queries on a real catalogue",
    "generated": "a generated catalogue with simulated queries",
}


class Method(Struct, frozen=True):
    """The quality of one way to allocate, on held-out queries.

    Attributes:
        name: its name.
        drawn: recall at the budget of drawn candidates.
        distinct: recall at the same number of distinct candidates, in the same proportions.
        against_fixed: recall, by the run's reading of its budget, less that of the best fixed allocation; paired.
        raw, condensed, judged: both forms of nDCG and the share of judged documents, at RANKED, of the distinct union.
        raw_less_bm25, condensed_less_bm25: nDCG less that of BM25 alone; paired. The first strategy stands in for a
            missing BM25.
        different: mean number of distinct candidates among those drawn.
        allocation: mean number of candidates by strategy.
    """

    name: str
    drawn: Estimate
    distinct: Estimate
    against_fixed: Estimate
    raw: float
    condensed: float
    judged: float
    raw_less_bm25: Estimate
    condensed_less_bm25: Estimate
    different: float
    allocation: dict[str, float]


class Point(Struct, frozen=True):
    """The recall of the policy served after a number of turns."""

    turns: int
    recall: Estimate
    against_fixed: Estimate


class Clicks(Struct, frozen=True):
    """Clicks per turn while learning, on the same people with the same luck.

    Attributes:
        server: name of the server.
        all, late: clicks per turn over all turns, and over the last quarter.
        against_fixed: `late` less that of the best fixed allocation; paired over turns.
        against_clicked: `late` less that of the fixed allocation that earns the most clicks; paired over turns.
    """

    server: str
    all: float
    late: float
    against_fixed: Estimate
    against_clicked: Estimate


class Repeated(Struct, frozen=True):
    """Recall on queries that were asked at least OFTEN times while learning: not held out, so it shows memory."""

    name: str
    recall: Estimate


class Findings(Struct, frozen=True):
    """All findings of a run.

    Attributes:
        corpus, origin: name and origin of the corpus; see `Corpus`.
        documents, train, held_out: numbers of documents, and of training and held-out queries.
        faults: the faults of the corpus, for people.
        settings: the settings of the run.
        strategies: names of the strategies.
        methods: the final policy, and every baseline.
        points: the policy at each checkpoint.
        clicks: clicks while learning, by server.
        kinds: kind of query -> method -> recall, by the run's reading of its budget; "queries" is the number of
            queries.
        often, repeated_queries: minimum number of times that a query in `repeated` was asked; number of such queries.
        drawn, different: mean number of candidates per turn while learning, and of distinct ones.
        seconds, turns_per_second: durations of the steps, s; turns per second of the loop, learning included.
        costs: of the generators and the server on this machine, if they were measured.
    """

    corpus: str
    origin: str
    documents: int
    train: int
    held_out: int
    faults: list[str]
    settings: dict[str, object]
    strategies: list[str]
    methods: list[Method]
    points: list[Point]
    clicks: list[Clicks]
    kinds: dict[str, dict[str, float]]
    often: int
    repeated_queries: int
    repeated: list[Repeated]
    drawn: float
    different: float
    seconds: dict[str, float]
    turns_per_second: float
    costs: Costs | None

    @property
    def bm25(self) -> Method:
        """The method that uses BM25 alone; the first method if there is no such strategy."""
        return next((method for method in self.methods if method.name == BM25), self.methods[0])

    def method(self, name: str) -> Method:
        """Return the method of that name."""
        return next(method for method in self.methods if method.name == name)


def findings(run: Run, seconds: Mapping[str, float], costs: Costs | None = None) -> Findings:
    """Measure everything.

    Args:
        run: the completed run.
        seconds: durations of the steps, s; `loop` is one of them.
        costs: the costs of the engine; None if they were not measured.
    """
    harness, budget = run.harness, run.settings.budget
    queries = harness.held_out
    known = len(harness.strategies)
    learned = run.checkpoints[-1].allocations[:, :known]
    distinct = budget if run.settings.distinct else None
    even = harness.even(budget)
    allocations: dict[str, tuple[Allocations, Allocations]] = {
        LEARNED: (learned, learned),
        FIXED: (harness.best_fixed(budget), harness.best_fixed(budget, budget)),
        CLICKED: (run.clicked, run.clicked),
        "even split": (even, even),
        "rank fusion": (even, even),
        **{f"{name} alone": (harness.alone(name, budget),) * 2 for name in harness.strategies},
        "best per query": (harness.best_each(budget, queries), harness.best_each(budget, queries, budget)),
    }
    recall = {
        name: (harness.recall_at(drawn, queries), harness.recall_at(refilled, queries, budget))
        for name, (drawn, refilled) in allocations.items()
    }
    recall["rank fusion"] = recall["rank fusion"][0], _fused_recall(harness, queries, budget)
    for name, unordered in ((RERANKED, LEARNED), (FIXED_RANKED, FIXED)) if run.ranked else ():
        allocations[name], recall[name] = allocations[unordered], recall[unordered]
    own = int(run.settings.distinct)
    fixed = recall[FIXED][own]
    ranked = {name: _ranked(run, name, refilled) for name, (_, refilled) in allocations.items()}
    bm25 = ranked.get(BM25, ranked[LEARNED])
    methods = [
        _method(
            run,
            name,
            allocations[name],
            both,
            against_fixed=paired(both[own], fixed),
            ranked=(ranked[name], bm25),
        )
        for name, both in recall.items()
    ]
    return Findings(
        corpus=harness.corpus.name,
        origin=ORIGINS[harness.corpus.origin],
        documents=len(harness.corpus.documents),
        train=len(harness.train),
        held_out=len(queries),
        faults=harness.corpus.faults.lines(),
        settings=to_builtins(run.settings),
        strategies=list(harness.strategies),
        methods=methods,
        points=[Point(one.turns, paired(one.recall), paired(one.recall, fixed)) for one in run.checkpoints],
        clicks=_clicks(run),
        kinds=_kinds(harness, queries, {name: values[own] for name, values in recall.items()}),
        often=OFTEN,
        repeated_queries=len(run.repeated),
        repeated=_repeated(run, distinct),
        drawn=float(run.drawn.mean()),
        different=float(run.distinct.mean()),
        seconds=dict(seconds),
        turns_per_second=run.settings.turns / seconds["loop"],
        costs=costs,
    )


def _method(
    run: Run,
    name: str,
    pair: tuple[Allocations, Allocations],
    recall: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    against_fixed: Estimate,
    ranked: tuple[Floats, Floats],
) -> Method:
    """Measure one method, given its allocations and recall by either reading of the budget.

    `ranked` holds the results of `_ranked` for it and for BM25 alone.
    """
    harness, own = run.harness, ranked[0]
    drawn, refilled = (np.broadcast_to(one, (len(harness.held_out), len(harness.strategies))) for one in pair)
    raw, condensed, judged = own.mean(axis=0).tolist()
    return Method(
        name,
        drawn=paired(recall[0]),
        distinct=paired(recall[1]),
        against_fixed=against_fixed,
        raw=raw,
        condensed=condensed,
        judged=judged,
        raw_less_bm25=paired(own[:, 0], ranked[1][:, 0]),
        condensed_less_bm25=paired(own[:, 1], ranked[1][:, 1]),
        different=float(harness.drawn_distinct(drawn, harness.held_out).mean()),
        allocation=dict(
            zip(harness.strategies, (drawn, refilled)[run.settings.distinct].mean(axis=0).tolist(), strict=True)
        ),
    )


def _ranked(run: Run, name: str, refilled: Allocations) -> Floats:
    """Return raw and condensed nDCG and the share of judged documents of each held-out query's distinct union, (n,
    3).
    """
    harness, budget = run.harness, run.settings.budget
    asked = np.broadcast_to(refilled, (len(harness.held_out), len(harness.strategies)))

    def ordered(row: int, query: int) -> Sequence[int]:
        if name == "rank fusion":
            return harness.fused(query)[:budget]
        if name in _ORDERED:
            return run.ranked[_ORDERED[name]][query]
        return harness.order(query, asked[row], budget)

    rows = []
    for row, query in enumerate(harness.held_out.tolist()):
        shown = ordered(row, query)
        grades = dict.fromkeys(shown, 0.0) if harness.corpus.complete else {}
        grades |= {harness.corpus.number[key]: grade for key, grade in harness.corpus.queries[query].grades.items()}
        found = ranking(shown, grades, RANKED)
        rows.append((found.raw, found.condensed, found.judged))
    return np.array(rows)


def _fused_recall(harness: Harness, queries: Queries, budget: int) -> NDArray[np.float64]:
    found = []
    for query in queries.tolist():
        relevant = {harness.corpus.number[key] for key in harness.corpus.relevant(harness.corpus.queries[query])}
        found.append(len(relevant.intersection(harness.fused(query)[:budget])) / min(len(relevant), budget))
    return np.array(found)


def _clicks(run: Run) -> list[Clicks]:
    late = slice(-(len(run.drawn) // 4), None)
    of = {name: each.astype(np.float64) for name, each in run.clicks.items()}
    rivals = [of[name][late] for name in ("fixed", "clicked")]
    return [
        Clicks(name, float(each.mean()), float(each[late].mean()), *(paired(each[late], rival) for rival in rivals))
        for name, each in of.items()
    ]


def _kinds(
    harness: Harness, queries: Queries, recall: Mapping[str, NDArray[np.float64]]
) -> dict[str, dict[str, float]]:
    kinds = np.array([harness.corpus.queries[query].kind for query in queries.tolist()])
    return {
        str(kind): {"queries": float((kinds == kind).sum())}
        | {name: float(values[kinds == kind].mean()) for name, values in recall.items()}
        for kind in np.unique(kinds)
        if kind
    }


def _repeated(run: Run, distinct: int | None) -> list[Repeated]:
    if len(run.repeated) == 0:
        return []
    harness, budget = run.harness, run.settings.budget
    fixed = harness.recall_at(run.fixed, run.repeated, distinct)
    rows = [Repeated("best fixed", paired(fixed))]
    if run.settings.memory:
        harness = harness.with_strategy(MEMORY, run.remembered)
        rows.append(Repeated(f"{MEMORY} alone", paired(harness.recall_at(harness.alone(MEMORY, budget), run.repeated))))
    learned = harness.recall_at(run.repeated_allocations, run.repeated, distinct)
    return [
        Repeated("learned", paired(learned)),
        *rows,
        Repeated("learned less best fixed", paired(learned, fixed)),
    ]
