"""A lot drawn by name: always the same for the same name, on every machine."""

from zlib import crc32


def lot(name: str) -> float:
    """Return a number in [0, 1) that depends on `name` only, evenly spread over names however alike.

    A CRC-32, whose bits are linear in those of the name, scattered as multiplicative hashing does (Knuth, TAOCP 6.4).
    """
    return crc32(name.encode()) * 0x9E3779B1 % 2**32 / 2**32
