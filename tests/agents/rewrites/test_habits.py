"""Users' habits."""

from typing import Any

import msgspec
import pytest
from msgspec import structs

from backchannel.agents.checks import changes
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habits import Habits
from backchannel.agents.rewrites.rows import Habit, HabitRow
from backchannel.agents.sums import MemorySums
from tests.support.oracle import Outcome
from tests.support.turns import as_columns, outcome

CONFIG = RephraseConfig(online_odds=12.0, habits=2)


def said(user: str | None, text: str, times: int = 1, *, well: bool = True, form: str = "") -> list[Outcome]:
    one = outcome(form or text, None, well, user_id=user, text=text)
    return [structs.replace(one, query=text)] * times


def habits(some: list[Outcome], config: RephraseConfig = CONFIG) -> dict[str, Any]:
    learner = Habits(config)
    delta = learner.learn(as_columns(some))
    section = learner.solve(MemorySums(delta), changes(delta), 0)
    return {user: msgspec.json.decode(row) for user, row in section.items() if row}


def test_users_have_habits_of_their_own() -> None:
    assert habits([*said("ann", "a", 3), *said("bob", "b"), *said(None, "c")]) == {
        "ann": {"a": [3.0, 0.0, ""]},
        "bob": {"b": [1.0, 0.0, ""]},
    }


def test_what_fails_more_often_is_no_habit() -> None:
    some = [*said("ann", "a", 2), *said("ann", "a", well=False), *said("ann", "b"), *said("ann", "b", well=False)]
    assert habits(some) == {"ann": {"a": [2.0, 1.0, ""]}}
    assert habits(said("ann", "a", 3, well=False)) == {}


def test_a_text_has_the_interpretation_with_which_it_succeeds_most_often() -> None:
    some = [*said("ann", "a", 2, form="f"), *said("ann", "a", 3, form="g"), *said("ann", "b", form="f")]
    assert habits(some) == {"ann": {"a": [3.0, 0.0, "g"], "b": [1.0, 0.0, "f"]}}


def test_a_row_of_a_version_without_interpretations_is_read() -> None:
    assert msgspec.json.decode(b'{"a": [2.0, 1.0]}', type=HabitRow) == {"a": Habit(2.0, 1.0)}


def test_a_rewrite_that_was_served_is_no_habit() -> None:
    assert habits([structs.replace(*said("ann", "a"), rewritten="b")]) == {}


def test_the_most_successful_are_published_and_twice_as_many_are_kept() -> None:
    some = [one for number in range(1, 6) for one in said("ann", f"q{number}", number)]
    assert habits(some) == {"ann": {"q5": [5.0, 0.0, ""], "q4": [4.0, 0.0, ""]}}
    learner = Habits(CONFIG)
    delta = learner.learn(as_columns(some))
    assert learner.bound == (learner.table, 4)
    assert learner.excess(MemorySums(delta), ["ann"], 0) == [("ann", "q1", "q1")]


@pytest.mark.parametrize(("odds", "most", "wanted"), [(0.0, 5, False), (12.0, 0, False), (12.0, 5, True)])
def test_they_are_learned_only_for_online_rewrites(odds: float, most: int, wanted: bool) -> None:
    class Config:
        rephrases = RephraseConfig(online_odds=odds, habits=most)

    assert Habits.is_wanted(Config) == wanted
