"""Policy versions in the store: immutable, each row valid from one version to another."""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from backchannel.schemas.snapshot import Checksum, Section, Snapshot
from backchannel.streams.store import batches, snapshot, snapshot_row

Rows = list[tuple[str, str, bytes]]
"""(section, key, value)"""


class Difference(Struct, frozen=True):
    """What leads from one version to a later one."""

    removed: list[tuple[str, str]]
    live: Rows


def head(connection: Connection) -> Snapshot | None:
    """Return the header of the newest version."""
    newest = connection.execute(select(snapshot.c.header).order_by(snapshot.c.version.desc()).limit(1)).scalar()
    return None if newest is None else msgspec.json.decode(newest, type=Snapshot)


def publish(
    connection: Connection, solved: Mapping[str, Mapping[str, bytes | None]], watermark: int, fingerprint: str
) -> Snapshot | None:
    """Write the next version: the newest one with the rows in `solved` put in place, or removed where they are None.

    Returns:
        its header; None, if there is a version and nothing in it would change.
    """
    parent = head(connection)
    version = parent.version + 1 if parent else 1
    checksum = Checksum(parent.checksum) if parent else Checksum()
    counts = dict(parent.rows) if parent else {}
    ended: list[dict[str, str]] = []
    begun: list[dict[str, str | int | bytes]] = []
    for section, rows in solved.items():
        current = _live(connection, section, rows)
        for key, value in rows.items():
            old = current.get(key)
            if value == old:
                continue
            if old is not None:
                checksum.remove(section, key, old)
                ended.append({"b_section": section, "b_key": key})
            if value is not None:
                checksum.add(section, key, value)
                begun.append({"section": section, "key": key, "valid_from": version, "value": value})
            counts[section] = counts.get(section, 0) + (value is not None) - (old is not None)
    if parent and not ended and not begun:
        return None
    if ended:
        row = snapshot_row
        connection.execute(
            update(row)
            .where(row.c.section == bindparam("b_section"), row.c.key == bindparam("b_key"), row.c.valid_to.is_(None))
            .values(valid_to=version),
            ended,
        )
    if begun:
        connection.execute(insert(snapshot_row), begun)
    header = Snapshot(
        version=version,
        parent=parent.version if parent else None,
        watermark=watermark,
        fingerprint=fingerprint,
        rows=counts,
        checksum=checksum.hexdigest(),
    )
    connection.execute(insert(snapshot).values(version=version, header=msgspec.json.encode(header)))
    return header


def difference(connection: Connection, since: int, until: int) -> Difference:
    """Return what leads from version `since` (0: nothing) to version `until`."""
    row = snapshot_row
    ended = select(row.c.section, row.c.key).where(
        row.c.valid_to > since, row.c.valid_to <= until, row.c.valid_from <= since
    )
    begun = select(row.c.section, row.c.key, row.c.value).where(
        row.c.valid_from > since, row.c.valid_from <= until, or_(row.c.valid_to.is_(None), row.c.valid_to > until)
    )
    return Difference(
        removed=[(section, key) for section, key in connection.execute(ended)],
        live=[(section, key, value) for section, key, value in connection.execute(begun)],
    )


def _live(connection: Connection, section: str, keys: Iterable[str]) -> Section:
    row = snapshot_row
    live: Section = {}
    for some in batches(keys):
        found = select(row.c.key, row.c.value).where(
            row.c.section == section, row.c.valid_to.is_(None), row.c.key.in_(some)
        )
        live.update(connection.execute(found).all())
    return live
