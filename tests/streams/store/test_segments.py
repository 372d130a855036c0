"""Segments: whatever commits they come from, and whoever merges them when, the ledger is the same."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from backchannel.agents.sums import Delta, MemorySums, Sums, SumTable, merge
from backchannel.streams.store import ledger as ledger_module
from backchannel.streams.store import segments, tables
from backchannel.streams.store.engine import Store, StoreBusyError
from backchannel.streams.store.ledger import Contribution, Ledger, LedgerSums, RowSums, take_changes
from backchannel.streams.store.merging import merge_segments, merge_within
from backchannel.streams.turns.position import Position
from tests.support.stores import failing

FADING = SumTable(name="fading", key=(("a", str), ("b", str)), sums=("x", "y"), half_life_ms=1000, lookup="b")
PACKED = SumTable(name="packed", key=(("a", str), ("n", int)))
TABLES = (FADING, PACKED)

Rows = dict[tuple[str, tuple[object, ...]], list[float]]


def grid(draw: st.DrawFn, shape: tuple[int, int]) -> np.ndarray:
    numbers = draw(st.lists(st.integers(-(2**20), 2**20), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return np.array(numbers, dtype=np.float64).reshape(shape) / 1024


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    """Generate a commit's sums. Values are on the grid, and landmarks near: sums are exact in any order."""
    delta: Delta = {}
    texts = st.sampled_from(["", "a", "b", "é", "\U0001f600", "a\x01", "ab"])
    keys = draw(st.lists(st.tuples(texts, texts), unique=True, max_size=6))
    if keys:
        delta["fading"] = Sums(FADING, keys, grid(draw, (len(keys), 2)), draw(st.integers(700, 703)))
    numbers = draw(st.lists(st.tuples(texts, st.integers(-(2**40), 2**40)), unique=True, max_size=4))
    if numbers:
        delta["packed"] = Sums(PACKED, numbers, grid(draw, (len(numbers), 3)))
    return delta


def rows(sums: Sums, at: int = 704_000) -> Rows:
    return {(sums.table.name, key): row for key, row in zip(sums.keys, sums.at(at).tolist(), strict=True)}


def of_delta(delta: Delta) -> Rows:
    return {key: row for table in TABLES for key, row in rows(MemorySums(delta).read(table)).items()}


@given(st.lists(deltas(), max_size=6), st.randoms(use_true_random=False))
def test_any_split_into_segments_in_any_order_has_the_same_sum(several: list[Delta], chance: random.Random) -> None:
    expected = of_delta(merge(several))
    chance.shuffle(several)
    split = groupby(several, key=lambda _: chance.random() < 0.5)
    blocks = [segments.encode(merge(some).values()) for _, some in split]
    found = segments.merged(blocks)
    assert {key: row for sums in found for key, row in rows(sums).items()} == expected
    for sums in found:
        assert list(sums.keys) == sorted(sums.keys)
    # Merged blocks are blocks.
    assert segments.encode(segments.merged([segments.encode(found)])) == segments.encode(found)


def test_packed_sums_of_different_lengths_stay_apart() -> None:
    blocks = [
        segments.encode([Sums(PACKED, [("a", number), ("b", number)], np.full((2, length), float(length)))])
        for number, length in ((1, 2), (2, 5), (1, 2))
    ]
    assert [rows(sums) for sums in segments.merged(blocks)] == [
        {("packed", (name, 1)): [4.0] * 2 for name in "ab"},
        {("packed", (name, 2)): [5.0] * 5 for name in "ab"},
    ]


def test_keys_of_many_distinct_values_merge_too(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [{"fading": Sums(FADING, [("a", "z"), (name, "y")], np.ones((2, 2)), 703)} for name in "bcb"]
    blocks = [segments.encode(one.values()) for one in several]
    expected = segments.encode(segments.merged(blocks))
    monkeypatch.setattr("backchannel.agents.sums._LARGEST", 1)
    assert segments.encode(segments.merged(blocks)) == expected


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    store.create(TABLES)
    with closing(store):
        yield store


def everything(store: Store, reader: type[RowSums] = RowSums) -> Rows:
    with store.read() as connection:
        return {key: row for table in TABLES for key, row in rows(reader(store, connection).read(table)).items()}


def waiting(store: Store) -> int:
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(tables.segment)).scalar_one()


def delta(number: int) -> Delta:
    return {
        "fading": Sums(FADING, [("p", "z"), (f"q{number}", "z")], np.ones((2, 2)), 700 + number % 3),
        "packed": Sums(PACKED, [("p", number % 2)], np.ones((1, 3))),
    }


def commit_all(store: Store, several: list[Delta]) -> Rows:
    """Commit each as a segment of its own; return what is expected."""
    ledger = Ledger(store, TABLES)
    claim = ledger.claim("s", 0)
    for one in several:
        (claim,) = ledger.commit([Contribution(claim, Position(1), one, {"turn": 1})])
    return of_delta(merge(several))


@settings(max_examples=15)
@given(steps=st.lists(st.one_of(deltas(), st.none()), max_size=8))
def test_merging_now_and_then_is_seen_by_nobody(steps: list[Delta | None], new_store: Callable[[], str]) -> None:
    """None stands for a merge."""
    with closing(Store(new_store())) as store:
        store.create(TABLES)
        ledger = Ledger(store, TABLES)
        claim = ledger.claim("s", 0)
        committed: list[Delta] = []
        for one in steps:
            if one is None:
                ledger.merge()
                assert everything(store) == of_delta(merge(committed))
            else:
                (claim,) = ledger.commit([Contribution(claim, Position(1), one, {"turn": 1})])
                committed.append(one)
            assert everything(store, LedgerSums) == of_delta(merge(committed))
            assert ledger.counts().get("turn", 0) == len(committed)


def test_a_merge_killed_at_any_statement_leaves_every_segment_and_the_next_one_takes_each_once(store: Store) -> None:
    expected = commit_all(store, [delta(number) for number in range(4)])
    for statement in count(1):
        with failing(store, statement) as failed:
            try:
                merge_segments(store)
            except ZeroDivisionError:
                assert everything(store) == {}
                assert waiting(store) == 4
        if not failed:
            break
    assert statement > 8
    assert waiting(store) == 0
    assert everything(store) == expected
    assert Ledger(store, TABLES).counts() == {"turn": 4}
    with store.write() as connection:
        changed = take_changes(connection)
    assert changed == {"fading": {"p", "q0", "q1", "q2", "q3"}, "packed": {"p"}}


def test_merged_in_portions_it_is_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "PORTION", 300)
    expected = commit_all(store, [delta(number) for number in range(7)])
    with store.read() as connection:
        portions = segments.portions(connection, 0)
        assert len(portions) > 2
        assert segments.portions(connection, segments.waiting(connection)) == []
    merge_segments(store)
    assert everything(store) == expected


def test_many_may_commit_and_merge_at_once(store: Store, store_url: str) -> None:
    """Two publishers among them."""
    expected = of_delta(merge(delta(number) for _ in range(3) for number in range(8)))
    errors: list[Exception] = []

    def attempt(work: Callable[[Store], object]) -> None:
        own = Store(store_url)
        own.create(TABLES)
        try:
            work(own)
        except Exception as error:
            errors.append(error)
        finally:
            own.close()

    def commits(name: str) -> Callable[[Store], object]:
        def work(own: Store) -> None:
            ledger = Ledger(own, TABLES)
            claim = ledger.claim(name, 0)
            for number in range(8):
                (claim,) = ledger.commit([Contribution(claim, Position(1), delta(number), {"turn": 1})])

        return work

    def merges(own: Store) -> None:
        for _ in range(10):
            merge_segments(own)
            own.transact(lambda connection: merge_within(own, connection), stable=True)

    works = [*map(commits, "abc"), merges, merges]
    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
    assert everything(store, LedgerSums) == expected
    merge_segments(store)
    assert everything(store) == expected
    assert Ledger(store, TABLES).counts() == {"turn": 24}


def test_commits_merge_when_nobody_else_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_WAITING", 700)
    ledger = Ledger(store, TABLES)
    claim, most = ledger.claim("s", 0), 0
    for number in range(20):
        (claim,) = ledger.commit([Contribution(claim, Position(1), delta(number), {})])
        most = max(most, waiting(store))
    assert 1 < most < 6
    assert everything(store, LedgerSums) == of_delta(merge(map(delta, range(20))))


def test_a_commit_waits_while_another_process_merges(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(store, TABLES)
    claim, attempts, merge_them = ledger.claim("s", 0), count(), ledger.merge

    def merge_later() -> None:
        if next(attempts) < 2:
            raise StoreBusyError("locked")
        merge_them()

    monkeypatch.setattr(ledger_module, "MAX_WAITING", 0)
    monkeypatch.setattr(ledger, "merge", merge_later)
    ledger.commit([Contribution(claim, Position(1), delta(1), {})])
    assert next(attempts) == 3
    assert waiting(store) == 0


def test_tables_of_learners_that_the_merger_does_not_know_are_merged(store: Store, store_url: str) -> None:
    expected = commit_all(store, [delta(1)])
    with closing(Store(store_url)) as other:
        other.create([])
        merge_segments(other)
    assert everything(store) == expected
