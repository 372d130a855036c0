"""The SQL store, shared by ledger and snapshots: connections, transactions and retries."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakSet

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Pool,
    Table,
    create_engine,
    insert,
    inspect,
    literal,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backchannel.agents.sums import SumTable
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.extras import remedy
from backchannel.streams.store.dialects import DIALECTS
from backchannel.streams.store.retries import retry
from backchannel.streams.store.tables import SCHEMA_VERSION, head, metadata, schema_version, sum_table, taught_head

_T = TypeVar("_T")


class StoreError(BackchannelError, RuntimeError):
    """The store cannot be used as it is; the message says why and what to do."""


class StoreAwayError(StoreError):
    """The store is missing, locked, full, unreachable or failing over: a retry may succeed."""


class StoreBusyError(StoreAwayError):
    """Another process holds a lock for longer than a transaction waits."""


class Store:
    """A database with Backchannel's tables.

    Args:
        url: a SQLAlchemy URL: `sqlite:///policy.db`, or `postgresql://user@host/database?sslmode=verify-full`, where
            the query string goes to libpq.

    Attributes:
        sum_tables: the tables of the learners' sums, by name, after `create` or `declare`.

    Raises:
        StoreError: the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            dialect = DIALECTS.get(parsed.get_backend_name())
            if dialect is None:
                examples = " or ".join(known.example for known in DIALECTS.values())
                raise StoreError(f"store {parsed}: unsupported; give a URL like {examples}")
            self._engine: Final[Engine] = create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError(f"this store needs {error.name}: {remedy(error) or f'pip install {error.name}'}") from None
        except (ArgumentError, NoSuchModuleError) as error:
            kind = url.partition(":")[0]  # the rest may contain a password, even if the URL is mistyped
            raise StoreError(f"store {kind!r}: {error}; give a URL like sqlite:///policy.db") from None
        self._dialect: Final = dialect
        dialect.prepare(self._engine)
        self.sum_tables: dict[str, Table] = {}
        _stores.add(self)

    def create(self, sums: Sequence[SumTable], migrate: Callable[[Connection], None] | None = None) -> None:
        """Create the tables that are missing, including those of the learners' `sums`, in one transaction.

        Args:
            sums: the tables of the learners' sums.
            migrate: what first creates the others or migrates those of an older version; by default they are created.

        Raises:
            StoreError: the store cannot be opened, or was written by another version.
        """
        own = self.declare(sums)
        with self.write(new=True) as connection:
            self._dialect.lock_creation(connection)
            if fault := self._dialect.unsuitable(connection):
                raise StoreError(f"store {self._engine.url}: {fault}")
            if migrate is not None:
                migrate(connection)
                self._drop_unused(connection)
            elif not inspect(connection).has_table(schema_version.name):
                metadata.create_all(connection)
                connection.execute(insert(schema_version).values(version_num=SCHEMA_VERSION))
                connection.execute(insert(head).values(id=1))
                connection.execute(insert(taught_head).values(id=1, changed=0, erased=0))
            self.check(connection)
            own.create_all(connection)
            self._check_sums(connection)

    def declare(self, sums: Sequence[SumTable]) -> MetaData:
        """Declare the tables of the learners' `sums` without creating them, which is enough to read; return them."""
        own = MetaData()
        self.sum_tables = {table.name: sum_table(own, table) for table in sums}
        return own

    def check(self, connection: Connection) -> None:
        """Check that this version can work with the store.

        Raises:
            StoreError: the store has no tables yet, or was written by another version.
        """
        found = self.version(connection)
        if found is None:
            raise StoreError(f"store {self._engine.url} is empty: nothing has been learned into it yet")
        if found != SCHEMA_VERSION:
            raise StoreError(f"store {self._engine.url} has {unfit(found)}")

    def require(self, *, new: bool = False) -> None:
        """Check that a store in a file exists: opening a missing file would create it.

        Args:
            new: whether it may be created; then only its folder has to exist.

        Raises:
            StoreAwayError: the file, or a new one's folder, does not exist or cannot be reached.
        """
        try:
            missing = self._dialect.missing_file(self._engine.url)
        except OSError as error:
            raise StoreAwayError(f"{self._silent}: {error.filename}: {error.strerror}") from None
        if missing and new:
            if not (folder := Path(missing).parent).is_dir():
                raise StoreAwayError(f"store {self._engine.url}: there is no folder {folder}: create it first")
        elif missing:
            raise StoreAwayError(f"there is no file {missing}: nothing has been learned into it yet")

    def version(self, connection: Connection) -> str | None:
        """Return the version of the store's schema; None if it has no tables yet."""
        if not inspect(connection).has_table(schema_version.name):
            return None
        return str(connection.execute(select(schema_version.c.version_num)).scalar_one())

    def _drop_unused(self, connection: Connection) -> None:
        """Drop the tables of sums that have other columns and no rows: an older version made them for learners that
        were off.
        """
        found = inspect(connection)
        for name, table in self.sum_tables.items():
            if (
                found.has_table(name)
                and {column["name"] for column in found.get_columns(name)} != set(table.columns.keys())
                and connection.execute(select(literal(1)).select_from(table).limit(1)).first() is None
            ):
                table.drop(connection)

    def _check_sums(self, connection: Connection) -> None:
        for name, table in self.sum_tables.items():
            found = {column["name"] for column in inspect(connection).get_columns(name)}
            needed = set(table.columns.keys())
            if found != needed:
                raise StoreError(
                    f"store {self._engine.url}: table {name} has the columns {', '.join(sorted(found))}, this "
                    f"Backchannel needs {', '.join(sorted(needed))}: use the one that wrote it, or learn anew from the "
                    "log into a new store"
                )

    @contextmanager
    def write(self, *, stable: bool = False, new: bool = False) -> Iterator[Connection]:
        """A transaction that may write; rolled back when its block raises.

        Args:
            stable: whether every statement sees the state as of the first one. Otherwise each sees what was committed
                before it began, and the newest state of the rows that it locks.
            new: whether to create the store if it is a file that does not exist.

        Raises:
            StoreAwayError: the store is away, and may answer later.
            StoreError: the store refuses the request.
        """
        with self._explaining(), self._begin(write=True, stable=stable, new=new) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction that sees one state throughout; raises what `write` raises."""
        with self._explaining(), self._begin(write=False, stable=True) as connection:
            yield connection

    def transact(self, work: Callable[[Connection], _T], *, stable: bool = False) -> _T:
        """Return the result of `work` in a transaction that may write; see `write`.

        It is retried from the start if it conflicts with other transactions, so it must have no effects except on the
        store. Raises what `write` raises.
        """

        def once() -> _T:
            with self._begin(write=True, stable=stable) as connection:
                return work(connection)

        with self._explaining():
            return retry(
                once,
                lambda error: (
                    isinstance(error, DBAPIError) and error.orig is not None and self._dialect.is_conflict(error.orig)
                ),
            )

    def give_way(self) -> None:
        """Let those go that waited for a long transaction of this process, before it begins the next one."""
        self._dialect.give_way()

    @property
    def _silent(self) -> str:
        return f"store {self._engine.url} does not answer"

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raise the database's errors as ours."""
        try:
            yield
        except PoolTimeoutError as error:
            raise StoreAwayError(f"{self._silent}: {error.args[0]}") from error
        except DBAPIError as error:
            fault = error.orig or error
            reason = " ".join(str(fault).split())
            if self._dialect.is_busy(fault):
                raise StoreBusyError(f"{self._silent}: {reason}") from error
            if error.connection_invalidated or self._dialect.is_conflict(fault) or self._dialect.passes(fault):
                raise StoreAwayError(f"{self._silent}: {reason}") from error
            raise StoreError(f"store {self._engine.url}: {reason}") from error

    @contextmanager
    def _begin(self, *, write: bool, stable: bool, new: bool = False) -> Iterator[Connection]:
        self.require(new=new)
        options = self._dialect.transaction_options(write=write, stable=stable, long=write and (stable or new))
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    @property
    def name(self) -> str:
        """The store's name for people: a file's name, or a database's name and host."""
        url = self._engine.url
        name = (url.database or "").rpartition("/")[2] or "memory"
        return f"{name} at {url.host}" if url.host else name

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _leave_connections(self) -> None:
        """Open new connections: the current ones belong to the parent process, which closes them."""
        _inherited.append(self._engine.pool)
        self._engine.dispose(close=False)


def unfit(found: str) -> str:
    """Return what to do about a store whose schema version, `found`, is another one."""
    remedy = (
        "make a backup and run `backchannel store upgrade`"
        if found < SCHEMA_VERSION
        else "a newer version of Backchannel wrote it, so use that one, or restore the backup from before the upgrade"
    )
    return f"schema version {found}; this version of Backchannel needs schema version {SCHEMA_VERSION}: {remedy}"


_stores: Final[WeakSet[Store]] = WeakSet()
_inherited: Final[list[Pool]] = []
"""The parent process's pools, kept alive: collecting their connections would close the parent's."""


def _after_fork() -> None:
    for store in list(_stores):
        store._leave_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
