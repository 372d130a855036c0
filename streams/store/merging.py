"""Merging: the contents of segments are added to the rows of sums, by one transaction at a time."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from math import inf, ldexp
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, MetaData, Table, case, func, select, tuple_, update

from backchannel.agents.sums import Floats, Key, Keys, Sums, SumTable, WidthError
from backchannel.streams.store import segments, tables
from backchannel.streams.store.dialects import batches, dialect_of, insert_rows
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import sum_table

MAX_AHEAD: Final = 500
"""Half-lives by which weights may be ahead of a table's landmark before it moves. A double holds 1023 doublings."""

_TOGETHER: Final = 10_000
"""Rows whose numbers are objects of Python's at a time: they take four times the memory of an array."""


def merge_segments(store: Store, leave: int = 0) -> None:
    """Merge segments into the rows of sums, oldest first, one portion per transaction, and log the changes.

    Any process may call it at any time, and be killed: each segment is taken, and its sums added, in one
    transaction.

    Args:
        store: the store.
        leave: total size of segments, in bytes, that is too small to merge.
    """

    with store.read() as connection:
        portions = segments.portions(connection, leave)
    for ids in portions:
        store.transact(partial(_merge_logged, store, ids))
        if len(portions) > 1:  # the next portion, or a version, takes long, too
            store.give_way()


def _merge_logged(store: Store, ids: Sequence[int], connection: Connection) -> None:
    log_changes(connection, merge_within(store, connection, ids))


def merge_within(store: Store, connection: Connection, ids: Sequence[int] | None = None) -> dict[str, set[str]]:
    """Merge segments within a transaction: those with `ids`, or all if None.

    1. Lock the sums; see `Dialect.lock_sums`.
    2. Take the segments.
    3. Align the landmarks of tables and sums, and add the rows in the order of their keys.
    4. Add the counts.

    Returns:
        the changes, in the form of `take_changes`.
    """
    # 1. Lock.
    dialect_of(connection).lock_sums(connection)
    # 2. Take.
    taken = segments.take(connection, ids)
    changed: dict[str, set[str]] = {}
    # 3. Add.
    for sums in taken.delta:
        name = sums.table.name
        table = store.sum_tables.get(name)
        if table is None:  # belongs to a learner that is not configured here
            table = sum_table(MetaData(), sums.table)
        assert isinstance(sums.keys, Keys)
        add = _add if sums.table.sums else add_packed
        add(connection, table, sums.keys, sums.rescaled(_landmark(connection, table, sums)))
        changed.setdefault(name, set()).update(sums.keys.columns[0])
    # 4. Count.
    names = sorted(taken.counts)
    insert_rows(
        connection, tables.counter, {"name": names, "value": [taken.counts[name] for name in names]}, add=["value"]
    )
    return changed


def _landmark(connection: Connection, target: Table, sums: Sums) -> int:
    """Move the landmark of a locked table if `sums` run too far ahead of it, and return it."""
    table, row = sums.table, tables.landmark
    stored = lock(connection, table, sums.landmark)
    if sums.landmark <= stored + MAX_AHEAD:
        return stored
    _scale(connection, target, table, stored - sums.landmark)
    connection.execute(update(row).where(row.c.table_name == table.name).values(landmark=sums.landmark))
    return sums.landmark


def _scale(connection: Connection, target: Table, table: SumTable, shift: int) -> None:
    """Multiply all sums of a locked table by 2^shift, a factor below 1."""
    if not table.sums:
        rows = connection.execute(select(target)).all()
        columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
        if columns:
            columns[-1] = [np.ldexp(np.frombuffer(row), shift).tobytes() for row in columns[-1]]
            named = dict(zip(target.columns.keys(), columns, strict=True))
            insert_rows(connection, target, named, replace=["packed"])
        return
    # In two steps, because the factor may be too small for a double.
    first, second = ldexp(1.0, shift // 2), ldexp(1.0, shift - shift // 2)
    # PostgreSQL raises an error if a product underflows.
    tiny = sys.float_info.min / first / second if first else inf
    faded = {
        name: case((func.abs(target.c[name]) < tiny, 0.0), else_=target.c[name] * first * second) for name in table.sums
    }
    connection.execute(update(target).values(faded))


def lock(connection: Connection, table: SumTable, landmark: int = 0) -> int:
    """Lock the sums until the transaction ends, and return the table's landmark, which is `landmark` at first."""
    dialect_of(connection).lock_sums(connection)
    row = tables.landmark
    stored = connection.execute(select(row.c.landmark).where(row.c.table_name == table.name)).scalar()
    return first_landmark(connection, table, landmark) if stored is None else int(stored)


def first_landmark(connection: Connection, table: SumTable, landmark: int) -> int:
    """Give a table its first landmark, unless another transaction was faster; return its landmark."""
    row = tables.landmark
    first = (table.name, table.half_life_ms or 0, landmark)
    mine = dict(zip(row.columns.keys(), [[value] for value in first], strict=True))
    insert_rows(connection, row, mine, replace=["table_name"])
    return int(connection.execute(select(row.c.landmark).where(row.c.table_name == table.name)).scalar_one())


def log_changes(connection: Connection, changed: Mapping[str, Collection[str]]) -> None:
    """Log changes for the publisher: table name -> values of its first key column."""
    for name, values in changed.items():
        insert_rows(connection, tables.change, {"table_name": [name] * len(values), "value": sorted(values)})


def _add(connection: Connection, table: Table, keys: Keys, values: NDArray[Any]) -> None:
    """Add to rows of plain sums; missing rows begin at zero."""
    names, added = table.columns.keys(), [column.name for column in table.columns if not column.primary_key]
    for first in range(0, len(keys), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        columns = [*(column[some] for column in keys.columns), *values[some].T.tolist()]
        insert_rows(connection, table, dict(zip(names, columns, strict=True)), add=added)


def add_packed(connection: Connection, table: Table, keys: Keys, values: Iterable[Floats]) -> None:
    """Add to rows of packed sums. SQL cannot add them, so they are read and written: they are few, and the table is
    locked.
    """
    if not len(keys):
        return
    key_columns = list(table.primary_key)
    stored: dict[Key, Floats] = {}
    for some in batches(keys):
        rows = connection.execute(select(table).where(tuple_(*key_columns).in_(some)))
        stored.update({tuple(row[:-1]): np.frombuffer(row[-1]) for row in rows})
    packed = []
    for key, row in zip(keys, values, strict=True):
        there = stored.get(key)
        if there is not None and len(there) != len(row):
            raise WidthError(table.name, {len(there), len(row)})
        packed.append((row if there is None else row + there).tobytes())
    columns = dict(zip(table.columns.keys(), [*keys.columns, packed], strict=True))
    insert_rows(connection, table, columns, replace=["packed"])
