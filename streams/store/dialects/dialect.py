"""What a SQL dialect must provide."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, Table


class Dialect(ABC):
    """A SQL dialect.

    Attributes:
        name: SQLAlchemy's name of the dialect.
        example: a URL, for error messages.
    """

    name: ClassVar[str]
    example: ClassVar[str]

    @abstractmethod
    def prepare(self, engine: Engine) -> None:
        """Set up the connections of a new engine."""

    @abstractmethod
    def transaction_options(self, *, write: bool, stable: bool, long: bool) -> dict[str, Any]:
        """Return the execution options of a transaction; see `Store.write` for `stable`.

        Args:
            write: whether it may write.
            stable: whether every statement sees the state as of the first one.
            long: whether it may take minutes; no commit waits for it.
        """

    @abstractmethod
    def is_conflict(self, error: BaseException) -> bool:
        """Return whether the driver's `error` is a conflict with other transactions, so that a retry may succeed."""

    @abstractmethod
    def is_busy(self, error: BaseException) -> bool:
        """Return whether the driver's `error` is a lock that was not granted in time."""

    @abstractmethod
    def give_way(self) -> None:
        """See `Store.give_way`."""

    @abstractmethod
    def passes(self, error: BaseException) -> bool:
        """Return whether the driver's `error` may resolve itself: the database is locked, full, away or failing
        over.
        """

    @abstractmethod
    def unsuitable(self, connection: Connection) -> str | None:
        """Return why the database cannot hold a store, and the remedy; None if it can."""

    @abstractmethod
    def missing_file(self, url: URL) -> str | None:
        """Return the path of the database file if it is missing; None if it exists, or if the database is a server's.

        Raises:
            OSError: its folder cannot be read.
        """

    @abstractmethod
    def lock_creation(self, connection: Connection) -> None:
        """Wait until no other transaction is creating the tables, and keep others from doing so until this one ends."""

    @abstractmethod
    def lock_sums(self, connection: Connection) -> None:
        """Wait until no other transaction writes rows of sums, and keep others from doing so until this one ends.

        Commits do not wait for it. A stable transaction that begins with it sees what the others wrote.
        """

    @abstractmethod
    def among(self, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        """Return the condition that `column` is one of any number of `values`."""

    @abstractmethod
    def insert_rows(
        self,
        connection: Connection,
        table: Table,
        columns: Mapping[str, Sequence[Any]],
        *,
        add: Collection[str],
        replace: Collection[str],
    ) -> None:
        """Insert any number of rows, whose `columns` are in the table's order; see `dialects.insert_rows`."""

    @abstractmethod
    def size(self, connection: Connection) -> int:
        """Return the size of the database in bytes."""

    @abstractmethod
    def free(self, connection: Connection) -> int | None:
        """Return how many bytes are free on the database's disk; None if it is another machine's."""


def updates(table: Table, excluded: Any, add: Collection[str], replace: Collection[str]) -> dict[str, Any]:
    """Return the new column values of an existing row; `excluded` is the row that could not be inserted."""
    return {name: table.c[name] + excluded[name] for name in add} | {name: excluded[name] for name in replace}
