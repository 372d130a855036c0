"""Packing for another process: small integers take few bytes, whatever their arrays' types."""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(value: Any) -> bytes:
    """Return `value` for `pickle.loads`, which restores every array with its type.

    Most arrays of turns hold codes and counts that fit into a byte, or one value only. As they are they would take
    four times as many bytes, and sending them longer than making them.
    """
    buffer = io.BytesIO()
    _Packer(buffer, protocol=5).dump(value)
    return buffer.getvalue()


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray or value.dtype.kind not in "iu" or not value.size:
            return NotImplemented
        least, most = value.min(), value.max()
        if least == most:
            return np.full, (value.shape, least, value.dtype)
        narrow = np.promote_types(np.min_scalar_type(least), np.min_scalar_type(most))
        if narrow.itemsize >= value.dtype.itemsize:
            return NotImplemented
        return _widened, (value.astype(narrow), value.dtype)


def _widened(value: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    return value.astype(kind)
