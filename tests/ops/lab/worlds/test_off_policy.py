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
        found = world.value(steered(world, live, goal, logs, ratio), logs)
        assert found == pytest.approx(ratio * value, rel=0.01)
    with pytest.raises(ValueError, match=r"^goal: "):
        steered(world, live, best, logs, 9.0)


def test_the_bench_measures_coverage_errors_and_regret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {
        "RUNS": 2,
        "CLICKS": {"many clicks": -1.5},
        "TRIALS": 3,
        "RATES": (0.4,),
        "RATIOS": (0.0, 2.0),
        "DECISIONS": (500, 2000),
        "SEEDS": 1,
        "WORLDS": (GateWorld("flip", 0.4, 1, turns=500),),
    }
    for name, value in small.items():
        monkeypatch.setattr(gate, name, value)
    measures = {one.name: one.value for one in gate.gate(Load(tmp_path, 0, 1, lambda _: None))}
    assert measures["many clicks: rank curves of 100 turns: DR, bernstein intervals: hold the truth"] == 100.0
    assert measures["many clicks: judging a leap on 2,000 decisions"] > 0
    broken, better = (f"click rate 0.4, {ratio} times as good" for ratio in (0, 2))
    assert measures[f"{broken}: rejected within 2,000 decisions"] == 100.0
    for decisions in ("500", "2,000"):
        assert measures[f"{broken}: more than the first share within {decisions} decisions"] == 0.0
    assert measures[f"{broken}: lost in 2,000 decisions"] > 0
    assert measures[f"{better}: all traffic within 2,000 decisions"] == 100.0
    assert measures[f"{better}: all traffic after, median"] >= 50
    learned = "flip, click rate 0.4, budget 1, 250 turns a version"
    assert measures[f"{learned}: regret with the gate, times that"] > 0
    assert measures[f"{learned}: versions held"] == 0
