"""The log record of a decision and a ranking."""

import pytest

from backchannel import Decision, Query, impression_of
from backchannel.agents.ranking.serving import Ranking

QUERY = Query(event_id="e", ts=1, session_id="s", query_id="q", text="jazz")
RANKING = Ranking(results=(), learned=False, propensity=1.0)


def test_the_plan_of_a_distinct_budget_is_logged_beside_the_depths_that_were_walked() -> None:
    decision = Decision({"lexical": 3}, {"lexical": 1.0}, 1.0, planned={"lexical": 3})
    made = impression_of(QUERY, RANKING, decision, ts=2, depths={"lexical": 7})
    assert (made.planned, made.allocation, made.allocation_propensity) == ({"lexical": 3}, {"lexical": 7}, 1.0)
    with pytest.raises(ValueError, match=r"^depths: "):
        impression_of(QUERY, RANKING, decision, ts=2)


def test_any_other_allocation_is_that_of_the_decision() -> None:
    made = impression_of(QUERY, RANKING, Decision({"lexical": 3}, {"lexical": 1.0}, 1.0), ts=2)
    assert (made.planned, made.allocation) == ({}, {"lexical": 3})
