"""Online rewrites: what they serve, and what they never do."""

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habitual import NAMES
from backchannel.agents.rewrites.likeness_weights import EVERYBODY
from backchannel.agents.rewrites.nearby import Nearby, _keys, _keys_of
from backchannel.agents.rewrites.online import OnlineRewrites
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import Habit, HabitRow, RewriteRow, Settings, Usual
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import ALL
from tests.agents.rewrites.test_learner import OPEN, Step, failing, learned, rows, succeeding, tried

RIGHT, WRONG = "play the songs of abba", "play the sungs of abba"
GOOD, BAD = RewriteRow(success=9.0, failure=1.0), RewriteRow(failure=3.0)


def online(some: Mapping[str, RewriteRow], odds: float = 1.0, first: int = 3) -> OnlineRewrites:
    section = {state: msgspec.json.encode(row) for state, row in some.items()}
    section[ALL] = msgspec.json.encode(Settings(odds=odds, first=first))
    return OnlineRewrites().updated(section, section)


def served(query: str, some: Mapping[str, RewriteRow], odds: float = 1.0) -> str | None:
    found = online(some, odds).rewrite(query, some.get(query))
    return found.target if found else None


def test_a_failing_query_is_rewritten_to_a_near_one_that_succeeds() -> None:
    found = online({RIGHT: GOOD, WRONG: BAD, "set an alarm": GOOD}).rewrite(WRONG, BAD)
    assert found is not None
    assert found.target == RIGHT
    assert found.odds >= 1.0
    assert served(WRONG, {RIGHT: GOOD, WRONG: BAD}, odds=1000.0) is None
    assert served(WRONG, {RIGHT: GOOD, WRONG: BAD}, odds=0.0) is None
    assert served("set an alarm", {RIGHT: GOOD}) is None


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("turn on the kitchen light please", "turn off the kitchen light please"),
        ("set a timer for five minutes please", "set a timer for nine minutes please"),
        ("do not play the songs of abba", "do play the songs of abba"),
        ("wake me up at 7 tomorrow", "wake me up at 8 tomorrow"),
    ],
)
def test_an_opposite_is_never_served(query: str, target: str) -> None:
    assert served(query, {query: BAD, target: GOOD}) is None


@pytest.mark.parametrize(
    ("own", "target"),
    [
        (RewriteRow(success=2.0, failure=1.0), GOOD),
        (BAD, RewriteRow(success=1.0, failure=2.0)),
        (BAD, structs.replace(GOOD, target="elsewhere")),
        (structs.replace(BAD, blocked=(RIGHT,)), GOOD),
        (structs.replace(BAD, tried={RIGHT: False}), GOOD),
    ],
    ids=["the query succeeds", "the target fails", "the target is rewritten", "blocked", "withdrawn"],
)
def test_records_and_operators_have_a_veto(own: RewriteRow, target: RewriteRow) -> None:
    assert served(WRONG, {RIGHT: target, WRONG: own}) is None


def test_first_exposures_are_capped_until_there_is_a_record() -> None:
    one = online({RIGHT: GOOD, WRONG: BAD}, first=2)
    assert [bool(one.rewrite(WRONG, BAD)) for _ in range(4)] == [True, True, False, False]
    proven = structs.replace(BAD, tried={RIGHT: True})
    assert all(one.rewrite(WRONG, proven) for _ in range(4))


def test_a_hypothesis_that_succeeds_is_a_candidate_even_if_others_are_nearer() -> None:
    nearer = {f"{WRONG} {place}": BAD for place in range(40)}
    one = online({RIGHT: GOOD, WRONG: BAD, **nearer})
    assert one.rewrite(WRONG, BAD) is None
    found = one.rewrite(WRONG, BAD, None, {WRONG: 1.0, RIGHT: 0.9, "play": 0.8})
    assert found is not None
    assert found.target == RIGHT


def test_an_opposite_is_never_served_online_even_if_it_may_have_been_heard() -> None:
    text, opposite = "turn on the kitchen light please", "turn off the kitchen light please"
    heard = {text: 1.0, opposite: 1.0}
    assert online({text: BAD, opposite: GOOD}).rewrite(text, BAD, None, heard) is None
    assert online({text: BAD}).rewrite(text, BAD, usual({opposite: Habit(9.0, 0.0)}), heard) is None


# It serves what is alike in 75% of the characters.
RANKER = Ranker(
    0.0,
    {name: (0.75,) if name == "characters" else () for name in NAMES},
    {name: (0.0, 1.0) if name == "characters" else (0.0,) for name in NAMES},
    ((0.5, 20.0),),
)
ABBA = "play(artist=abba)"
HABIT: HabitRow = {RIGHT: Habit(6.0, 0.0), "set an alarm": Habit(9.0, 1.0), "what is the weather": Habit(5.0, 0.0)}


def usual(habits: HabitRow) -> Usual:
    return Usual(habits, RANKER)


def habitual(
    query: str, habits: HabitRow, some: Mapping[str, RewriteRow], odds: float = 1.0, form: str = ""
) -> tuple[str, bool] | None:
    found = online(some, odds).rewrite(query, some.get(form or query), usual(habits), form=form)
    return (found.target, found.habit) if found else None


def test_habits_of_the_user_come_first() -> None:
    other = "play the songs of alba"
    assert habitual(WRONG, HABIT, {other: GOOD, WRONG: BAD}) == (RIGHT, True)
    assert habitual(WRONG, HABIT, {}) == (RIGHT, True)
    assert habitual(WRONG, {"set an alarm": Habit(9.0, 1.0)}, {RIGHT: GOOD}) == (RIGHT, False)


def test_a_habit_is_never_rewritten_and_vetoes_hold_for_habits() -> None:
    assert habitual(WRONG, {WRONG: Habit(2.0, 1.0)}, {RIGHT: GOOD}) is None
    assert online({RIGHT: GOOD}).rewrite(WRONG, None, Usual({WRONG: Habit(2.0, 1.0)})) is None
    assert habitual("turn on the light", {"turn off the light": Habit(9.0, 0.0)}, {}) is None
    habit: HabitRow = {RIGHT: Habit(6.0, 0.0)}
    assert habitual(WRONG, habit, {WRONG: BAD}) == (RIGHT, True)
    vetoes = {"blocked": (RIGHT,), "tried": {RIGHT: False}, "success": 4.0}
    for name, veto in vetoes.items():
        assert habitual(WRONG, habit, {WRONG: structs.replace(BAD, **{name: veto})}) is None
    assert habitual(WRONG, habit, {}, odds=0.0) is None
    assert habitual(WRONG, habit, {}, odds=21.0) is None


def test_a_query_with_an_interpretation_is_rewritten_to_that_of_a_habit_and_to_nothing_else() -> None:
    habits: HabitRow = {RIGHT: Habit(6.0, 0.0, ABBA)}
    heard = "play(artist=aba)"
    assert habitual(WRONG, habits, {}, form=heard) == (ABBA, True)
    assert habitual(WRONG, habits, {}, form=ABBA) is None
    assert habitual(WRONG, habits, {ABBA: BAD}, form=heard) is None
    assert habitual(WRONG, habits, {heard: structs.replace(BAD, tried={ABBA: False})}, form=heard) is None
    # Those with an interpretation are compared with each other, and the others with each other.
    assert habitual(WRONG, HABIT, {RIGHT: GOOD}, form=heard) is None
    assert habitual(WRONG, habits, {}) is None


TURNS = st.builds(RewriteRow, success=st.floats(0, 50), failure=st.floats(0, 50))


@given(TURNS, TURNS)
def test_a_query_that_surely_succeeds_more_often_than_the_target_is_left_alone(
    own: RewriteRow, target: RewriteRow
) -> None:
    if served(WRONG, {RIGHT: target, WRONG: own}):
        success = np.array([own.success, target.success])
        lower, upper = wilson(success, success + np.array([own.failure, target.failure]), 1.28)
        assert lower[0] <= upper[1] + 1e-9


@given(TURNS, TURNS)
def test_an_interpretation_that_surely_succeeds_more_often_than_that_of_a_habit_is_left_alone(
    own: RewriteRow, target: RewriteRow
) -> None:
    heard = "play(artist=aba)"
    if habitual(WRONG, {RIGHT: Habit(6.0, 0.0, ABBA)}, {heard: own, ABBA: target}, form=heard):
        success = np.array([own.success, target.success])
        lower, upper = wilson(success, success + np.array([own.failure, target.failure]), 1.28)
        assert lower[0] <= upper[1] + 1e-3


def test_the_odds_rise_with_the_score() -> None:
    odds = [EVERYBODY.odds(score / 4) for score in range(-40, 40)]
    assert odds == sorted(odds)
    assert odds[0] == 0.0
    assert odds[-1] > 12


def test_near_is_what_looks_or_sounds_alike_however_the_index_grew() -> None:
    texts = ["play the songs of abba", "alexa stop", "set an alarm", "call anne", "what is the weather"]
    whole, grown = Nearby().updated(texts, texts), Nearby()
    for text in texts:
        grown = grown.updated([text], texts)
    for query in ("plei the songz of aba", "a lexa stop", "call ann"):
        assert whole.candidates(query, 1) == grown.candidates(query, 1) != []
    assert whole.candidates("a lexa stop", 1) == ["alexa stop"]
    assert whole.count("the") == grown.count("the") == 2
    assert Nearby().candidates("call ann", 3) == whole.candidates("", 3) == []


@given(st.text(max_size=30) | st.text("abc é", max_size=30))
def test_keys_of_one_query_are_those_of_many(text: str) -> None:
    query = " ".join(text.split())
    assert set(_keys_of(query)) == set(_keys([query])[0].tolist())


ONLINE = structs.replace(OPEN, online_odds=12.0)


def records(steps: list[Step], config: RephraseConfig) -> dict[str, tuple[float, float]]:
    return {state: (row.success, row.failure) for state, row in rows(learned(steps), config).items()}


def test_records_are_published_only_for_online_rewrites() -> None:
    steps = [*succeeding("a", 6), *failing("b", "a", 4)]
    assert records(steps, ONLINE).keys() == {"a", "b"}
    assert records(steps, ONLINE)["a"][0] > 5
    assert records(steps, ONLINE)["b"] == pytest.approx((0.0, 4.0))
    assert all(record == (0.0, 0.0) for record in records(steps, OPEN).values())


@pytest.mark.parametrize(("success", "failure", "goes_on"), [(0, 1, False), (1, 0, True), (5, 2, True), (2, 3, False)])
def test_what_does_not_help_is_withdrawn(success: float, failure: float, goes_on: bool) -> None:
    row = rows(tried("a", "b", success, failure), ONLINE)["a"]
    assert row.tried == {"b": goes_on}
