"""Rows shared between versions: an immutable mapping whose next version seldom copies it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

_SHARE: Final = 8
_FEW: Final = 1024


class Rows(Mapping[str, bytes]):
    """The rows of a section in one version.

    It holds the rows of an earlier version, which are shared and never modified, and the changes since then. Once these
    are more than an eighth of the rows, `updated` merges both. So most versions cost a copy of the changes since then,
    and a million rows are not copied to change one.
    """

    __slots__ = ("_base", "_changed", "_size")

    def __init__(self, base: dict[str, bytes] | None = None) -> None:
        self._base: dict[str, bytes] = {} if base is None else base
        self._changed: dict[str, bytes | None] = {}
        self._size = len(self._base)

    def updated(self, removed: Iterable[str], live: Mapping[str, bytes]) -> "Rows":
        """Return the rows without those `removed`, and with those that are `live` added or replaced."""
        changed = {**self._changed, **dict.fromkeys(removed), **live}
        if len(changed) > _FEW + len(self._base) // _SHARE:
            together = {**self._base, **changed}
            return Rows({key: value for key, value in together.items() if value is not None})
        rows = Rows(self._base)
        rows._changed = changed
        rows._size += sum((value is not None) - (key in self._base) for key, value in changed.items())
        return rows

    def added_to(self, before: "Rows") -> Iterator[str]:
        """Yield the keys that are not in `before`; only changes are compared if both share their rows."""
        keys = before._changed | self._changed if self._base is before._base else self
        return (key for key in keys if key in self and key not in before)

    def __getitem__(self, key: str) -> bytes:
        value = self._changed[key] if key in self._changed else self._base[key]
        if value is None:
            raise KeyError(key)
        return value

    def get(self, key: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]  # called most often
        """Return the row of `key`."""
        if key in self._changed:
            value = self._changed[key]
            return default if value is None else value
        return self._base.get(key, default)

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._base if key not in self._changed)
        yield from (key for key, value in self._changed.items() if value is not None)

    def __len__(self) -> int:
        return self._size
