"""Parameters in binary format: PostgreSQL reads what psycopg would have written as text."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, MetaData, Table, Text, select

from backchannel.streams.store.dialects import insert_rows
from backchannel.streams.store.engine import Store

ROWS = Table(
    "all_types",
    MetaData(),
    Column("number", BigInteger, primary_key=True),
    Column("small", Integer),
    Column("double", Double),
    Column("text", Text),
    Column("blob", LargeBinary),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
ROW = st.tuples(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(allow_nan=False),
    st.none() | TEXT | st.sampled_from(["", "{}", 'NULL "quoted" \\x00', "é\U0001f600"]),
    st.none() | st.binary(max_size=9),
)


@pytest.fixture(scope="module")
def store(new_schema: Callable[[], str]) -> Iterator[Store]:
    with closing(Store(new_schema())) as store:
        yield store


def back(store: Store, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Insert rows in a transaction that is undone, and return what was read back."""
    columns = dict(zip(ROWS.columns.keys(), zip(*rows, strict=True), strict=True))
    with store.write() as connection:
        ROWS.create(connection)
        insert_rows(connection, ROWS, columns)
        found = [tuple(row) for row in connection.execute(select(ROWS).order_by(ROWS.c.number))]
        connection.rollback()
    return found


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=5), first=st.integers(-(2**62), 2**62))
def test_rows_are_read_back(store: Store, rows: list[tuple[Any, ...]], first: int) -> None:
    numbered = [(first + number, *row) for number, row in enumerate(rows)]
    assert back(store, numbered) == numbered
