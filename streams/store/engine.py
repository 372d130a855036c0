"""The SQL store, shared by ledger and snapshots: connections, transactions, tables, and its schema version."""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from backchannel.agents.sums import SumTable
from backchannel.schemas.errors import BackchannelError

SCHEMA_VERSION: Final = "0001"
"""Of the tables below: the newest of the migrations, which make them what they are here."""

_MAX_PARAMETERS: Final = 5_000  # in keys of up to three columns; SQLite takes 32,766 values
_CONFLICTS: Final = ("40001", "40P01")  # SQLSTATE of a serialisation failure, and of a deadlock
_PAUSES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
_CREATING: Final = 0x6261636B  # the number of an advisory lock
_T = TypeVar("_T")


metadata = MetaData()
_ID = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers only INTEGER keys by itself

schema_version = Table("schema_version", metadata, Column("version_num", String(32), primary_key=True))

partition = Table(
    "partition",
    metadata,
    Column("source", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("watermark", BigInteger, nullable=False),
    Column("topics", LargeBinary, nullable=False),  # topic -> TopicPosition
)
counter = Table(
    "counter", metadata, Column("name", Text, primary_key=True), Column("value", BigInteger, nullable=False)
)
landmark = Table(
    "landmark",
    metadata,
    Column("table_name", Text, primary_key=True),
    Column("half_life_ms", BigInteger, nullable=False),
    Column("landmark", BigInteger, nullable=False),
)
change = Table(
    "change",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("table_name", Text, nullable=False),
    Column("value", Text, nullable=False),
    sqlite_autoincrement=True,
)
decision = Table(
    "decision",
    metadata,
    Column("rank", Double, primary_key=True, autoincrement=False),  # see agents.decisions
    Column("value", LargeBinary, nullable=False),  # agents.decisions.LoggedDecision
)
snapshot = Table(
    "snapshot",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("created", BigInteger, nullable=False),
    Column("header", Text, nullable=False),  # JSON: schemas.snapshot.Snapshot
    Column("signature", Text),  # of the header; NULL: not signed
    Column("pinned", Boolean, nullable=False),
)
head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row: 1
    Column("version", BigInteger),  # what readers serve; NULL before the first
    Column("hold", Text),  # why later versions do not become the head; NULL: they do
)
snapshot_row = Table(
    "snapshot_row",
    metadata,
    Column("section", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("valid_from", BigInteger, primary_key=True),
    Column("valid_to", BigInteger),  # the first version without it; NULL: it is live
    Column("value", LargeBinary, nullable=False),
    Index("snapshot_row_from", "valid_from"),
)
# Of live rows, which are most of them, nobody asks when they ended.
_ENDED: Final = snapshot_row.c.valid_to.is_not(None)
Index("snapshot_row_to", snapshot_row.c.valid_to, sqlite_where=_ENDED, postgresql_where=_ENDED)

MINUTE_MS: Final = 60_000
"""Length of the minutes in `tally`."""

# For people and alarms: see heartbeat and alarms. Times are wall clock, ms since the Unix epoch, but for event times.
worker = Table(
    "worker",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("committed", BigInteger),  # when the last commit was made
    Column("rate", Double, nullable=False),  # events per second
    Column("partitions", Text, nullable=False),  # JSON: list of numbers
)
tally = Table(
    "tally",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
watch = Table(
    "watch",
    metadata,
    Column("measure", Text, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),  # event time of the last change
    Column("judged", BigInteger, nullable=False),  # event time up to which was looked for changes
)
alarm = Table(
    "alarm",
    metadata,
    Column("measure", Text, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("noticed", BigInteger, primary_key=True, autoincrement=False),  # event time
    Column("since", BigInteger, nullable=False),  # event time of the change
    Column("before", Double, nullable=False),
    Column("after", Double, nullable=False),
    Column("raised", BigInteger, nullable=False),
)


class StoreError(BackchannelError, RuntimeError):
    """The store cannot be used as it is; the message says why and what to do."""


class Store:
    """A database with Backchannel's tables.

    Args:
        url: SQLAlchemy's: `sqlite:///policy.db`, or `postgresql://user@host/database?sslmode=verify-full`, where what
            comes after the question mark goes to libpq.

    Attributes:
        sum_tables: the tables of the learners' sums, by name, once `create` or `declare` was called.

    Raises:
        StoreError: the URL is not one.
    """

    def __init__(self, url: str) -> None:
        try:
            if make_url(url).get_backend_name() not in ("sqlite", "postgresql"):
                raise StoreError(f"store {make_url(url)}: it must be sqlite:///... or postgresql://...")
            self._engine: Final[Engine] = create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError(f"this store needs {error.name}: pip install 'backchannel[postgres]'") from None
        except (ArgumentError, NoSuchModuleError) as error:
            kind = url.partition("://")[0]  # what follows may hold a password
            raise StoreError(f"store {kind!r}: {error}; a URL like sqlite:///policy.db is needed") from None
        if self._engine.dialect.name == "sqlite":
            _set_up_sqlite(self._engine)
        self.sum_tables: dict[str, Table] = {}

    def create(self, sums: Sequence[SumTable]) -> None:
        """Make the tables that are missing, those of the learners' `sums` among them.

        Raises:
            StoreError: the store cannot be opened, or was written by another version.
        """
        own = self.declare(sums)
        try:
            with self.write(new=True) as connection:
                if connection.dialect.name == "postgresql":  # else two that begin at once would both make them
                    connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
                if not inspect(connection).has_table(schema_version.name):
                    metadata.create_all(connection)
                    connection.execute(insert(schema_version).values(version_num=SCHEMA_VERSION))
                    connection.execute(insert(head).values(id=1))
                self.check(connection)
                own.create_all(connection)
                self._check_sums(connection)
        except DBAPIError as error:
            raise StoreError(f"store {self._engine.url} cannot be opened: {error.orig}") from None

    def declare(self, sums: Sequence[SumTable]) -> MetaData:
        """Say what the tables of the learners' `sums` look like, for who only reads them; return that."""
        own = MetaData()
        self.sum_tables = {table.name: _sum_table(own, table) for table in sums}
        return own

    def check(self, connection: Connection) -> None:
        """Check that this version can work with the store.

        Raises:
            StoreError: it has no tables yet, or was written by another version.
        """
        found = self.version(connection)
        if found is None:
            raise StoreError(f"store {self._engine.url} is empty: nothing has been learned into it yet")
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"store {self._engine.url} has schema version {found}, this Backchannel needs {SCHEMA_VERSION}: "
                "`backchannel store upgrade` brings an older one to it; a newer one needs the Backchannel that wrote it"
            )

    def require(self) -> None:
        """Check that the store is there, if it is a file: to look at one that is not would make it.

        Raises:
            StoreError: it is not.
        """
        url = self._engine.url
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise StoreError(f"there is no file {url.database}: nothing has been learned into it yet")

    def version(self, connection: Connection) -> str | None:
        """Return the version of the store's schema; None if it has no tables yet."""
        if not inspect(connection).has_table(schema_version.name):
            return None
        return str(connection.execute(select(schema_version.c.version_num)).scalar_one())

    def _check_sums(self, connection: Connection) -> None:
        for name, table in self.sum_tables.items():
            found = {column["name"] for column in inspect(connection).get_columns(name)}
            needed = set(table.columns.keys())
            if found != needed:
                raise StoreError(
                    f"store {self._engine.url}: table {name} has the columns {', '.join(sorted(found))}, this "
                    f"Backchannel needs {', '.join(sorted(needed))}: use the one that wrote it, or begin a new store"
                )

    @contextmanager
    def write(self, *, stable: bool = False, new: bool = False) -> Iterator[Connection]:
        """A transaction that may write; rolled back when its block raises.

        Args:
            new: make the store, if it is a file that is not there.
            stable: every statement sees the state at the first one. Without it, each sees what was committed before it
                began, and locked rows as they are by then.
        """
        with self._begin(write=True, stable=stable, new=new) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and sees one state throughout."""
        with self._begin(write=False, stable=True) as connection:
            yield connection

    def transact(self, work: Callable[[Connection], _T], *, stable: bool = False) -> _T:
        """Return what `work` does in a transaction that may write; see `write`.

        It is done again, from the start, where the transactions of others were in its way: it must have no other effect
        than on the store.
        """

        def once() -> _T:
            with self.write(stable=stable) as connection:
                return work(connection)

        return _retry(
            once,
            lambda error: isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS,
        )

    @contextmanager
    def _begin(self, *, write: bool, stable: bool, new: bool = False) -> Iterator[Connection]:
        if not new:
            self.require()
        options: dict[str, Any] = {"backchannel_write": write}
        if self._engine.dialect.name == "postgresql":
            options["isolation_level"] = "REPEATABLE READ" if stable else "READ COMMITTED"
            options["postgresql_readonly"] = not write
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    """Split `values` into lists that fit into one SQL statement as parameters."""
    every = iter(values)
    while some := list(islice(every, _MAX_PARAMETERS)):
        yield some


def _retry(work: Callable[[], _T], in_the_way: Callable[[Exception], bool]) -> _T:
    """Return what `work` does, which is done again where others were in its way, as the error tells."""
    for pause in _PAUSES:
        try:
            return work()
        except Exception as error:
            if not in_the_way(error):
                raise
        time.sleep(pause)
    return work()


def _sum_table(own: MetaData, table: SumTable) -> Table:
    keys = [
        Column(name, Text if kind is str else BigInteger, primary_key=True, autoincrement=False)
        for name, kind in table.key
    ]
    sums: list[Column[Any]] = [Column(name, Double, nullable=False) for name in table.sums]
    packed = [] if sums else [Column("packed", LargeBinary, nullable=False)]
    lookup = [Index(f"{table.name}_{table.lookup}", table.lookup)] if table.lookup else []
    return Table(table.name, own, *keys, *sums, *packed, *lookup, sqlite_with_rowid=False)


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        for pragma in ("busy_timeout=30000", "synchronous=NORMAL", "cache_size=-262144"):
            connection.execute(f"PRAGMA {pragma}")
        # Of two that open a new file at once, one is refused, whatever its timeout.
        _retry(
            lambda: connection.execute("PRAGMA journal_mode=WAL"),
            lambda error: getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY,
        )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A write lock taken at the first write, not at the start, fails if somebody else wrote in between.
        write = connection.get_execution_options().get("backchannel_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
