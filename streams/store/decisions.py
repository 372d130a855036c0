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
    """Add what of `sample` belongs into the sample of all turns."""
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
    """Return the sample of all turns, the least ranks first."""
    return [
        _decode(value) for value in connection.scalars(select(decision.c.value).order_by(decision.c.rank).limit(size))
    ]


def prune(connection: Connection, size: int) -> None:
    """Forget what has left the sample because others came."""
    bound = _bound(connection, size)
    if bound < inf:
        connection.execute(delete(decision).where(decision.c.rank > bound))


def _bound(connection: Connection, size: int) -> float:
    """The rank from which on nothing belongs into the sample."""
    last = select(decision.c.rank).order_by(decision.c.rank).offset(size - 1).limit(1)
    found = connection.execute(last).scalar()
    return inf if found is None else float(found)
