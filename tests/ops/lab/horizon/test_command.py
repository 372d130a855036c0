"""`lab horizon`: the simulated world, and policies in it."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
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
