"""Transactions are retried if they conflict with others, and only then."""

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, select, update
from sqlalchemy.exc import DBAPIError, OperationalError

from backchannel.streams.extras import install
from backchannel.streams.store.dialects import among, insert_rows, sqlite
from backchannel.streams.store.engine import Store, StoreAwayError, StoreError
from backchannel.streams.store.tables import counter


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(Store(store_url)) as store:
        store.create([])
        yield store


class Conflict(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def add(connection: Connection, *names: str) -> None:
    insert_rows(connection, counter, {"name": names, "value": [1] * len(names)}, add=["value"])


def counts(store: Store) -> dict[str, int]:
    with store.read() as connection:
        return dict(connection.execute(select(counter)).all())


@pytest.mark.parametrize(
    ("sqlstate", "times", "done"), [("40001", 5, 1), ("40P01", 1, 1), ("40001", 6, 0), ("23505", 1, 0)]
)
def test_conflicts_are_retried_and_other_errors_are_not(
    store_url: str, store: Store, sqlstate: str, times: int, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not store_url.startswith("postgresql"):
        pytest.skip("SQLite's writers wait for each other at the start of their transactions")
    monkeypatch.setattr("backchannel.streams.store.retries._PAUSES", (0.0,) * 5)
    faults = [OperationalError("", {}, Conflict(sqlstate)) for _ in range(times)]

    def work(connection: Connection) -> None:
        add(connection, "a")
        if faults:
            raise faults.pop()

    if done:
        store.transact(work)
    else:
        with pytest.raises(StoreError) as refused:
            store.transact(work)
        assert isinstance(refused.value, StoreAwayError) == (sqlstate == "40001")
    assert counts(store) == ({"a": 1} if done else {})


PASSING = ["08006", "0A000", "25006", "25P03", "40003", "53100", "53300", "55P03", "57014", "57P01", "57P03", "58030"]
LASTING = ["22021", "22P05", "23505", "28P01", "3D000", "42501", "42P01", "54000", "XX001"]


class Code(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.sqlite_errorcode = code


OF_SQLITE = {
    sqlite3.SQLITE_BUSY_SNAPSHOT: True,
    sqlite3.SQLITE_FULL: True,
    sqlite3.SQLITE_IOERR_WRITE: True,
    sqlite3.SQLITE_CANTOPEN: True,
    sqlite3.SQLITE_READONLY_DBMOVED: True,
    sqlite3.SQLITE_READONLY: False,
    sqlite3.SQLITE_CORRUPT: False,
    sqlite3.SQLITE_NOTADB: False,
}


@pytest.mark.parametrize(
    ("url", "fault", "passes"),
    [
        *(("postgresql://x/y", Conflict(state), True) for state in PASSING),
        *(("postgresql://x/y", Conflict(state), False) for state in LASTING),
        *(("sqlite:///x.db", Code(code), passes) for code, passes in OF_SQLITE.items()),
        ("sqlite:///x.db", sqlite3.OperationalError("Could not decode to UTF-8"), False),
    ],
)
def test_what_passes_by_itself_is_told_from_what_does_not(
    url: str, fault: Exception, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store(url)) as store:

        def fail(_: object) -> None:
            raise DBAPIError("COMMIT", {}, fault)

        monkeypatch.setattr(store._dialect, "missing_file", fail)
        with pytest.raises(StoreError) as raised, store.read():
            pass
        assert isinstance(raised.value, StoreAwayError) == passes


def test_a_new_store_without_its_folder_says_which_one_is_missing(tmp_path: Path) -> None:
    with (
        closing(Store(f"sqlite:///{tmp_path}/none/policy.db")) as store,
        pytest.raises(StoreAwayError, match=f"no folder {tmp_path}/none: create it"),
    ):
        store.create([])


def test_a_store_in_a_read_only_folder_is_read_or_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        store.create([])
        with closing(Store(f"sqlite:///file:{path}?mode=ro&uri=true")) as reader:
            assert counts(reader) == {}
    (tmp_path / "policy.db-wal").mkdir()  # nobody can make it
    monkeypatch.setattr(os, "access", lambda *_: False)
    with closing(Store(f"sqlite:///{path}")) as reader, pytest.raises(StoreAwayError, match="its folder is read-only"):
        counts(reader)


def test_a_database_that_lacks_characters_is_refused(postgres_url: str) -> None:
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    name = f"backchannel_latin_{os.getpid()}"
    with engine.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        latin = engine.url.set(database=name).render_as_string(False)
        with closing(Store(latin)) as store, pytest.raises(StoreError, match=r"encoding, LATIN1, .*ENCODING 'UTF8'"):
            store.create([])
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


def test_a_new_file_may_be_opened_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a new file is in WAL mode, the second connection is refused at once, and must retry."""
    path = tmp_path / "policy.db"
    with closing(sqlite3.connect(path)) as first, closing(Store(f"sqlite:///{path}")) as second:
        first.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("backchannel.streams.store.retries.time.sleep", lambda _pause: first.rollback())
        second.create([])
        assert first.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("stable", [False, True])
def test_transactions_that_lock_rows_in_different_orders_all_succeed(store_url: str, stable: bool) -> None:
    errors: list[BaseException] = []
    rounds, barrier = 10, threading.Barrier(2)

    def work(*order: str) -> None:
        try:
            with closing(Store(store_url)) as store:
                store.create([])
                for _ in range(rounds):
                    barrier.wait()

                    def both(connection: Connection) -> None:
                        for name in order:
                            add(connection, name)

                    store.transact(both, stable=stable)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=order) for order in ("ab", "ba")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    with closing(Store(store_url)) as store:
        assert counts(store) == {"a": 2 * rounds, "b": 2 * rounds}


def test_who_waited_for_a_long_transaction_goes_before_the_next_one(
    store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store_url.startswith("postgresql"):
        pytest.skip("PostgreSQL grants locks in turn")
    begun, written, order = threading.Event(), threading.Event(), list[str]()
    # Instead of the time in which who waits looks for the lock, whatever the machine takes for that.
    monkeypatch.setattr(sqlite, "time", SimpleNamespace(sleep=lambda _: written.wait(30)))

    def hold(_: Connection) -> None:
        begun.set()
        time.sleep(0.3)

    def write(name: str) -> None:
        store.transact(lambda _: order.append(name))

    def wait() -> None:
        begun.wait(30)
        write("who waited")
        written.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    store.transact(hold)
    store.give_way()
    write("the next one")
    waiting.join()
    assert order == ["who waited", "the next one"]


def test_a_stable_transaction_sees_one_state(store_url: str, new_store: Callable[[], str]) -> None:
    if not store_url.startswith("postgresql"):
        pytest.skip("SQLite lets one transaction write at a time")
    with closing(Store(store_url)) as one, closing(Store(store_url)) as other:
        one.create([])
        with one.write(stable=True) as connection:
            assert not connection.execute(select(counter)).all()
            with other.write() as meanwhile:
                add(meanwhile, "a")
            assert not connection.execute(select(counter)).all()
        with one.write() as connection, other.write() as meanwhile:
            add(meanwhile, "b")
            meanwhile.commit()
            assert len(connection.execute(select(counter)).all()) == 2


def test_a_reader_cannot_write(store_url: str, store: Store) -> None:
    if not store_url.startswith("postgresql"):
        pytest.skip("SQLite has no read-only transactions")
    with store.read() as connection, pytest.raises(Exception, match="read-only transaction"):
        add(connection, "a")


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_values_may_be_many(store: Store, size: int) -> None:
    names = [f"näme {number}" for number in range(size)]
    with store.write() as connection:
        insert_rows(connection, counter, {"value": [1] * size, "name": names})
        add(connection, "other", *names[:2])
        found: Any = connection.execute(select(counter.c.name).where(among(connection, counter.c.name, names)))
        assert sorted(found.scalars()) == sorted(names)
        mine = among(connection, counter.c.value, [2, 7])
        connection.execute(update(counter).where(mine).values(value=9))
        values = connection.execute(select(counter.c.name).where(counter.c.value == 9)).scalars()
        assert sorted(values) == sorted(names[:2])


def test_no_password_is_shown() -> None:
    for mistyped in ("mysql://me:secret@host/x", "postgresql:/me:secret@h/x", "postgresql//me:secret@h/x"):
        with pytest.raises(StoreError) as refused:
            Store(mistyped)
        assert "secret" not in str(refused.value)
    with closing(Store("postgresql://me:secret@127.0.0.1:1/x")) as store, pytest.raises(StoreError) as away:
        store.create([])
    assert "secret" not in str(away.value)


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError) as refused:
        Store("postgresql+psycopg://me@127.0.0.1:1/x")
    assert str(refused.value) == f"this store needs psycopg: {install('postgres')}"
