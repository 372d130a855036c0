"""Simulated trials that whole sessions decide."""

from pathlib import Path

import pytest

from backchannel.ops.lab.bench import trials
from backchannel.ops.lab.bench.measure import Load


def test_harm_is_found_and_what_has_no_effect_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "TRIALS", 3)
    monkeypatch.setattr(trials, "LOOKS", (100, 6000))
    told: list[str] = []
    found = {one.name: one.value for one in trials.trials(Load(tmp_path, 0, 1, told.append))}
    assert told == list(trials.POLICIES)
    assert found["to no effect: held"] == 0.0
    assert found["clicked 30% more: what sessions bring"] > 0.0
    assert found["clicked 30% more, and 30 points more leave: held"] == 100.0
    assert found["clicked 30% more, and 30 points more leave: median until held, if at all"] == 6000.0
