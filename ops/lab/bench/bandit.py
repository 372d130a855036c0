"""The bandit's cost of learning an event and of deciding, beside other libraries on the same contexts."""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, Final

import numpy as np
from river.bandit import LinUCBDisjoint

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.pages import pages_of
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Floats, MemorySums
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.worlds.contexts import ContextualWorld
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.schemas.turn import Turn

STRATEGIES: Final = 8
DIMENSION: Final = 20
BATCH: Final = 1000
REPEATED: Final = 5
DECISIONS: Final = 10_000
FEW: Final = 100
"""Turns that decisions are made from: so few leave as many plans as there are at most (`plans.MOST`)."""

BUDGET: Final = 50
LOOP: Final = 1000
"""Passes of a loop that is timed to find out how many take as long as a decision."""
AS_LONG: Final = "a Python loop as long"
_NAMES: Final = tuple(f"strategy{number}" for number in range(STRATEGIES))
_FEATURES: Final = tuple(Numeric(f"feature{number}") for number in range(1, DIMENSION))


def bandit(load: Load) -> Iterator[Measure]:
    """Yield microseconds per learned event (median of alternated rounds) and percentiles of the time to decide."""
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((BATCH, DIMENSION)).round(3)
    contexts[:, 0] = 1.0
    chosen = rng.integers(STRATEGIES, size=BATCH)
    rewards = (rng.random(BATCH) < 0.4).astype(float)
    learner = StrategyBandit(BanditConfig(strategies=_NAMES, features=_FEATURES))
    turns = [_turn(*row) for row in zip(contexts, chosen, rewards, strict=True)]
    outcomes = Judge(RewardConfig()).judge(columns_of(turns))
    pages = pages_of(outcomes, learner.encoder, _NAMES)
    learners: dict[str, tuple[Callable[[], object], int]] = {
        "learn, from columns": (lambda: learner.learn_pages(pages, _NAMES), BATCH),
        "learn, from judged turns": (lambda: learner.learn(outcomes), BATCH),
        "River LinUCBDisjoint": _river(contexts, chosen, rewards),
    }
    if all(map(importlib.util.find_spec, ("mabwiser", "vowpalwabbit"))):
        learners |= _rivals(contexts, chosen, rewards)
    taken: dict[str, list[float]] = {name: [] for name in learners}
    for learn, _ in learners.values():
        learn()  # warm up: one-time work is not counted
    for _ in range(load.rounds):
        for name, (learn, events) in learners.items():
            began = time.perf_counter()
            for _ in range(REPEATED):
                learn()
            taken[name].append((time.perf_counter() - began) / events / REPEATED * 1e6)
    first = median(taken["learn, from columns"])
    for name, times in taken.items():
        yield Measure(f"{name}", median(times), "µs", median(times) / first, "columns")
    few = Judge(RewardConfig()).judge(columns_of(turns[:FEW]))
    yield from _deciding(load, learner, few, [turn.query.context for turn in turns], rng)


def _deciding(
    load: Load, learner: StrategyBandit, outcomes: Outcomes, contexts: Sequence[Any], rng: np.random.Generator
) -> Iterator[Measure]:
    solved = learner.solve(MemorySums(learner.learn(outcomes)), {"bandit": set()}, 0)
    allocator = Allocator(live_rows(solved))
    calls: dict[str, Callable[[Any], object]] = {
        "utilities": allocator.utilities,
        "allocate": lambda context: allocator.allocate(context, BUDGET, rng),
    }
    passes = round(LOOP * np.median(_times(calls["allocate"], contexts)) / np.median(_times(_loop(LOOP), contexts)))
    calls[AS_LONG] = _loop(passes)
    taken = {name: np.empty((load.rounds, DECISIONS)) for name in calls}
    for number in range(load.rounds):
        for name, decide in calls.items():
            taken[name][number] = _times(decide, contexts)
    found = {name: np.median(np.percentile(times, (50, 99), axis=1), axis=1).tolist() for name, times in taken.items()}
    _, noise = found.pop(AS_LONG)
    for name, (half, most) in found.items():
        yield Measure(f"{name}, p50", half, "µs")
        # What interrupts a process also interrupts a loop that does nothing else.
        compared = (most / noise, AS_LONG) if name == "allocate" else ()
        yield Measure(f"{name}, p99", most, "µs", *compared)
    each = np.median(taken["allocate"].reshape(-1, BATCH), axis=0)
    yield Measure("allocate, p99 of contexts, by the median of each", float(np.percentile(each, 99)), "µs")


def _times(decide: Callable[[Any], object], contexts: Sequence[Any]) -> Floats:
    """Return the time that each of DECISIONS takes, µs."""
    times = np.empty(DECISIONS)
    for number in range(DECISIONS):
        context = contexts[number % BATCH]
        began = time.perf_counter()
        decide(context)
        times[number] = time.perf_counter() - began
    return times * 1e6


def _loop(passes: int) -> Callable[[Any], None]:
    def loop(_: Any) -> None:
        for _ in range(passes):
            pass

    return loop


def _turn(context: Any, strategy: int, reward: float) -> Turn:
    at: dict[str, Any] = {"ts": 0, "session_id": "s", "query_id": "q"}
    name = _NAMES[strategy]
    results = tuple(Result(f"e{rank}", rank, (name,)) for rank in range(1, 11))
    named = {feature.name: value for feature, value in zip(_FEATURES, context[1:].tolist(), strict=True)}
    shown = Impression(event_id="i", results=results, allocation={name: 10}, **at)
    clicks = [Click(event_id="c", entity_id="e1", **at)] if reward else []
    return Turn.of(Query(event_id="e", text="play jazz", context=named, **at), [shown, *clicks])


def _river(contexts: Any, chosen: Any, rewards: Any) -> tuple[Callable[[], None], int]:
    policy: Any = LinUCBDisjoint(seed=1)
    rows = [dict(enumerate(context)) for context in contexts.tolist()]

    def learn() -> None:
        for row, strategy, reward in zip(rows, chosen.tolist(), rewards.tolist(), strict=True):
            policy.update(strategy, row, reward)

    return learn, len(rows)


def _rivals(contexts: Any, chosen: Any, rewards: Any) -> dict[str, tuple[Callable[[], object], int]]:
    from mabwiser.mab import MAB, LearningPolicy  # noqa: PLC0415 - need more packages

    from backchannel.ops.lab.bandits.rivals import VowpalWabbit  # noqa: PLC0415 - needs more packages

    single, batch = (MAB(list(range(STRATEGIES)), LearningPolicy.LinUCB(alpha=0.05), seed=1) for _ in range(2))
    for one in (single, batch):
        one.fit(chosen.tolist(), rewards, contexts)

    def learn_singly() -> None:
        for number in range(20):
            one = slice(number, number + 1)
            single.partial_fit(chosen[one].tolist(), rewards[one], contexts[one])

    rival = VowpalWabbit(ContextualWorld(strategies=STRATEGIES, dimension=DIMENSION))
    workspace = rival.workspace
    parsed = [
        workspace.parse(rival.example(context, int(strategy), -reward, 1 / STRATEGIES))
        for context, strategy, reward in zip(contexts, chosen, rewards, strict=True)
    ]

    def learn_parsed() -> None:
        for example in parsed:
            workspace.learn(example)

    return {
        "MABWiser LinUCB, one by one": (learn_singly, 20),
        "MABWiser LinUCB, by the batch": (lambda: batch.partial_fit(chosen.tolist(), rewards, contexts), BATCH),
        "Vowpal Wabbit squarecb, parsed": (learn_parsed, BATCH),
    }
