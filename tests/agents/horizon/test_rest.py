"""The rest of a session: sums that are paired when they are solved, against the definition written as loops."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.checks import CHECKS
from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.horizon.rest import GAP_MS, RestOfSession, walks_of
from backchannel.agents.horizon.serving import Rest, Rests
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums, merge
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, judged, query

MINUTE = 60_000
CONFIG = HorizonConfig(salt="a salt for tests only", discount=0.5)
LEARNER = RestOfSession(CONFIG)


def turn(session: str, ts: int, strategy: str = "a", *, clicked: bool = False, user: str | None = None) -> Turn:
    asked = structs.replace(query(session_id=session), ts=ts, query_id=f"{session}{ts}", user_id=user)
    return closed_turn(asked, [impression(allocation={strategy: 1})], [click("e1")] if clicked else [])


def learned(turns: Sequence[Turn]) -> MemorySums:
    return MemorySums(merge(LEARNER.learn(judged([one])) for one in turns))


def known(turns: Sequence[Turn], at: int) -> dict[str, Rest]:
    rows = LEARNER.solve(MemorySums(LEARNER.learn(judged(turns))), {LEARNER.table.name: ()}, at)
    return Rests(live_rows(rows)).strategies


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.integers(0, 90), st.booleans()), max_size=25, unique_by=lambda one: one[:2]
    ),
    st.integers(0, 140),
)
def test_pairing_is_that_of_the_definition(log: list[tuple[str, int, bool]], now: int) -> None:
    turns = [turn(session, minute * MINUTE, clicked=clicked) for session, minute, clicked in log]
    walks = walks_of(learned(turns).read(LEARNER.table), now * MINUTE, 0)
    gap, found, expected = GAP_MS // MINUTE, [], []
    for row, (time, later, ended) in enumerate(
        zip(walks.times.tolist(), walks.later(0.5).tolist(), walks.ended, strict=True)
    ):
        found.append((time // MINUTE, walks.success[row], later, bool(ended)))
    for session in "xyz":
        own = sorted((minute, float(clicked)) for name, minute, clicked in log if name == session)
        for place, (minute, success) in enumerate(own):
            total, discount, last = 0.0, 1.0, minute
            for after, gain in own[place + 1 :]:
                if after - last > gap:
                    break
                discount *= 0.5
                total, last = total + discount * gain, after
            expected.append((minute, success, total, last + gap < now))
    assert sorted(found) == sorted(expected)  # powers of a half are exact


def test_sums_are_the_same_in_any_order_and_batch() -> None:
    turns = [turn(f"s{n % 4}", n * MINUTE, "ab"[n % 2], clicked=n % 3 == 0) for n in range(40)]
    one = LEARNER.learn(judged(turns))[LEARNER.table.name]
    many = learned(turns[::-1]).read(LEARNER.table)
    assert {key: row.tolist() for key, row in zip(one.keys, one.values, strict=True)} == {
        key: row.tolist() for key, row in zip(many.keys, many.values, strict=True)
    }


@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_contract(check: Any) -> None:
    rng = np.random.default_rng(2)
    turns = [
        turn(
            f"s{n % 5}",
            int(rng.integers(90)) * MINUTE + n,
            "abc"[n % 3],
            clicked=bool(rng.random() < 0.5),
            user=[None, "u", "v"][n % 3],
        )
        for n in range(60)
    ]
    check(LEARNER, turns, rng)


def world(sessions: int, seed: int, *, early: bool = False) -> list[Turn]:
    """Sessions of four turns: after `bait`, the rest of the session is never clicked.

    If `early`, it is instead never bad, but asked only at the beginning, when there is most to come.
    """
    rng, turns = np.random.default_rng(seed), []
    for number in range(sessions):
        spoilt = False
        for place in range(4):
            strategy = ("bait" if rng.random() < 0.3 else "plain") if not early or not place else "plain"
            clicked = rng.random() < (0.0 if spoilt else 0.5)
            spoilt |= strategy == "bait" and not early
            turns.append(turn(f"s{number}", number * 1000 + place * MINUTE, strategy, clicked=clicked))
    return turns


def test_a_strategy_that_spoils_the_session_is_found() -> None:
    found = known(world(400, 1), 10 * GAP_MS)
    bait, plain = found["bait"].value, found["plain"].value
    assert bait is not None
    assert plain is not None
    assert bait.high < plain.low
    assert found["bait"].success == pytest.approx(0.25, abs=0.12)


def test_where_it_is_asked_makes_no_difference() -> None:
    found = known(world(400, 2, early=True), 10 * GAP_MS)
    bait, plain = found["bait"].value, found["plain"].value
    assert bait is not None
    assert plain is not None
    assert bait.low < plain.value < bait.high


def test_intervals_hold_the_truth() -> None:
    """In sessions of two turns, half of the second ones are clicked: whatever is asked leads to 0.125 on average."""
    held = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        turns = [
            turn(f"s{n}", n * 1000 + place * MINUTE, "ab"[rng.integers(2)], clicked=bool(rng.random() < 0.5))
            for n in range(80)
            for place in (0, 1)
        ]
        rows = LEARNER.solve(MemorySums(LEARNER.learn(judged(turns))), {LEARNER.table.name: ()}, 10 * GAP_MS)
        for one in Rests(live_rows(rows)).strategies.values():
            assert one.value is not None
            held.append(one.value.low <= 0.125 <= one.value.high)
    assert 0.88 <= np.mean(held) <= 1.0


def test_with_too_few_people_there_are_no_figures() -> None:
    found = known(world(10, 3), 10 * GAP_MS)
    assert found["bait"].value is None
    assert known([], 0) == {}
    assert Rests({}).strategies == {}
