"""The ranking layer's cost of learning a turn, of ranking a list, and of solving when a version is published."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Final

import numpy as np

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.checks import changes
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.ranking.learner import EXAMINED, RankingConfig, ResultRanking
from backchannel.agents.ranking.serving import Candidate, Ranker
from backchannel.agents.ranking.sums import Lists, sums_of
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.schemas.turn import Turn

TURNS: Final = 2_000
SHOWN: Final = 10
CANDIDATES: Final = 100
DIMENSION: Final = 20
CALLS: Final = 2_000
_NAMES: Final = ("score", *(f"feature{number}" for number in range(1, DIMENSION)))


def ranking(load: Load) -> Iterator[Measure]:
    """Yield microseconds (medians of rounds) per learned turn of ten results, and per ranking of 100 candidates."""
    rng = np.random.default_rng(0)
    learner = ResultRanking(RankingConfig(features=tuple(map(Numeric, _NAMES)), normalized=("score",)))
    vectors = np.rint(rng.standard_normal((TURNS, SHOWN, DIMENSION)) * 1024) / 1024
    weights = rng.standard_normal(DIMENSION) / 20
    examined = np.array(EXAMINED[:SHOWN])
    clicked = rng.random((TURNS, SHOWN)) < examined * np.clip(0.2 + vectors @ weights, 0, 1)
    turns = [_turn(*each) for each in zip(range(TURNS), vectors, clicked, strict=True)]
    outcomes = Judge(RewardConfig()).judge(columns_of(turns))
    lists = Lists(
        np.full(TURNS, SHOWN),
        vectors.reshape(-1, DIMENSION),
        np.tile(examined, TURNS),
        clicked.ravel().astype(float),
        np.arange(TURNS) % 2,
        np.zeros(TURNS, dtype=bool),
    )
    actions: dict[str, Callable[[], object]] = {
        "learn a turn of ten results, from encoded arrays": lambda: sums_of(lists, 2),
        "learn a turn of ten results, from judged turns": lambda: learner.learn(outcomes),
    }
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(load.rounds):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            taken[name].append((time.perf_counter() - began) / TURNS * 1e6)
    for name, times in taken.items():
        yield Measure(name, median(times), "µs")
    yield from _serving(load, learner, outcomes, rng)


def _serving(load: Load, learner: ResultRanking, outcomes: Outcomes, rng: np.random.Generator) -> Iterator[Measure]:
    delta = learner.learn(outcomes)
    times = []
    for _ in range(load.rounds):
        began = time.perf_counter()
        section = learner.solve(MemorySums(delta), changes(delta), 0)
        times.append((time.perf_counter() - began) * 1e3)
    yield Measure("solve for a version", median(times), "ms")
    ranker = Ranker(live_rows(section))
    candidates = [
        Candidate(f"e{number}", dict(zip(_NAMES, row.tolist(), strict=True)))
        for number, row in enumerate(rng.standard_normal((CANDIDATES, DIMENSION)))
    ]
    rounds = []
    for _ in range(load.rounds):
        calls = np.empty(CALLS)
        for number in range(CALLS):
            began = time.perf_counter()
            ranker.rank({}, candidates, SHOWN, rng)
            calls[number] = time.perf_counter() - began
        rounds.append(np.percentile(calls, (50, 99)) * 1e6)
    for percent, value in zip((50, 99), np.median(rounds, axis=0).tolist(), strict=True):
        yield Measure(f"rank {CANDIDATES} candidates of {DIMENSION} features, p{percent}", value, "µs")


def _turn(number: int, vectors: Any, clicked: Any) -> Turn:
    at: dict[str, Any] = {"ts": number, "session_id": "s", "query_id": f"q{number}"}
    results = tuple(
        Result(f"e{place}", place + 1, features=dict(zip(_NAMES, row, strict=True)))
        for place, row in enumerate(vectors.tolist())
    )
    clicks = [Click(event_id=f"c{place}", entity_id=f"e{place}", **at) for place in np.flatnonzero(clicked).tolist()]
    asked = Query(event_id="e", text=f"query {number % 100}", **at)
    return Turn.of(asked, [Impression(event_id="i", results=results, **at), *clicks])
