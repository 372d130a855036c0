"""Satisfaction: explicit answers, predictions, and the waterfall of both."""

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.checks import check, learn, solve
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.satisfaction.evidence import WIDTH, slots_of, vectors
from backchannel.agents.satisfaction.learner import SatisfactionConfig, SatisfactionLearner, weights_of
from backchannel.agents.satisfaction.serving import Satisfaction
from backchannel.agents.satisfaction.sessions import earlier_of, earlier_of_each
from backchannel.agents.sums import MemorySums, merge
from backchannel.schemas.events import Earlier, Feedback, Hypothesis, Recognition
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, barge_in, click, feedback, impression, query

LEARNER = SatisfactionLearner(SatisfactionConfig(min_answers=3))


def good(person: int, *said: Feedback) -> Turn:
    return Turn.of(query(DAY, user_id=f"user {person}"), [impression(outcome="answered"), click("e"), *said])


def bad(person: int, *said: Feedback) -> Turn:
    return Turn.of(query(DAY, user_id=f"user {person}"), [impression(outcome="failed"), barge_in(), *said])


TOLD = [
    *(good(person, feedback(answered=True)) for person in range(40)),
    *(bad(person, feedback(answered=False)) for person in range(40)),
]


def satisfaction(turns: list[Turn], learner: SatisfactionLearner = LEARNER) -> Satisfaction:
    return Satisfaction(solve(learner, learn(learner, turns), DAY))


def test_it_is_a_sum() -> None:
    check(SatisfactionLearner(SatisfactionConfig(min_answers=1)), rounds=2)


def test_signals_say_what_nobody_said() -> None:
    found = satisfaction(TOLD)
    yes, no = found.predict(good(99)), found.predict(bad(99))
    assert yes is not None
    assert no is not None
    assert yes > 0.7
    assert no < 0.3


def test_what_was_said_does_not_change_the_prediction() -> None:
    found = satisfaction(TOLD)
    assert found.predict(bad(99, feedback(answered=True))) == found.predict(bad(99))


def test_the_rate_is_a_waterfall_of_answers_and_predictions() -> None:
    silent = [good(person) for person in range(160)]
    rate = satisfaction([*TOLD, *silent]).rate
    assert rate is not None
    assert rate.turns == 240
    assert rate.explicit == pytest.approx(80 / 240, abs=1e-3)
    assert rate.satisfied.low < 200 / 240 <= rate.satisfied.high + 1e-4
    assert rate.satisfied.value == pytest.approx(200 / 240, abs=0.02)


def test_if_everybody_said_so_the_rate_is_exact() -> None:
    rate = satisfaction(TOLD).rate
    assert rate is not None
    assert (rate.explicit, rate.satisfied.low, rate.satisfied.value, rate.satisfied.high) == (1.0, 0.5, 0.5, 0.5)


def test_with_too_few_answers_nothing_is_known() -> None:
    found = satisfaction([*TOLD[:40], *TOLD[40:42]])
    assert (found.model, found.rate, found.predict(good(1))) == (None, None, None)


def test_asking_more_in_one_segment_does_not_bias_the_model() -> None:
    """Half of the turns are good, fewer in the segment that is asked ten times as often; no signal says which."""
    rng = np.random.default_rng(5)
    turns = []
    for person in range(4000):
        often = person % 2 == 0
        chance = 0.5 if often else 0.05
        if rng.random() < chance:
            said = bool(rng.random() < (0.2 if often else 0.8))
            asked = query(DAY, user_id=f"user {person}")
            turns.append(Turn.of(asked, [feedback(answered=said, asked=True, propensity=chance)]))
    fit = LEARNER.fit(MemorySums(learn(LEARNER, turns)), DAY)
    without = [
        structs.replace(
            turn, signals={"feedback": tuple(structs.replace(one, propensity=None) for one in turn.all(Feedback))}
        )
        for turn in turns
    ]
    biased = LEARNER.fit(MemorySums(learn(LEARNER, without)), DAY)
    assert fit is not None
    assert biased is not None
    share, wrong = (one.model.labels[1] / one.model.labels.sum() for one in (fit, biased))
    assert share == pytest.approx(0.5, abs=0.09)  # the standard deviation is .03
    assert wrong < 0.35
    assert fit.model.labels.sum() < biased.model.labels.sum()  # fewer in effect


@pytest.mark.parametrize("untrue", [0.0, 0.1])
def test_the_rate_is_as_true_as_the_answers(untrue: float) -> None:
    """Who can be asked is satisfied more often than the others, whom the budget spares: that is predicted.

    That some answers are untrue is not known, so the rate is that of what people say.
    """
    rng, turns, truth = np.random.default_rng(7), [], []
    for person in range(3000):
        spared = person % 2 == 0
        satisfied = bool(rng.random() < (0.6 if spared else 0.9))
        truth.append(satisfied)
        said = [feedback(answered=satisfied ^ bool(rng.random() < untrue), asked=True, propensity=0.5)]
        turns.append((good if satisfied else bad)(person, *(said if not spared and rng.random() < 0.5 else [])))
    rate = satisfaction(turns).rate
    assert rate is not None
    share = float(np.mean(truth))
    assert rate.satisfied.value == pytest.approx(share + untrue * (1.0 - 2.0 * share), abs=0.03)


def test_weights_are_inverse_and_bounded() -> None:
    said = [
        feedback(answered=True, asked=True, propensity=0.25),
        feedback(answered=True, asked=True),
        feedback(answered=True, propensity=0.25),
        feedback(answered=True, asked=True, propensity=1e-6),
    ]
    assert weights_of(columns_of([good(1, one) for one in said])).tolist() == [4, 1, 1, 100]


def test_what_happened_before_is_counted() -> None:
    asr = Recognition(hypotheses=(Hypothesis("play jazz", -0.5),))
    turns = [
        Turn.of(query(DAY, asr=asr), [impression(outcome="failed"), barge_in()]),
        Turn.of(
            query(DAY + 5_000, "play jazz"), [impression(outcome="answered", reply="offer(song=jazz)"), click("e")]
        ),
    ]
    found = earlier_of(turns, query(DAY + 9_000, "weather"))
    assert structs.replace(found, rephrased=0.0) == Earlier(
        turns=2,
        seconds=9.0,
        clicks=1,
        barge_ins=1,
        outcomes={"failed": 1, "answered": 1},
        outcome="answered",
        surprise=0.5,
        reply="offer(song=jazz)",
    )
    assert 0.5 < found.rephrased <= 2
    assert earlier_of([], query()) == Earlier(turns=0)
    last = Turn.of(query(DAY + 9_000, "weather"))
    each = [earlier_of([*turns, last][:place], one.query) for place, one in enumerate([*turns, last])]
    assert earlier_of_each([*turns, last]) == each


def test_the_session_so_far_is_evidence() -> None:
    late = query(DAY, earlier=Earlier(turns=9, outcomes={"failed": 4}, outcome="failed"))
    columns = columns_of([Turn.of(query(DAY)), Turn.of(late)])
    slots = slots_of(columns, np.zeros(2))
    alone, informed = (set(row) for row in slots.tolist())
    assert alone != informed
    assert vectors(slots).sum(axis=1).tolist() == [slots.shape[1]] * 2
    assert 0 <= slots.min() <= slots.max() < WIDTH


def test_encodings_are_kept_apart() -> None:
    delta = learn(LEARNER, TOLD)
    rows = merge([delta, delta])[LEARNER.labels.name]
    assert len({encoding for encoding, _ in rows.keys}) == 1
