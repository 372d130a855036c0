"""The sample of logged decisions is mergeable, and holds what an evaluation needs."""

from math import inf, log
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.bandit.features import Encoder, Numeric
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.ope.decisions import (
    HALF_LIFE_MS,
    LoggedDecision,
    TurnSample,
    decisions_of,
    is_logged,
    ranks_of,
    table_of,
    vectors_of,
)
from backchannel.agents.ope.estimators import diagnose, doubly_robust, ips
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.schemas.events import Query, Result
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, judged, query

PROPENSITIES = {"lexical": 0.5, "memory": 0.25}


def turn(number: int, ts: int, logged: bool = True) -> Turn:
    asked = Query(event_id="e", ts=ts, session_id=f"s{number % 7}", query_id=f"q{number}", text="x")
    shown = impression(allocation={"lexical": 2}, propensities=PROPENSITIES if logged else {})
    return closed_turn(asked, (shown,))


TURNS = st.lists(st.builds(turn, st.integers(0, 10**6), st.integers(0, 10 * HALF_LIFE_MS), st.booleans()), max_size=40)


def kept(turns: list[Turn], size: int) -> list[tuple[float, LoggedDecision]]:
    return TurnSample([judged(turns)], size, {"device"}).below(inf)


@given(TURNS, st.integers(0, 20), st.data())
def test_the_sample_of_a_union_is_that_of_the_samples(turns: list[Turn], size: int, data: st.DataObject) -> None:
    turns = list({one.query.query_id: one for one in turns}.values())
    order = data.draw(st.permutations(turns))
    cut = data.draw(st.integers(0, len(turns)))
    parts = [one for part in (order[:cut], order[cut:]) for one in kept(part, size)]
    whole = kept(turns, size)
    assert sorted(parts, key=itemgetter(0))[:size] == whole
    portions = [judged(order[:cut]), judged(order[cut:])]
    assert TurnSample(portions, size, {"device"}).below(inf) == whole
    assert len(whole) == min(size, is_logged(columns_of(turns)).sum())
    if whole:  # rows that rank too high are skipped
        middle = whole[len(whole) // 2][0]
        sample = TurnSample([judged(turns)], size, ())
        assert [rank for rank, _ in sample.below(middle)] == [rank for rank, _ in whole if rank < middle]


def test_recent_turns_are_favoured_by_half_lives() -> None:
    turns = [turn(number, number % 2 * HALF_LIFE_MS) for number in range(20_000)]
    recent = [one.ts > 0 for _, one in kept(turns, 1000)]
    assert np.mean(recent) == pytest.approx(2 / 3, abs=0.05)


def test_ranks_follow_their_definition() -> None:
    at_zero = ranks_of(columns_of([turn(number, 0) for number in range(2000)]))
    chances = np.exp(-np.exp(at_zero))
    assert np.histogram(chances, bins=10, range=(0, 1))[0] == pytest.approx(200, abs=60)
    later = ranks_of(columns_of([turn(number, 5 * HALF_LIFE_MS) for number in range(2000)]))
    assert later == pytest.approx(at_zero - 5 * log(2))
    assert np.isfinite(ranks_of(columns_of([turn(1, 253_402_300_799_999)]))).all()


def test_a_decision_holds_allocation_and_rewards() -> None:
    shown = impression(
        Result("a", 1, ("lexical",)),
        Result("b", 2, ("memory", "lexical")),
        allocation={"lexical": 3, "memory": 1, "new": 0},
        planned={"lexical": 4, "memory": 1},
        distinct=4,
        propensities={"lexical": 0.9, "memory": 0.4, "new": 0.1},
        allocation_propensity=0.2,
        strategy_context={"memory": {"strategy.history": 0.5}},
        user_context={"user.turns": 3.0},
    )
    first = impression(Result("c", 1))  # not logged
    one = closed_turn(query(7, "play it", context={"device": "phone"}), (first, shown), (click("b"),))
    (found,) = decisions_of(judged([one]), [0])
    assert found.ts == 7
    assert found.context["device"] == "phone"
    assert found.context["query.words"] == 2.0
    assert found.context["user.turns"] == 3.0
    assert found.allocation == {"lexical": 3, "memory": 1}
    assert found.rewards == {"lexical": 1.0, "memory": 1.0}
    assert found.success == 1.0
    assert found.allocation_propensity == 0.2
    assert found.strategy_context == {"memory": {"strategy.history": 0.5}}
    assert (found.planned, found.distinct) == ({"lexical": 4, "memory": 1}, 4)
    assert decisions_of(judged([one]), [0], {"device"})[0].context == {"device": "phone"}
    names = ["memory", "new", "lexical"]
    table = table_of([found], vectors_of([found], Encoder([Numeric("strategy.history")]), names), names)
    assert table.counts.tolist() == [[1, 0, 3]]
    assert table.propensities.tolist() == [[0.4, 0.1, 0.9]]
    assert table.rewards.tolist() == [[1.0, 0.0, 1.0]]
    assert table.contexts[0, :, 1].tolist() == [0.5, 0.0, 0.0]


def test_turns_without_propensities_are_not_logged_decisions() -> None:
    some = [
        closed_turn(query()),
        turn(1, 0, logged=False),
        closed_turn(query(), (impression(propensities={"lexical": 1.0}),)),
    ]
    some += [
        closed_turn(query(), (impression(allocation={"lexical": 1}, propensities=propensities),))
        for propensities in ({"lexical": 0.0}, {"memory": 1.0})  # a strategy was asked that could not be
    ]
    assert is_logged(columns_of([*some, turn(1, 0)])).tolist() == [False] * len(some) + [True]


def simulated(turns: int, seed: int) -> tuple[list[LoggedDecision], Allocator]:
    """Decisions of a bandit that has learned nothing, where a share F of a list of `memory` gets 0.6 F."""
    bandit = StrategyBandit(BanditConfig(strategies=("lexical", "memory"), features=(Numeric("x"),)))
    section = bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)
    allocator = Allocator(live_rows(section))
    worth = allocator.worth(10)[1]
    rng = np.random.default_rng(seed)
    decisions = []
    for number in range(turns):
        context: dict[str, Any] = {"x": float(rng.standard_normal())}
        made = allocator.allocate(context, 10, rng)
        got = rng.random() < 0.6 * worth[made.allocation.get("memory", 0)]
        decisions.append(
            LoggedDecision(f"s{number}", 0, context, made.allocation, made.propensities, {"memory": 1.0} if got else {})
        )
    return decisions, allocator


def test_the_logged_policy_has_the_value_of_its_rewards() -> None:
    decisions, allocator = simulated(3000, 1)
    contexts = vectors_of(decisions, allocator.encoder, allocator.strategies)
    table = table_of(decisions, contexts, allocator.strategies)
    worth = allocator.worth(10)
    extents = table.expected(allocator, contexts, worth)
    log_ = table.feedback(extents, worth, table.modelled(worth))
    got = table.rewards.sum(axis=1).mean()
    assert ips(log_).value == pytest.approx(got, abs=0.03)
    assert doubly_robust(log_).value == pytest.approx(got, abs=0.03)
    assert diagnose(log_).faults() == []
    # A budget below a strategy's minimum is raised to it.
    assert extents.shape == (3000, 2)


def test_more_candidates_of_a_good_strategy_are_worth_more() -> None:
    decisions, allocator = simulated(3000, 2)
    contexts = vectors_of(decisions, allocator.encoder, allocator.strategies)
    table = table_of(decisions, contexts, allocator.strategies)
    worth = allocator.worth(10)
    for share in (0.2, 0.5, 1.0):
        extents = np.tile([0.1, share], (3000, 1))
        assert ips(table.feedback(extents, worth)).value == pytest.approx(0.6 * share, abs=0.05)
