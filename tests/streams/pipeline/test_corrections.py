"""Sums that are set from outside the stream."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.sums import Key, SumTable
from backchannel.streams.pipeline.corrections import set_sums
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import FencedError, Ledger, LedgerSums, take_changes

TABLE = SumTable(name="rules", key=(("query", str), ("entity", str)), sums=("score", "blocked"))
GRID = st.integers(-(2**20), 2**20).map(lambda steps: steps / 1024)
WANTED = st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), GRID, max_size=4)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(Store(store_url)) as store:
        store.create([TABLE])
        yield store


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, [TABLE])


def column(store: Store, name: str = "score") -> dict[Key, float]:
    """The values that are not zero."""
    with store.read() as connection:
        sums = LedgerSums(store, connection).read(TABLE)
    values = sums.values[:, TABLE.sums.index(name)].tolist() if sums.keys else []
    return {key: value for key, value in zip(sums.keys, values, strict=True) if value}


@given(steps=st.lists(WANTED, max_size=5))
def test_the_last_value_set_is_the_one_that_stands(steps: list[dict[Key, float]]) -> None:
    with closing(Store("sqlite://")) as store:
        store.create([TABLE])
        ledger = Ledger(store, [TABLE])
        held: dict[Key, float] = {}
        for wanted in steps:
            changed = {key for key, value in wanted.items() if held.get(key, 0.0) != value}
            assert set_sums(store, ledger, TABLE, "score", wanted, source="test") == len(changed)
            held |= wanted
            assert column(store) == {key: value for key, value in held.items() if value}


def test_changed_rows_are_counted_and_logged_for_the_publisher(store: Store, ledger: Ledger) -> None:
    wanted: dict[Key, float] = {("a", "x"): 0.5, ("b", "x"): 0.25, ("c", "x"): 0.0}
    assert set_sums(store, ledger, TABLE, "score", wanted, source="test", counter="primed") == 2
    ledger.merge()
    with store.write() as connection:
        assert take_changes(connection) == {"rules": {"a", "b"}}
    assert set_sums(store, ledger, TABLE, "score", wanted, source="test", counter="primed") == 0
    ledger.merge()
    with store.write() as connection:
        assert take_changes(connection) == {}
    assert ledger.counts() == {"primed": 2}


def test_other_columns_rows_and_streams_stay_as_they_are(store: Store, ledger: Ledger) -> None:
    claim = ledger.claim("stream", 0)
    set_sums(store, ledger, TABLE, "score", {("a", "x"): 0.5, ("a", "y"): 1.0}, source="test")
    set_sums(store, ledger, TABLE, "blocked", {("a", "x"): 1.0}, source="test")
    assert column(store) == {("a", "x"): 0.5, ("a", "y"): 1.0}
    assert column(store, "blocked") == {("a", "x"): 1.0}
    assert ledger.counts() == {}
    assert ledger.claim("stream", 0).commits == claim.commits


def test_of_two_who_set_sums_at_once_the_first_is_fenced(
    store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ledger.commit

    def overtaken(*arguments: object) -> object:
        monkeypatch.undo()
        set_sums(store, ledger, TABLE, "score", {("a", "x"): 0.75}, source="test")
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "commit", overtaken)
    with pytest.raises(FencedError):
        set_sums(store, ledger, TABLE, "score", {("a", "x"): 0.25}, source="test")
    assert column(store) == {("a", "x"): 0.75}
