"""Texts that only one person asked, as far as the sums tell: they keep people in groups."""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select

from backchannel.agents.sketches import BUCKETS, bucket, slot
from backchannel.agents.sums import ALL
from backchannel.streams.store.dialects import among
from backchannel.streams.store.merging import log_changes
from backchannel.streams.store.tables import change

_TEXTS = ("query", "state", "following", "target")  # key columns that hold texts of queries
_KEPT = frozenset({"priors", "rewrite_rules"})  # what operators put there
_TOGETHER = 500


def rare_texts(connection: Connection, tables: Sequence[Table], user: str) -> list[str]:
    """Return the texts of which all evidence is from the group of `user`, in order.

    A group is a hash bucket, so rare texts of other people in it, one in eight, are among them.

    Args:
        connection: a connection within a transaction.
        tables: the tables of sums.
        user: the `user_id`.
    """
    found: set[str] = set()
    telling = [(column, *groups) for table in tables if (groups := _groups(table, user)) for column in _texts(table)]
    for column, own, _ in telling:
        found.update(connection.execute(select(column).where(own).distinct()).scalars())
    for column, _, others in telling:
        for some in _portions(found):
            asked = select(column).where(among(connection, column, some), others)
            found.difference_update(connection.execute(asked).scalars())
    return sorted(found - {ALL})


def delete_texts(connection: Connection, tables: Sequence[Table], texts: Sequence[str]) -> int:
    """Delete the rows of texts, except predictions and decrees; return how many.

    Other states that led to them are logged for the publisher; what the policy says of the texts themselves must be
    erased, too.
    """
    gone, erased = 0, set(texts)
    for some in _portions(texts):
        connection.execute(delete(change).where(among(connection, change.c.value, some)))
    for table in tables:
        columns = list(_texts(table))
        for some in _portions(texts) if columns and table.name not in _KEPT else ():
            named = or_(*(among(connection, column, some) for column in columns))
            first = next(iter(table.primary_key))
            changed = set(connection.execute(select(first).where(named).distinct()).scalars()) - erased
            log_changes(connection, {table.name: changed})
            gone += connection.execute(delete(table).where(named)).rowcount
    return gone


def _texts(table: Table) -> Iterator[ColumnElement[str]]:
    return (column for column in table.primary_key if column.name in _TEXTS)


def _groups(table: Table, user: str) -> tuple[ColumnElement[bool], ColumnElement[bool]] | None:
    """Return which rows have evidence from the group of `user`, and which from others; None: a table does not tell."""
    for name, group in (("people", bucket(user)), ("slot", slot(user))):
        if name in table.primary_key:
            return table.c[name] == group, table.c[name] != group
    own = BUCKETS[bucket(user)]
    sums = [column for column in table.c if column.name.endswith(BUCKETS)]
    if not sums:
        return None
    return or_(*(one > 0 for one in sums if one.name.endswith(own))), or_(
        *(one > 0 for one in sums if not one.name.endswith(own))
    )


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    every = sorted(texts)
    return (every[start : start + _TOGETHER] for start in range(0, len(every), _TOGETHER))
