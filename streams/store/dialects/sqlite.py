"""SQLite: a file, with one writer at a time."""

import os
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
from sqlalchemy import URL, ColumnElement, Connection, Engine, Table, event, func, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import InvalidatePoolError

from backchannel.streams.store.dialects.dialect import Dialect, updates
from backchannel.streams.store.retries import retry

_WRITE = "backchannel_write"
_FILE = "backchannel_file"
# Checkpoints are rarer than by default, and write what changes with every version less often. A cache of more than
# 32 MiB saves no time, as the system caches the file, too; it grew with the store in every process.
_PRAGMAS = ("busy_timeout=30000", "synchronous=NORMAL", "cache_size=-32768", "wal_autocheckpoint=16384")
_TOGETHER = 100  # rows of one INSERT, if SQLite takes so many values: before 3.32 it took 999
_LOOK_S = 0.12  # a writer that has waited for a third of a second looks every tenth
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)


class Sqlite(Dialect):
    """SQLite, in WAL mode: readers and the one writer do not wait for each other."""

    name = "sqlite"
    example = "sqlite:///policy.db"

    def prepare(self, engine: Engine) -> None:
        """Set the pragmas of each new connection, and begin transactions explicitly."""

        path = _path(engine.url.database) if engine.url.database else None

        @event.listens_for(engine, "connect")
        def connect(connection: Any, record: Any) -> None:
            opened = _file(path)
            connection.isolation_level = None  # otherwise the driver decides when a transaction begins
            try:
                for pragma in _PRAGMAS:
                    connection.execute(f"PRAGMA {pragma}")
                # If two connections open a new file at once, one of them is refused, whatever its timeout.
                retry(
                    lambda: connection.execute("PRAGMA journal_mode=WAL"),
                    lambda error: getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY,
                )
            except sqlite3.OperationalError as error:
                if path is not None and path.exists() and not os.access(path.parent, os.W_OK):
                    error.args = (
                        f"{error}; its folder is read-only, and no process with write access has it open, so the "
                        "-wal and -shm files beside it are missing: make the folder writable, or run a worker",
                    )
                raise
            record.info[_FILE] = opened or _file(path)  # the file may have just been created

        @event.listens_for(engine, "checkout")
        def checkout(_connection: object, record: Any, _proxy: object) -> None:
            # An open file outlives its name: after a restore, readers must open the new file.
            if _file(path) not in (record.info[_FILE], None):
                raise InvalidatePoolError("the file was replaced")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # Taking the write lock at the first write instead would fail if another transaction wrote in between.
            write = connection.get_execution_options().get(_WRITE)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    def transaction_options(self, *, write: bool, stable: bool, long: bool) -> dict[str, Any]:  # noqa: ARG002
        """Return whether to take the write lock at the start. Every transaction is stable."""
        return {_WRITE: write}

    def is_conflict(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return False: a writer waits for its lock at the start of its transaction, and then has no conflicts."""
        return False

    def is_busy(self, error: BaseException) -> bool:
        """Decide by the error code."""
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def give_way(self) -> None:
        """Pause: who waits only looks from time to time whether the lock is free."""
        time.sleep(_LOOK_S)

    def passes(self, error: BaseException) -> bool:
        """Decide by the error code."""
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and (code & 0xFF in _PASSING or code == sqlite3.SQLITE_READONLY_DBMOVED)

    def unsuitable(self, connection: Connection) -> str | None:  # noqa: ARG002
        """Return None: every file can hold a store."""
        return None

    def missing_file(self, url: URL) -> str | None:
        """Return the path of the file if it is missing: SQLite would create it."""
        if not url.database:
            return None
        path = _path(url.database)
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return str(path)
        return None

    def lock_creation(self, connection: Connection) -> None:
        """Do nothing: a transaction that writes is alone."""

    def lock_sums(self, connection: Connection) -> None:
        """Do nothing: a transaction that writes is alone."""

    def among(self, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        """Compare with the elements of one JSON parameter."""
        return column.in_(select(func.json_each(orjson.dumps(list(values)).decode()).table_valued("value").c.value))

    def insert_rows(
        self,
        connection: Connection,
        table: Table,
        columns: Mapping[str, Sequence[Any]],
        *,
        add: Collection[str],
        replace: Collection[str],
    ) -> None:
        """Execute the statement once for every `_TOGETHER` rows: for each row takes a fifth more of the time.

        The driver releases the interpreter lock for each statement, and then competes for it with other threads: write
        many rows while no other thread is busy.
        """
        statement = sqlite.insert(table)
        if changed := updates(table, statement.excluded, add, replace):
            statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        # Passing tuples to the driver costs half as much as SQLAlchemy's dicts.
        dialect: Any = type(connection.dialect)
        sql = str(statement.compile(dialect=dialect(paramstyle="qmark"), column_keys=list(columns)))
        row = f"({', '.join('?' * len(columns))})"
        rows = list(zip(*columns.values(), strict=True))
        driver: Any = connection.connection.driver_connection
        most = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(columns)
        together = max(min(_TOGETHER, most), 1)
        whole = len(rows) - len(rows) % together
        if whole:
            values = [chain.from_iterable(rows[:whole])] * (together * len(columns))
            connection.exec_driver_sql(
                sql.replace(row, ", ".join([row] * together), 1), list(zip(*values, strict=True))
            )
        if rows[whole:]:
            connection.exec_driver_sql(sql, rows[whole:])

    def size(self, connection: Connection) -> int:
        """Return the size of the file in bytes."""
        size = text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(connection.execute(size).scalar_one())

    def free(self, connection: Connection) -> int:
        """Return how many bytes are free on the file's disk, which holds the journal, too."""
        return shutil.disk_usage(_path(connection.engine.url.database or "").absolute().parent).free


def _path(database: str) -> Path:
    """Return the path in a URL's database, which is a URI if it begins with `file:`."""
    if database.startswith("file:"):
        database = unquote(database.removeprefix("file:").partition("?")[0])
    return Path(database)


def _file(path: Path | None) -> tuple[int, int] | None:
    """Return the file's identity (device and inode), whatever its name; None if there is no file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)
