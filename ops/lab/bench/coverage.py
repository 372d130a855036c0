"""How often 95% intervals cover the true value on pages that strategies share, by estimator, in simulated worlds."""

from collections.abc import Iterator, Sequence
from typing import Final, get_args

import numpy as np

from backchannel.agents.ope.estimators import Terms, ips, snips
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.places import Earnings, Examination
from backchannel.agents.ope.union import MISFIT
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.worlds.pages import Kind, PageWorld, policies

LOGS: Final = 100
"""Number of logs per round."""
WORLDS: Final = 10
"""Number of worlds of a kind, over which the logs are spread."""
RATE: Final = 0.3
WEIGHTS: Final = (2.0, 4.0, 15.0)
TURNS: Final = (2_000, 8_000)


def coverage(load: Load) -> Iterator[Measure]:
    """Yield how often intervals cover the truth: by whole allocations, clicked items, and strategies by themselves."""
    for kind in get_args(Kind):
        worlds = [PageWorld.of(kind, RATE, np.random.default_rng([place, 1])) for place in range(WORLDS)]
        for largest in WEIGHTS:
            for turns in TURNS:
                name = f"{kind}, largest weight {largest:g}, {turns:,} decisions"
                load.say(name)
                for measured, value in _covered(worlds, largest, turns, LOGS * load.rounds).items():
                    yield Measure(f"{name}: {measured}", value, "%")


def _covered(worlds: Sequence[PageWorld], largest: float, turns: int, logs: int) -> dict[str, float]:
    held: dict[str, list[bool]] = {}
    errors: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    told: list[bool] = []
    for number in range(logs):
        world = worlds[number % len(worlds)]
        rng = np.random.default_rng([number, 2])
        logged, leap = policies(largest, rng)
        value = float(leap @ world.clicks)
        gain = value - float(logged @ world.clicks)
        log = world.log(logged, turns, rng)
        earned = Terms(log.clicks, 0.0, 1.0)
        credited = Terms(log.credited.sum(axis=1), 0.0, float(log.credited.shape[1]))
        whole, own = snips(log.whole(leap)), ips(log.by_strategy(leap))
        items, brought = log.items(), log.brought(leap)
        alike, learned = Examination.flat(turns), Examination.of(items, turns)
        anywhere = Earnings.of(items, brought, alike).terms(alike)
        placed = Earnings.of(items, brought, learned).terms(learned)
        told.append(learned.misfit <= MISFIT)
        found = {
            "whole allocations, value": (whole, value),
            "whole allocations, gain": (whole.minus(earned), gain),
            "clicked items, value": (placed, value),
            "clicked items, gain": (placed.minus(earned), gain),
            "clicked items as if places did not matter, gain": (anywhere.minus(earned), gain),
            "strategies by themselves, gain": (own.minus(credited), gain),
        }
        for name, (terms, truth) in found.items():
            estimate = interval(terms)
            held.setdefault(f"{name}: intervals hold the truth", []).append(estimate.low <= truth <= estimate.high)
            errors.setdefault(name, []).append((estimate.value - truth) / value)
            widths.setdefault(name, []).append((estimate.high - estimate.low) / value)
    shares = {name: 100 * float(np.mean(some)) for name, some in held.items()}
    for name, some in errors.items():
        shares[f"{name}: bias, of the value"] = 100 * float(np.mean(some))
        shares[f"{name}: root mean square error, of the value"] = 100 * float(np.sqrt(np.mean(np.square(some))))
        shares[f"{name}: width of the intervals, median, of the value"] = 100 * float(np.median(widths[name]))
    shares["clicked items: logs that can tell"] = 100 * float(np.mean(told))
    if any(told):
        those = np.array(held["clicked items, gain: intervals hold the truth"])[told]
        shares["clicked items, gain: intervals hold the truth, of the logs that can tell"] = 100 * float(those.mean())
    return shares
