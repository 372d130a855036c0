"""PostgreSQL: a server, with many writers at a time."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, URL, ColumnElement, Connection, Engine, Table, any_, bindparam, func, select, text

from backchannel.streams.store.dialects.dialect import Dialect, updates

_CONFLICTS: Final = ("40001", "40P01")  # SQLSTATE of a serialization failure and of a deadlock
_PASSING: Final = (
    "08",  # connection exceptions
    "0A000",  # a transaction that writes, on a standby
    "25006",  # a standby, or a server that was made read-only, as when its disk is nearly full
    "25P03",  # idle in a transaction for too long: this process was stopped
    "25P04",  # a transaction that took too long
    "40",  # rolled back: conflicts among others
    "53",  # out of disk, memory or connections
    "55P03",  # a lock that was not granted in time
    "57",  # cancelled by an administrator or a timeout; shut down, crashed, starting up
    "58",  # a system or I/O error
)
"""Beginnings of the SQLSTATEs of errors that pass by themselves. All others need somebody who does something."""
_CREATING: Final = 0x6261636B  # the number of an advisory lock
_CONNECTION_ERRORS: Final = ("OperationalError", "InterfaceError", "ConnectionTimeout")  # of psycopg, an extra
_BATCH: Final = 20_000  # rows in a statement, so that a million rows are not held in memory twice


class Postgresql(Dialect):
    """PostgreSQL, through psycopg."""

    name = "postgresql"
    example = "postgresql://user@host/database"
    requirement = "backchannel[postgres]"

    def prepare(self, engine: Engine) -> None:
        """Do nothing: connections are as they should be."""

    def transaction_options(self, *, write: bool, stable: bool) -> dict[str, Any]:
        """Return the isolation level, and whether the transaction only reads."""
        return {
            "isolation_level": "REPEATABLE READ" if stable else "READ COMMITTED",
            "postgresql_readonly": not write,
        }

    def is_conflict(self, error: BaseException) -> bool:
        """Return whether the error is a serialization failure or a deadlock."""
        return getattr(error, "sqlstate", None) in _CONFLICTS

    def passes(self, error: BaseException) -> bool:
        """Return whether the SQLSTATE says so; without one, whether it was the connection that failed."""
        state = getattr(error, "sqlstate", None)
        if state is None:
            return type(error).__name__ in _CONNECTION_ERRORS
        return str(state).startswith(_PASSING)

    def unsuitable(self, connection: Connection) -> str | None:
        """Return a fault if the database's encoding has not all characters."""
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding == "UTF8":
            return None
        return (
            f"its encoding is {encoding}, which lacks most characters of queries: "
            "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )

    def missing_file(self, url: URL) -> str | None:  # noqa: ARG002
        """Return None: the database is a server's."""
        return None

    def lock_creation(self, connection: Connection) -> None:
        """Take an advisory lock: otherwise two that begin at once would both create the tables."""
        connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))

    def among(self, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        """Compare with the elements of one array parameter."""
        return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))

    def insert_rows(
        self,
        connection: Connection,
        table: Table,
        columns: Mapping[str, Sequence[Any]],
        *,
        add: Collection[str],
        replace: Collection[str],
    ) -> None:
        """Insert from one array parameter per column: a parameter per value takes longer to build than to execute."""
        # Imported here, so that a process with another kind of store starts without it.
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        statement = postgresql.insert(table)
        if changed := updates(table, statement.excluded, add, replace):
            statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        arrays = [bindparam(f"all_{name}", type_=ARRAY(table.c[name].type)) for name in columns]
        rows = func.unnest(*arrays).table_valued(*columns).render_derived()
        statement = statement.from_select(list(columns), select(*rows.c))
        for first in range(0, len(next(iter(columns.values()))), _BATCH):
            some = {f"all_{name}": values[first : first + _BATCH] for name, values in columns.items()}
            connection.execute(statement, some)

    def size(self, connection: Connection) -> int:
        """Return the size of the database in bytes."""
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
