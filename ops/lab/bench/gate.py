"""How often 95% intervals cover the truth in simulated worlds; how often the gate is right, and what it costs."""

import time
from collections.abc import Callable, Iterator
from typing import Final, get_args

import numpy as np
from msgspec import structs

from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import table_of, vectors_of
from backchannel.agents.ope.estimators import ESTIMATORS
from backchannel.agents.ope.gate import Case, GateConfig, judge
from backchannel.agents.ope.intervals import Method, interval
from backchannel.agents.sums import Floats
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.worlds.gate_worlds import GateWorld, live, put_on_trial
from backchannel.ops.lab.worlds.off_policy import (
    BUDGET,
    STRATEGIES,
    Logs,
    OffPolicyWorld,
    steered,
)

RUNS: Final = 30
CLICKS: Final = {"many clicks": -1.5, "few clicks": -3.0}
"""Worlds, by the mean intercept of the strategies."""
LEARNED: Final = 100
"""Number of turns that the live policy has learned from: few, so that better policies exist."""
TRIALS: Final = 200
DECISIONS: Final = (2_000, 20_000)
"""Decisions within which a trial is to end; the last is the number of decisions simulated."""
RATES: Final = (0.02, 0.1, 0.4)
RATIOS: Final = (0.0, 0.5, 0.9, 1.1, 2.0)
"""Ratios of the clicks of a policy on trial to those of the served one."""
SEEDS: Final = 2
WORLDS: Final = tuple(
    GateWorld(kind, rate, budget, turns=12_000, refresh=refresh)
    for kind in ("stationary", "flip", "drift")
    for refresh in (250, 1_000)
    for rate in RATES
    for budget in (1, 10)
)
_MANY: Final = 20_000
_COVERED: Final = 1000  # turns in a log whose intervals should cover the truth
_POOL: Final = 5000


def gate(load: Load) -> Iterator[Measure]:
    """Yield the shares of RUNS simulated logs per round."""
    runs = RUNS * load.rounds
    for clicks, intercept in CLICKS.items():
        for one in _in_world(OffPolicyWorld(1, intercept), runs, load.say):
            yield structs.replace(one, name=f"{clicks}: {one.name}")
    yield from _trials(TRIALS * load.rounds, load.say)
    yield from _learning(SEEDS * load.rounds, load.say)


def _in_world(world: OffPolicyWorld, runs: int, say: Callable[[str], None]) -> Iterator[Measure]:
    say("a simulated world: a live policy, and one that is better by 10%")
    few, best = world.learn(LEARNED), world.learn(_MANY)
    logs = world.log(Allocator(few), _POOL)
    better = steered(world, few, best, logs, 1.1)
    yield Measure("the live policy's value", world.value(Allocator(few), logs), "rewards a turn")
    truth = world.value(better, logs)
    say("judging a version")
    yield _judging(Allocator(few), Allocator(best), logs)
    say("intervals")
    for turns, known in ((LEARNED, few), (_MANY, best)):
        for one in _coverage(better, Allocator(known).worth(BUDGET), truth, logs, runs):
            yield structs.replace(one, name=f"rank curves of {turns:,} turns: {one.name}")


def _judging(candidate: Allocator, served: Allocator, logs: Logs) -> Measure:
    """Return the time that the judgement of a leap takes; every decision has a context of its own."""
    config = GateConfig(max_change=0.0, established=0.0)
    decisions = [
        structs.replace(one, allocation_propensity=0.01, success=float(bool(one.rewards)))
        for one in logs.draw(config.turns, np.random.default_rng(0))
    ]
    case = Case(candidate=candidate, served=served, decisions=decisions)
    started = time.perf_counter()
    judge(case, config)
    return Measure(f"judging a leap on {config.turns:,} decisions", 1000 * (time.perf_counter() - started), "ms")


def _trials(runs: int, say: Callable[[str], None]) -> Iterator[Measure]:
    """Yield how trials of fixed policies end, over all looks together, and what an ideal test would tell."""
    config, ideal = GateConfig(), "told by an ideal test"
    for rate in RATES:
        for ratio in RATIOS:
            name, right = f"click rate {rate:g}, {ratio:g} times as good", "rejected" if ratio < 1.0 else "all traffic"
            say(name)
            seeds = [[run, round(1000 * ratio), round(1000 * rate)] for run in range(runs)]
            found = [put_on_trial(rate, ratio, DECISIONS[-1], config, np.random.default_rng(seed)) for seed in seeds]
            ends = {
                "more than the first share": [one.halved for one in found],
                "all traffic": [one.live for one in found],
                "rejected": [one.lost for one in found],
                ideal: [one.ideal for one in found],
            }
            for told, times in ends.items():
                for most in DECISIONS:
                    share = 100 * float(np.mean(np.array(times) <= most))
                    yield Measure(f"{name}: {told} within {most:,} decisions", share, "%")
            for told in (right, ideal):
                median = float(np.median(ends[told]))
                if np.isfinite(median):
                    yield Measure(f"{name}: {told} after, median", median, "decisions")
            lost = float(np.mean([one.clicks for one in found]))
            yield Measure(f"{name}: lost in {DECISIONS[-1]:,} decisions", lost, "clicks")


def _learning(seeds: int, say: Callable[[str], None]) -> Iterator[Measure]:
    """Yield the cost of the gate to a learning bandit."""
    for world in WORLDS:
        name = f"{world.kind}, click rate {world.rate:g}, budget {world.budget}, {world.refresh} turns a version"
        say(name)
        found = [[live(world, seed, config) for config in (None, GateConfig())] for seed in range(seeds)]
        regret = np.array([[one.regret.sum() for one in pair] for pair in found])
        without, gated = regret.sum(axis=0).tolist()
        yield Measure(f"{name}: regret without a gate", without / seeds / world.turns, "clicks a turn")
        yield Measure(f"{name}: regret with the gate, times that", gated / without, "")
        own = regret[:, 1] - gated / without * regret[:, 0]
        yield Measure(f"{name}: standard error of that", float(np.std(own) / np.sqrt(seeds)) * seeds / without, "")
        verdicts = [judged.verdict for _, one in found for judged in one.judgements]
        yield Measure(f"{name}: versions on trial", 100 * verdicts.count("canary") / len(verdicts), "%")
        yield Measure(f"{name}: versions held", 100 * verdicts.count("hold") / len(verdicts), "%")


def _coverage(policy: Allocator, worth: Floats, truth: float, logs: Logs, runs: int) -> Iterator[Measure]:
    """Yield errors of estimators and the coverage of intervals; `worth` holds rank curves, (strategies, budget + 1)."""
    held: dict[tuple[str, str], list[bool]] = {}
    errors: dict[str, list[float]] = {}
    for run in range(runs):
        rng = np.random.default_rng([run, 0])
        decisions = logs.draw(_COVERED, rng)
        contexts = vectors_of(decisions, policy.encoder, STRATEGIES)
        table = table_of(decisions, contexts, STRATEGIES)
        extents = table.expected(policy, contexts, worth)
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
