"""Policy versions in the store: immutable; each row is valid from one version until another.

Versions are numbered in the order in which they were made. The head is the version that readers serve: the newest,
unless there is a hold.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import (
    Checksum,
    Checksums,
    Evidence,
    Reached,
    Section,
    Snapshot,
    Trial,
    Verdict,
    nonce,
)
from backchannel.schemas.text import Fold
from backchannel.streams.snapshots.signing import sign, signed
from backchannel.streams.store.dialects import among, insert_rows
from backchannel.streams.store.tables import head, snapshot, snapshot_row

Row: TypeAlias = tuple[str, str, bytes]
"""Section, key and value."""
Solved: TypeAlias = Mapping[str, Mapping[str, bytes | None]]
"""Section -> key -> row; None for a removed row."""


class CorruptPolicyError(BackchannelError, RuntimeError):
    """A version is not what its publisher wrote; the message says why and what to do."""


class SignatureError(CorruptPolicyError):
    """A version is not signed with the key that is configured."""


class Difference(Struct, frozen=True):
    """The change from one version to another."""

    removed: list[tuple[str, str]]
    live: list[Row]


class Head(Struct, frozen=True):
    """What readers serve.

    Attributes:
        version: the served version; None before the first.
        hold: why newly published versions do not become the head; None if they do.
    """

    version: int | None
    hold: str | None


class Provenance(Struct, frozen=True, kw_only=True):
    """The origin of a version, for its header; see `Snapshot`."""

    created: int
    watermark: int
    positions: dict[str, dict[int, Reached]]
    fingerprint: str
    verdict: Verdict | None = None
    reason: str | None = None
    evidence: Evidence | None = None
    trial: Trial | None = None
    held: int | None = None
    imported: bool = False
    fold: tuple[Fold, ...] = ()
    personal: tuple[str, ...] = ()


def current(connection: Connection, *, lock: bool = False) -> Head:
    """Return what readers serve.

    Args:
        connection: a connection within a transaction.
        lock: whether to keep others from publishing or moving the head until the transaction ends.
    """
    query = select(head.c.version, head.c.hold).where(head.c.id == 1)
    return Head(*connection.execute(query.with_for_update() if lock else query).one())


def header(connection: Connection, version: int, key: bytes = b"") -> Snapshot | None:
    """Return the header of `version`; None if it does not exist (any more).

    Raises:
        CorruptPolicyError: the header is damaged, or not signed with the `key`.
    """
    found = connection.execute(
        select(snapshot.c.header, snapshot.c.signature).where(snapshot.c.version == version)
    ).one_or_none()
    return None if found is None else opened(*found, key)


def opened(text: str, signature: str | None, key: bytes = b"") -> Snapshot:
    """Return the header in `text`.

    Raises:
        CorruptPolicyError: the header is damaged, or not signed with the `key`.
    """
    if key and not signed(text, signature, key):
        raise SignatureError("it is not signed with the key configured here: give its publisher the same key")
    try:
        return msgspec.json.decode(text, type=Snapshot)
    except msgspec.MsgspecError as error:
        raise CorruptPolicyError(f"its header cannot be read: {error}. Roll back, or restore the store") from None


def stamp(connection: Connection, version: int) -> str:
    """Return what identifies a version, even among versions of the same number in a restored store."""
    text = select(snapshot.c.header).where(snapshot.c.version == version)
    try:
        return f"{version} {connection.execute(text).scalar()}"
    except DBAPIError:  # not even text
        return f"{version}"


def last(connection: Connection) -> int | None:
    """Return the number of the newest version, served or not; None if there is none."""
    return connection.execute(select(func.max(snapshot.c.version))).scalar()


def newest(connection: Connection, key: bytes = b"") -> Snapshot | None:
    """Return the header of the newest version; see `header`."""
    version = last(connection)
    return None if version is None else header(connection, version, key)


def versions(connection: Connection) -> list[int]:
    """Return all versions that are retained, newest first."""
    found = connection.execute(select(snapshot.c.version).order_by(snapshot.c.version.desc())).scalars()
    return [version for version in found if isinstance(version, int)]  # SQLite stores values of any type


def rows(connection: Connection, version: int) -> Iterator[Row]:
    """Yield all rows of a retained version: section, key and value."""
    row = snapshot_row
    found = select(row.c.section, row.c.key, row.c.value).where(*_valid(version)).execution_options(yield_per=10_000)
    yield from map(tuple, connection.execute(found))


def intact(connection: Connection, made: Snapshot, key: bytes = b"") -> bool:
    """Return whether the rows of a version match the checksum of its header."""
    checksum = Checksum(key=key)
    for row in rows(connection, made.version):
        checksum.add(*row)
    return made.confirms(checksum, key)


def section(connection: Connection, version: int, name: str) -> Section:
    """Return the rows of section `name` in a retained version."""
    row = snapshot_row
    found = select(row.c.key, row.c.value).where(row.c.section == name, *_valid(version))
    return dict(connection.execute(found).all())


def sections_with_settings(connection: Connection, version: int) -> set[str]:
    """Return the sections of a retained version that have a row of settings, the one with an empty key."""
    row = snapshot_row
    return set(connection.scalars(select(row.c.section).where(row.c.key == "", *_valid(version))))


def publish(
    connection: Connection,
    portions: Iterable[Solved],
    provenance: Provenance,
    *,
    whole: bool = False,
    key: bytes = b"",
) -> Snapshot | None:
    """Write the next version: the newest one with the rows in `portions` replaced, or removed where None.

    It becomes the head unless there is a hold. The head must be locked; see `current`.

    Args:
        connection: a connection within a transaction.
        portions: the changed rows, written portion by portion; a row that is in several portions must be the same in
            all.
        provenance: the origin of the version.
        whole: whether the version has only the rows in `portions`. The first version always does.
        key: the key to sign the version with; the newest version must be signed with it unless the next one is whole,
            and have the same personal sections.

    Returns:
        the header; None if the version is not whole and nothing would change.

    Raises:
        CorruptPolicyError: the header of the newest version is damaged.
    """
    before = last(connection)
    parent = None if before is None or whole else header(connection, before, key)
    version = (before or 0) + 1
    number = nonce(version, provenance.created)
    checksums = Checksums(parent, provenance.personal, key)
    counts = Counter(parent.rows if parent else {})
    changed = False
    written: dict[str, set[str]] = {}
    for portion in portions:
        for name, wanted in portion.items():
            removed, added = _put(connection, name, wanted, version)
            changed = changed or bool(removed or added)
            if parent is None:
                own = written.setdefault(name, set())
                removed, added = {}, {one: row for one, row in wanted.items() if row is not None and one not in own}
                own.update(added)
            counts[name] += len(added) - len(removed)
            for row_key, value in removed.items():
                checksums.remove(name, row_key, value)
            for row_key, value in added.items():
                checksums.add(name, row_key, value)
    if parent is None:
        _end_others(connection, written, version)
    elif not changed and (provenance.held, provenance.trial) == (parent.held, parent.trial):
        return None
    made = Snapshot(
        version=version,
        parent=before,
        rows=dict(counts),
        **checksums.fields(number),
        **msgspec.structs.asdict(provenance),
    )
    text = msgspec.json.encode(made).decode()
    connection.execute(
        insert(snapshot).values(
            version=version,
            created=made.created,
            header=text,
            signature=sign(text, key) if key else None,
            pinned=False,
        )
    )
    if current(connection).hold is None:
        serve(connection, version, hold=None)
    return made


def serve(connection: Connection, version: int, hold: str | None) -> None:
    """Make readers serve `version`; with a `hold`, later versions do not replace it. The head must be locked."""
    connection.execute(update(head).values(version=version, hold=hold))


def withheld(connection: Connection) -> int | None:
    """Return since when readers have lacked something that was learned, ms since the Unix epoch; None if they lack
    nothing.

    That is when the first version after the served one was made, or when the gate began to hold a policy back.

    Raises:
        CorruptPolicyError: the header of the served version is damaged.
    """
    served = current(connection).version or 0
    later = select(snapshot.c.created).where(snapshot.c.version > served)
    since: int | None = connection.execute(later.order_by(snapshot.c.version).limit(1)).scalar()
    if since is None and (made := header(connection, served)) is not None:
        return made.held
    return since


def pinned(connection: Connection) -> set[int]:
    """Return the versions that are never pruned."""
    return set(connection.execute(select(snapshot.c.version).where(snapshot.c.pinned)).scalars())


def pin(connection: Connection, version: int, *, pinned: bool) -> None:
    """Set whether a version is exempt from pruning."""
    connection.execute(update(snapshot).where(snapshot.c.version == version).values(pinned=pinned))


def prune(connection: Connection, keep: int, keep_ms: int, now: int) -> None:
    """Remove old versions: all but the newest `keep`, and the first of each hour before them.

    The head, the first version after it (which tells since when readers wait), the newest version and pinned ones are
    kept. The head must be locked; see `current`.

    Args:
        connection: a connection within a transaction.
        keep: the number of newest versions to keep, at least 1.
        keep_ms: the maximum age of the others, ms.
        now: the current time, ms since the Unix epoch.
    """
    served = current(connection).version or 0
    versions = connection.execute(
        select(snapshot.c.version, snapshot.c.created, snapshot.c.pinned).order_by(snapshot.c.version)
    ).all()
    kept = {served, next((version for version, _, _ in versions if version > served), 0)}
    passed, hours = set(), set()
    for version, created, pinned in versions[:-keep]:
        hour = created // 3_600_000
        if not pinned and version not in kept and (hour in hours or created < now - keep_ms):
            passed.add(version)
        hours.add(hour)
    if not passed:
        return
    connection.execute(delete(snapshot).where(among(connection, snapshot.c.version, passed)))
    # A row is removed together with the last version that has it.
    row, before = snapshot_row, 0
    for version in [version for version, _, _ in versions if version not in passed]:
        if version > before + 1:
            connection.execute(delete(row).where(row.c.valid_from > before, row.c.valid_to <= version))
        before = version


def difference(connection: Connection, since: int, until: int, left_out: Sequence[str] = ()) -> Difference:
    """Return the change from version `since` (0: no rows) to version `until`, which may be later or earlier.

    The sections that are `left_out` are not compared.
    """
    row = snapshot_row
    first, last = sorted((since, until))
    wanted = row.c.section.not_in(left_out)
    ended = (wanted, row.c.valid_from <= first, row.c.valid_to > first, row.c.valid_to <= last)
    begun = (
        wanted,
        row.c.valid_from > first,
        row.c.valid_from <= last,
        or_(row.c.valid_to.is_(None), row.c.valid_to > last),
    )
    removed, live = (ended, begun) if since <= until else (begun, ended)
    return Difference(
        removed=[(name, key) for name, key in connection.execute(select(row.c.section, row.c.key).where(*removed))],
        live=[
            (name, key, value)
            for name, key, value in connection.execute(select(row.c.section, row.c.key, row.c.value).where(*live))
        ],
    )


def _valid(version: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    row = snapshot_row
    return row.c.valid_from <= version, or_(row.c.valid_to.is_(None), row.c.valid_to > version)


def _put(
    connection: Connection, name: str, wanted: Mapping[str, bytes | None], version: int
) -> tuple[Section, Section]:
    """Replace live rows of a section, and return the rows that end and those that begin with this version."""
    row = snapshot_row
    mine = (row.c.section == name, row.c.valid_to.is_(None), among(connection, row.c.key, wanted))
    live: Section = dict(connection.execute(select(row.c.key, row.c.value).where(*mine)).all())
    ended = {key: value for key, value in live.items() if value != wanted[key]}
    begun = {key: value for key, value in wanted.items() if value is not None and value != live.get(key)}
    _end(connection, name, ended, version)
    sections, versions = [name] * len(begun), [version] * len(begun)
    insert_rows(
        connection,
        row,
        {"section": sections, "key": list(begun), "valid_from": versions, "value": list(begun.values())},
    )
    return ended, begun


def _end(connection: Connection, name: str, keys: Iterable[str], version: int) -> None:
    row = snapshot_row
    mine = (row.c.section == name, row.c.valid_to.is_(None), among(connection, row.c.key, keys))
    connection.execute(update(row).where(*mine).values(valid_to=version))


def _end_others(connection: Connection, kept: Mapping[str, Container[str]], version: int) -> None:
    """End all live rows but those that are kept."""
    row = snapshot_row
    live = select(row.c.section, row.c.key).where(row.c.valid_to.is_(None))
    others: dict[str, list[str]] = {}
    for name, key in connection.execute(live.execution_options(yield_per=10_000)):
        if key not in kept.get(name, ()):
            others.setdefault(name, []).append(key)
    for name, keys in others.items():
        _end(connection, name, keys, version)
