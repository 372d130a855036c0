"""Heartbeats: a worker's row, and its counts per minute."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store, StoreAwayError
from backchannel.streams.store.tables import MINUTE_MS
from backchannel.streams.worker.heartbeat import KEPT_MS, Heartbeat


class Clock:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def __call__(self) -> float:
        return self.ms / 1000


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    store.create(())
    yield store
    store.close()


def committed(**counts: int) -> Commit:
    return Commit([], counts)


def workers(store: Store) -> list[dict[str, object]]:
    with store.read() as connection:
        return [dict(row) for row in connection.execute(select(tables.worker)).mappings()]


def tallies(store: Store) -> dict[tuple[int, str], int]:
    with store.read() as connection:
        return {(row.minute, row.name): row.value for row in connection.execute(select(tables.tally))}


def test_it_says_who_lives_and_how_fast(store: Store) -> None:
    clock = Clock()
    one = Heartbeat(store, clock)
    clock.ms += 20_000
    one.on_commit(committed(query=300, turn=10), 0.1, None)
    asyncio.run(one.beat())
    (row,) = workers(store)
    assert (row["name"], row["seen"], row["committed"], row["rate"]) == (one.name, clock.ms, clock.ms, 15.0)
    clock.ms += 61_000
    asyncio.run(one.beat())
    (row,) = workers(store)
    assert (row["seen"], row["committed"], row["rate"]) == (clock.ms, clock.ms - 61_000, 0.0)
    one.end()
    assert workers(store) == []


def test_counts_of_all_workers_add_up_by_the_minute(store: Store) -> None:
    clock = Clock()
    first, second = Heartbeat(store, clock), Heartbeat(store, clock)
    start = clock.ms // MINUTE_MS * MINUTE_MS
    first.on_commit(committed(query=7, orphan=2), 0.1, None)
    second.on_commit(committed(query=5), 0.1, None)
    clock.ms += MINUTE_MS
    first.on_commit(committed(query=6, orphan=-2), 0.1, None)
    for one in (first, second, first):
        asyncio.run(one.beat())
    second.on_commit(committed(late=1), 0.1, None)
    second.end()
    assert tallies(store) == {
        (start, "query"): 12,
        (start, "orphan"): 2,
        (start + MINUTE_MS, "query"): 6,
        (start + MINUTE_MS, "orphan"): -2,
        (start + MINUTE_MS, "late"): 1,
    }
    clock.ms += KEPT_MS + MINUTE_MS
    asyncio.run(second.beat())
    assert tallies(store) == {}
    assert [row["name"] for row in workers(store)] == [second.name]


def test_a_beat_that_failed_is_made_up_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Heartbeat(store, Clock())

    def fail() -> None:
        raise StoreAwayError("database is locked")

    one.on_commit(committed(query=3, orphan=-1), 0.1, None)
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", fail)
        with pytest.raises(StoreAwayError):
            asyncio.run(one.beat())
    one.on_commit(committed(query=4), 0.1, None)
    asyncio.run(one.beat())
    assert {name: value for (_, name), value in tallies(store).items()} == {"query": 7, "orphan": -1}
