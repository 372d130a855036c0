"""What is known of who asks."""

from math import log2

import msgspec
import pytest

from backchannel.agents.bandit.user_history import UserHistory
from backchannel.agents.bandit.users import DEFECTS, PRIOR, REWARD, TURNS, UserRow, Users
from backchannel.agents.checks import changes
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import ALL, MemorySums
from backchannel.schemas.events import Result
from backchannel.schemas.snapshot import Section
from tests.support.turns import DAY, barge_in, click, closed_turn, impression, judged, outcomes_of, query

UNKNOWN = {TURNS: 0.0, REWARD: 0.0, DEFECTS: 0.0}


def learned() -> Section:
    """Ann: six of eight turns succeed, one more is barged in on. Bob: none of twelve. Nobody: one that does."""
    history = UserHistory(half_life_days=10)
    shown = (impression(Result("e1", 1)),)
    ann = [closed_turn(query(0, user_id="ann"), shown, (click("e1"),) if turn < 6 else ()) for turn in range(7)]
    ann.append(closed_turn(query(0, user_id="ann"), shown, (), (barge_in(),)))
    bob = [closed_turn(query(0, user_id="bob"), shown)] * 12
    delta = history.learn(judged([*ann, *bob, closed_turn(query(0), shown, (click("e1"),))]))
    section = history.solve(MemorySums(delta), changes(delta), 0)
    return live_rows(section)


def test_features_are_shrunken_differences_to_all_users() -> None:
    users = Users(learned(), 0)
    assert users.features("ann") == {
        TURNS: log2(1 + 8),
        REWARD: pytest.approx((6 - 8 * 6 / 20) / (8 + PRIOR)),
        DEFECTS: pytest.approx((1 - 8 * 1 / 20) / (8 + PRIOR)),
    }
    assert users.features("bob")[REWARD] == pytest.approx((0 - 12 * 6 / 20) / (12 + PRIOR))


def test_what_is_known_fades() -> None:
    assert Users(learned(), 10 * DAY).features("ann") == {
        TURNS: log2(1 + 4),
        REWARD: pytest.approx((3 - 4 * 6 / 20) / (4 + PRIOR)),
        DEFECTS: pytest.approx((0.5 - 4 * 1 / 20) / (4 + PRIOR)),
    }
    assert Users(learned(), 100_000 * DAY).features("ann") == pytest.approx(UNKNOWN)


@pytest.mark.parametrize("user", ["zoe", ALL])
def test_of_a_stranger_it_is_what_it_is_on_average(user: str) -> None:
    assert Users(learned(), 0).features(user) == UNKNOWN
    assert Users({}, 0).features(user) == UNKNOWN


def test_a_rephrase_is_a_defect() -> None:
    history = UserHistory(half_life_days=10)
    said_again = closed_turn(query(0, "play jazz", user_id="ann"), (), next=query(1000, "Play, jass!", user_id="ann"))
    (outcome,) = outcomes_of([said_again])
    delta = history.learn(judged([said_again]))
    row = history.solve(MemorySums(delta), changes(delta), 0)["ann"]
    assert row is not None
    assert msgspec.json.decode(row, type=UserRow) == UserRow(0, 1.0, outcome.success, outcome.rephrased)
    assert outcome.rephrased > 0.5
