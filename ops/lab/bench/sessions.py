"""How often 95% intervals hold the true value of whole sessions, by estimator, in a simulated world."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from backchannel.agents.ope.estimators import diagnose
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.sessions import SESSION_ESTIMATORS
from backchannel.agents.sums import Floats
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.worlds.sessions import SessionWorld

LOGS: Final = 500
"""Number of logs per round."""
SIZES: Final = (500, 2_000)
LOGGED: Final = np.tile([0.5, 0.25, 0.25], (3, 1))
TARGETS: Final = {
    "a little less bait": np.array([[0.35, 0.4, 0.25], [0.3, 0.45, 0.25], [0.3, 0.45, 0.25]]),
    "mostly what pleases": np.array([[0.15, 0.7, 0.15], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]),
    "mostly bait": np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.8, 0.1, 0.1]]),
}
"""Name -> the probability that the policy asks each strategy, by mood."""


def sessions(load: Load) -> Iterator[Measure]:
    """Yield how often intervals of the value and of the gain hold the truth, and the errors, in LOGS logs per round."""
    world = SessionWorld(LOGGED, 0.95)
    for size in SIZES:
        for name, target in TARGETS.items():
            load.say(f"{name}, {size:,} sessions")
            for measured, value, unit in covered(world, target, size, LOGS * load.rounds):
                yield Measure(f"{name}, {size:,} sessions: {measured}", value, unit)


def covered(world: SessionWorld, target: Floats, size: int, logs: int) -> Iterator[tuple[str, float, str]]:
    """Yield names, figures and units for a policy, from a number of logs of `size` sessions each."""
    truth = world.value(target)
    gain = truth - world.value(world.logged)
    held: dict[str, list[bool]] = {}
    errors: dict[str, list[float]] = {}
    effective = []
    for number in range(logs):
        log = world.log(size, np.random.default_rng([number, size])).weighed(target)
        effective.append(diagnose(log.first_turns()).effective)
        for name, estimate in SESSION_ESTIMATORS.items():
            terms = estimate(log)
            value, difference = interval(terms), interval(terms.minus(log.logged()))
            held.setdefault(f"{name}, value", []).append(value.low <= truth <= value.high)
            held.setdefault(f"{name}, gain", []).append(difference.low <= gain <= difference.high)
            errors.setdefault(name, []).append(value.value / truth - 1.0)
    yield "mean effective sample size", float(np.mean(effective)), "sessions"
    yield "true gain", 100 * gain / (truth - gain), "%"
    for name, some in held.items():
        yield f"{name}: intervals hold the truth", 100 * float(np.mean(some)), "%"
    for name, own in errors.items():
        yield f"{name}: bias", 100 * float(np.mean(own)), "% of the value"
        yield f"{name}: root mean squared error", 100 * float(np.sqrt(np.mean(np.square(own)))), "% of the value"
