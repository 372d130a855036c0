"""Array parameters in PostgreSQL's binary format. psycopg would write them as text, element by element, and PostgreSQL
would have to parse it.

Source: PostgreSQL, `array_recv`, and the `recv` functions of the elements' types.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from struct import Struct as Format
from typing import Any, Final, NamedTuple

import numpy as np
from sqlalchemy import BigInteger, Double, Integer, LargeBinary, String
from sqlalchemy.types import TypeEngine, UserDefinedType

_HEAD: Final = Format(">5i").pack  # dimensions, whether there may be NULLs, the elements' type, length, first index
_LENGTH: Final = Format(">i").pack
_NULL: Final = _LENGTH(-1)


class EncodedArray(bytes):
    """An array in binary format."""


class _Element(NamedTuple):
    """A type of elements: its OID, its name in SQL, and what encodes elements with their lengths."""

    oid: int
    name: str
    encode: Callable[[Sequence[Any]], bytes]


def _numbers(size: int, code: str) -> Callable[[Sequence[Any]], bytes]:
    element: Final = np.dtype([("length", ">i4"), ("value", f">{code}{size}")])

    def encode(values: Sequence[Any]) -> bytes:
        encoded = np.empty(len(values), dtype=element)
        encoded["length"] = size
        encoded["value"] = values
        return encoded.tobytes()

    return encode


def _blobs(values: Iterable[bytes | None]) -> bytes:
    return b"".join(
        chain.from_iterable((_NULL,) if value is None else (_LENGTH(len(value)), value) for value in values)
    )


def _texts(values: Sequence[str | None]) -> bytes:
    """Do what `_blobs` does, faster for many short values."""
    encoded = [value.encode() for value in values if value is not None]
    if len(encoded) < len(values):
        return _blobs(None if value is None else value.encode() for value in values)
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    ends = np.cumsum(lengths + 4)
    joined = np.empty(ends[-1] if len(ends) else 0, dtype=np.uint8)
    heads = (ends - lengths - 4)[:, None] + np.arange(4)
    joined[heads] = lengths.astype(">i4").view(np.uint8).reshape(-1, 4)
    is_text = np.ones(len(joined), dtype=np.bool_)
    is_text[heads] = False
    joined[is_text] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return joined.tobytes()


_ELEMENTS: Final[tuple[tuple[type[TypeEngine[Any]], _Element], ...]] = (
    # A type comes before those that it inherits from.
    (String, _Element(25, "TEXT", _texts)),
    (LargeBinary, _Element(17, "BYTEA", _blobs)),
    (BigInteger, _Element(20, "BIGINT", _numbers(8, "i"))),
    (Integer, _Element(23, "INTEGER", _numbers(4, "i"))),
    (Double, _Element(701, "DOUBLE PRECISION", _numbers(8, "f"))),
)


class BinaryArray(UserDefinedType[Sequence[Any]]):
    """The type of a parameter that is an array of a column's values; texts and blobs may be None.

    Args:
        item: the column's type: text, bytes, whole numbers or doubles.
    """

    cache_ok = True
    render_bind_cast = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        self.item = item
        self._element = next(element for kind, element in _ELEMENTS if isinstance(item, kind))

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in SQL."""
        return f"{self._element.name}[]"

    def bind_processor(self, dialect: Any) -> Callable[[Any], EncodedArray]:  # noqa: ARG002
        """Return what encodes an array."""
        oid, encode = self._element.oid, self._element.encode
        return lambda values: EncodedArray(_HEAD(1, 1, oid, len(values), 1) + encode(values))
