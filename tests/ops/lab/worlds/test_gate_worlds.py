"""The worlds of the gate: clicks are as likely as they say, and what happens depends on the seed only."""

import numpy as np
import pytest

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.gate import GateConfig
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.kept import kept
from backchannel.agents.ope.whole import Replayed
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, MemorySums
from backchannel.ops.lab.worlds.gate_worlds import (
    DEVICES,
    STRATEGIES,
    GateWorld,
    Supported,
    _ranks,
    _serve,
    _Served,
    live,
    put_on_trial,
)


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


@pytest.mark.parametrize("budget", [1, 3, 10])
def test_a_policy_earns_at_least_what_it_surely_keeps(budget: int) -> None:
    bandit = StrategyBandit(BanditConfig(strategies=STRATEGIES, features=(Categorical("device", DEVICES),)))
    contexts = bandit.encoder.encode_all([{"device": name} for name in DEVICES])
    world = GateWorld("stationary", 0.4, budget, refresh=400)

    def policy(sums: Delta) -> Allocator:
        return Allocator(live_rows(bandit.solve(MemorySums(sums), {bandit.table.name: ()}, 0)))

    def value(one: Allocator, seed: int) -> float:
        pages = [Supported.of([one.mixture({"device": name}, budget)]) for name in DEVICES]
        rates = world.rates(0, seed)
        return sum(
            float(page.probabilities[0] @ world.chances(page.allocations, own))
            for page, own in zip(pages, rates, strict=True)
        )

    start, found = policy({}), []
    for seed in range(12):
        rng, rates = np.random.default_rng(seed), world.rates(0, seed)
        first, second = (
            policy(bandit.learn_pages(_serve(world, _Served(start, start), 0, rates, rng).pages(contexts), STRATEGIES))
            for _ in range(2)
        )
        turns = _serve(world, _Served(first, first), 0, rates, rng)
        terms = kept(Replayed(second), Replayed(first), [turns.decision(row) for row in range(world.refresh)])
        found.append((value(second, seed) / value(first, seed), interval(terms, "normal", 0.9).low))
    assert sum(low <= ratio for ratio, low in found) >= 11
    if budget == 10:
        assert np.mean([low for _, low in found]) > 0.5
