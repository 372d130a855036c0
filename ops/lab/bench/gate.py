"""How often 95% intervals cover the true value, and how often the gate is right, in simulated worlds."""

from collections.abc import Callable, Iterator
from typing import Final, get_args

import numpy as np
from msgspec import structs

from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import table_of, vectors_of
from backchannel.agents.ope.estimators import ESTIMATORS
from backchannel.agents.ope.gate import GateConfig, judge
from backchannel.agents.ope.intervals import Method, interval
from backchannel.agents.ope.sessions import SESSION_ESTIMATORS, Sessions
from backchannel.agents.sums import Matrix
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.worlds.off_policy import (
    BUDGET,
    STRATEGIES,
    Logs,
    OffPolicyWorld,
    reversed_preferences,
    shares_of,
    steered,
)

RUNS: Final = 30
CLICKS: Final = {"many clicks": -1.5, "few clicks": -3.0}
"""Worlds by name: the mean weight of all strategies."""
LEARNED: Final = 100
"""Turns that the live policy has learned from: few, so that better policies exist."""
SIZES: Final = (100, 250, 500, 1000, 2000)
"""Numbers of logged decisions that the gate sees."""
_MANY: Final = 20_000
_COVERED: Final = 1000  # turns in each log for the coverage of intervals
_POOL: Final = 5000


def gate(load: Load) -> Iterator[Measure]:
    """Yield shares over `RUNS` simulated logs per round."""
    runs = RUNS * load.rounds
    for clicks, intercept in CLICKS.items():
        for one in _in_world(OffPolicyWorld(1, intercept), runs, load.say):
            yield structs.replace(one, name=f"{clicks}: {one.name}")
    yield from _sessions(runs)


def _in_world(world: OffPolicyWorld, runs: int, say: Callable[[str], None]) -> Iterator[Measure]:
    say("a simulated world: a live policy, a better and a worse one")
    live, best = world.learn(LEARNED), world.learn(_MANY)
    logs = world.log(Allocator(live), _POOL)
    policies = {
        "worse by 10%": steered(world, live, reversed_preferences(best), logs, 0.9),
        "the same": Allocator(live),
        "better by 10%": steered(world, live, best, logs, 1.1),
    }
    yield Measure("the live policy's value", world.value(Allocator(live), logs), "rewards a turn")
    better = policies["better by 10%"]
    truth = world.value(better, logs)
    say("intervals")
    for turns, known in ((LEARNED, live), (_MANY, best)):
        for one in _coverage(better, Allocator(known).worth(BUDGET), truth, logs, runs):
            yield structs.replace(one, name=f"rank curves of {turns:,} turns: {one.name}")
    config = GateConfig()
    for turns in SIZES:
        for name, policy in policies.items():
            say(f"{turns} logged decisions, {name}")
            verdicts = [
                judge(
                    policy, policies["the same"], logs.draw(turns, np.random.default_rng([run, turns])), config
                ).verdict
                for run in range(runs)
            ]
            for verdict, share in shares_of(verdicts).items():
                yield Measure(f"{name}, {turns} decisions: {verdict}", 100 * share, "%")


def _coverage(policy: Allocator, worth: Matrix, truth: float, logs: Logs, runs: int) -> Iterator[Measure]:
    """Yield errors of estimators and the coverage of intervals; `worth` holds rank curves, (strategies, budget + 1)."""
    held: dict[tuple[str, str], list[bool]] = {}
    errors: dict[str, list[float]] = {}
    for run in range(runs):
        rng = np.random.default_rng([run, 0])
        decisions = logs.draw(_COVERED, rng)
        contexts = vectors_of(decisions, policy.encoder, STRATEGIES)
        table = table_of(decisions, contexts, STRATEGIES)
        _, extents = table.expected(policy, contexts, worth, rng, 16)
        log = table.feedback(extents, worth, table.modelled(worth))
        for name, estimate in ESTIMATORS.items():
            terms = estimate(log)
            errors.setdefault(name, []).append(terms.value / truth - 1.0)
            for method in get_args(Method):
                found = interval(terms, method, rng=rng)
                held.setdefault((name, method), []).append(found.low <= truth <= found.high)
    for name, some in errors.items():
        yield Measure(f"{name}: bias", 100 * float(np.mean(some)), "% of the truth")
        yield Measure(
            f"{name}: root mean squared error", 100 * float(np.sqrt(np.mean(np.square(some)))), "% of the truth"
        )
    for (name, method), some_held in held.items():
        yield Measure(f"{name}, {method} intervals: hold the truth", 100 * float(np.mean(some_held)), "%")


def _sessions(runs: int) -> Iterator[Measure]:
    """Yield the coverage for sessions of three turns with two actions; each action affects the next reward."""
    logged, target = np.array([0.5, 0.5]), np.array([0.3, 0.7])
    gains = np.array([[0.2, 0.4], [0.6, 0.3]])  # by the previous and the current action
    value = np.zeros((4, 2))  # expected return from turn t on, by the previous action
    for turn in (2, 1, 0):
        value[turn] = (gains + 0.9 * value[turn + 1]) @ target
    truth, held = float(value[0, 0]), dict[str, list[bool]]()
    for run in range(runs):
        rng = np.random.default_rng([run, 1])
        actions = rng.choice(2, (1000, 3), p=logged)
        before = np.column_stack((np.zeros(1000, dtype=int), actions[:, :2]))
        chances = gains[before, actions]
        turns = np.arange(3)
        log = Sessions(
            (target / logged)[actions],
            (rng.random((1000, 3)) < chances).astype(float),
            0.9,
            0.8 * value[turns, before],  # a model that is off by a fifth
            0.8 * (chances + 0.9 * value[turns + 1, actions]),
        )
        for name, estimate in SESSION_ESTIMATORS.items():
            found = interval(estimate(log), "normal")
            held.setdefault(name, []).append(found.low <= truth <= found.high)
    for name, some in held.items():
        yield Measure(f"sessions, {name}, normal intervals: hold the truth", 100 * float(np.mean(some)), "%")
