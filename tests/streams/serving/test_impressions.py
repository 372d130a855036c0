"""The log record of a decision and a ranking."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel import Decision, Query, impression_of
from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.mixture import Mixture, RandomSets
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ranking.serving import Ranked, Ranking
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.schemas.events import MAX_PLACES
from backchannel.streams.config import Config

QUERY = Query(event_id="e", ts=1, session_id="s", query_id="q", text="jazz")
RANKING = Ranking(results=(), learned=False, propensity=1.0)


def test_the_plan_of_a_distinct_budget_is_logged_beside_the_depths_that_were_walked() -> None:
    decision = Decision({"lexical": 3}, {"lexical": 1.0}, 1.0, planned={"lexical": 3}, distinct=2)
    made = impression_of(QUERY, RANKING, decision, ts=2, depths={"lexical": 7})
    assert (made.planned, made.allocation, made.allocation_propensity) == ({"lexical": 3}, {"lexical": 7}, 1.0)
    assert made.distinct == 2
    with pytest.raises(ValueError, match=r"^depths: "):
        impression_of(QUERY, RANKING, decision, ts=2)


def test_any_other_allocation_is_that_of_the_decision() -> None:
    made = impression_of(QUERY, RANKING, Decision({"lexical": 3}, {"lexical": 1.0}, 1.0), ts=2)
    assert (made.planned, made.allocation) == ({}, {"lexical": 3})


def test_with_ranks_that_were_looked_up_results_carry_the_probabilities_of_their_places() -> None:
    bandit = StrategyBandit(Config().bandit)
    allocator = Allocator(live_rows(bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)))
    decision = allocator.allocate({}, 4, np.random.default_rng(1))
    (deepest, depth) = max(decision.allocation.items(), key=lambda pair: pair[1])
    other = next(name for name in allocator.strategies if name != deepest)
    ranks = {deepest: depth, other: 40}
    ranking = Ranking(results=(Ranked("song/1", 1, 0.0, ranks=ranks),), learned=False, propensity=1.0)
    brought = allocator.retrieval({}, 4)
    made = impression_of(QUERY, ranking, decision, ts=2, looked_up=0.1, retrieval=brought)
    (result,) = made.results
    assert (made.looked_up, result.strategies, result.ranks) == (0.1, (deepest,), ranks)
    assert result.places == brought.places({deepest: depth})
    assert result.places[depth - 1] > 0.0
    with pytest.raises(ValueError, match=r"^retrieval: "):
        impression_of(QUERY, ranking, decision, ts=2, looked_up=0.1)


@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_probability_of_a_place_is_that_of_the_allocations_that_bring_the_item_there(
    ranks: list[int], budget: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sets = RandomSets([0, 0, 0], [6, 6, 6], budget)
    parts = rng.multinomial(budget, np.ones(3) / 3, size=4)
    mixture = Mixture.of(parts, np.full(4, 0.25), 0.25, sets)
    every = {tuple(counts) for counts in itertools.product(range(budget + 1), repeat=3) if sum(counts) == budget}
    expected = np.zeros(MAX_PLACES)
    for counts in every:
        page = [(place, name) for name, count in enumerate(counts) for place in range(1, count + 1)]
        best = min((rank for rank, count in zip(ranks, counts, strict=True) if count >= rank), default=None)
        if best is not None:
            expected[sum(place < best for place, _ in page)] += mixture.probability(list(counts))
    assert mixture.places(np.array(ranks, dtype=float)) == pytest.approx(expected)
