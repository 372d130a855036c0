"""Users' own rewrites."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.checks import changes
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.sums import MemorySums
from tests.support.oracle import Outcome
from tests.support.turns import as_columns, outcome

CONFIG = RephraseConfig(personal=2, personal_support=2)


def rewrites(some: list[Outcome], config: RephraseConfig = CONFIG) -> dict[str, Any]:
    learner = PersonalRewrites(config)
    delta = learner.learn(as_columns(some))
    section = learner.solve(MemorySums(delta), changes(delta), 0)
    return {user: {state: to for state, (to, _) in orjson.loads(row).items()} for user, row in section.items() if row}


def said_again(user: str, state: str, following: str, count: int = 2) -> list[Outcome]:
    again = outcome(state, following, user_id=user)
    return [*[again] * count, *[outcome(following, None, True, user_id=user)] * count]


def test_what_means_one_thing_to_one_means_another_to_another() -> None:
    some = said_again("ann", "call mum", "call mary") + said_again("bob", "call mum", "call joan")
    assert rewrites(some) == {"ann": {"call mum": "call mary"}, "bob": {"call mum": "call joan"}}


def test_once_is_not_enough() -> None:
    assert rewrites(said_again("ann", "a", "b", 1)) == {}


def test_it_must_have_succeeded_for_the_user() -> None:
    some = [one for one in said_again("ann", "a", "b") if one.rephrased] + said_again("bob", "c", "b")
    assert rewrites(some) == {"bob": {"c": "b"}}


def test_what_succeeds_is_left_alone() -> None:
    assert rewrites([*said_again("ann", "a", "b"), *[outcome("a", None, True, user_id="ann")] * 3]) == {}


def test_users_have_their_most_frequent_ones() -> None:
    some = [one for count, state in ((2, "a"), (4, "b"), (3, "c")) for one in said_again("ann", state, "z", count)]
    assert rewrites(some) == {"ann": {"b": "z", "c": "z"}}
    assert rewrites(some, structs.replace(CONFIG, personal=0)) == {}


def test_the_rows_with_the_smallest_sums_are_dropped() -> None:
    learner = PersonalRewrites(structs.replace(CONFIG, personal=1))
    some = [one for number in range(1, 31) for one in said_again("ann", f"q{number}", "z", number)]
    delta = learner.learn(as_columns(some))
    assert learner.bound == (learner.table, 16)
    assert len(delta[learner.table.name].keys) == 31
    dropped = learner.excess(MemorySums(delta), {"ann"}, 0)
    assert set(dropped) == {("ann", f"q{number}", "z") for number in range(1, 16)}


def test_a_rewrite_that_only_does_harm_is_taken_back() -> None:
    some = [*said_again("ann", "a", "b", 5), *[outcome("a", None, True, user_id="ann")] * 4]
    assert rewrites(some) == {"ann": {"a": "b"}}
    failed = [structs.replace(outcome("a", user_id="ann"), rewritten="b")] * 20
    assert rewrites(some + failed) == {}


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=6), st.booleans())
def test_nobody_in_particular_has_none(following: list[str | None], success: bool) -> None:
    assert PersonalRewrites(CONFIG).learn(as_columns(outcome("a", one, success) for one in following)) == {}
