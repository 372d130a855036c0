"""Failure points: labels, weights, shares."""

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.checks import check, learn, solve
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.evidence import evidence
from backchannel.agents.failures.learner import FailureConfig, FailurePoints
from backchannel.agents.failures.serving import Diagnoser
from backchannel.agents.labelled.learner import fold_of
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import Earlier, FailurePoint, Hypothesis, Label, Recognition, Understanding
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, impression, query

LEARNER = FailurePoints(FailureConfig(min_labels=3))


def label(point: FailurePoint = "correct", labeller: str = "eve", at: int = 0) -> Label:
    return Label(
        event_id=f"{labeller}{at}{point}",
        ts=0,
        session_id="s",
        query_id="q",
        labeller=labeller,
        labelled_at=at,
        failure_point=point,
    )


def misheard(person: int, *labels: Label) -> Turn:
    """A turn of which the recogniser was unsure, and after which the system asked again."""
    asr = Recognition(hypotheses=(Hypothesis("play jess", -3.0), Hypothesis("play chess", -3.1)))
    asked = query(DAY, "play jess", user_id=f"user {person}", asr=asr, interpretation="play(what=jess)")
    return Turn.of(asked, [impression(outcome="asked"), *labels], query(DAY + 4000, "play jazz"))


def fine(person: int, *labels: Label) -> Turn:
    asr = Recognition(hypotheses=(Hypothesis("play jazz", -0.1), Hypothesis("play", -4.0)))
    asked = query(DAY, user_id=f"user {person}", asr=asr, interpretation="play(what=jazz)")
    return Turn.of(asked, [impression(outcome="answered"), *labels])


LABELLED = [
    *(misheard(person, label("recognition")) for person in range(20)),
    *(fine(person, label("correct")) for person in range(20)),
]


def diagnoser(delta: Delta, learner: FailurePoints = LEARNER) -> Diagnoser:
    return Diagnoser(solve(learner, delta, DAY))


def test_it_is_a_sum() -> None:
    check(FailurePoints(FailureConfig(min_labels=1)), rounds=1)


def test_a_turn_that_says_nothing_of_how_it_went_adds_nothing() -> None:
    assert learn(LEARNER, [Turn.of(query(), [impression()])]) == {}


def test_it_diagnoses_turns_with_reasons() -> None:
    found = diagnoser(learn(LEARNER, LABELLED))
    wrong, right = found.diagnose(misheard(99)), found.diagnose(fine(99))
    assert wrong is not None
    assert right is not None
    assert (wrong.failure_point, right.failure_point) == ("recognition", "correct")
    assert wrong.probabilities["recognition"] > 0.9
    assert wrong.reasons
    assert wrong.reasons.keys() <= evidence(columns_of([misheard(99)]))[0].keys()
    assert list(wrong.reasons.values()) == sorted(wrong.reasons.values(), reverse=True)


def test_a_failure_point_without_enough_labels_is_unknown_not_zero() -> None:
    some = [*LABELLED, misheard(1, label("result")), misheard(2, label("result"))]
    found = diagnoser(learn(LEARNER, some))
    diagnosis = found.diagnose(misheard(99))
    assert diagnosis is not None
    assert diagnosis.probabilities.keys() == found.shares()["all"][""].shares.keys() == {"correct", "recognition"}


def test_without_labels_rules_tell_what_they_can_and_say_that_it_is_weak() -> None:
    found = diagnoser(learn(LEARNER, [misheard(1), fine(2)]))
    assert found.known is None
    wrong, right = found.diagnose(misheard(99)), found.diagnose(fine(99))
    assert wrong is not None
    assert right is not None
    assert (wrong.failure_point, right.failure_point) == ("recognition", "correct")
    assert wrong.weak
    assert list(wrong.reasons.values()) == [wrong.probabilities["recognition"]]
    shares = found.shares()["all"][""].shares
    assert shares.keys() == {"correct", "false_wake", "recognition", "understanding", "result"}
    assert shares["recognition"].value == pytest.approx((wrong.probabilities["recognition"] + 0.05) / 2, abs=1e-4)
    assert {one.recovers for one in found.repairs()} == {1.0}
    assert found.diagnose(Turn.of(query(), [impression()])) is None
    labelled = diagnoser(learn(LEARNER, LABELLED)).diagnose(misheard(99))
    assert labelled is not None
    assert not labelled.weak


def test_where_there_is_no_nlu_it_did_not_fail() -> None:
    text = fine(1)
    text = Turn.of(structs.replace(text.query, interpretation=None, asr=None), text.impressions)
    found = diagnoser(learn(LEARNER, [text])).diagnose(text)
    assert found is not None
    assert found.failure_point == "correct"


def test_later_labels_say_what_earlier_turns_were() -> None:
    before = learn(LEARNER, [*(misheard(person) for person in range(60)), *(fine(person) for person in range(140))])
    found = diagnoser(merge([before, learn(LEARNER, LABELLED)])).shares()
    by_intent = found["intent"]["play"]
    assert by_intent.turns == found["all"][""].turns == 240
    share = by_intent.shares["recognition"]
    assert share.low <= 80 / 240 <= share.high
    assert share.value == pytest.approx(80 / 240, abs=0.05)
    assert found["day"].keys() == {"1970-01-02"}


def test_a_fold_of_people_can_be_left_out() -> None:
    delta = learn(LEARNER, LABELLED)
    folds = [fold_of(turn.query.user_id or "") for turn in LABELLED]
    others = [turn for turn, fold in zip(LABELLED, folds, strict=True) if fold != folds[0]]
    without = LEARNER.fit(MemorySums(delta), DAY, folds[0])
    assert without is not None
    wanted = LEARNER.fit(MemorySums(learn(LEARNER, others)), DAY)
    assert wanted is not None
    assert without[0] == wanted[0]
    known = diagnoser(delta).known
    assert known is not None
    assert without[0] != known[0]


def test_fewer_labels_make_wider_intervals() -> None:
    few = diagnoser(learn(LEARNER, [*LABELLED[:4], *LABELLED[20:24]])).shares()["all"][""].shares["recognition"]
    many = diagnoser(learn(LEARNER, LABELLED)).shares()["all"][""].shares["recognition"]
    assert few.high - few.low > many.high - many.low


def test_what_a_repair_saves() -> None:
    noisy = [misheard(person, label("recognition")) for person in range(20)]
    best = diagnoser(learn(LEARNER, [*noisy, *LABELLED[20:]])).repairs()[0]
    assert best.failure_point == "recognition"
    assert best.recovers > 0  # they said it again
    assert best.saved.value == pytest.approx(best.turns * best.share.value * best.recovers)


def test_what_nobody_can_do_is_told_and_counted_but_is_nothing_to_repair() -> None:
    impossible = [misheard(person, label("unsupported")) for person in range(20)]
    found = diagnoser(learn(LEARNER, [*impossible, *LABELLED[20:]]))
    diagnosis = found.diagnose(misheard(99))
    assert diagnosis is not None
    assert diagnosis.failure_point == "unsupported"
    assert found.shares()["all"][""].shares["unsupported"].value > 0.3
    assert found.repairs() == []


def test_excess_rows_are_those_with_the_fewest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backchannel.agents.labelled.kinds.ROOM", 3)
    turns = [*(fine(person) for person in range(3)), Turn.of(query(2 * DAY, nlu=Understanding(score=0.5)))]
    delta = learn(LEARNER, turns)
    sums = delta[LEARNER.turns.name]
    kept = set(sums.keys) - set(LEARNER.excess(MemorySums(delta), {sums.keys[0][0]}, 2 * DAY))
    assert {key[1:] for key in kept} == {("all", ""), ("day", "1970-01-02"), ("intent", "play")}


def test_absent_fields_are_unknown() -> None:
    found = evidence(columns_of([Turn.of(query())]))[0]
    assert "certainty of the NLU: unknown" in found
    assert "outcome: unknown" in found
    assert "values that the reply takes up: unknown" in found
    assert np.unique(list(found.values())).min() == 0


def test_the_last_reply_and_the_one_before_the_query_are_evidence() -> None:
    asked = query(interpretation="request(slot=phone)", earlier=Earlier(turns=1, reply="offer(name=x)"))
    shown = impression(reply="wait()"), impression(reply="offer(name=x)"), impression()
    [found] = evidence(columns_of([Turn.of(asked, shown)]))
    assert {
        "act, after: request, offer",
        "act, with reply: request, offer",
        "share of the reply that was said before: at least 1",
        "values that the reply takes up: below 0.01",
    } <= found.keys()


def test_a_reply_alone_says_how_a_turn_went() -> None:
    assert learn(LEARNER, [Turn.of(query(), [impression(reply="canthelp()")])])
