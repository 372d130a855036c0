"""`lab horizon`: the simulated world, and policies in it."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.horizon import bandits
from backchannel.ops.lab.horizon.policies import JUDGES, ORACLE, play
from backchannel.ops.lab.horizon.world import STRATEGIES, Strategies, Town


def test_people_who_get_the_better_answers_visit_more() -> None:
    strategies = Strategies.drawn(10, np.random.default_rng(1), holds=True)
    order = np.argsort(strategies.worth)
    visits = []
    for one in (order[0], order[-1]):
        town = Town(300, strategies, np.random.default_rng(2))
        today = [town.visitors() for _ in range(1)]
        for _ in range(40):
            town.answer(today[-1], np.full(len(today[-1]), one))
            today.append(town.visitors())
        visits.append(sum(map(len, today)))
    assert visits[0] < 0.7 * visits[1]


def test_where_surrogacy_fails_signals_are_the_same() -> None:
    holds, fails = (Strategies.drawn(50, np.random.default_rng(3), holds=one) for one in (True, False))
    assert (holds.chances == fails.chances).all()
    assert len(holds.hidden) == STRATEGIES + 5
    assert not holds.hidden.any()
    assert fails.hidden.any()


def test_returns_beat_clicks_in_the_long_term() -> None:
    lost = {
        name: sum(play(name, 60, 150, 7, seed, holds=True).visits for seed in (1, 2, 3))
        for name in (ORACLE, "clicks only", "surrogate, corrected")
    }
    assert lost["clicks only"] < lost["surrogate, corrected"] < lost[ORACLE]


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_the_command(shape: list[str]) -> None:
    small = ["--days", "30", "--places", "50", "--seeds", "2", "--delay", "1"]
    done = CliRunner().invoke(main, ["lab", "horizon", *small, *shape])
    assert done.exit_code == 0, done.output
    if shape:
        lines = json.loads(done.output)
        assert [line["policy"] for line in lines] == 2 * [ORACLE, *JUDGES]
        assert all(line["regret"]["value"] == 0 for line in lines if line["policy"] == ORACLE)
    else:
        assert "surrogate, corrected" in done.output


def test_the_bandit_learns_from_what_happens() -> None:
    best, own = (bandits.play(policy, 12, 40, 2, 3, holds=True) for policy in (bandits.BEST, 8.0))
    assert best.visits.shape == own.clicks.shape == (12,)
    assert best.visits[0] == own.visits[0]  # the same people
    assert 0.0 < own.clicks.mean() < 1.0


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_the_command_plays_the_bandit(shape: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def played(policy: str | float, days: int, *_: int, holds: bool) -> bandits.Days:
        more = 0.0 if policy == 0.0 else 0.1
        return bandits.Days(np.full(days, 0.2 + more), np.full(days, 0.8 - more - 0.1 * holds))

    monkeypatch.setattr(bandits, "play", played)
    done = CliRunner().invoke(main, ["lab", "horizon", "--bandit", "4", "--delay", "1", "--delay", "7", *shape])
    assert done.exit_code == 0, done.output
    if shape:
        months = json.loads(done.output)
        assert [one["policy"] for one in months] == 4 * ["0 successes", "4 successes", "oracle"]
        assert [one["delay"] for one in months] == 2 * [1, 1, 1, 7, 7, 7]
        assert [round(one["regret"]["value"], 6) for one in months[:3]] == [3.0, 0.0, 0.0]
        assert [round(one["more_visits"]["value"], 6) for one in months[:3]] == [0.0, 3.0, 3.0]
        assert [round(one["more_clicks"]["value"], 6) for one in months[:3]] == [0.0, -0.1, -0.1]
    else:
        assert "-10.0 (-10.0 to -10.0)" in done.output
