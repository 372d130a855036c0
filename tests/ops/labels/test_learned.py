"""What is copied back within a goal."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.failures.learner import FailureConfig, FailurePoints
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.sums import MemorySums
from backchannel.ops.labels.facts import Diagnosis, Facts, Judgements, Observer
from backchannel.ops.labels.learned import LONGEST, Goals, Told, learned
from backchannel.ops.labels.precision import Precision
from backchannel.schemas.events import Label, Query, Result, Understanding
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, label, query

_NOTHING = Judgements()


@dataclass
class Said:
    form: str | None = None
    rephrased: float = 0.0
    understood: float = 0.0
    chosen: tuple[str, float] | None = None
    ends: float = 0.0
    diagnosis: Diagnosis | None = None
    judged: Judgements = _NOTHING


def goal(*said: Said) -> list[Facts]:
    found = []
    for number, one in enumerate(said):
        asked = Query(
            event_id=f"e{number}",
            ts=number,
            session_id="s",
            query_id=f"q{number}",
            text=f"t{number}",
            interpretation=one.form,
            nlu=Understanding(slots={"in": one.form}) if one.form else None,
        )
        following = f"q{number + 1}" if number + 1 < len(said) else None
        found.append(
            Facts(
                query=asked,
                following=following,
                rephrased=one.rephrased,
                ends=1.0 if following is None else one.ends,
                understood=one.understood,
                chosen=one.chosen,
                reached=one.understood,
                defect=0.0,
                is_answered=False,
                diagnosis=one.diagnosis,
                judged=one.judged,
            )
        )
    return found


def test_the_interpretation_and_the_entity_of_the_successful_rephrase_are_copied_back() -> None:
    first, second, last = learned(
        goal(Said("a", 0.9), Said("b", 0.8, 0.1), Said("c", understood=0.95, chosen=("e1", 0.95)))
    )
    assert first.interpretation is not None
    told = first.interpretation
    assert (told.value, told.provenance, told.query_id, told.slots) == ("c", "rephrase", "q2", {"in": "c"})
    assert told.confidence == pytest.approx(0.9 * 0.8 * 0.95, abs=1e-4)
    assert first.entity is not None
    assert (first.entity.value, first.entity.provenance, first.entity.query_id) == ("e1", "rephrase", "q2")
    assert second.interpretation is not None
    assert second.interpretation.confidence == pytest.approx(0.8 * 0.95, abs=1e-4)
    assert last.interpretation is not None
    assert (last.interpretation.value, last.interpretation.provenance) == ("c", "success")
    assert last.entity is not None
    assert (last.entity.provenance, last.entity.query_id) == ("click", None)
    assert {one.goal.value for one in (first, second, last) if one.goal} == {"q0"}
    assert first.reached is not None
    assert (first.reached.value, first.reached.confidence) == ("yes", 0.95)


def test_nothing_is_copied_from_a_query_that_asks_for_something_else() -> None:
    first, _ = learned(goal(Said("a"), Said("b", understood=1.0, chosen=("e1", 1.0))))
    assert first.interpretation is first.entity is None


def test_people_come_first_unless_they_are_to_be_compared() -> None:
    judged = Judgements({"recognition": 0.75, "correct": 0.25}, {"z": 1.0})
    diagnosis = Diagnosis({"correct": 0.9, "recognition": 0.1}, "rule")
    turns = goal(Said("a", understood=1.0, diagnosis=diagnosis, judged=judged))
    [by_people], [by_models] = learned(turns), learned(turns, judged=False)
    found = [
        (told.value, told.confidence, told.provenance)
        for one in (by_people, by_models)
        for told in (one.interpretation, one.failure_point)
        if told is not None
    ]
    assert found == [
        ("z", 1.0, "label"),
        ("recognition", 0.75, "label"),
        ("a", 1.0, "success"),
        ("correct", 0.9, "rule"),
    ]


def test_whether_a_goal_was_reached_is_told_by_people_too() -> None:
    turns = goal(Said("a", judged=Judgements(goals={"missed": 0.75, "reached": 0.25})))
    [by_people], [by_signals] = learned(turns), learned(turns, judged=False)
    assert by_people.reached == Told("no", 0.75, "label")
    assert by_signals.reached is None or by_signals.reached.provenance == "signals"


def test_where_people_say_that_a_goal_continues_it_does() -> None:
    observer = Observer(MemorySums({}), 0, FailurePoints(FailureConfig()), RewardConfig())
    turn = Turn.of(query(0, "play jazz"), [label(goal="continues")], query(4000, "what is the weather"))
    [told], [compared] = (observer.facts([turn], held_out=held_out) for held_out in (False, True))
    assert (told.ends, told.judged.goals) == (0.0, {"continues": 1.0})
    assert compared.ends > 0.5


def test_signals_are_compared_with_what_people_say_of_goals() -> None:
    precision = Precision(0.5)
    precision.check(goal(Said("a", understood=1.0, judged=Judgements(goals={"missed": 1.0}))))
    assert [(field, found.labels) for field, _, found in precision.cuts()] == [("reached", 0)]


@given(st.lists(st.tuples(st.sampled_from("st"), st.sampled_from([0.2, 0.9]), st.booleans()), max_size=200))
def test_each_turn_is_in_one_goal_of_its_session_in_order(turns: list[tuple[str, float, bool]]) -> None:
    some = goal(Said())[0]
    goals, ended = Goals(), []
    expected: dict[str, list[str]] = {"s": [], "t": []}
    for number, (session, ends, breaks) in enumerate(turns):
        name = f"{session}{len(expected[session])}"
        expected[session].append(name)
        asked = closed_turn(query(number, session_id=session)).query
        asked = Query(event_id=name, ts=number, session_id=session, query_id=name, text=asked.text)
        following = "late" if breaks else f"{session}{len(expected[session])}"
        ended += goals.add(Facts(asked, following, 0, ends, 0, None, 0, 0, some.is_answered, None, Judgements()))
    ended += goals.finish()
    assert all(len({one.query.session_id for one in own}) == 1 and len(own) <= LONGEST for own in ended)
    for session, names in expected.items():
        own = [one.query.query_id for some in ended for one in some if one.query.session_id == session]
        assert own == names
    assert goals.finish() == []


def test_success_is_a_click_or_a_model_from_labels_but_not_a_rule() -> None:
    observer = Observer(MemorySums({}), 0, FailurePoints(FailureConfig()), RewardConfig())
    [facts] = observer.facts([closed_turn(query(interpretation="a"), [impression(outcome="answered")])], held_out=True)
    assert facts.diagnosis is not None
    assert (facts.diagnosis.provenance, facts.understood) == ("rule", 0.0)


def test_only_what_was_clicked_was_chosen() -> None:
    observer = Observer(MemorySums({}), 0, FailurePoints(FailureConfig()), RewardConfig(unclicked_gain=1.0))
    spoken, on = impression(Result("a", 1)), query(8000, "weather tomorrow")
    turns = [closed_turn(query(), [spoken], clicks, next=on) for clicks in ([], [click("a")])]
    assert [one.chosen for one in observer.facts(turns, held_out=False)] == [None, ("a", 1.0)]


def test_a_rephrase_is_found_by_its_text_though_its_interpretation_is_another() -> None:
    observer = Observer(MemorySums({}), 0, FailurePoints(FailureConfig()), RewardConfig())
    same = closed_turn(
        query(0, "play jazz", interpretation="a(x=y)"), next=query(4000, "play jazz", interpretation="b")
    )
    [facts] = observer.facts([same], held_out=False)
    assert facts.rephrased > 0.5


def test_the_latest_label_of_each_labeller_counts() -> None:
    def said(who: str, at: int, meant: str | None) -> Label:
        return Label(
            event_id=f"{who}{at}",
            ts=0,
            session_id="s",
            query_id="q",
            labeller=who,
            labelled_at=at,
            failure_point="recognition",
            interpretation=meant,
        )

    turn = Turn.of(query(), [said("ann", 2, "b"), said("ann", 1, "a"), said("bob", 1, None), said("eve", 1, "c")])
    observer = Observer(MemorySums({}), 0, FailurePoints(FailureConfig()), RewardConfig())
    [facts] = observer.facts([turn], held_out=False)
    assert facts.judged == Judgements({"recognition": 1.0}, {"b": 0.5, "c": 0.5})
