"""Turns that are columns from their arrival on are those of the events as objects."""

import random
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backchannel.agents.columnar import columns
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import Frame, Ragged
from backchannel.agents.columnar.interning import columns_of
from backchannel.schemas import events
from backchannel.schemas.events import Event
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.assembler import TurnAssembler
from backchannel.streams.turns.position import Position
from backchannel.streams.turns.rows import RowAssembler
from tests.streams.turns.test_assembler import CONFIG, WINDOW, Log, click, logs, query
from tests.support.turns import turns


class Rating(events._Event, frozen=True, gc=False, kw_only=True, tag="rating"):
    """A signal without columns of its own."""

    topic: ClassVar[str] = "ratings"

    good: bool


class Applause(events._Event, frozen=True, gc=False, kw_only=True, tag="applause"):
    """Another one, whose name comes first."""

    topic: ClassVar[str] = "applause"


def rated(event: Event | None) -> Event | None:
    """Return every other event as a rating."""
    if event is None or int(event.event_id[-1]) % 2:
        return event
    envelope = {name: getattr(event, name) for name in events.ENVELOPE}
    return cast("Event", Rating(**envelope, good=event.ts % 3 > 0))


def same(one: Any, other: Any) -> bool:
    """Whether two columns, frames or arrays are equal."""
    if isinstance(one, Ragged):
        return np.array_equal(one.counts, other.counts) and same(one.rows, other.rows)
    if isinstance(one, Frame):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    if isinstance(one, Columns):
        return one.pools == other.pools and same(one.turns, other.turns)
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def taken(rows: RowAssembler) -> Columns:
    """The turns that have closed, as one."""
    return Columns.concat(rows.take() or [columns_of([])])


@pytest.fixture(params=[1, 3, columns.TOGETHER])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make columns of so many turns."""
    monkeypatch.setattr("backchannel.streams.turns.rows.TOGETHER", request.param)


@pytest.mark.usefixtures("together")
@given(logs(), st.integers(0, 2**32), st.integers(0, 4))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_turns_however_topics_interleave_and_runs_end(log: Log, seed: int, crashes: int) -> None:
    rng = random.Random(seed)
    log = log | {"barge_ins": [*map(rated, log["barge_ins"])]}
    position = Position()
    while True:
        objects, rows = TurnAssembler(log, CONFIG, position), RowAssembler(log, CONFIG, position)
        rows._most = 0  # as if there were many values
        left = {topic: position.topic(topic).resume for topic in log}
        closed: list[Turn] = []
        crashed = False
        while unread := [topic for topic, events in log.items() if left[topic] < len(events)]:
            topic = rng.choice(unread)
            first, last = left[topic], min(left[topic] + rng.randint(1, 4), len(log[topic]))
            for assembler in (objects, rows):
                assembler.add(topic, range(first, last), log[topic][first:last])
            left[topic] = last
            closed += objects.advance()
            rows.advance()
            assert rows.counts == objects.counts
            if rng.random() < 0.3 and not rows.rebuilding:
                assert rows.position == objects.position
                assert same(taken(rows), columns_of(closed))
                position, closed = rows.position, []
            if crashes and rng.random() < 0.2:
                crashes -= 1
                crashed = True
                break
        if not crashed:
            closed += objects.finish()
            rows.finish()
            assert same(taken(rows), columns_of(closed))
            assert rows.take() == []
            return


@given(st.lists(turns(st.integers(0, 100_000)), max_size=8))
@settings(max_examples=100)
def test_rows_hold_what_events_hold(some: list[Turn]) -> None:
    objects, rows = TurnAssembler(["events"], CONFIG), RowAssembler(["events"], CONFIG)
    log: list[Event | None] = []
    for turn in some:
        log += [turn.query, *turn.impressions, *turn.clicks, *turn.barge_ins, turn.next]
    for assembler in (objects, rows):
        assembler.add("events", range(len(log)), log)
    closed = objects.finish()
    assert rows.finish() == rows.closed == len(closed)
    assert same(taken(rows), columns_of(closed))


def test_signals_without_columns_of_their_own_are_by_type_in_each_turn() -> None:
    log: list[Any] = [query("q0", 0), query("q1", 1)]
    for number, query_id in enumerate(("q1", "q0", "q1", "q0", "q1")):
        envelope: dict[str, Any] = {"event_id": f"s{number}", "ts": 2, "session_id": "s", "query_id": query_id}
        log += [Rating(**envelope, good=number > 2), Applause(**envelope)]
    objects, rows = TurnAssembler(["events"], CONFIG), RowAssembler(["events"], CONFIG)
    for assembler in (objects, rows):
        assembler.add("events", range(len(log)), log)
    closed = objects.finish()
    rows.finish()
    columns = taken(rows)
    assert same(columns, columns_of(closed))
    labels = columns.pools.labels
    assert [labels[code] for code in columns.turns.others.rows.kind] == [
        *("applause",) * 2,
        *("rating",) * 2,
        *("applause",) * 3,
        *("rating",) * 3,
    ]


@pytest.mark.parametrize("commits", [True, False])
def test_what_is_not_needed_any_more_is_dropped(commits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backchannel.streams.turns.rows.TOGETHER", 5)
    rows = RowAssembler(["events"], CONFIG)
    rows._most = 0
    for number in range(50):
        ts = number * 3 * WINDOW
        rows.add(
            "events", [2 * number, 2 * number + 1], [query(f"q{number}", ts), click(f"c{number}", ts, f"q{number}")]
        )
        rows.advance()
        if commits:
            rows.take()
    assert len(rows._queries.blocks) <= (2 if commits else 7)
    assert len(rows._interner) < 40
