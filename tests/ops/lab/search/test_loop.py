"""The closed loop, small."""

import numpy as np
import pytest

from backchannel.ops.lab.search.findings import FIXED_RANKED, RERANKED, findings
from backchannel.ops.lab.search.harness import Harness
from backchannel.ops.lab.search.loop import Settings, run
from backchannel.ops.lab.search.server import MEMORY


def test_it_learns_through_the_real_pipeline(harness: Harness) -> None:
    told = []
    found = run(harness, Settings(turns=600, budget=12, checkpoints=(100,)), progress=lambda *news: told.append(news))
    assert [one.turns for one in found.checkpoints] == [100, 600]
    assert found.checkpoints[-1].version > found.checkpoints[0].version >= 1
    assert [turns for turns, _ in told] == [100, 200, 300, 400, 500, 600]
    assert (found.checkpoints[-1].allocations.sum(axis=1) == 12).all()
    assert (found.drawn <= 12).all()
    assert (found.distinct <= found.drawn).all()
    assert found.asked.total() == 600
    assert len(found.clicks["learned"]) == 600


def test_the_same_seed_gives_the_same_run(harness: Harness) -> None:
    first, same, other = (run(harness, Settings(turns=200, budget=12, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.clicks["learned"], same.clicks["learned"])
    assert np.array_equal(first.checkpoints[-1].allocations, same.checkpoints[-1].allocations)
    assert not np.array_equal(first.clicks["learned"], other.clicks["learned"])


def test_a_distinct_budget_is_filled(harness: Harness) -> None:
    found = run(harness, Settings(turns=100, budget=12, distinct=True, model="cascade"))
    assert (found.distinct == 12).all()
    assert found.drawn.mean() > 12


def test_memory_drift_and_new_documents(harness: Harness) -> None:
    settings = Settings(turns=400, budget=12, memory=True, drift=True, new=0.2, zipf=1.2)
    found = run(harness, settings)
    assert found.checkpoints[-1].allocations.shape[1] == len(harness.strategies) + 1
    assert len(found.repeated)
    remembered = [found.remembered[query] for query in found.repeated.tolist()]
    assert sum(map(bool, remembered)) > len(remembered) / 2
    whole = found.harness.with_strategy(MEMORY, found.remembered)
    alone = whole.recall_at(whole.alone(MEMORY, 12), found.repeated)
    assert alone.mean() > 0.2
    moved = [name for name in harness.strategies if found.harness.lists_of(0)[name] != harness.lists_of(0)[name]]
    assert 0 < len(moved) <= 2


def test_the_policy_orders_the_results_and_learns_to(harness: Harness) -> None:
    found = run(harness, Settings(turns=300, budget=12, ranked=True, distinct=True))
    assert set(found.ranked) == {"learned", "fixed"}
    for orders in found.ranked.values():
        assert orders.keys() == set(harness.held_out.tolist())
        assert all(len(set(order)) == len(order) == 12 for order in orders.values())
    methods = {method.name: method for method in findings(found, {"loop": 1.0}).methods}
    assert methods[RERANKED].distinct == methods["learned"].distinct
    assert methods[FIXED_RANKED].distinct == methods["best fixed"].distinct


@pytest.mark.parametrize("turns", [100, 130])
def test_the_end_is_always_measured(harness: Harness, turns: int) -> None:
    assert run(harness, Settings(turns=turns, checkpoints=())).checkpoints[-1].turns == turns
