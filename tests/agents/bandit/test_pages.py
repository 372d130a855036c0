"""Turns as pages."""

from typing import Any

import numpy as np

from backchannel.agents.bandit.features import Encoder, Numeric
from backchannel.agents.bandit.pages import Pages, hash_of, pages_of
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.schemas.turn import Turn
from tests.support.turns import closed_turn

AT: dict[str, Any] = {"ts": 5, "session_id": "s", "query_id": "q"}
STRATEGIES = ("a", "b")


def turn(*results: Result, allocation: dict[str, int], clicked: tuple[str, ...] = ()) -> Turn:
    return closed_turn(
        Query(event_id="e", text="Play Jazz", context={"hour": 2.0}, **AT),
        (Impression(event_id="i", results=results, allocation=allocation, **AT),),
        tuple(Click(event_id=f"c{entity}", entity_id=entity, **AT) for entity in clicked),
    )


def pages(*turns: Turn) -> Pages:
    return pages_of(Judge(RewardConfig()).judge(columns_of(turns)), Encoder([Numeric("hour")]), STRATEGIES)


def test_columns_of_turns() -> None:
    found = pages(
        turn(
            Result("y", 2, ("b", "other")),
            Result("x", 1, ("a", "b"), {"a": 3, "b": 7}),
            allocation={"a": 5, "b": 2},
            clicked=("y",),
        ),
        turn(allocation={"b": 4, "other": 9}),
    )
    assert found.times.tolist() == [5, 5]
    assert found.queries.tolist() == [hash_of("play jazz")] * 2
    assert found.contexts.tolist() == [[[1.0, 2.0]], [[1.0, 2.0]]]
    assert found.depths.tolist() == [[5, 7], [0, 4]]  # as deep as the logged rank says, whatever the allocation
    assert (found.turns.tolist(), found.positions.tolist(), found.gains.tolist()) == ([0, 0], [1, 2], [0.0, 1.0])
    assert found.results.tolist() == [0, 0, 1]
    assert found.strategies.tolist() == [0, 1, 1]
    assert found.ranks.tolist() == [3, 7, 2]  # the last one counted on the page


def test_an_entity_counts_where_it_was_shown_first() -> None:
    first = turn(Result("x", 1, ("a",)), allocation={"a": 1})
    again = turn(Result("z", 1, ("a",)), Result("x", 2, ("a",)), allocation={"a": 3})
    both = closed_turn(first.query, first.impressions + again.impressions)
    found = pages(both)
    assert found.positions.tolist() == [1, 1]
    assert found.ranks.tolist() == [1, 1]
    assert found.depths.tolist() == [[3, 0]]


def test_of_no_turns_there_are_no_rows() -> None:
    found = pages()
    assert found.depths.shape == (0, 2)
    assert found.contexts.shape == (0, 1, 2)
    assert len(found.turns) == len(found.ranks) == 0
    assert found.gains.dtype == np.float64
