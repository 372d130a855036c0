"""Goals: where they end, and how they went."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.checks import learn, solve, unlike
from backchannel.agents.goals.learner import SUMS, GoalConfig, Goals, ends_of
from backchannel.agents.goals.serving import GoalRates
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import ALL, GRID, merge
from backchannel.schemas.events import Event, Label, Query, Result
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig
from tests.support.turns import DAY, barge_in, click, closed_turn, feedback, impression, judged, label, query, turns

GOALS = Goals(GoalConfig(min_labels=3), 60, ("lexical",))
SHOWN = impression(Result("e1", 1, ("lexical",)), allocation={"lexical": 3})


def sums(outcomes: Outcomes, learner: Goals = GOALS) -> dict[tuple[str, int], dict[str, float]]:
    found = learner.learn(outcomes)[Goals.name]
    rows = (dict(zip(SUMS, row, strict=True)) for row in found.values.tolist())
    return dict(zip(found.keys, rows, strict=True))


def test_who_says_it_twice_and_gets_it_has_one_goal_that_was_reached() -> None:
    outcomes = judged(
        [
            closed_turn(query(0, "play jess"), (SHOWN,), next=query(4000, "play jazz")),
            closed_turn(query(4000, "play jazz"), (SHOWN,), (click("e1"),)),
        ]
    )
    outcomes = structs.replace(outcomes, rephrased=np.array([1.0, 0.0]))
    one = {"goals": 1.0, "reached": 1.0, "defects": 0.0}
    assert outcomes.defects.tolist() == [1.0, 0.0]
    assert sums(outcomes) == {(ALL, 0): one, ("lexical", 0): one}


@pytest.mark.parametrize(
    ("turn", "reached", "defects"),
    [
        (closed_turn(query()), 0, 0),
        (closed_turn(query(), (SHOWN,), (click("e1"),)), 1, 0),
        (closed_turn(query(), (SHOWN,), (), (barge_in(),)), 0, 1),
        (closed_turn(query(), (impression(outcome="nothing"),)), 0, 1),
        (closed_turn(query(), (impression(outcome="failed"), impression(outcome="answered"))), 0, 0),
        (Turn.of(query(), [SHOWN, click("e1"), feedback(answered=False)]), 0, 1),
        (Turn.of(query(), [barge_in(), feedback(rating=0.75)]), 0.75, 0.25),
    ],
)
def test_how_the_last_turn_went_is_how_the_goal_went(turn: Turn, reached: float, defects: float) -> None:
    assert sums(judged([turn]))[ALL, 0] == {"goals": 1, "reached": reached, "defects": defects}


def test_what_people_say_counts_as_much_as_it_is_configured_to() -> None:
    outcomes = judged([Turn.of(query(), [barge_in(), feedback(thumbs_up=True)])])
    assert sums(outcomes, Goals(GoalConfig(), 60, (), feedback_weight=0.25))[ALL, 0]["defects"] == 0.75


def test_a_goal_counts_when_its_last_turn_was_asked() -> None:
    outcomes = judged([closed_turn(query(59_999)), closed_turn(query(60_000)), closed_turn(query(60_001))])
    assert {key: row["goals"] for key, row in sums(outcomes).items()} == {(ALL, 0): 1, (ALL, 60_000): 2}


@given(st.lists(turns(st.integers(0, 10**9)), min_size=1, max_size=8))
@settings(max_examples=25)
def test_the_end_of_a_goal_is_a_probability_that_a_rephrase_takes_away(some: list[Turn]) -> None:
    outcomes = judged(some)
    ends = ends_of(outcomes)
    assert ((ends >= 0) & (ends <= 1)).all()
    assert (ends * GRID == np.rint(ends * GRID)).all()
    for end, rephrased, turn in zip(ends, outcomes.rephrased, some, strict=True):
        assert end == 1.0 if turn.next is None else end <= 1.0 - rephrased
    every, together = merge(learn(GOALS, [turn]) for turn in reversed(some)), learn(GOALS, some)
    assert not unlike({Goals.name: every[Goals.name]}, {Goals.name: together[Goals.name]}, exact=True)


def asked(name: str, ts: int, text: str) -> Query:
    return structs.replace(query(ts, text), query_id=name, event_id=name)


FIRST, SECOND, LAST = (
    asked("q1", 0, "find an italian restaurant"),
    asked("q2", 5000, "how about mexican"),
    asked("q3", 10**6, "what is the weather tomorrow"),
)


@pytest.mark.parametrize(("log", "turns", "goals"), [((FIRST, SECOND, LAST), 3, 2), ((FIRST, LAST, SECOND), 2, 2)])
def test_a_query_that_is_too_late_to_be_a_turn_is_in_no_goal(log: tuple[Event, ...], turns: int, goals: float) -> None:
    assembler = TurnAssembler(["log"], TurnConfig(window_s=60, lateness_s=10))
    closed: list[Turn] = []
    for offset, event in enumerate(log):
        assembler.add("log", [offset], [event])
        closed += assembler.advance(())
    closed += assembler.finish()
    assert len(closed) == turns
    assert round(sum(row["goals"] for row in sums(judged(closed)).values())) == goals


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ((), {"goals": 1, "reached": 0, "defects": 1}),  # it was interrupted
        ((label(goal="reached"),), {"goals": 1, "reached": 1, "defects": 0}),
        ((label(goal="continues"),), {"goals": 0, "reached": 0, "defects": 0}),
        ((label(goal="reached"), label("joe", goal="missed")), {"goals": 1, "reached": 0.5, "defects": 0.5}),
        ((label(failure_point="correct"),), {"goals": 1, "reached": 0, "defects": 1}),
    ],
)
def test_what_people_label_takes_the_place_of_what_signals_say(
    labels: tuple[Label, ...], wanted: dict[str, float]
) -> None:
    assert sums(judged([Turn.of(query(), [barge_in(), *labels])]))[ALL, 0] == wanted


def some(person: int, outcome: str, *labels: Label, end: bool = True) -> Turn:
    """A turn of which signals do not say whether its goal was reached: nobody clicks."""
    asked = query(DAY, "find a restaurant", user_id=f"user {person}", context={"device": outcome})
    shown = structs.replace(SHOWN, outcome=outcome)
    return Turn.of(asked, [shown, *labels], None if end else query(DAY + 4000, "find a restaurant in town"))


LABELLED = [
    turn
    for person in range(40)
    for turn in (
        some(person, "answered", label(goal="reached")),
        some(person, "asked", label(goal="missed")),
        some(person, "asked", label(goal="continues"), end=False),
    )
]


def test_labels_of_a_few_tell_how_the_goals_of_others_went() -> None:
    others = [*(some(person, "answered") for person in range(300)), *(some(person, "asked") for person in range(100))]
    assert sums(judged(others))[ALL, DAY]["reached"] == 0
    before = learn(GOALS, others)
    assert GoalRates(solve(GOALS, before, DAY)).rate is None
    found = GoalRates(solve(GOALS, merge([before, learn(GOALS, LABELLED)]), DAY))
    rate, by_device = found.rate, found.rates()["device"]
    assert rate is not None
    assert rate.turns == 520
    assert rate.goals.low < 480 / 520 < rate.goals.high
    assert rate.reached.low < 340 / 480 < rate.reached.high
    assert by_device["asked"].reached.high < 0.3 < 0.7 < by_device["answered"].reached.low


def test_fewer_labels_make_wider_intervals_and_too_few_none() -> None:
    few, many = (GoalRates(solve(GOALS, learn(GOALS, turns), DAY)).rate for turns in (LABELLED[:24], LABELLED))
    assert few is not None
    assert many is not None
    assert few.reached.high - few.reached.low > many.reached.high - many.reached.low
    one_sided = [turn for turn in LABELLED if "missed" not in repr(turn)]
    assert GoalRates(solve(GOALS, learn(GOALS, one_sided), DAY)).rate is None
