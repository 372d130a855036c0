"""What people taught, in the store: one row for each owner, beside the policy's versions.

It is written at once, in transactions of its own: writing an event again changes nothing (see `agents.taught.rules`),
so it need not move together with the position that it came from, only before it. Each such transaction takes the next
number, which locks out others until it ends. So what a reader has not seen has higher numbers than what it has.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, delete, select, update

from backchannel.agents.taught.rules import (
    EVERYONE,
    TaughtConfig,
    TaughtRule,
    merged,
    owner_of,
    packed,
    rule_of,
    unpacked,
    user_owner,
)
from backchannel.schemas.events import Teach
from backchannel.schemas.text import Fold
from backchannel.streams.snapshots.signing import sign, signed, signing_key
from backchannel.streams.store import segments
from backchannel.streams.store.dialects import among, batches, insert_rows
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import taught, taught_head

logger = logging.getLogger(__name__)

DROPPED: Final = "taught_dropped"
"""The count of rules that made room for later ones of the same owner."""


class Change(Struct, frozen=True):
    """A state of the rules: the number of the last change, and that of the last one that deleted rows."""

    changed: int = 0
    erased: int = 0


NO_CHANGE: Final = Change(-1, -1)


class Teachings:
    """Writes what is taught.

    Args:
        store: the store.
        config: how many rules are kept.
        folds: in what texts of one query may differ; see `TurnConfig.fold`.
        key: the key to sign rows with, unless the environment names another one.
    """

    def __init__(self, store: Store, config: TaughtConfig, folds: Sequence[Fold] = (), key: str = "") -> None:
        self._store: Final = store
        self._config: Final = config
        self._folds: Final = folds
        self._key: Final = signing_key(key)

    def write(self, events: Sequence[Teach]) -> None:
        """Write what events teach; what is there already is not written again."""
        new: defaultdict[str, list[TaughtRule]] = defaultdict(list)
        for event in events:
            new[owner_of(event)].append(rule_of(event, self._folds))
        if not new:
            return
        dropped = self._store.transact(lambda connection: self._write(connection, new))
        for owner, count in dropped.items():
            logger.warning("%s: %d rules made room for later ones; taught.most bounds them", owner, count)

    def undo(self, event_id: str, now: int) -> TaughtRule | None:
        """Undo the rule that an event taught, from `now` on (ms), and return it; None if it does not hold."""

        def undo(connection: Connection) -> TaughtRule | None:
            for owner, rules in all_rules(connection).items():
                for one in rules:
                    if one.event_id == event_id and one.holds(now):
                        undone = TaughtRule(
                            rule=one.rule,
                            ts=max(now, one.ts + 1),
                            event_id=f"undo/{event_id}"[:256],
                            scope=one.scope,
                            undone=True,
                        )
                        self._write(connection, {owner: [undone]})
                        return one
            return None

        return self._store.transact(undo)

    def _write(self, connection: Connection, new: Mapping[str, Sequence[TaughtRule]]) -> dict[str, int]:
        """Merge rules into their owners' rows, and return how many were dropped of each owner."""
        number = _next_change(connection)
        known = {owner: unpacked(row) for owner, row in _rows(connection, new)}
        owners, values, dropped = [], [], {}
        for owner in sorted(new):
            before = known.get(owner, [])
            after = merged(before, new[owner], self._config.most_everyone if owner == EVERYONE else self._config.most)
            kept = list(after.values())
            if kept == before:
                continue
            owners.append(owner)
            values.append(packed(after))
            here = {one.event_id for one in kept}
            slots = merged(before, new[owner], len(before) + len(new[owner]))
            if gone := sum(one.event_id not in here for one in slots.values()):
                dropped[owner] = gone
        if owners:
            columns: dict[str, list[Any]] = {
                "owner": owners,
                "changed": [number] * len(owners),
                "value": values,
                "signature": [
                    sign(_text(owner, value), self._key) if self._key else None
                    for owner, value in zip(owners, values, strict=True)
                ],
            }
            insert_rows(connection, taught, columns, replace=["changed", "value", "signature"])
        if dropped:
            segments.put(connection, [], {DROPPED: sum(dropped.values())})
        return dropped


def forget(connection: Connection, user: str) -> int:
    """Delete the rules of a user, and return how many there were. Readers then read all rows again."""
    number = _next_change(connection)
    mine = taught.c.owner == user_owner(user)
    row = connection.execute(select(taught.c.value).where(mine)).scalar()
    if row is None:
        return 0
    connection.execute(delete(taught).where(mine))
    connection.execute(update(taught_head).values(erased=number))
    return len(unpacked(row))


def all_rules(connection: Connection) -> dict[str, list[TaughtRule]]:
    """Return the rules of every owner, also those that do not hold, the latest first."""
    rows = connection.execute(select(taught.c.owner, taught.c.value).order_by(taught.c.owner)).all()
    return {owner: unpacked(value) for owner, value in rows}


def read(
    connection: Connection,
    held: Mapping[str, bytes],
    at: Change,
    keys: Sequence[bytes],
    warn: Callable[[str], None],
    *,
    personal: bool = True,
) -> tuple[Mapping[str, bytes], Change]:
    """Return the rows of all owners, and the state that they are of.

    Args:
        connection: a transaction that sees one state.
        held: the rows of an earlier state.
        at: that state.
        keys: the keys of which one must have signed a row; one empty key: signatures are not checked.
        warn: is told of each row that is left out, because it is not signed with one of them.
        personal: whether to read the rows of users and groups, too.
    """
    changed, erased = connection.execute(select(taught_head.c.changed, taught_head.c.erased)).one()
    now = Change(changed, erased)
    if now == at:
        return held, at
    columns = select(taught.c.owner, taught.c.value, taught.c.signature)
    if not personal:
        columns = columns.where(taught.c.owner == EVERYONE)
    # The store may have been restored, too.
    anew = erased != at.erased or changed < at.changed
    rows: dict[str, bytes] = {} if anew else dict(held)
    for owner, value, signature in connection.execute(
        columns if anew else columns.where(taught.c.changed > at.changed)
    ):
        if any(not key or signed(_text(owner, value), signature, key) for key in keys):
            rows[owner] = value
        else:
            rows.pop(owner, None)
            warn(f"the rules of {owner} are not signed with the key: they are not served")
    return rows, now


def _next_change(connection: Connection) -> int:
    """Return the number of this change; until its transaction ends, there is no other one."""
    number = taught_head.c.changed + 1
    return int(
        connection.execute(update(taught_head).values(changed=number).returning(taught_head.c.changed)).scalar_one()
    )


def _rows(connection: Connection, owners: Iterable[str]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for some in batches(sorted(owners)):
        query = select(taught.c.owner, taught.c.value).where(among(connection, taught.c.owner, some))
        found += ((owner, value) for owner, value in connection.execute(query))
    return found


def _text(owner: str, row: bytes) -> str:
    return f"{owner}\n{row.decode()}"
