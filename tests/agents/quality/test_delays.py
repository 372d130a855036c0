"""How long after the query people click, and what comes after the window."""

from typing import Any

import numpy as np
import pytest

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.quality.delays import STEPS, ClickDelays, cut_off
from backchannel.agents.sums import Sums
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.schemas.turn import Turn

WINDOW_S = 120.0


def learned(means: dict[str, float], turns: int) -> Sums:
    """Turns with a click each, after an exponential delay with a mean by strategy; those after the window are lost."""
    rng, made = np.random.default_rng(0), []
    for number in range(turns):
        common: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"q{number}"}
        results = tuple(Result(name, place, (name,)) for place, name in enumerate(means, 1))
        shown = Impression(event_id="i", ts=0, results=results, allocation=dict.fromkeys(means, 1), **common)
        name = list(means)[number % len(means)]
        after = float(rng.exponential(means[name]))
        clicks = [Click(event_id="c", ts=round(after * 1000), entity_id=name, **common)] if after < WINDOW_S else []
        made.append(Turn.of(Query(event_id="q", ts=0, text="x", **common), [shown, *clicks]))
    return ClickDelays(()).learn(Judge(RewardConfig()).judge(columns_of(made)))["delay"]


def test_what_comes_after_the_window_is_estimated_from_what_comes_before() -> None:
    means = {"quick": 10.0, "slow": 90.0, "slower": 200.0}
    sums = learned(means, 6000)
    assert {key[:2] for key in sums.keys} == {("quick", 1), ("slow", 2), ("slower", 2)}
    for name, mean in means.items():
        clicks = {key[2]: float(count) for key, (count,) in zip(sums.keys, sums.values, strict=True) if key[0] == name}
        found = cut_off(clicks, WINDOW_S)
        assert found == pytest.approx(np.exp(-WINDOW_S / mean), abs=0.15)


def test_few_clicks_tell_nothing_and_what_never_ends_is_in_proportion_to_what_was_seen() -> None:
    assert cut_off({3: 99.0}, WINDOW_S) is None
    assert cut_off({3: 100.0}, WINDOW_S) == 0.0
    assert cut_off({20: 50.0, 24: 200.0}, WINDOW_S) == pytest.approx(852.6 / 1102.6, abs=1e-3)


def test_stray_clicks_do_not_make_a_strategy_late() -> None:
    """One in two hundred comes at any time within an hour, so that 0.5% come after the window."""
    rng = np.random.default_rng(0)
    stray, quick = rng.random(10_000) < 0.005, rng.exponential(10.0, 10_000)
    seconds = np.where(stray, rng.uniform(1.0, 3600.0, 10_000), np.maximum(quick, 1.0))
    buckets, counts = np.unique(np.floor(STEPS * np.log2(seconds[seconds < WINDOW_S])), return_counts=True)
    found = cut_off(dict(zip(buckets.tolist(), counts.tolist(), strict=True)), WINDOW_S)
    assert found == pytest.approx(0.005, abs=0.01)
    assert cut_off({3: 500.0, 24: 2.0}, WINDOW_S) == pytest.approx(0.0, abs=0.02)
