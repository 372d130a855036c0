"""A policy version as lines of JSON, for moving it from one store to another.

The first line has the header as stored, and its signature; each other line is a row. The header has the checksum of the
rows (with a key, their seal), so its signature covers all of them.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from backchannel.schemas.snapshot import Checksum, Section, Snapshot
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.versions import CorruptPolicyError, Provenance
from backchannel.streams.store.engine import StoreError
from backchannel.streams.store.tables import partition, snapshot

MAX_LINE: Final = 16 << 20
"""Maximum length of a line in bytes: a row takes a few kilobytes, the header a few hundred."""


class _Opening(Struct, frozen=True, tag_field="format", tag="backchannel policy 1"):
    header: str
    signature: str | None


class Archived(Struct, frozen=True):
    """A version read from an archive, checked against its header."""

    header: Snapshot
    sections: dict[str, Section]


def write(connection: Connection, version: int, put: Callable[[bytes], object], key: bytes = b"") -> int:
    """Pass the lines of a retained version to `put`, and return the number of its rows.

    Raises:
        CorruptPolicyError: the version is damaged, or not signed with the `key`.
    """
    text, signature = connection.execute(
        select(snapshot.c.header, snapshot.c.signature).where(snapshot.c.version == version)
    ).one()
    header = snapshots.opened(text, signature, key)
    checksum = Checksum(key=key)
    put(msgspec.json.encode(_Opening(text, signature)) + b"\n")
    for row in snapshots.rows(connection, version):
        checksum.add(*row)
        put(msgspec.json.encode(row) + b"\n")
    if not header.confirms(checksum, key):
        raise CorruptPolicyError(f"version {version} is damaged. Choose another one")
    return sum(header.rows.values())


def bounded_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the lines that a file's `readline` returns, up to the length that `write` may write.

    A few megabytes of gzip may contain gigabytes.

    Raises:
        CorruptPolicyError: a line is longer.
    """
    while line := readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise CorruptPolicyError(f"this is not what `snapshots export` wrote: a line of more than {MAX_LINE} bytes")
        yield line


def read(lines: Iterable[bytes], key: bytes = b"") -> Archived:
    """Read the lines of an archive, as `write` wrote them.

    Raises:
        CorruptPolicyError: the lines are not an archive, are damaged or truncated, or are not signed with the `key`.
    """
    sections: dict[str, Section] = {}
    checksum = Checksum(key=key)
    each, rows = iter(lines), 0
    try:
        opening = msgspec.json.decode(next(each, b""), type=_Opening)
        header = snapshots.opened(opening.header, opening.signature, key)
        decode = msgspec.json.Decoder(tuple[str, str, bytes]).decode
        for line in each:
            rows += 1
            if rows > sum(header.rows.values()):
                raise CorruptPolicyError("it has more rows than its header says: export the version again")
            section, name, value = decode(line)
            sections.setdefault(section, {})[name] = value
            checksum.add(section, name, value)
    except (msgspec.MsgspecError, OSError, EOFError, zlib.error) as error:
        raise CorruptPolicyError(f"this is not what `snapshots export` wrote: {error}") from None
    if not header.confirms(checksum, key):
        raise CorruptPolicyError("the rows do not match the checksum of the header: export the version again")
    return Archived(header, sections)


def publish(connection: Connection, archived: Archived, now: int, key: bytes = b"") -> Snapshot:
    """Publish an archived version as the next version, signed with this store's `key`.

    Raises:
        StoreError: workers learn into this store, so its next version would replace the imported one.
    """
    snapshots.current(connection, lock=True)
    if connection.execute(select(partition.c.source).where(partition.c.commits > 0).limit(1)).first():
        raise StoreError(
            "workers learn into this store, and would soon replace the imported version: import into another one"
        )
    header = archived.header
    provenance = Provenance(
        created=now,
        watermark=header.watermark,
        positions=header.positions,
        fingerprint=header.fingerprint,
        reason=f"imported; it was version {header.version}",
        imported=True,
        fold=header.fold,
        personal=header.personal,
    )
    made = snapshots.publish(connection, [archived.sections], provenance, whole=True, key=key)
    assert made is not None
    return made
