"""The simulated world of off-policy evaluation, whose true values are known."""

from pathlib import Path

import numpy as np
import pytest

from backchannel.agents.bandit.serving import Allocator
from backchannel.ops.lab.bench import gate
from backchannel.ops.lab.bench.measure import Load
from backchannel.ops.lab.worlds.off_policy import OffPolicyWorld, reversed_preferences, shares_of, steered


def test_true_values_are_true() -> None:
    world = OffPolicyWorld(2)
    live, best = world.learn(100), world.learn(5000)
    logs = world.log(Allocator(live), 1500)
    value = world.value(Allocator(live), logs)
    # The live policy's value is its log's mean reward.
    earned = [sum(sum(one.rewards.values()) for one in logs.draw(1500, np.random.default_rng(n))) for n in range(5)]
    assert np.mean(earned) / 1500 == pytest.approx(value, rel=0.05)
    assert world.value(Allocator(best), logs) > value > world.value(Allocator(reversed_preferences(best)), logs)
    for ratio, goal in ((0.9, reversed_preferences(best)), (1.03, best)):
        assert world.value(steered(world, live, goal, logs, ratio), logs) == pytest.approx(ratio * value, rel=0.01)
    with pytest.raises(ValueError, match=r"^goal: "):
        steered(world, live, best, logs, 9.0)


def test_shares_of_verdicts() -> None:
    assert shares_of(["publish", "hold", "hold", "warn"]) == {"publish": 0.25, "warn": 0.25, "hold": 0.5}


def test_the_bench_measures_coverage_and_verdicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"RUNS": 2, "SIZES": (250,), "CLICKS": {"many clicks": -1.5}}.items():
        monkeypatch.setattr(gate, name, value)
    measures = {one.name: one.value for one in gate.gate(Load(tmp_path, 0, 1, lambda _: None))}
    assert measures["many clicks: rank curves of 100 turns: DR, bernstein intervals: hold the truth"] == 100.0
    assert (
        sum(measures[f"many clicks: the same, 250 decisions: {verdict}"] for verdict in ("publish", "warn", "hold"))
        == 100
    )
    assert measures["sessions, PDIS, normal intervals: hold the truth"] >= 0
