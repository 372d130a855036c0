"""A policy version as lines of JSON, to be moved from one store to another.

The first line holds the header as it is in the store, and its signature; each of the others a row. As the header has
the checksum of the rows, or with a key their seal, the signature is one for all of them.
"""

import zlib
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from backchannel.schemas.snapshot import Checksum, Section, Snapshot
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.versions import CorruptPolicyError, Provenance
from backchannel.streams.store.engine import StoreError
from backchannel.streams.store.tables import partition, snapshot


class _Opening(Struct, frozen=True, tag_field="format", tag="backchannel policy 1"):
    header: str
    signature: str | None


class Archived(Struct, frozen=True):
    """A version that was read from an archive, and is as its header says."""

    header: Snapshot
    sections: dict[str, Section]


def write(connection: Connection, version: int, put: Callable[[bytes], object], key: bytes = b"") -> int:
    """Hand the lines of a retained version to `put`, and return the number of its rows.

    Raises:
        CorruptPolicyError: it is damaged, or not signed with the `key`.
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


def read(lines: Iterable[bytes], key: bytes = b"") -> Archived:
    """Read what `write` wrote.

    Raises:
        CorruptPolicyError: it is no archive, damaged, cut short, or not signed with the `key`.
    """
    sections: dict[str, Section] = {}
    checksum = Checksum(key=key)
    each = iter(lines)
    try:
        opening = msgspec.json.decode(next(each, b""), type=_Opening)
        header = snapshots.opened(opening.header, opening.signature, key)
        decode = msgspec.json.Decoder(tuple[str, str, bytes]).decode
        for line in each:
            section, name, value = decode(line)
            sections.setdefault(section, {})[name] = value
            checksum.add(section, name, value)
    except (msgspec.MsgspecError, OSError, EOFError, zlib.error) as error:
        raise CorruptPolicyError(f"this is not what `snapshots export` wrote: {error}") from None
    if not header.confirms(checksum, key):
        raise CorruptPolicyError("the rows do not have the checksum of the header: export it again")
    return Archived(header, sections)


def publish(connection: Connection, archived: Archived, now: int, key: bytes = b"") -> Snapshot:
    """Publish what was read as the next version, signed with this store's `key`.

    Raises:
        StoreError: the store learns by itself: its next version would take the place of this one.
    """
    snapshots.current(connection, lock=True)
    if connection.execute(select(partition.c.source).where(partition.c.commits > 0).limit(1)).first():
        raise StoreError("this store learns by itself, and its next version would take the place of the imported one")
    header = archived.header
    provenance = Provenance(
        created=now,
        watermark=header.watermark,
        positions=header.positions,
        fingerprint=header.fingerprint,
        reason=f"imported; it was version {header.version}",
        imported=True,
    )
    made = snapshots.publish(connection, [archived.sections], provenance, whole=True, key=key)
    assert made is not None
    return made
