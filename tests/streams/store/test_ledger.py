"""Sums and positions move together, once, and only for the holder of the claim."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.sums import Delta, MemorySums, Sums, SumTable, WidthError, merge
from backchannel.streams.store import ledger as ledger_module
from backchannel.streams.store.engine import Store, StoreError
from backchannel.streams.store.ledger import MAX_KEY_BYTES, Contribution, FencedError, Ledger, LedgerSums
from backchannel.streams.turns.position import Position, TopicPosition
from tests.support.stores import failing

FADING = SumTable(name="fading", key=(("a", str), ("b", str)), sums=("x", "y"), half_life_ms=1000, lookup="b")
PACKED = SumTable(name="packed", key=(("a", str), ("n", int)))
TABLES = (FADING, PACKED)


def open_ledger(url: str) -> tuple[Store, Ledger]:
    store = Store(url)
    store.create(TABLES)
    return store, Ledger(store, TABLES)


def read(store: Store, table: SumTable, column: str | None = None, values: tuple[str, ...] = ()) -> Sums:
    with store.read() as connection:
        return LedgerSums(store, connection).read(table, column, values)


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    """Generate a batch's sums, at an event time anywhere within ten thousand half-lives."""
    ts = draw(st.integers(0, 10_000)) * 1000
    keys = draw(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("uvw")), unique=True, min_size=1))
    grid = st.integers(-1024, 1024).map(lambda number: number / 1024)
    values = np.array(draw(st.lists(st.tuples(grid, grid), min_size=len(keys), max_size=len(keys))))
    landmark = FADING.landmark(ts)
    delta: Delta = {"fading": Sums(FADING, keys, np.abs(values), landmark)}
    if draw(st.booleans()):
        numbers = draw(st.lists(st.integers(0, 3), unique=True, min_size=1))
        packed = np.array([[draw(grid) for _ in range(4)] for _ in numbers])
        delta["packed"] = Sums(PACKED, [("p", number) for number in numbers], packed)
    return delta


@settings(max_examples=60)
@given(batches=st.lists(st.lists(deltas(), min_size=1, max_size=3), min_size=1, max_size=5), merged=st.booleans())
def test_what_is_committed_adds_up(batches: list[list[Delta]], merged: bool, new_store: Callable[[], str]) -> None:
    store, ledger = open_ledger(new_store())
    with closing(store):
        check_sums(store, ledger, batches, merged=merged)


def check_sums(store: Store, ledger: Ledger, batches: list[list[Delta]], *, merged: bool) -> None:
    claims = [ledger.claim("s", number) for number in range(3)]
    for batch in batches:
        contributions = [
            Contribution(claim, Position(1), delta, {"turn": 1}) for claim, delta in zip(claims, batch, strict=False)
        ]
        claims = [*ledger.commit(contributions), *claims[len(batch) :]]
        if merged:
            ledger.merge()
    expected = merge(delta for batch in batches for delta in batch)
    now = 10_000_000
    for table in TABLES:
        stored, wanted = read(store, table), MemorySums(expected).read(table)
        assert sorted(stored.keys) == sorted(wanted.keys)
        by_key = dict(zip(stored.keys, stored.at(now), strict=True))
        for key, values in zip(wanted.keys, wanted.at(now), strict=True):
            np.testing.assert_allclose(by_key[key], values, rtol=1e-12, atol=1e-280)
    assert ledger.counts() == {"turn": sum(map(len, batches))}


@pytest.mark.parametrize("last", [999, 1400, 4000])
def test_what_was_ahead_of_the_landmark_is_not_lost_when_it_moves(store: Store, ledger: Ledger, last: int) -> None:
    claim = ledger.claim("s", 0)
    for landmark in (0, 500, last):
        sums = Sums(FADING, [("p", str(landmark))], np.array([[1.0, 0.0]]), landmark)
        (claim,) = ledger.commit([Contribution(claim, Position(1), {"fading": sums}, {})])
        ledger.merge()
    stored = read(store, FADING)
    by_key = {int(key[1]): values[0] for key, values in zip(stored.keys, stored.at(last * 1000), strict=True)}
    assert by_key == {landmark: 2.0 ** max(landmark - last, -1100) for landmark in (0, 500, last)}


def delta(**rows: float) -> Delta:
    return {"fading": Sums(FADING, [(name, "z") for name in rows], np.array([[value, 0.0] for value in rows.values()]))}


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store, _ = open_ledger(store_url)
    with closing(store):
        yield store


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, TABLES)


def test_a_claim_takes_the_partition_from_whoever_held_it(store: Store, ledger: Ledger) -> None:
    first = ledger.claim("s", 0)
    (first,) = ledger.commit(
        [Contribution(first, Position(5, {"t": TopicPosition(7, 3, 5)}), delta(a=1.0), {"turn": 1})]
    )
    second = ledger.claim("s", 0)
    assert second.position == Position(5, {"t": TopicPosition(7, 3, 5)})
    with pytest.raises(FencedError, match="partition 0 of s was claimed by another process"):
        ledger.commit([Contribution(first, Position(9), delta(a=10.0), {"turn": 10})])
    ledger.commit([Contribution(second, Position(6), delta(a=2.0), {"turn": 2})])
    assert read(store, FADING).values.tolist() == [[3.0, 0.0]]
    assert ledger.counts() == {"turn": 3}


def test_a_contribution_whose_answer_was_lost_is_committed_once(store: Store, ledger: Ledger) -> None:
    claim, other = ledger.claim("s", 0), ledger.claim("s", 1)
    contribution = Contribution(claim, Position(5), delta(a=1.0), {"turn": 1})
    assert ledger.commit([contribution]) == ledger.commit([contribution])
    assert read(store, FADING).values.tolist() == [[1.0, 0.0]]
    assert ledger.counts() == {"turn": 1}
    for more in (
        [Contribution(claim, Position(6), delta(a=2.0), {})],
        [contribution, Contribution(other, Position(5), delta(a=2.0), {})],
    ):
        with pytest.raises(FencedError):
            ledger.commit(more)
    assert read(store, FADING).values.tolist() == [[1.0, 0.0]]
    assert ledger.claim("s", 1).position == Position()


def test_one_fenced_partition_drops_the_whole_commit(store: Store, ledger: Ledger) -> None:
    mine, lost = ledger.claim("s", 0), ledger.claim("s", 1)
    ledger.claim("s", 1)
    with pytest.raises(FencedError):
        ledger.commit([Contribution(mine, Position(5), delta(a=1.0), {}), Contribution(lost, Position(5), {}, {})])
    assert not read(store, FADING).keys
    assert ledger.claim("s", 0).position == Position()


def test_a_commit_that_ends_at_any_statement_leaves_nothing(store: Store, ledger: Ledger) -> None:
    claim = ledger.claim("s", 0)
    both: Delta = {**delta(a=1.0), "packed": Sums(PACKED, [("p", 1)], np.ones((1, 2)))}
    contribution = Contribution(claim, Position(5), both, {"turn": 1})
    for statement in count(1):
        with failing(store, statement) as failed:
            try:
                ledger.commit([contribution])
            except ZeroDivisionError:
                assert not read(store, FADING).keys
                assert not read(store, PACKED).keys
                assert ledger.counts() == {}
        if not failed:
            break
    assert statement > 4
    assert read(store, FADING).values.tolist() == [[1.0, 0.0]]
    assert read(store, PACKED).values.tolist() == [[1.0, 1.0]]


def test_rows_are_found_by_column(store: Store, ledger: Ledger) -> None:
    keys = [(a, b) for a in "pq" for b in "uv"]
    ledger.commit([Contribution(ledger.claim("s", 0), Position(), {"fading": Sums(FADING, keys, np.ones((4, 2)))}, {})])
    assert sorted(read(store, FADING, "a", ("p",)).keys) == [("p", "u"), ("p", "v")]
    assert sorted(read(store, FADING, "b", ("u", "x")).keys) == [("p", "u"), ("q", "u")]
    assert not read(store, FADING, "b", ()).keys


def test_rows_with_keys_of_excessive_size_are_left_out_and_counted(store: Store, ledger: Ledger) -> None:
    rng = np.random.default_rng(0)
    long = "".join(map(chr, rng.integers(0x4E00, 0x9FFF, 2000)))  # random, because PostgreSQL compresses repetitions
    longest = long[: MAX_KEY_BYTES // 3]
    keys = [("a", "z"), (long, "z"), ("b", long), (longest, longest)]
    claim = ledger.claim("s", 0)
    ledger.commit([Contribution(claim, Position(), {"fading": Sums(FADING, keys, np.ones((4, 2)))}, {})])
    assert sorted(read(store, FADING).keys) == [("a", "z"), (longest, longest)]
    assert ledger.counts() == {"oversized": 2}


def test_changes_are_taken_once(store: Store, ledger: Ledger) -> None:
    claim = ledger.claim("s", 0)
    ledger.commit([Contribution(claim, Position(), delta(a=1.0, b=1.0), {})])
    ledger.merge()
    with store.write() as connection:
        assert ledger_module.take_changes(connection) == {"fading": {"a", "b"}}
        assert ledger_module.take_changes(connection) == {}


def test_rows_move_to_others_and_keep_their_sum(store: Store, ledger: Ledger) -> None:
    keys = [("p", 1), ("p", 2), ("p", 3), ("q", 1)]
    packed = Sums(PACKED, keys, np.arange(8.0).reshape(4, 2))
    ledger.commit([Contribution(ledger.claim("s", 0), Position(), {"packed": packed}, {})])
    ledger.merge()
    with store.write() as connection:
        ledger_module.move_rows(connection, store.sum_tables["packed"], {("p", 2): ("p", 1), ("p", 3): ("p", 0)})
    moved = read(store, PACKED)
    assert dict(zip(moved.keys, moved.values.tolist(), strict=True)) == {
        ("p", 0): [4.0, 5.0],
        ("p", 1): [2.0, 4.0],
        ("q", 1): [6.0, 7.0],
    }


def test_another_half_life_is_refused(store: Store, ledger: Ledger) -> None:
    ledger.commit([Contribution(ledger.claim("s", 0), Position(), delta(a=1.0), {})])
    other = SumTable(name="fading", key=FADING.key, sums=FADING.sums, half_life_ms=2000)
    with pytest.raises(StoreError, match=r"table fading was learned with a half-life of .* begin a new store"):
        Ledger(store, [other])


@pytest.mark.parametrize("merged", [False, True])
def test_rows_that_two_versions_added_up_are_refused_with_the_remedy(
    store: Store, ledger: Ledger, merged: bool
) -> None:
    for number, width in enumerate((4, 5)):
        delta = {"packed": Sums(PACKED, [("p", 0)], np.ones((1, width)))}
        ledger.commit([Contribution(ledger.claim("s", number), Position(1), delta, {})])
        if merged and not number:
            ledger.merge()
    for look in (lambda: read(store, PACKED), ledger.merge):
        with pytest.raises(WidthError, match=r"table packed: its rows have 4 or 5 numbers.*Learn anew"):
            look()


def test_a_store_of_another_version_is_refused(store: Store) -> None:
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version_num = '0000'")
    with pytest.raises(StoreError, match=r"has schema version 0000; this version of Backchannel needs .*store upgrade"):
        store.create(TABLES)


@pytest.mark.parametrize("bad", ["nonsense", "mysterious://x", "sqlite:///no/such/folder/x.db"])
def test_a_bad_url_is_a_clear_error(bad: str) -> None:
    with pytest.raises(StoreError, match="sqlite:///"):
        open_ledger(bad)
