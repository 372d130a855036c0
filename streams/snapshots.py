"""Policy versions in the store: immutable, each row valid from one version to another.

Versions are numbered in the order in which they were made. The head is the one that readers serve: the newest, unless
its verdict or a hold keeps it from them.
"""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, insert, or_, select, update

from backchannel.schemas.snapshot import Checksum, Reached, Section, Snapshot, Verdict
from backchannel.streams.bulk import insert_rows
from backchannel.streams.store import batches, head, snapshot, snapshot_row

Rows = list[tuple[str, str, bytes]]
"""(section, key, value)"""


class Difference(Struct, frozen=True):
    """What leads from one version to another."""

    removed: list[tuple[str, str]]
    live: Rows


class Head(Struct, frozen=True):
    """What readers serve.

    Attributes:
        version: which; None before the first.
        hold: why no other version becomes the head by being published; None when it does.
    """

    version: int | None
    hold: str | None


class Provenance(Struct, frozen=True, kw_only=True):
    """What a version's header says besides its rows; see `Snapshot`."""

    created: int
    watermark: int
    positions: dict[str, dict[int, Reached]]
    fingerprint: str
    verdict: Verdict | None = None
    reason: str | None = None


def current(connection: Connection, *, lock: bool = False) -> Head:
    """Return what readers serve.

    Args:
        connection: within a transaction.
        lock: let nobody else publish, or move the head, until the transaction ends.
    """
    query = select(head.c.version, head.c.hold).where(head.c.id == 1)
    return Head(*connection.execute(query.with_for_update() if lock else query).one())


def header(connection: Connection, version: int) -> Snapshot | None:
    """Return the header of `version`; None if it is not there, or not any more."""
    found = connection.execute(select(snapshot.c.header).where(snapshot.c.version == version)).scalar()
    return None if found is None else msgspec.json.decode(found, type=Snapshot)


def newest(connection: Connection) -> Snapshot | None:
    """Return the header of the newest version, whether it is served or not."""
    found = connection.execute(select(snapshot.c.header).order_by(snapshot.c.version.desc()).limit(1)).scalar()
    return None if found is None else msgspec.json.decode(found, type=Snapshot)


def section(connection: Connection, version: int, name: str) -> Section:
    """Return the rows that section `name` has in a retained version."""
    row = snapshot_row
    found = select(row.c.key, row.c.value).where(
        row.c.section == name, row.c.valid_from <= version, or_(row.c.valid_to.is_(None), row.c.valid_to > version)
    )
    return dict(connection.execute(found).all())


def publish(
    connection: Connection, solved: Mapping[str, Mapping[str, bytes | None]], provenance: Provenance
) -> Snapshot | None:
    """Write the next version: the newest one with the rows in `solved` put in place, or removed where they are None.

    It becomes the head, unless its verdict or a hold is against it. The head must be locked, see `current`.

    Returns:
        its header; None, if there is a version and nothing in it would change.
    """
    parent = newest(connection)
    version = parent.version + 1 if parent else 1
    checksum = Checksum(parent.checksum) if parent else Checksum()
    counts = dict(parent.rows) if parent else {}
    ended: dict[str, list[str]] = {}
    begun: Rows = []
    for name, rows in solved.items():
        live = _live(connection, name, rows)
        for key, value in rows.items():
            old = live.get(key)
            if value == old:
                continue
            if old is not None:
                checksum.remove(name, key, old)
                ended.setdefault(name, []).append(key)
            if value is not None:
                checksum.add(name, key, value)
                begun.append((name, key, value))
            counts[name] = counts.get(name, 0) + (value is not None) - (old is not None)
    if parent and not ended and not begun:
        return None
    row = snapshot_row
    for name, keys in ended.items():
        for some in batches(keys):
            mine = (row.c.section == name, row.c.valid_to.is_(None), row.c.key.in_(some))
            connection.execute(update(row).where(*mine).values(valid_to=version))
    if begun:
        columns = dict(zip(("section", "key", "value"), map(list, zip(*begun, strict=True)), strict=True))
        insert_rows(connection, row, {**columns, "valid_from": [version] * len(begun)})
    made = Snapshot(
        version=version,
        parent=parent.version if parent else None,
        rows=counts,
        checksum=checksum.hexdigest(),
        **msgspec.structs.asdict(provenance),
    )
    connection.execute(
        insert(snapshot).values(
            version=version, created=made.created, header=msgspec.json.encode(made).decode(), pinned=False
        )
    )
    if provenance.verdict != "hold" and current(connection).hold is None:
        connection.execute(update(head).values(version=version))
    return made


def prune(connection: Connection, keep: int, keep_ms: int, now: int) -> None:
    """Forget old versions: all but the newest `keep`, and of those before them the first of each hour.

    The head, the newest version, and those that are pinned stay. The head must be locked, see `current`.

    Args:
        connection: within a transaction.
        keep: versions, at least 1.
        keep_ms: how old a version may become, ms.
        now: ms since the Unix epoch.
    """
    served = current(connection).version
    versions = connection.execute(
        select(snapshot.c.version, snapshot.c.created, snapshot.c.pinned).order_by(snapshot.c.version)
    ).all()
    passed, hours = set(), set()
    for version, created, pinned in versions[:-keep]:
        hour = created // 3_600_000
        if not pinned and version != served and (hour in hours or created < now - keep_ms):
            passed.add(version)
        hours.add(hour)
    if not passed:
        return
    for some in batches(sorted(passed)):
        connection.execute(delete(snapshot).where(snapshot.c.version.in_(some)))
    # A row goes with the last version that has it: none is left from where it begins to before where it ends.
    row, before = snapshot_row, 0
    for version in [version for version, _, _ in versions if version not in passed]:
        if version > before + 1:
            connection.execute(delete(row).where(row.c.valid_from > before, row.c.valid_to <= version))
        before = version


def difference(connection: Connection, since: int, until: int) -> Difference:
    """Return what leads from version `since` (0: nothing) to version `until`, a later or an earlier one."""
    row = snapshot_row
    first, last = sorted((since, until))
    ended = (row.c.valid_from <= first, row.c.valid_to > first, row.c.valid_to <= last)
    begun = (row.c.valid_from > first, row.c.valid_from <= last, or_(row.c.valid_to.is_(None), row.c.valid_to > last))
    removed, live = (ended, begun) if since <= until else (begun, ended)
    return Difference(
        removed=[(name, key) for name, key in connection.execute(select(row.c.section, row.c.key).where(*removed))],
        live=[
            (name, key, value)
            for name, key, value in connection.execute(select(row.c.section, row.c.key, row.c.value).where(*live))
        ],
    )


def _live(connection: Connection, name: str, keys: Iterable[str]) -> Section:
    row = snapshot_row
    live: Section = {}
    for some in batches(keys):
        found = select(row.c.key, row.c.value).where(
            row.c.section == name, row.c.valid_to.is_(None), row.c.key.in_(some)
        )
        live.update(connection.execute(found).all())
    return live
