"""SQLite: a file, with one writer at a time."""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import URL, ColumnElement, Connection, Engine, Table, event, func, select, text
from sqlalchemy.dialects import sqlite

from backchannel.streams.store.dialects.dialect import Dialect, updates
from backchannel.streams.store.retries import retry

_WRITE = "backchannel_write"
_PRAGMAS = ("busy_timeout=30000", "synchronous=NORMAL", "cache_size=-262144")


class Sqlite(Dialect):
    """SQLite, in WAL mode: readers and the one writer do not wait for each other."""

    name = "sqlite"
    example = "sqlite:///policy.db"
    requirement = "backchannel"

    def prepare(self, engine: Engine) -> None:
        """Set the pragmas of each new connection, and begin transactions explicitly."""

        @event.listens_for(engine, "connect")
        def connect(connection: Any, _record: object) -> None:
            connection.isolation_level = None  # otherwise the driver decides when a transaction begins
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            # If two connections open a new file at once, one of them is refused, whatever its timeout.
            retry(
                lambda: connection.execute("PRAGMA journal_mode=WAL"),
                lambda error: getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY,
            )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # Taking the write lock at the first write instead would fail if another transaction wrote in between.
            write = connection.get_execution_options().get(_WRITE)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    def transaction_options(self, *, write: bool, stable: bool) -> dict[str, Any]:  # noqa: ARG002  (always stable)
        """Return whether to take the write lock at the start. Every transaction is stable."""
        return {_WRITE: write}

    def is_conflict(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return False: a writer waits for its lock at the start of its transaction, and then has no conflicts."""
        return False

    def missing_file(self, url: URL) -> str | None:
        """Return the path of the file if it is not there. SQLite would create it."""
        return url.database if url.database and not Path(url.database).exists() else None

    def lock_creation(self, connection: Connection) -> None:
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
        """Execute the statement once for each row, which is fastest with SQLite's driver.

        The driver releases the interpreter lock for each row, and then competes for it with other threads: write many
        rows while no other thread is busy.
        """
        statement = sqlite.insert(table)
        if changed := updates(table, statement.excluded, add, replace):
            statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        # Handing tuples to the driver costs half of what SQLAlchemy's dicts do.
        dialect: Any = type(connection.dialect)
        sql = str(statement.compile(dialect=dialect(paramstyle="qmark"), column_keys=list(columns)))
        if rows := list(zip(*columns.values(), strict=True)):
            connection.exec_driver_sql(sql, rows)

    def size(self, connection: Connection) -> int:
        """Return the size of the file in bytes."""
        size = text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(connection.execute(size).scalar_one())
