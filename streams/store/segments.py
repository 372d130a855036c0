"""Segments: each commit adds one encoded block, which a publisher later merges into the tables of sums.

A commit inserts one row and touches no other, so committers never wait for each other. Segments are
sums, too: any number of them, in any order, merge into one delta in which each key occurs once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from sqlalchemy import Connection, delete, func, select

from backchannel.agents.sums import CodedKeys, Sums, SumTable
from backchannel.streams.store.dialects import among, insert_rows
from backchannel.streams.store.tables import segment

PORTION: Final = 1 << 26
"""Bytes of segments to merge in one transaction, before compression, to bound its time and memory."""
_LEVEL: Final = 1
"""Of Zstandard. It compresses about 1 GB/s, to a tenth; level 3 saves 3% more and takes 1.4 times as long."""

_KINDS: Final = {"str": str, "int": int}


class _Column(Struct, frozen=True, array_like=True):
    """A key column: its distinct values, sorted, and the index of each row's value among them, int32."""

    values: list[str | int]
    codes: bytes


class _Part(Struct, frozen=True, array_like=True):
    """Sums of one table, with its full declaration, so that merging does not need the learner."""

    name: str
    key: tuple[tuple[str, str], ...]
    sums: tuple[str, ...]
    half_life_ms: int | None
    lookup: str | None
    landmark: int
    columns: list[_Column]
    values: bytes


class Taken(NamedTuple):
    """Segments that have been taken out of the store.

    Attributes:
        delta: their sums by table; packed sums of different lengths are separate.
        counts: their counts, added up.
    """

    delta: list[Sums]
    counts: dict[str, int]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[_Part]).decode
_decode_counts: Final = msgspec.json.Decoder(dict[str, int]).decode


def encode(all_sums: Iterable[Sums]) -> bytes:
    """Return sums as a block of bytes."""
    return _encode([_part(sums) for sums in all_sums])


def merged(blocks: Iterable[bytes]) -> list[Sums]:
    """Return the total of encoded sums, with sorted keys."""
    alike: defaultdict[tuple[str, int], list[_Part]] = defaultdict(list)
    for block in blocks:
        for part in _decode(block):
            alike[part.name, len(part.values) // max(len(part.columns[0].codes), 1)].append(part)
    return [_united(parts) for _, parts in sorted(alike.items(), key=lambda one: one[0])]


def put(connection: Connection, all_sums: Sequence[Sums], counts: Mapping[str, int]) -> None:
    """Insert a segment."""
    block = encode(all_sums)
    columns: dict[str, list[Any]] = {
        "counts": [msgspec.json.encode(counts).decode()],
        "size": [len(block)],
        "value": [_compressed(block)],
    }
    insert_rows(connection, segment, columns)


def waiting(connection: Connection) -> int:
    """Return the size of all segments that have not been merged, in bytes before compression."""
    return int(connection.execute(select(func.coalesce(func.sum(segment.c.size), 0))).scalar_one())


def counted(connection: Connection) -> list[dict[str, int]]:
    """Return the counts of each segment that has not been merged."""
    return list(map(_decode_counts, connection.execute(select(segment.c.counts)).scalars()))


def unmerged(connection: Connection) -> list[Sums]:
    """Return the sums of all segments, without taking the segments; see `Taken`."""
    return merged(map(_block, connection.execute(select(segment.c.value).order_by(segment.c.id)).scalars()))


def portions(connection: Connection, leave: int) -> list[list[int]]:
    """Return the ids of all segments, oldest first, in lists of about `PORTION` bytes; no list if all of them
    together are at most `leave`.
    """
    rows = connection.execute(select(segment.c.id, segment.c.size).order_by(segment.c.id)).all()
    if sum(size for _, size in rows) <= leave:
        return []
    found: defaultdict[int, list[int]] = defaultdict(list)
    for (number, _), size in zip(rows, accumulate(size for _, size in rows), strict=True):
        found[size // PORTION].append(number)
    return list(found.values())


def take(connection: Connection, ids: Sequence[int] | None = None) -> Taken:
    """Take segments out of the store: those with `ids` that still exist, or all if None."""
    gone = delete(segment).returning(segment.c.id, segment.c.counts, segment.c.value)
    if ids is not None:
        gone = gone.where(among(connection, segment.c.id, ids))
    rows = sorted(connection.execute(gone).all())
    counts: Counter[str] = Counter()
    for _, of_one, _ in rows:
        counts.update(_decode_counts(of_one))
    return Taken(merged(_block(value) for _, _, value in rows), dict(counts))


def _compressed(block: bytes) -> bytes:
    from zstandard import compress  # noqa: PLC0415 - serving processes, which do without it, import this module

    return compress(block, _LEVEL)


def _block(compressed: bytes) -> bytes:
    from zstandard import decompress  # noqa: PLC0415

    return decompress(compressed)


def _part(sums: Sums) -> _Part:
    table = sums.table
    keys, values = sums.ordered()
    return _Part(
        name=table.name,
        key=tuple((name, kind.__name__) for name, kind in table.key),
        sums=table.sums,
        half_life_ms=table.half_life_ms,
        lookup=table.lookup,
        landmark=sums.landmark,
        columns=[_Column(list(own), codes.astype(np.int32).tobytes()) for codes, own in keys.coded().parts],
        values=values.astype(np.float64, copy=False).tobytes(),
    )


def _united(parts: Sequence[_Part]) -> Sums:
    """Return the sum of parts of one table, whose rows have the same length."""
    first = parts[0]
    key = tuple((name, _KINDS[kind]) for name, kind in first.key)
    table = SumTable(first.name, key, first.sums, first.half_life_ms, first.lookup)
    sums, *others = (_sums(table, part) for part in parts)
    return sums.merge(*others)


def _sums(table: SumTable, part: _Part) -> Sums:
    coded = [(np.frombuffer(one.codes, dtype=np.int32).astype(np.int64), one.values) for one in part.columns]
    values = np.frombuffer(part.values).reshape(len(coded[0][0]), -1)
    return Sums(table, CodedKeys(*coded), values, part.landmark)
