"""The long horizon: visits by hashed person and hour, paired with returns, and what signals say before they mature."""

from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.checks import check, learn, solve
from backchannel.agents.horizon.learner import HorizonConfig, Returns
from backchannel.agents.horizon.serving import Horizon, LongTerm, Report, Surrogate
from backchannel.agents.horizon.visits import HOUR_MS, MOST, visits_of
from backchannel.agents.sums import ALL, merge
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, click, impression, query

SALT = "a salt for tests only"
LEARNER = Returns(HorizonConfig(salt=SALT, days=7.0))
START = 20_000 * DAY


def turn(user: str | None, ts: int, strategy: str = "lexical", *, clicked: bool = False) -> Turn:
    shown = impression(Result("e", 1, (strategy,)), allocation={strategy: 1})
    return Turn.of(query(ts, user_id=user), [shown, *([click("e")] if clicked else [])])


def served(turns: Iterable[Turn], at: int, learner: Returns = LEARNER) -> Report:
    report = Horizon(solve(learner, learn(learner, turns), at)).report
    assert report is not None
    return report


def returns(times: Iterable[int], at: int, learner: Returns = LEARNER) -> list[float | None]:
    """Return for each visit of one person whether a return followed; None if it is not mature."""
    delta = learn(learner, [turn("ann", START + ts) for ts in times])
    visits = visits_of(delta[learner.table.name], learner.times, START + at)
    return [
        returned if mature else None
        for returned, mature in zip(visits.returned.tolist(), visits.mature.tolist(), strict=True)
    ]


@pytest.mark.parametrize("config", [HorizonConfig(), HorizonConfig(salt=SALT, least_days=0, days=0.1, share=0.5)])
def test_it_is_a_sum(config: HorizonConfig) -> None:
    check(Returns(config, ("lexical", "semantic")), rounds=3)


def test_a_return_is_a_visit_after_at_least_a_day_and_within_a_week() -> None:
    late = 60 * DAY
    assert returns([0], late) == [0]
    assert returns([0, HOUR_MS], late) == [0, 0]  # a retry
    assert returns([0, 23 * HOUR_MS], late) == [0, 0]
    assert returns([0, DAY], late) == [1, 0]
    assert returns([0, 7 * DAY], late) == [1, 0]
    assert returns([0, 7 * DAY + HOUR_MS], late) == [0, 0]
    assert returns([0, HOUR_MS, 7 * DAY + HOUR_MS], late) == [0, 1, 0]


@given(
    st.lists(st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.integers(0, 300)), max_size=30), st.integers(0, 500)
)
def test_pairing_is_that_of_the_definition(log: list[tuple[str, int]], now: int) -> None:
    delta = learn(LEARNER, [turn(user, START + hour * HOUR_MS) for user, hour in log])
    if not log:
        assert delta == {}
        return
    visits = visits_of(delta[LEARNER.table.name], LEARNER.times, START + now * HOUR_MS)
    every = sorted({(LEARNER.key_of(user), hour) for user, hour in log})
    returned = [any(one == user and 24 <= then - hour <= 7 * 24 for one, then in every) for user, hour in every]
    assert visits.returned.tolist() == returned
    assert visits.mature.tolist() == [hour + 7 * 24 + 2 <= now for _, hour in every]


def test_what_is_not_mature_is_unknown_even_if_the_person_came_back() -> None:
    times = [0, 2 * DAY, 8 * DAY]
    assert returns(times, 7 * DAY + HOUR_MS) == [None, None, None]
    assert returns(times, 7 * DAY + 2 * HOUR_MS) == [1, None, None]
    assert returns(times, 10 * DAY) == [1, 1, None]
    found = served([turn("ann", START), turn("ann", START + 2 * DAY)], START + 3 * DAY)
    assert (found.surrogate.visits, found.surrogate.mature) == (2, 0)
    assert found.strategies["lexical"] == LongTerm(visits=2.0, mature=0.0, people=0, success=0.0)


def test_turns_of_one_hour_are_one_visit_and_strategies_have_their_shares() -> None:
    turns = [turn("ann", START, name, clicked=name == "bait") for name in ("bait", "lexical", "lexical", "lexical")]
    found = served([*turns, turn(None, START)], START + 30 * DAY)
    assert (found.surrogate.visits, found.surrogate.people) == (1, 1)
    assert {name: (one.visits, one.success) for name, one in found.strategies.items()} == {
        "bait": (0.25, 1.0),
        "lexical": (0.75, 0.0),
    }


def test_one_person_weighs_at_most_as_much_as_some_visits() -> None:
    bot = [turn("bot", START + hour * HOUR_MS) for hour in range(1000)]
    delta = learn(LEARNER, [*bot, turn("ann", START)])
    visits = visits_of(delta[LEARNER.table.name], LEARNER.times, START + 1000 * HOUR_MS)
    of_person = np.bincount(visits.people, visits.weights)
    assert sorted(of_person)[1] == pytest.approx(MOST)


def test_ids_are_hashed_with_the_salt() -> None:
    one, other = (learn(Returns(HorizonConfig(salt=salt)), [turn("ann", START)])["visits"] for salt in (SALT, "x" * 16))
    assert [key[1:] for key in one.keys] == [key[1:] for key in other.keys]
    assert {key[0] for key in one.keys} == {LEARNER.key_of("ann")} != {key[0] for key in other.keys}
    assert "ann" not in LEARNER.key_of("ann")


def test_a_share_of_the_people_is_the_same_people_in_every_batch() -> None:
    half = Returns(HorizonConfig(salt=SALT, share=0.5))
    turns = [turn(f"user {number}", START) for number in range(100)]
    together = learn(half, turns)["visits"]
    apart = merge(learn(half, [one]) for one in turns)["visits"]
    assert sorted(together.keys) == sorted(apart.keys)
    assert 30 < len({key[0] for key in together.keys}) < 70


def world(seed: int, direct: float, people: int = 600, days: int = 40) -> list[Turn]:
    """Return visits of people who come back after a click, but after those of `bait` less by `direct`."""
    rng = np.random.default_rng(seed)
    turns = []
    for person in range(people):
        day = int(rng.integers(10))
        while day < days:
            bait = bool(rng.random() < 0.5)
            clicked = bool(rng.random() < (0.8 if bait else 0.4))
            turns.append(turn(f"user {person}", START + day * DAY, "bait" if bait else "lexical", clicked=clicked))
            back = rng.random() < 0.2 + 0.6 * clicked - direct * bait
            day += int(rng.integers(1, 7)) if back else int(rng.integers(9, 15))
    return turns


def test_where_signals_tell_all_they_predict_returns_and_nothing_warns() -> None:
    found = served(world(1, direct=0.0), START + 40 * DAY)
    assert found.surrogate.weights[ALL] == pytest.approx(0.2, abs=0.05)
    weights = found.surrogate.weights
    assert weights["success"] + weights["clicked"] == pytest.approx(0.6, abs=0.05)
    for name, share in (("bait", 0.68), ("lexical", 0.44)):
        value = found.strategies[name].value
        assert value is not None
        assert value.low < share < value.high
        assert value.high - value.low < 0.08
    assert len(found.surrogate.cohorts) >= 3
    assert all(one.error.low < 0.02 and one.error.high > -0.02 for one in found.surrogate.cohorts)
    assert found.warnings == []


def test_what_signals_do_not_show_is_corrected_and_warned_of() -> None:
    found = served(world(2, direct=0.4), START + 40 * DAY)
    bait, other = (found.strategies[name] for name in ("bait", "lexical"))
    assert bait.value is not None
    assert other.value is not None
    assert bait.predicted is not None
    assert bait.value.low < 0.32 < bait.value.high < bait.predicted
    assert other.value.low < 0.44 < other.value.high
    assert bait.success > other.success  # the short-term reward says the opposite
    assert any("what bait does" in one for one in found.warnings)


def test_what_is_dropped_counted_for_nothing_before() -> None:
    late = START + 40 * DAY + LEARNER.times.keep_ms
    turns = [turn(f"user {number}", START + number * DAY) for number in range(80)]
    left = [one for one in turns if one.query.ts >= late - LEARNER.times.keep_ms]
    assert served(turns, late) == served(left, late)
    assert len(left) == 40


def test_with_too_few_people_there_are_no_figures() -> None:
    found = served([turn(f"user {number}", START) for number in range(29)], START + 30 * DAY)
    assert found.surrogate == Surrogate(1.0, 7.0, 29, 29, 29)
    assert found.strategies["lexical"] == LongTerm(visits=29.0, mature=29.0, people=29, success=0.0)


def test_without_rows_nothing_is_known() -> None:
    assert Horizon({}).report is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"salt": "short"}, "salt: has 5 characters"),
        ({"least_days": 7, "days": 7}, "days: 7 must be above least_days, 7"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(document: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(document, HorizonConfig)
