"""How strategies have done on a query."""

import pytest

from backchannel.agents.bandit.features import HISTORY
from backchannel.agents.bandit.history import HISTORY_PRIOR, History
from backchannel.agents.bandit.strategy_history import StrategyHistory
from backchannel.agents.checks import changes
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.schemas.events import Result
from tests.support.turns import DAY, click, closed_turn, impression, judged, query

MEANS = {"lexical": 0.5, "semantic": 0.25, "new": 0.1}


def test_lifts_are_shrunken_differences_to_the_mean_on_all_queries() -> None:
    history = StrategyHistory(tuple(MEANS), half_life_days=10)
    shown = impression(Result("e1", 1, ("lexical",)), Result("e2", 2, ("semantic", "unheard-of")))
    some = [closed_turn(query(0), (shown,), (click("e1"),) if turn < 6 else ()) for turn in range(8)]
    delta = history.learn(judged(some))
    rows = live_rows(history.solve(MemorySums(delta), changes(delta), 0))
    assert History(rows).features("Play jazz", MEANS) == {
        "lexical": {HISTORY: pytest.approx((6 - 8 * 0.5) / (8 + HISTORY_PRIOR))},
        "semantic": {HISTORY: pytest.approx((0 - 8 * 0.25) / (8 + HISTORY_PRIOR))},
        "new": {HISTORY: 0.0},
    }
    later = History(live_rows(history.solve(MemorySums(delta), changes(delta), 10 * DAY)))
    assert later.features("play jazz", MEANS)["lexical"][HISTORY] == pytest.approx((3 - 4 * 0.5) / (4 + HISTORY_PRIOR))


def test_of_an_unknown_query_there_is_no_lift() -> None:
    for rows in ({}, {"play jazz": b"{}"}):
        assert History(rows).features("play jazz", MEANS) == {name: {HISTORY: 0.0} for name in MEANS}
