"""The simulated pages that strategies share, and the bench of what intervals hold there."""

from pathlib import Path

import numpy as np
import pytest

from backchannel.agents.ope.estimators import snips
from backchannel.agents.ope.places import Earnings, Examination
from backchannel.ops.lab.bench import coverage
from backchannel.ops.lab.bench.measure import Load
from backchannel.ops.lab.worlds import pages
from backchannel.ops.lab.worlds.pages import BUDGET, PageWorld, policies


@pytest.fixture(autouse=True)
def few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_QUERIES", 5_000)


def test_true_values_are_true() -> None:
    rng = np.random.default_rng(1)
    world = PageWorld.of("merged", 0.5, rng)
    logged, leap = policies(2.0, rng)
    log = world.log(logged, 200_000, rng)
    assert log.clicks.mean() == pytest.approx(float(logged @ world.clicks), abs=0.005)
    assert snips(log.whole(leap)).value == pytest.approx(float(leap @ world.clicks), abs=0.01)
    learned = Examination.of(log.items(), 200_000)
    placed = Earnings.of(log.items(), log.brought(leap), learned).terms(learned)
    assert placed.value == pytest.approx(float(leap @ world.clicks), abs=0.01)
    assert learned.exponent == pytest.approx(0.5, abs=3 * learned.error)


def test_twins_bring_the_same_and_credits_add_up_to_more_than_clicks() -> None:
    rng = np.random.default_rng(2)
    world = PageWorld.of("twins", 0.5, rng)
    assert (world.allocations.sum(axis=1) == BUDGET).all()
    log = world.log(policies(2.0, rng)[0], 2_000, rng)
    assert log.credited.sum() > log.clicks.sum() + 20


def test_the_bench_says_how_often_intervals_hold_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"LOGS": 20, "WORLDS": 1, "WEIGHTS": (4.0,), "TURNS": (2_000,)}.items():
        monkeypatch.setattr(coverage, name, value)
    measures = {one.name: one.value for one in coverage.coverage(Load(tmp_path, 0, 1, lambda _: None))}
    held = "twins, largest weight 4, 2,000 decisions: {}, gain: intervals hold the truth"
    assert measures[held.format("whole allocations")] >= 75.0
    assert measures[held.format("clicked items")] >= 75.0
    width = "twins, largest weight 4, 2,000 decisions: {}, gain: width of the intervals, median, of the value"
    assert measures[width.format("clicked items")] < 0.5 * measures[width.format("whole allocations")]
    assert measures[held.format("strategies by themselves")] < 75.0
