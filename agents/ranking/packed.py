"""Numbers out of many packed dicts at once.

Engines log the same features for every result, in the same order. Packed by MessagePack, such dicts differ in the bytes
of their numbers only, so all dicts of one layout are read as one array. What fits no common
layout is decoded by itself.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from backchannel.agents.sums import Floats

_HEADERS: Final = ((16, 1), (1 << 16, 3), (1 << 32, 5))  # a map with fewer entries begins with so many bytes
_DOUBLE: Final = 8  # bytes of a double, after the one that says so
_LAYOUTS: Final = 8  # beyond these, each dict is decoded by itself


def numbers_of(packed: Sequence[bytes], names: Sequence[str]) -> Floats:
    """Return the numbers called `names` in dicts packed by MessagePack, (dicts, names); NaN for what is missing."""
    found = np.full((len(packed), len(names)), np.nan)
    if not names:
        return found
    left = np.arange(len(packed))
    sizes = np.fromiter(map(len, packed), np.int64, len(packed))
    for _ in range(_LAYOUTS):
        if not len(left):
            break
        own, offsets = _laid_out(packed[left[0]])
        alike = left[sizes[left] == sizes[left[0]]]
        block = np.frombuffer(b"".join([packed[row] for row in alike.tolist()]), np.uint8).reshape(len(alike), -1)
        fixed = np.ones(block.shape[1], dtype=bool)
        for offset in offsets.values():
            fixed[offset : offset + _DOUBLE] = False
        same = (block[:, fixed] == block[0, fixed]).all(axis=1)
        rows, block = alike[same], block[same]
        for column, name in enumerate(names):
            if name in offsets:
                doubles = np.ascontiguousarray(block[:, offsets[name] : offsets[name] + _DOUBLE])
                found[rows, column] = doubles.view(">f8")[:, 0]
            else:
                found[rows, column] = as_number(own.get(name))
        left = np.setdiff1d(left, rows, assume_unique=True)
    for row in left.tolist():
        decoded = msgspec.msgpack.decode(packed[row])
        found[row] = [as_number(decoded.get(name)) for name in names]
    return found


def as_number(value: object) -> float:
    """Return `value` as a number; NaN if it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan


def _laid_out(packed: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """A dict, and for each of its doubles where it begins."""
    own: dict[str, Any] = msgspec.msgpack.decode(packed)
    offsets = dict[str, int]()
    at = next(header for bound, header in _HEADERS if len(own) < bound)
    for name, value in own.items():
        at += len(msgspec.msgpack.encode(name))
        if isinstance(value, float):
            offsets[name] = at + 1
        at += len(msgspec.msgpack.encode(value))
    return own, offsets
