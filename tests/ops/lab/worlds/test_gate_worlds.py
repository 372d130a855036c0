"""The worlds of the gate: clicks are as likely as they say, and what happens depends on the seed only."""

import numpy as np
import pytest

from backchannel.agents.ope.gate import GateConfig
from backchannel.ops.lab.worlds.gate_worlds import GateWorld, _ranks, live, put_on_trial


def test_the_wanted_item_is_where_it_is_likely_to_be() -> None:
    has, counts = np.array([0.2, 0.0, 0.5]), np.array([3.0, 0.0, 2.0])
    ranks = _ranks(np.tile(has, (40_000, 1)), np.tile(counts, (40_000, 1)), np.random.default_rng(0))
    assert (ranks > 0).any(axis=1).all()
    assert (ranks > 0).mean(axis=0) == pytest.approx(has / 0.6, abs=0.01)
    assert (ranks.max(axis=0) == counts).all()
    deep = ranks[ranks[:, 0] > 0, 0]
    assert (deep == 1).mean() == pytest.approx(1 / (1 + 0.8 + 0.64), abs=0.01)


def test_a_run_depends_on_its_seed_only() -> None:
    world = GateWorld("flip", 0.4, 2, turns=500, refresh=100)
    gated, without = live(world, 3, GateConfig()), live(world, 3, None)
    assert (gated.regret == live(world, 3, GateConfig()).regret).all()
    assert len(gated.judgements) == len(gated.regret) == 5
    assert without.judgements == []
    # Nothing is established yet, so the gate lets everything through.
    assert (gated.regret == without.regret).all()


def test_a_policy_that_loses_is_tried_ever_less_often() -> None:
    broken = put_on_trial(0.4, 0.0, 20_000, GateConfig(), np.random.default_rng(0))
    assert broken.lost <= 200
    assert broken.live == broken.halved == np.inf
    assert broken.clicks < 200
    better = put_on_trial(0.4, 2.0, 2_000, GateConfig(), np.random.default_rng(0))
    assert better.live <= 400
    assert better.clicks < 0
