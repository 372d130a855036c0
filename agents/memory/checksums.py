"""CRC-32 of many pairs of texts, computed from those of their parts.

A CRC is linear in its start value: crc32(b, c) = crc32(b, 0) ^ M(c), where M depends on the length of b only. So the
checksum of a pair takes a few lookups in M's table instead of a pass over both texts.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Checksums: TypeAlias = NDArray[np.uint32]


def of_pairs(heads: Sequence[str], tails: Sequence[str], head: NDArray[np.int64], tail: NDArray[np.int64]) -> Checksums:
    """Return the CRC-32 of head, U+0000 and tail, (pairs,), in UTF-8.

    Args:
        heads: the distinct heads.
        tails: the distinct tails.
        head: index of each pair's head in `heads`, (pairs,).
        tail: index of each pair's tail in `tails`, (pairs,).
    """
    starts = np.zeros(len(heads), dtype=np.uint32)
    used = np.flatnonzero(np.bincount(head)).tolist()
    starts[used] = [crc32(f"{heads[one]}\0".encode()) for one in used]
    ends, lengths = np.zeros(len(tails), dtype=np.uint32), np.zeros(len(tails), dtype=np.int64)
    used = np.flatnonzero(np.bincount(tail)).tolist()
    encoded = [tails[one].encode() for one in used]
    ends[used], lengths[used] = list(map(crc32, encoded)), list(map(len, encoded))
    found, length = starts[head], lengths[tail]
    for one in np.flatnonzero(np.bincount(length)).tolist():
        rows = np.flatnonzero(length == one)
        found[rows] = _moved(found[rows], one)
    return found ^ ends[tail]


def _moved(checksums: Checksums, length: int) -> Checksums:
    """Return M of the start values `checksums`, (n,), for texts of `length` bytes."""
    table = _table(length)
    moved: Checksums = table[0][checksums & 0xFF]
    for place in (1, 2, 3):
        moved = moved ^ table[place][checksums >> np.uint32(8 * place) & np.uint32(0xFF)]
    return moved


@lru_cache(maxsize=1 << 10)
def _table(length: int) -> Checksums:
    """Return M for each byte of the start value, (4, 256)."""
    zeros = bytes(length)
    of_bits = np.array([crc32(zeros, 1 << bit) ^ crc32(zeros) for bit in range(32)], dtype=np.uint32).reshape(4, 8)
    table = np.zeros((4, 256), dtype=np.uint32)
    for bit in range(8):
        table ^= np.where(np.arange(256) >> bit & 1, of_bits[:, bit, np.newaxis], np.uint32(0))
    return table
