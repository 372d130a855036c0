"""Many rows or values in one statement."""

import sqlite3
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Double, LargeBinary, MetaData, Table, Text, create_engine, select

from backchannel.streams.store.dialects import among, insert_rows

ROWS = Table(
    "rows",
    MetaData(),
    Column("key", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("sum", Double, nullable=False),
    Column("value", LargeBinary, nullable=False),
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
VALUES = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT.map(lambda one: one.encode()),
)


Rows = dict[str, tuple[int, float, bytes]]


@given(first=st.dictionaries(TEXT, VALUES, max_size=20), second=st.dictionaries(TEXT, VALUES, max_size=20))
def test_rows_are_added_and_replaced(first: Rows, second: Rows) -> None:
    with create_engine("sqlite://").begin() as connection:
        ROWS.metadata.create_all(connection)
        for rows in (first, second):
            columns: dict[str, list[Any]] = {"key": list(rows)}
            for place, name in enumerate(("number", "sum", "value")):
                columns[name] = [row[place] for row in rows.values()]
            insert_rows(connection, ROWS, columns, add=["sum"], replace=["number", "value"])
        found = {row.key: tuple(row)[1:] for row in connection.execute(select(ROWS))}
        some = sorted(found)[::2]
        assert sorted(connection.scalars(select(ROWS.c.key).where(among(connection, ROWS.c.key, some)))) == some
    added = {
        key: (number, total + first[key][1] if key in first else total, value)
        for key, (number, total, value) in second.items()
    }
    assert found == first | added


@given(st.integers(0, 300), st.sampled_from([4, 50, 999, 32_766]))
def test_any_number_of_rows_is_inserted_however_many_values_sqlite_takes_at_once(size: int, most: int) -> None:
    with create_engine("sqlite://").begin() as connection:
        ROWS.metadata.create_all(connection)
        driver: Any = connection.connection.driver_connection
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most)
        keys = [f"{number:03}" for number in range(size)]
        columns: dict[str, list[Any]] = {
            "key": keys,
            "number": list(range(size)),
            "sum": [0.5] * size,
            "value": [b""] * size,
        }
        for _ in range(2):
            insert_rows(connection, ROWS, columns, add=["sum"])
        found = connection.execute(select(ROWS).order_by(ROWS.c.key)).all()
    assert [tuple(row) for row in found] == [(key, number, 1.0, b"") for number, key in enumerate(keys)]
