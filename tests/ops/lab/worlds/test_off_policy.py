"""The simulated world of off-policy evaluation, whose true values are known."""

from pathlib import Path

import numpy as np
import pytest

from backchannel.agents.bandit.serving import Allocator
from backchannel.ops.lab.bench import gate
from backchannel.ops.lab.bench.measure import Load
from backchannel.ops.lab.worlds.gate_worlds import GateWorld
from backchannel.ops.lab.worlds.off_policy import OffPolicyWorld, _means, _with, steered
from backchannel.schemas.snapshot import Section


def mirrored(section: Section) -> Section:
    """Mirror the estimates at the mean of all strategies: the best becomes the worst."""
    return _with(section, {field: 2.0 * own.mean(axis=0) - own for field, own in _means(section).items()})


def test_true_values_are_true() -> None:
    world = OffPolicyWorld(2)
    live, best = world.learn(100), world.learn(5000)
    logs = world.log(Allocator(live), 1500)
    value = world.value(Allocator(live), logs)
    # The live policy's value is its log's mean reward.
    earned = [sum(sum(one.rewards.values()) for one in logs.draw(1500, np.random.default_rng(n))) for n in range(20)]
    assert np.mean(earned) / 1500 == pytest.approx(value, rel=0.05)
    assert world.value(Allocator(best), logs) > value > world.value(Allocator(mirrored(best)), logs)
    for ratio, goal in ((0.9, mirrored(best)), (1.03, best)):
        assert world.value(steered(world, live, goal, logs, ratio), logs) == pytest.approx(ratio * value, rel=0.01)
    with pytest.raises(ValueError, match=r"^goal: "):
        steered(world, live, best, logs, 9.0)


def test_the_bench_measures_coverage_errors_and_regret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {
        "RUNS": 2,
        "CLICKS": {"many clicks": -1.5},
        "TRIALS": 3,
        "RATES": (0.4,),
        "RATIOS": (0.0, 2.0),
        "DECISIONS": 2000,
        "SEEDS": 1,
        "WORLDS": (GateWorld("flip", 0.4, 1, turns=500),),
    }
    for name, value in small.items():
        monkeypatch.setattr(gate, name, value)
    measures = {one.name: one.value for one in gate.gate(Load(tmp_path, 0, 1, lambda _: None))}
    assert measures["many clicks: rank curves of 100 turns: DR, bernstein intervals: hold the truth"] == 100.0
    assert measures["click rate 0.4, 0 times as good: rejected"] == 100.0
    assert measures["click rate 0.4, 0 times as good: more than the first share"] == 0.0
    assert measures["click rate 0.4, 2 times as good: more than half"] == 100.0
    assert measures["flip, click rate 0.4, budget 1: regret with the gate, times that"] > 0
