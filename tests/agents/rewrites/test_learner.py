"""What is learned of rephrases, which rewrites are published, and what keeps others back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.checks import changes
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import RephraseGraph, state_of
from backchannel.agents.rewrites.records import harm
from backchannel.agents.rewrites.rows import RewriteRow, is_held_out
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import ALL, Delta, MemorySums, Sums, merge
from tests.support.turns import DAY, as_columns, outcome, query

Step: TypeAlias = tuple[str, str | None, bool]
"""A turn: its state, the state that it was rephrased to, and, if it was not, whether it succeeded."""

OPEN = RephraseConfig(min_support=1.0, min_users=0, margin=1e-6, max_source_success=1.0, held_out=0.0)
"""Publishes whatever has any support and surely succeeds more often at all."""
STATES = "abcde"
STEPS = st.lists(
    st.tuples(st.sampled_from(STATES), st.none() | st.sampled_from(STATES), st.booleans()), min_size=4, max_size=60
)


def learned(steps: Iterable[Step], ts: int = 0) -> Delta:
    """Every turn is another person's."""
    return RephraseGraph(OPEN).learn(
        as_columns(outcome(*step, ts=ts, user_id=f"user-{number}") for number, step in enumerate(steps))
    )


def live(section: Mapping[str, bytes | None]) -> dict[str, bytes]:
    return live_rows(section)


def rows(delta: Delta, config: RephraseConfig = OPEN, at: int = 0) -> dict[str, RewriteRow]:
    section = RephraseGraph(config).solve(MemorySums(delta), changes(delta), at)
    return {state: msgspec.json.decode(row, type=RewriteRow) for state, row in section.items() if row and state != ALL}


def rewrites(delta: Delta, config: RephraseConfig = OPEN, at: int = 0) -> dict[str, str]:
    """The rewrites that are served: state -> target."""
    return {state: row.target for state, row in rows(delta, config, at).items() if row.target and not row.withdrawn}


def failing(state: str, following: str, count: int = 6) -> list[Step]:
    return [(state, following, False)] * count


def succeeding(state: str, count: int = 6) -> list[Step]:
    return [(state, None, True)] * count


def decreed(state: str, target: str, *, pinned: float = 0.0, blocked: float = 0.0) -> Delta:
    table = RephraseGraph(OPEN).rules
    return {table.name: Sums(table, [(state, target)], np.array([[pinned, blocked]]))}


def tried(state: str, target: str, success: float, failure: float) -> Delta:
    table = RephraseGraph(OPEN).trials
    """Return turns of many people, evenly spread over the buckets of people."""
    return {table.name: Sums(table, [(state, target)], np.repeat([[success / 8, failure / 8]], 8, axis=1))}


@given(st.lists(STEPS, max_size=4), st.integers(1, 3), st.integers(2, 6))
@settings(max_examples=100)
def test_solving_what_changed_is_enough(batches: list[list[Step]], depth: int, max_states: int) -> None:
    learner = RephraseGraph(structs.replace(OPEN, depth=depth, max_states=max_states))
    total: Delta = {}
    section = learner.solve(MemorySums(total), {}, 0)
    for batch in batches:
        delta = learned(batch)
        total = merge([total, delta])
        section |= learner.solve(MemorySums(total), changes(delta), 0)
    assert live(section) == live(learner.solve(MemorySums(total), changes(total), 0))


def test_what_lies_behind_a_changed_state_counts() -> None:
    learner = RephraseGraph(structs.replace(OPEN, min_support=5))
    before = learned([*failing("a", "b"), *failing("b", "c too", 3), *succeeding("c too")])
    delta = learned(failing("b", "c too", 1))  # too few for a rewrite of b itself
    total = merge([before, delta])
    section = learner.solve(MemorySums(total), changes(delta), 0)
    assert msgspec.json.decode(section["a"] or b"", type=RewriteRow).target == "c too"


@given(STEPS, st.integers(1, 8))
def test_every_turn_adds_a_mass_of_one(steps: list[Step], share: int) -> None:
    outcomes = [structs.replace(outcome(*step), rephrased=share / 8) for step in steps]
    delta = RephraseGraph(OPEN).learn(as_columns(outcomes))
    mass = dict.fromkeys(STATES, 0.0)
    for sums in delta.values():
        for key, row in zip(sums.keys, sums.at(0), strict=True):
            assert (row >= 0).all()
            mass[key[0]] += row.sum()
    assert mass == {state: sum(step[0] == state for step in steps) for state in STATES}


@given(STEPS, st.integers(1, 3), st.floats(0.01, 0.5), st.sampled_from([0.0, 1.5, 3.0]))
@settings(max_examples=150)
def test_what_is_published_keeps_to_the_rules(steps: list[Step], depth: int, margin: float, min_users: float) -> None:
    config = structs.replace(OPEN, depth=depth, margin=margin, min_users=min_users, max_source_success=0.6)
    published = rewrites(learned(steps), config)
    for source, target in published.items():
        assert target not in published  # no chains, no loops
        assert count(steps, source, True) < count(steps, source, False)
        assert count(steps, target, True) > count(steps, target, False)
        assert success_rate(steps, target) >= success_rate(steps, source) + margin
        assert success_rate(steps, source) <= 0.6


def count(steps: Sequence[Step], state: str, success: bool) -> int:
    """How often a state succeeded, or was rephrased."""
    return sum(
        one == state and (done if success else to is not None) for one, to, done in steps if success is (to is None)
    )


def success_rate(steps: Sequence[Step], state: str) -> float:
    return count(steps, state, True) / sum(one == state for one, _, _ in steps)


def test_a_chain_of_rephrases_leads_to_what_succeeds() -> None:
    found = rows(learned([*failing("a", "b"), *failing("b", "c"), *succeeding("c")]))
    # Everybody who starts with a or b ends in c, where 6 of 6 + 1 turns succeed.
    assert {state: row.target for state, row in found.items()} == {"a": "c", "b": "c"}
    assert found["a"].probability == pytest.approx(6 / 7)
    assert found["a"].support == 6


def test_what_succeeds_is_no_source_however_much_better_the_target_is() -> None:
    steps = [*failing("a", "b", 40), *succeeding("b", 120), *failing("b", "c", 40), *succeeding("c", 1000)]
    # b fails often enough, but succeeds more often: a is rewritten to b, b to nothing.
    assert rewrites(learned(steps)) == {"a": "b"}


def test_success_that_a_rephrase_took_back_is_none() -> None:
    assert rewrites(learned([*failing("a", "b"), *succeeding("b", 3), *failing("b", "b", 6)])) == {}


def test_the_target_must_surely_do_better() -> None:
    # 3 of 3 is more than .64, 0 of 3 less than .36, each by 90%.
    delta = learned([*failing("a", "b", 3), *succeeding("b", 3)])
    assert rewrites(delta, structs.replace(OPEN, margin=0.28)) == {"a": "b"}
    assert rewrites(delta, structs.replace(OPEN, margin=0.31)) == {}
    assert rewrites(delta, structs.replace(OPEN, max_source_success=0.34)) == {}
    assert rewrites(delta, structs.replace(OPEN, max_source_success=0.37)) == {"a": "b"}
    assert rewrites(delta, structs.replace(OPEN, min_support=3.1)) == {}


def test_one_person_does_not_suffice() -> None:
    config = structs.replace(OPEN, min_users=1.5)
    steps = [*failing("a", "b", 12), *succeeding("b")]
    assert rewrites(learned(steps), config) == {"a": "b"}
    lonely = [outcome(*step, user_id="ann") for step in steps]
    assert rewrites(RephraseGraph(config).learn(as_columns(lonely)), config) == {}
    strangers = [outcome(*step, session_id=f"s{number}") for number, step in enumerate(steps)]
    assert rewrites(RephraseGraph(config).learn(as_columns(strangers)), config) == {"a": "b"}


def test_nothing_is_rewritten_to_what_few_mean() -> None:
    source = [*failing("a", "b too", 300), *succeeding("a", 200), *[("a", None, False)] * 100]
    for successes, found in ((500, {}), (900, {"a": "b too"})):
        target = [*succeeding("b too", successes), *[("b too", None, False)] * (1000 - successes)]
        # Half of them pass through b; a third succeeded where they were.
        assert rewrites(learned([*source, *target])) == found


def test_a_rewritten_turn_feeds_its_record_only() -> None:
    graph = RephraseGraph(structs.replace(OPEN, held_out=1.0))
    served = [
        structs.replace(outcome("a", "b"), rewritten="c"),
        structs.replace(outcome("a", None, True), rewritten="c"),
    ]
    (record,) = graph.learn(as_columns(served)).values()
    assert (record.table, list(record.keys)) == (graph.trials, [("a", "c")])
    assert record.values.reshape(2, -1).sum(axis=1).tolist() == [1.0, 1.0]
    assert graph.learn(as_columns([structs.replace(outcome("a"), rewritten="")])) == {}


def test_who_is_held_out_feeds_the_chain_and_the_comparison() -> None:
    some = [outcome("a", None, True, session_id=f"s{number}") for number in range(400)]
    delta = RephraseGraph(structs.replace(OPEN, held_out=0.25)).learn(as_columns(some))
    (row,) = delta["absorptions"].values.reshape(2, -1).sum(axis=1, keepdims=True).T.tolist()
    assert row == [400, 0]
    held_out = sum(is_held_out(f"s{number}", 0.25) for number in range(400))
    assert 70 < held_out < 130
    assert delta["rewrite_trials"].values.reshape(2, -1).sum(axis=1).tolist() == [held_out, 0]
    assert list(delta["rewrite_trials"].keys) == [("a", "")]


def test_a_rewrite_that_does_harm_is_withdrawn() -> None:
    delta = learned([*failing("a", "b"), *succeeding("b")])
    harmless = merge([delta, tried("a", "b", 30, 10), tried("a", "", 0, 10)])
    assert rewrites(harmless) == {"a": "b"}
    harmful = merge([delta, tried("a", "b", 2, 38), tried("a", "", 5, 5)])
    assert rewrites(harmful) == {}
    row = rows(harmful)["a"]
    assert row.target == "b"
    assert row.withdrawn == "5% of 40.0 turns succeeded with it, 50% of 10.0 held out without it"
    other = merge([delta, tried("a", "c", 0, 40), tried("a", "", 5, 5)])  # the record of another rewrite
    assert rewrites(other) == {"a": "b"}


@given(*[st.floats(0, 1e5)] * 4)
def test_harm_is_a_lower_rate_of_success(success: float, failure: float, without: float, otherwise: float) -> None:
    if harm((success, failure), (without, otherwise)):
        assert success / (success + failure) < without / (without + otherwise)
        assert not harm((without, otherwise), (success, failure))
    assert not harm(None, (1, 0))
    assert not harm((0, 100), None)


def test_what_is_blocked_is_not_served() -> None:
    delta = learned([*failing("a", "b", 18), *failing("a", "c too", 6), *succeeding("b"), *succeeding("c too")])
    assert rewrites(delta) == {"a": "b"}
    blocked = merge([delta, decreed("a", "b", blocked=1)])
    assert rewrites(blocked) == {"a": "c too"}
    assert rows(blocked)["a"].blocked == ("b",)
    assert rewrites(merge([blocked, decreed("a", "b", blocked=-1)])) == {"a": "b"}
    every = merge([delta, decreed("a", "", blocked=1)])
    assert rewrites(every) == {}
    assert rows(every)["a"].blocked == ("",)


def test_what_is_pinned_is_served() -> None:
    delta = learned([*failing("a", "b"), *succeeding("b")])
    pinned = merge([delta, decreed("a", "z", pinned=1)])
    assert rewrites(pinned) == {"a": "z"}
    assert rows(pinned)["a"].pinned
    assert rewrites(merge([pinned, decreed("a", "z", blocked=1)])) == {"a": "b"}
    assert rewrites(merge([pinned, decreed("a", "", blocked=1)])) == {}
    # Nothing is rewritten to what is itself rewritten by decree, nor is the aim of a decree rewritten.
    assert rewrites(merge([delta, decreed("b", "z", pinned=1)])) == {"b": "z"}
    assert rewrites(merge([delta, decreed("y", "a", pinned=1)])) == {"y": "a"}


@given(st.dictionaries(st.sampled_from(STATES), st.sampled_from(STATES), max_size=5))
def test_pins_make_no_chains_and_no_loops(wanted: dict[str, str]) -> None:
    delta = merge(decreed(state, target, pinned=1) for state, target in wanted.items())
    found = rewrites(delta)
    assert not set(found) & set(found.values())
    for state, target in found.items():
        passed = [state]
        while passed[-1] in wanted and len(passed) < 9:
            passed.append(wanted[passed[-1]])
        assert passed[-1] == target


def test_a_decree_is_all_that_need_change() -> None:
    learner = RephraseGraph(OPEN)
    delta = learned([*failing("a", "b"), *succeeding("b")])
    total = delta
    section = learner.solve(MemorySums(delta), changes(delta), 0)
    for rule in (
        decreed("b", "z", pinned=1),
        decreed("b", "z", pinned=-1),
        decreed("y", "a", pinned=1),
        decreed("a", "x", pinned=1),
        decreed("y", "a", pinned=-1),
        decreed("a", "x", pinned=-1),
        decreed("a", "", blocked=1),
    ):
        total = merge([total, rule])
        section |= learner.solve(MemorySums(total), changes(rule), 0)
        anew = learner.solve(MemorySums(total), changes(total), 0)
        assert live(section) == live(anew)


def test_what_faded_to_nothing_is_as_if_it_had_never_been() -> None:
    old = learned([*failing("b", "c"), *succeeding("c")])
    late = 2_000 * 30 * DAY
    new = learned([*failing("a", "b"), *failing("a", "d"), *succeeding("d")], late)
    assert rewrites(merge([old, new]), at=late) == rewrites(new, at=late)


@pytest.mark.parametrize(
    ("text", "interpretation", "state"),
    [("Play, JAZZ!", None, "play jazz"), ("play jazz", "play(jazz)", "play(jazz)"), (" ", None, ""), ("x", "", "x")],
)
def test_states(text: str, interpretation: str | None, state: str) -> None:
    assert state_of(query(text=text, interpretation=interpretation)) == state
