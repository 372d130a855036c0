"""Values from clicked items: what they tell, and what the log cannot tell."""

import numpy as np
import pytest

from backchannel.agents.ope.estimators import SupportError
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.places import Earnings, Examination
from backchannel.agents.ope.union import Clicked, Lookup, diagnose, faults, items_of, lookups_of
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, judged, query

TURNS = 200
ONE_PLACE = (0.5,)


def looked_up(*results: Result) -> Turn:
    """Return a turn with looked-up results of which `e` is clicked."""
    shown = impression(*results, allocation={"a": 3, "b": 2}, propensities={"a": 1.0, "b": 0.5}, looked_up=0.5)
    return closed_turn(query(), (shown,), (click("e"),))


def told(turn: Turn) -> Lookup:
    (found,) = lookups_of(judged([turn]), [turn], [0])
    return found


def reasons(lookups: list[Lookup], examination: Examination | None = None, slope: float = 0.0) -> list[str]:
    """Return the faults for a policy each of whose turns earns 1."""
    earnings = Earnings(np.ones(TURNS), np.full(TURNS, slope))
    examination = examination or Examination.flat(TURNS)
    return faults(diagnose(earnings.values, lookups), lookups, earnings, examination, 100.0)


def clicks(*places: float, pairs: int = 0, disordered: int = 0) -> list[Lookup]:
    return [Lookup(1.0, (Clicked({"a": 1}, places, 0, 1.0),), 1.0, pairs, disordered)] * TURNS


def test_a_clicked_item_stands_after_the_candidates_of_better_rank() -> None:
    lookup = told(
        looked_up(
            Result("d", 1, ("a",), {"a": 1}, places=ONE_PLACE),
            Result("e", 2, ("a", "b"), {"a": 3, "b": 2}, places=(0.0, 0.0, 0.5, 0.1)),
        )
    )
    (clicked,) = lookup.clicked
    assert (clicked.stood, clicked.worth, lookup.probability) == (2, 1.0, 0.5)  # after a1 and b1
    items = items_of([Lookup(0.0, (), 0.0), lookup])
    assert (items.turns.tolist(), items.worths.tolist(), items.stood.tolist()) == ([1], [2.0], [2])
    assert items.logged[0, :5].tolist() == [0.0, 0.0, 0.5, 0.1, 0.0]


def test_an_item_that_was_clicked_and_cannot_have_been_shown_is_refused() -> None:
    for places in ((), (0.0, 0.0)):
        with pytest.raises(SupportError, match=r"^query q: .* `places`"):
            told(looked_up(Result("e", 1, ("a",), {"a": 3, "b": 2}, places=places)))


def test_what_no_strategy_was_asked_deep_enough_for_is_not_from_the_candidates() -> None:
    lookup = told(looked_up(Result("e", 1, (), {"a": 4}, places=ONE_PLACE)))
    assert (lookup.clicked, lookup.success) == ((), 1.0)
    assert any("100% of the success" in fault for fault in reasons([lookup] * TURNS))


def test_results_in_another_order_than_in_turns_are_counted() -> None:
    shown = [{"a": 2}, {"a": 1, "b": 9}, {"b": 1}, {"a": 3}, {"b": 8}]
    results = [Result(f"{at}", at, (), ranks, places=ONE_PLACE) for at, ranks in enumerate(shown, start=1)]
    lookup = told(looked_up(*reversed(results), Result("recalled", 6)))
    assert (lookup.pairs, lookup.disordered) == (5, 2)  # the second and third belong before the first
    assert reasons(clicks(0.5, pairs=100, disordered=5)) == []
    assert any("6% of the pairs" in fault for fault in reasons(clicks(0.5, pairs=100, disordered=6)))


def test_clicks_that_do_not_fall_by_a_power_cannot_tell() -> None:
    assert reasons(clicks(0.5), Examination(0.5, np.full(TURNS, 0.01), 9.0)) == []
    assert any("a power" in fault for fault in reasons(clicks(0.5), Examination(0.5, np.full(TURNS, 0.01), 9.5)))


def test_where_items_might_hardly_have_stood_elsewhere_places_must_not_matter() -> None:
    assert reasons(clicks(0.5), Examination.flat(TURNS)) == []
    assert reasons(clicks(0.5), Examination(0.5, np.full(TURNS, 0.05)), slope=-0.1) == []
    for unknown in (Examination.flat(TURNS), Examination(0.5, np.full(TURNS, 0.1))):
        assert any("elsewhere" in fault for fault in reasons(clicks(0.5), unknown, slope=-0.1))


def test_a_propensity_next_to_0_is_a_reason_not_to_rely_on_the_log() -> None:
    lookups = clicks(1e-320, 1e-320)
    items = items_of(lookups)
    examination = Examination.of(items, TURNS)
    earnings = Earnings.of(items, np.full(items.logged.shape, 0.01), examination)
    assert np.isnan(interval(earnings.terms(examination)).low)
    found = faults(diagnose(earnings.values, lookups), lookups, earnings, examination, 100.0)
    assert any("effective" in fault for fault in found)
