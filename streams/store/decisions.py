"""The sample of logged decisions in the store; see `agents.decisions`."""

from math import inf
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, select

from backchannel.agents.ope.decisions import LoggedDecision, TurnSample
from backchannel.streams.store.dialects import insert_rows
from backchannel.streams.store.tables import decision

_decode: Final = msgspec.json.Decoder(LoggedDecision).decode


def add(connection: Connection, sample: TurnSample) -> None:
    """Add the part of `sample` that belongs to the sample of all turns."""
    if not sample.size:
        return
    added = sample.below(_bound(connection, sample.size))
    columns: dict[str, list[Any]] = {
        "rank": [rank for rank, _ in added],
        "value": [msgspec.json.encode(one) for _, one in added],
    }
    # The same turn may come from two sources.
    insert_rows(connection, decision, columns, replace=["value"])


def read(connection: Connection, size: int) -> list[LoggedDecision]:
    """Return the sample of all turns, lowest ranks first."""
    return [
        _decode(value) for value in connection.scalars(select(decision.c.value).order_by(decision.c.rank).limit(size))
    ]


def prune(connection: Connection, size: int) -> None:
    """Delete the decisions that lower ranks have displaced from the sample."""
    bound = _bound(connection, size)
    if bound < inf:
        connection.execute(delete(decision).where(decision.c.rank > bound))


def _bound(connection: Connection, size: int) -> float:
    """Return the rank above which nothing belongs to the sample."""
    last = select(decision.c.rank).order_by(decision.c.rank).offset(size - 1).limit(1)
    found = connection.execute(last).scalar()
    return inf if found is None else float(found)
