"""The differences between databases: one file for each SQL dialect, and a line in `DIALECTS` that names it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Table

from backchannel.streams.store.dialects.dialect import Dialect
from backchannel.streams.store.dialects.postgresql import Postgresql
from backchannel.streams.store.dialects.sqlite import Sqlite

DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in (Sqlite(), Postgresql())}
"""The supported dialects, by SQLAlchemy's name."""

_MAX_PARAMETERS: Final = 5_000  # keys of up to three columns; SQLite accepts 32,766 values
_T = TypeVar("_T")


def dialect_of(connection: Connection) -> Dialect:
    """Return the dialect of a connection."""
    return DIALECTS[connection.dialect.name]


def among(connection: Connection, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """Return the condition that `column` is one of any number of `values`."""
    return dialect_of(connection).among(column, values)


def insert_rows(
    connection: Connection,
    table: Table,
    columns: Mapping[str, Sequence[Any]],
    *,
    add: Collection[str] = (),
    replace: Collection[str] = (),
) -> None:
    """Insert any number of rows, in their order.

    Args:
        connection: a connection within a transaction.
        table: the table to insert into.
        columns: the rows' values by column, all of the same length.
        add: columns to add to an existing row with the same primary key.
        replace: columns to replace in an existing row with the same primary key.
    """
    in_table_order = {one.name: columns[one.name] for one in table.columns if one.name in columns}
    dialect_of(connection).insert_rows(connection, table, in_table_order, add=add, replace=replace)


def batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    """Split `values` into lists that fit into one SQL statement as parameters."""
    every = iter(values)
    while some := list(islice(every, _MAX_PARAMETERS)):
        yield some
