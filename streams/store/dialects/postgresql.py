"""PostgreSQL: a server, with many writers at a time."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ARRAY, URL, ColumnElement, Connection, Engine, Table, any_, bindparam, event, func, select, text

from backchannel.streams.store.dialects.arrays import BinaryArray, EncodedArray
from backchannel.streams.store.dialects.dialect import Dialect, updates

_CONFLICTS: Final = ("40001", "40P01")  # SQLSTATE of a serialization failure and of a deadlock
_PASSING: Final = (
    "08",  # connection exceptions
    "0A000",  # a transaction that writes, on a standby
    "25006",  # a standby, or a server that was made read-only, as when its disk is nearly full
    "25P03",  # idle in a transaction for too long: this process was suspended
    "25P04",  # a transaction that took too long
    "40",  # rolled back: conflicts among others
    "53",  # out of disk, memory or connections
    "55P03",  # a lock that was not granted in time
    "57",  # cancelled by an administrator or a timeout; shut down, crashed, starting up
    "58",  # a system or I/O error
)
"""Prefixes of the SQLSTATEs of errors that may resolve themselves. All others need human attention."""
_CREATING: Final = 0x6261636B  # the number of an advisory lock
CONNECTION: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms
    "prepare_threshold": None,  # behind PgBouncer, the next transaction has another server connection
}
"""Connection settings: a connection whose other end is gone is closed after about twenty seconds."""


class Limits(NamedTuple):
    """How long a transaction may take before the server ends it, in seconds; None for no limit.

    Attributes:
        statement_s: maximum duration of one statement.
        idle_s: maximum time between statements. A suspended process is idle, too, and keeps its locks.
        lock_s: maximum time to wait for a lock.
    """

    statement_s: float
    idle_s: float | None = None
    lock_s: float | None = None

    def settings(self) -> list[tuple[str, str]]:
        """Return the server's settings."""
        return [
            (name, f"{round(1000 * seconds)}ms")
            for name, seconds in (
                ("statement_timeout", self.statement_s),
                ("idle_in_transaction_session_timeout", self.idle_s),
                ("lock_timeout", self.lock_s),
                ("tcp_user_timeout", self.idle_s),  # a suspended process does not even read an answer
            )
            if seconds is not None
        ]


READING: Final = Limits(60.0)
SHORT: Final = Limits(60.0, idle_s=20.0, lock_s=10.0)
"""Limits of commits and maintenance, for which other workers wait."""
LONG: Final = Limits(600.0, idle_s=300.0, lock_s=10.0)
"""Limits of migrations, and of publications, which compute between statements and block only other publishers."""
_GRACE_S: Final = 5.0  # for the server to report that the time is over
_LIMITS: Final = "backchannel_limits"
_CONNECTION_ERRORS: Final = (
    "OperationalError",
    "InterfaceError",
    "ConnectionTimeout",
)  # psycopg's, by name because it is an extra
_BATCH: Final = 20_000  # maximum rows in a statement, so that a million rows are not in memory twice


class Postgresql(Dialect):
    """PostgreSQL, through psycopg."""

    name = "postgresql"
    example = "postgresql://user@host/database"

    def prepare(self, engine: Engine) -> None:
        """Limit how long a connection waits, and how long a transaction may keep others waiting.

        Limits that the URL sets are kept.
        """
        options = str(engine.url.query.get("options", ""))

        @event.listens_for(engine, "do_connect")
        def connect(_dialect: object, _record: object, arguments: list[Any], settings: dict[str, Any]) -> Any:
            from backchannel.streams.store.dialects import patience  # noqa: PLC0415 - an extra

            driver = patience.PatientConnection.connect(*arguments, **{**CONNECTION, **settings})
            driver.adapters.register_dumper(EncodedArray, patience.ArrayDumper)
            return driver

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            limits: Limits | None = connection.get_execution_options().get(_LIMITS)
            if limits is None:
                return
            driver: Any = connection.connection.dbapi_connection
            driver.patience_s = limits.statement_s + _GRACE_S
            # For the transaction, not the connection, which others share behind PgBouncer. The command takes no
            # snapshot of the database, so a stable transaction may wait for a lock before it has one.
            if own := [f"SET LOCAL {name} = '{value}'" for name, value in limits.settings() if name not in options]:
                connection.exec_driver_sql("; ".join(own))

        @event.listens_for(engine, "checkin")
        def checkin(driver: Any, _record: object) -> None:
            if driver is not None:
                vars(driver).pop("patience_s", None)

    def transaction_options(self, *, write: bool, stable: bool, long: bool) -> dict[str, Any]:
        """Return the isolation level, whether the transaction only reads, and its limits."""
        return {
            "isolation_level": "REPEATABLE READ" if stable else "READ COMMITTED",
            "postgresql_readonly": not write,
            _LIMITS: (LONG if long else SHORT) if write else READING,
        }

    def is_conflict(self, error: BaseException) -> bool:
        """Return whether the error is a serialization failure or a deadlock."""
        return getattr(error, "sqlstate", None) in _CONFLICTS

    def is_busy(self, error: BaseException) -> bool:
        """Return whether the lock timeout is over."""
        return getattr(error, "sqlstate", None) == "55P03"

    def give_way(self) -> None:
        """Do nothing: locks are granted in the order in which they were asked for."""

    def passes(self, error: BaseException) -> bool:
        """Decide by the SQLSTATE; without one, return whether the connection failed."""
        state = getattr(error, "sqlstate", None)
        if state is None:
            return type(error).__name__ in _CONNECTION_ERRORS
        return str(state).startswith(_PASSING)

    def unsuitable(self, connection: Connection) -> str | None:
        """Return a fault if the database's encoding lacks characters."""
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding == "UTF8":
            return None
        return (
            f"its encoding, {encoding}, cannot hold most characters of queries: "
            "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )

    def missing_file(self, url: URL) -> str | None:  # noqa: ARG002
        """Return None: the database is a server's."""
        return None

    def lock_creation(self, connection: Connection) -> None:
        """Take an advisory lock: otherwise two processes that start at once would both create the tables."""
        connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))

    def lock_sums(self, connection: Connection) -> None:
        """Lock a small table, in a mode that excludes itself only; the command takes no snapshot of the database."""
        connection.execute(text("LOCK TABLE landmark IN SHARE UPDATE EXCLUSIVE MODE"))

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
        """Insert from one array parameter per column: one parameter per value would take longer to build than to
        execute.
        """
        # Imported here, so that a process with another dialect does not import it.
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        statement = postgresql.insert(table)
        if changed := updates(table, statement.excluded, add, replace):
            statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        arrays = [bindparam(f"all_{name}", type_=BinaryArray(table.c[name].type)) for name in columns]
        rows = func.unnest(*arrays).table_valued(*columns).render_derived()
        statement = statement.from_select(list(columns), select(*rows.c))
        for first in range(0, len(next(iter(columns.values()))), _BATCH):
            some = {f"all_{name}": values[first : first + _BATCH] for name, values in columns.items()}
            connection.execute(statement, some)

    def size(self, connection: Connection) -> int:
        """Return the size of the database in bytes."""
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def free(self, connection: Connection) -> None:
        """Return None: the disk is the server's."""
