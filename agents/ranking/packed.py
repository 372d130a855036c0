"""Numbers of many packed maps, read as one array.

Maps with the same names in the same order, whose numbers are floats, have the same layout as bytes. Their numbers lie
at the same places, and need no decoding.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from backchannel.agents.sums import Booleans, Floats

_decode: Final = msgspec.msgpack.Decoder(dict[str, object]).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def _layout_of(packed: bytes, names: Sequence[str]) -> "np.dtype[Any] | None":
    """Return how a packed map is laid out; None if one of the numbers is there, but not as a float.

    Args:
        packed: a map, as MessagePack.
        names: the names of the numbers.

    Returns:
        A type with a field for each value that may differ between maps that are alike: those in `names`, by their
        index, and, by negative numbers, others. Maps with the same other bytes are laid out alike.
    """
    parts = [(name, _encode(name), value, _encode(value)) for name, value in _decode(packed).items()]
    fields: dict[str, tuple[str, int]] = {}
    at = len(packed) - sum(len(key) + len(own) for _, key, _, own in parts)  # after the number of names
    for place, (name, key, value, own) in enumerate(parts):
        at += len(key)
        if isinstance(value, float):
            fields[str(names.index(name) if name in names else -1 - place)] = (">f8", at + 1)  # after its marker
        elif name in names:
            return None
        elif isinstance(value, str) and value:
            length = len(value.encode())  # which what is before it tells
            fields[str(-1 - place)] = (f"S{length}", at + len(own) - length)
        at += len(own)
    kinds, offsets = zip(*fields.values(), strict=True) if fields else ((), ())
    return np.dtype({"names": [*fields], "formats": kinds, "offsets": offsets, "itemsize": len(packed)})


def read_alike(packed: Sequence[bytes], names: Sequence[str]) -> tuple[Floats, Booleans]:
    """Return the numbers of those maps that are laid out like the first one of the commonest length.

    Args:
        packed: maps, as MessagePack.
        names: the names of the numbers.

    Returns:
        The numbers, (maps, names), NaN where there is none; and which maps were read, (maps,).
    """
    found, like = np.full((len(packed), len(names)), np.nan), np.zeros(len(packed), dtype=bool)
    if not packed:
        return found, like
    sizes = np.fromiter(map(len, packed), np.int64, len(packed))
    size = int(np.bincount(sizes).argmax())
    rows = np.flatnonzero(sizes == size)
    layout = _layout_of(packed[rows[0]], names)
    if layout is None:
        return found, like
    maps: Any = np.frombuffer(bytearray().join([packed[row] for row in rows.tolist()]), layout)
    for field in layout.names or ():
        if int(field) >= 0:
            found[rows, int(field)] = maps[field]
        maps[field] = 0 if layout[field].kind == "f" else b""
    rest = maps.view(f"S{size}")  # of the same length, so equal only if all bytes are
    like[rows] = rest == rest[0]
    found[~like] = np.nan
    return found, like
