"""When to ask: the budget is a hard bound, and probabilities are those that are logged."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.satisfaction.asking import AskConfig, Asker, answered, chance, is_teachable
from backchannel.agents.satisfaction.budget import DAY_MS, Budget
from backchannel.agents.satisfaction.serving import Satisfaction
from backchannel.schemas.events import Earlier, Event, Means, Teach
from tests.support.turns import feedback, query

UNKNOWN = Satisfaction({})
IDS: dict[str, Any] = {"event_id": "e", "ts": 0, "session_id": "s", "query_id": "q"}
OFFERS = (Means(source="play jazz", target="jazz radio"), Means(source="play jazz", target="jess glynne"))

# Whether a process ends and another takes its place, when somebody asks, and whom the balancer sends it to.
STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, DAY_MS // 8), st.integers(0, 2), st.sampled_from(["ann", "bob"])),
    max_size=80,
)


@given(STEPS, st.integers(1, 5), st.integers(1, 3))
def test_nobody_is_asked_more_than_the_budget_allows_in_a_day(
    steps: list[tuple[bool, int, int, str]], per_day: int, places: int
) -> None:
    """Whatever is asked of whichever process, and however often processes are replaced."""
    now = 20_000 * DAY_MS
    processes = [Budget(per_day, now, place, places) for place in range(places)]
    asked: dict[tuple[str, int], int] = {}
    for replaced, later, place, user in steps:
        now += later
        at = place % places
        if replaced:
            processes[at] = Budget(per_day, now, at, places)
        if processes[at].spend(user, now):
            day = user, now // DAY_MS
            asked[day] = asked.get(day, 0) + 1
    assert max(asked.values(), default=0) <= per_day


@given(st.lists(st.integers(-DAY_MS, 2 * DAY_MS), max_size=50), st.integers(1, 5))
def test_a_clock_that_goes_back_does_not_widen_the_budget(times: list[int], per_day: int) -> None:
    start = 20_000 * DAY_MS
    budget = Budget(per_day, start)
    days = [(start + time) // DAY_MS for time in times if budget.spend("ann", start + time)]
    assert max((days.count(day) for day in days), default=0) <= per_day


@pytest.mark.parametrize("places", [1, 2, 3])
def test_each_user_has_one_place_in_each_window(places: int) -> None:
    budgets = [Budget(2, 0, place, places) for place in range(places)]
    for user in map(str, range(50)):
        assert sum(budget.spend(user, DAY_MS) for budget in budgets) == 1


def test_a_process_asks_nothing_in_the_window_that_it_began_in() -> None:
    budget = Budget(2, DAY_MS + 1)
    assert not budget.spend("ann", DAY_MS + 2)
    assert budget.spend("ann", DAY_MS + DAY_MS // 2)


@pytest.mark.parametrize("teach", [0.0, 0.5])
def test_the_probability_is_the_one_that_is_logged(teach: float) -> None:
    asker = Asker(AskConfig(probability=0.4, teach=teach), Budget(1, 0))
    rng, found = np.random.default_rng(3), []
    for person in range(4000):
        asked = query(user_id=f"user {person}", earlier=Earlier(turns=1, repeats=1))
        found.append(asker.ask(UNKNOWN, asked, DAY_MS, rng, offers=OFFERS))
    by_kind = {kind: [one for one in found if one and one.kind == kind] for kind in ("satisfaction", "teach")}
    assert len(by_kind["teach"]) / 4000 == pytest.approx(teach, abs=0.03)
    assert len(by_kind["satisfaction"]) / 4000 == pytest.approx((1 - teach) * 0.4, abs=0.03)
    assert {one.propensity for one in by_kind["satisfaction"]} == {(1 - teach) * 0.4}
    assert {one.offers for one in by_kind["teach"]} == ({OFFERS} if teach else set())


def test_a_question_that_is_not_drawn_costs_no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UNKNOWN, "predict", pytest.fail, raising=False)
    asker = Asker(AskConfig(probability=1e-9, teach=1e-9), Budget(1, 0))
    assert asker.ask(UNKNOWN, query(user_id="ann"), DAY_MS, np.random.default_rng(1), offers=OFFERS) is None


def test_by_default_nobody_is_asked() -> None:
    asker = Asker(AskConfig(), Budget(1, 0))
    rng = np.random.default_rng(1)
    assert not any(asker.ask(UNKNOWN, query(user_id=str(one)), DAY_MS, rng, offers=OFFERS) for one in range(100))


def test_who_is_unknown_is_not_asked() -> None:
    asker = Asker(AskConfig(probability=1), Budget(96, 0))
    assert asker.ask(UNKNOWN, query(), DAY_MS, np.random.default_rng(1)) is None


@given(st.none() | st.floats(0, 1), st.floats(0, 1))
def test_a_doubtful_or_failing_turn_is_asked_about_more_often(probability: float | None, most: float) -> None:
    config = AskConfig(probability=most)
    assert 0.1 * most <= chance(config, probability) <= most
    assert chance(config, 0.5) == chance(config, 0.0) == most
    assert chance(config, 0.99) == pytest.approx(0.1 * most)


@pytest.mark.parametrize(
    ("earlier", "probability", "rewritten", "expected"),
    [
        (None, 0.9, False, False),
        (None, None, False, False),
        (None, 0.2, False, True),
        (None, 0.2, True, False),
        (Earlier(turns=1, repeats=1), 0.9, True, True),
        (Earlier(turns=1, answer=0.0), 0.9, True, True),
        (Earlier(turns=1, answer=1.0), 0.9, True, False),
    ],
)
def test_teachable_moments(earlier: Earlier | None, probability: float | None, rewritten: bool, expected: bool) -> None:
    assert is_teachable(query(earlier=earlier), probability, rewritten=rewritten) is expected


def test_with_one_candidate_nobody_is_asked_what_they_mean() -> None:
    asker = Asker(AskConfig(teach=1), Budget(96, 0))
    asked = query(user_id="ann", earlier=Earlier(turns=1, repeats=1))
    assert asker.ask(UNKNOWN, asked, DAY_MS, np.random.default_rng(1), offers=OFFERS[:1]) is None
    question = asker.ask(UNKNOWN, asked, DAY_MS, np.random.default_rng(1), offers=OFFERS * 2)
    assert question is not None
    assert len(question.offers) == 3


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (feedback(answered=True, asked=True), "satisfaction"),
        (feedback(answered=True), None),
        (Teach(rule=OFFERS[0], user_id="ann", asked=True, **IDS), "teach"),
        (Teach(rule=OFFERS[0], user_id="ann", **IDS), None),
        (query(), None),
    ],
)
def test_answers_are_told_from_what_is_volunteered(event: Event, kind: str | None) -> None:
    assert answered(event) == kind


def test_a_replica_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="replica: 2 must be less than replicas, 2"):
        AskConfig(replicas=2, replica=2)
