"""What the rewards of the long horizon cost per turn: one by itself, and one more beside the others."""

import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, Final

import numpy as np
from msgspec import structs

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.goals.credits import CreditedGoals
from backchannel.agents.goals.learner import GoalConfig, Goals
from backchannel.agents.horizon.learner import HorizonConfig, Returns
from backchannel.agents.horizon.rest import RestOfSession
from backchannel.agents.learner import Learner
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.load import STRATEGIES
from backchannel.schemas.events import Click, Impression, Query, Result, Signal
from backchannel.schemas.turn import Turn

TURNS: Final = 40_000
"""Turns of a batch; with their signals, some 100,000 events."""
PEOPLE: Final = (20_000, 5_000)
REPEATS: Final = 3
"""Measurements per round."""
_PAUSE_MS: Final = 20_000
_START_MS: Final = 1_700_000_000_000
_HOUR_MS: Final = 3_600_000


def horizon(load: Load) -> Iterator[Measure]:
    """Yield the processor time of learning each reward, in microseconds per turn, and its rows per person."""
    config = HorizonConfig(salt="simulated people only", discount=0.9)
    rewards = {
        "returns": Returns(config, STRATEGIES),
        "the rest of a session": RestOfSession(config, STRATEGIES),
        "goals that successes reach": CreditedGoals(GoalConfig(), STRATEGIES),
    }
    for people in PEOPLE:
        load.say(f"{people:,} people")
        outcomes = Judge(RewardConfig()).judge(columns_of(list(_turns(people, np.random.default_rng(0)))))
        for name, (alone, beside) in _taken(rewards, outcomes, load.rounds * REPEATS).items():
            said = f"{name}, {people:,} people"
            yield Measure(f"{said}: alone", median(alone), "µs")
            yield Measure(f"{said}: beside the others", median(beside), "µs", median(beside) / median(alone), "alone")
            yield Measure(f"{said}: beside the others, at least", min(beside), "µs")
        for name, learner in rewards.items():
            for sums in learner.learn(outcomes).values():
                if sums.table.by_user:
                    yield Measure(f"{name}, {people:,} people: rows by person", len(sums.keys) / people, "a person")


def _taken(
    rewards: Mapping[str, Learner], outcomes: Outcomes, repeats: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the microseconds per turn that each reward took: without the others, and after them."""
    always = Goals(GoalConfig(), 60, STRATEGIES)
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in rewards}
    for _ in range(repeats):
        for name, learner in rewards.items():
            others = [one for one in rewards.values() if one is not learner]
            for before, times in zip(((), others), taken[name], strict=True):
                fresh = structs.replace(outcomes)  # what learners share is worked out anew
                for one in (always, *before):
                    one.learn(fresh)
                began = time.process_time()
                learner.learn(fresh)
                times.append((time.process_time() - began) / len(outcomes) * 1e6)
    return taken


def _turns(people: int, rng: np.random.Generator) -> Iterator[Turn]:
    """Yield turns in the order of time: each person has one session within an hour; four of ten turns are clicked."""
    each = TURNS // people
    starts = rng.integers(0, _HOUR_MS - each * _PAUSE_MS, people) + _START_MS
    times = starts[:, np.newaxis] + _PAUSE_MS * np.arange(each)
    words = rng.integers(0, 2_000, times.shape).tolist()
    asked = rng.integers(1, 1 << len(STRATEGIES), times.shape).tolist()
    clicked = (rng.random(times.shape) < 0.4).tolist()

    def query(person: int, place: int) -> Query:
        return Query(
            event_id="q",
            ts=int(times[person, place]),
            session_id=f"session-{person}",
            query_id=f"query-{place}",
            user_id=f"user-{person}",
            text=f"play station {words[person][place]}",
        )

    for number in np.argsort(times, axis=None).tolist():
        person, place = divmod(number, each)
        after = query(person, place + 1) if place + 1 < each else None
        yield _turn(query(person, place), after, asked[person][place], clicked=clicked[person][place])


def _turn(query: Query, after: Query | None, bits: int, *, clicked: bool) -> Turn:
    at: dict[str, Any] = {"ts": query.ts, "session_id": query.session_id, "query_id": query.query_id}
    names = tuple(name for bit, name in enumerate(STRATEGIES) if bits >> bit & 1)
    signals: list[Signal] = [
        Impression(event_id="i", results=(Result("e", 1, names),), allocation=dict.fromkeys(names, 2), **at)
    ]
    if clicked:
        signals.append(Click(event_id="c", entity_id="e", **at))
    return Turn.of(query, signals, after)
