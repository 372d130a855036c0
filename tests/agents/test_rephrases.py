"""Rewrites against a direct computation over all paths, on small chains."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.outcomes import Outcome
from backchannel.agents.rephrases import RephraseConfig, RephraseGraph, state_of
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.turn import Turn
from tests.agents.turns import DAY, changes, query

Step: TypeAlias = tuple[str, str | None, bool]
"""A turn: its state, the state that it was rephrased to, and, if it was not, whether it succeeded."""

OPEN = RephraseConfig(min_support=1.0, margin=1e-6, max_source_success=1.0)
"""Publishes whatever has any support and succeeds more often at all."""
STATES = "abcde"
STEPS = st.lists(
    st.tuples(st.sampled_from(STATES), st.none() | st.sampled_from(STATES), st.booleans()), min_size=4, max_size=25
)


def outcome(state: str, following: str | None = None, success: bool = False, ts: int = 0) -> Outcome:
    later = query(ts + 1, interpretation=following) if following else None
    return Outcome(
        turn=Turn(query(ts, interpretation=state), next=later),
        query="",
        gains={},
        success=0.0 if following else float(success),
        rephrased=1.0 if following else 0.0,
        rewritten=False,
    )


def learned(steps: Iterable[Step], ts: int = 0) -> Delta:
    return RephraseGraph(OPEN).learn([outcome(*step, ts=ts) for step in steps])


def rewrites(delta: Delta, config: RephraseConfig = OPEN, at: int = 0) -> dict[str, tuple[str, Any]]:
    """All rewrites: state -> (target, probability)."""
    section = RephraseGraph(config).solve(MemorySums(delta), changes(delta), at)
    rows = {state: orjson.loads(row) for state, row in section.items() if row}
    return {state: (row["to"], row["probability"]) for state, row in rows.items()}


def failing(state: str, following: str, count: int = 3) -> list[Step]:
    return [(state, following, False)] * count


def succeeding(state: str, count: int = 4) -> list[Step]:
    return [(state, None, True)] * count


class Chain:
    """The same chain, worked out path by path."""

    def __init__(self, steps: list[Step]) -> None:
        self.support = {state: sum(step[0] == state for step in steps) for state in STATES}
        self.following = {
            state: {to: steps.count((state, to, False)) + steps.count((state, to, True)) for to in STATES}
            for state in STATES
        }
        self.rate = {state: steps.count((state, None, True)) / (self.support[state] + 1) for state in STATES}

    def targets(self, source: str, depth: int) -> dict[str, float]:
        """Each target's probability of being passed through and succeeding."""
        followed: set[str] = set()
        border = {source}
        for _ in range(depth):
            followed |= border
            border = {to for state in border for to, count in self.following[state].items() if count} - followed
        return {
            target: self._passing(source, target, followed) * self.rate[target]
            for target in (followed | border) - {source}
            if self.support[target] and self.rate[target] > self.rate[source]
        }

    def _passing(self, source: str, target: str, followed: set[str]) -> float:
        reached, going = 0.0, {source: 1.0}
        while going:  # one more rephrase along all paths; who has reached the target or gives up stops
            moved = dict.fromkeys(STATES, 0.0)
            for state, share in going.items():
                for to, count in self.following[state].items():
                    moved[to] += share * count / self.support[state]
            reached += moved.pop(target)
            going = {state: share for state, share in moved.items() if state in followed and share > 1e-12}
        return reached


@given(STEPS, st.integers(1, 3))
@settings(max_examples=150)
def test_rewrites_equal_the_sum_over_all_paths(steps: list[Step], depth: int) -> None:
    steps = steps + [(state, None, False) for state in STATES]  # somebody always gives up
    chain = Chain(steps)
    found = rewrites(learned(steps), structs.replace(OPEN, depth=depth))
    for state in STATES:
        targets = chain.targets(state, depth)
        best = max(targets.values(), default=0.0)
        if best != pytest.approx(chain.rate[state], abs=1e-7):  # a tie may fall either way
            assert (state in found) == (best > chain.rate[state])
        if state in found:
            target, probability = found[state]
            assert probability == pytest.approx(targets[target], abs=1e-7)
            assert probability == pytest.approx(best, abs=1e-7)


@given(st.lists(STEPS, max_size=4), st.integers(1, 3), st.integers(2, 6))
@settings(max_examples=100)
def test_solving_what_changed_is_enough(batches: list[list[Step]], depth: int, max_states: int) -> None:
    learner = RephraseGraph(structs.replace(OPEN, depth=depth, max_states=max_states))
    total: Delta = {}
    section: dict[str, bytes | None] = {}
    for batch in batches:
        delta = learned(batch)
        total = merge([total, delta])
        section |= learner.solve(MemorySums(total), changes(delta), 0)
    assert section == learner.solve(MemorySums(total), changes(total), 0)


@given(STEPS, st.integers(1, 8))
def test_every_turn_adds_a_mass_of_one(steps: list[Step], share: int) -> None:
    outcomes = [structs.replace(outcome(*step), rephrased=share / 8) for step in steps]
    delta = RephraseGraph(OPEN).learn(outcomes)
    mass = dict.fromkeys(STATES, 0.0)
    for sums in delta.values():
        for key, row in zip(sums.keys, sums.at(0), strict=True):
            assert (row >= 0).all()
            mass[key[0]] += row.sum()
    assert mass == Chain(steps).support


def test_a_chain_of_rephrases_leads_to_what_succeeds() -> None:
    chain = [*failing("a", "b"), *failing("b", "c"), *succeeding("c")]
    # Everybody who starts with a or b ends in c, where 4 of 4 + 1 turns succeed.
    assert rewrites(learned(chain)) == {"a": ("c", pytest.approx(0.8)), "b": ("c", pytest.approx(0.8))}


def test_rephrases_are_followed_to_the_depth_only() -> None:
    chain = [*failing("a", "b"), *failing("b", "c"), *failing("c", "d"), *succeeding("d")]
    for depth, sources in ((1, "c"), (2, "bc"), (3, "abc")):
        found = rewrites(learned(chain), structs.replace(OPEN, depth=depth, margin=0.1))
        assert sorted(found) == list(sources)


def test_who_says_the_same_again_starts_again() -> None:
    chain = [*failing("a", "a", 6), *failing("a", "b"), *succeeding("b")]
    assert rewrites(learned(chain))["a"] == ("b", pytest.approx(0.8))


def test_a_cycle_is_left_sooner_or_later() -> None:
    chain = [*failing("a", "b"), *failing("b", "a", 2), *failing("b", "c", 1), *succeeding("c")]
    assert rewrites(learned(chain))["a"] == ("c", pytest.approx(0.8))


def test_a_cycle_that_is_never_left() -> None:
    chain = [*failing("a", "b"), *failing("b", "a"), *failing("c", "c")]
    assert rewrites(learned(chain)) == {}
    chain = [*failing("a", "b"), *failing("b", "a", 97), *succeeding("b", 2)]
    assert rewrites(learned(chain)) == {"a": ("b", pytest.approx(0.02))}


def test_success_that_a_rephrase_took_back_is_none() -> None:
    chain = [*failing("a", "b"), *succeeding("b", 3), *failing("b", "b", 6)]
    assert rewrites(learned(chain), structs.replace(OPEN, margin=0.5)) == {}


def test_every_check_can_refuse() -> None:
    # Supports 4 and 6, success rates 1/5 and 6/7.
    delta = learned([*failing("a", "b", 3), *succeeding("a", 1), *succeeding("b", 6)])
    assert "a" in rewrites(delta, RephraseConfig(min_support=4, margin=0.65, max_source_success=0.2))
    for strict in (
        RephraseConfig(min_support=4.01, margin=0.65, max_source_success=0.2),
        RephraseConfig(min_support=4, margin=0.66, max_source_success=0.2),
        RephraseConfig(min_support=4, margin=0.65, max_source_success=0.19),
    ):
        assert "a" not in rewrites(delta, strict)


def test_a_turn_that_was_served_a_rewrite_says_nothing_of_its_query() -> None:
    outcomes = [structs.replace(outcome("a", "b"), rewritten=True)]
    assert RephraseGraph(OPEN).learn(outcomes) == {}


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
