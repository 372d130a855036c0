"""Many rows in one statement: as arrays for PostgreSQL; for SQLite one by one, at which its driver is quickest.

Statements with a parameter for each value take longer to write than to execute. SQLite's driver gives the interpreter
up for each row, and has to wait for it while another thread is busy: who writes many rows does so while none is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import ARRAY, ColumnElement, Connection, Table, any_, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

_BATCH: Final = 20_000  # rows in a statement, so that one of a million rows does not have to be held twice


def among(connection: Connection, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """Return the condition that `column` has one of `values`, however many they are."""
    if connection.dialect.name == "postgresql":
        return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))
    return column.in_(select(func.json_each(orjson.dumps(list(values)).decode()).table_valued("value").c.value))


def insert_rows(
    connection: Connection,
    table: Table,
    columns: Mapping[str, Sequence[Any]],
    *,
    add: Collection[str] = (),
    replace: Collection[str] = (),
) -> None:
    """Insert rows, in their order.

    Args:
        connection: within a transaction.
        table: to insert into.
        columns: the rows' values by column, all of one length.
        add: columns whose value is added to that of the row with the same primary key, where there is one.
        replace: columns whose value takes the place of that row's.
    """
    columns = {one.name: columns[one.name] for one in table.columns if one.name in columns}  # in the order of the SQL
    on_postgresql = connection.dialect.name == "postgresql"
    # SQL has no one word for adding to a row that may be missing; SQLite and PostgreSQL say it alike.
    statement = postgresql.insert(table) if on_postgresql else sqlite.insert(table)
    change = {name: table.c[name] + statement.excluded[name] for name in add}
    change |= {name: statement.excluded[name] for name in replace}
    if change:
        statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=change)
    if on_postgresql:
        arrays = [bindparam(f"all_{name}", type_=ARRAY(table.c[name].type)) for name in columns]
        rows = func.unnest(*arrays).table_valued(*columns).render_derived()
        statement = statement.from_select(list(columns), select(*rows.c))
        for first in range(0, len(next(iter(columns.values()))), _BATCH):
            some = {f"all_{name}": values[first : first + _BATCH] for name, values in columns.items()}
            connection.execute(statement, some)
    else:
        # Tuples handed straight to the driver cost half of what dicts do.
        dialect: Any = type(connection.dialect)
        sql = str(statement.compile(dialect=dialect(paramstyle="qmark"), column_keys=list(columns)))
        if tuples := list(zip(*columns.values(), strict=True)):
            connection.exec_driver_sql(sql, tuples)
