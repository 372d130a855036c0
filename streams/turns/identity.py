"""The identity of an event file: the stream that was read before, or a new one with the same first lines."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from backchannel.schemas.errors import BackchannelError
from backchannel.streams.turns.position import Identity, TopicPosition


class SourceError(BackchannelError, RuntimeError):
    """An event file cannot be read; the message says why and what to do."""


class Marker:
    """Marks of the lines of a file: digests of all lines so far, at every power of two and at further stops.

    Empty lines are counted, but not part of the digest.

    Args:
        stops: further numbers of lines to mark at.

    Attributes:
        lines: the number of lines so far.
        marks: number of lines -> digest of them.
    """

    def __init__(self, stops: Iterable[int] = ()) -> None:
        self._hash: Final = hashlib.blake2b(digest_size=8)
        self._stops: Final = sorted({*stops, *(1 << power for power in range(63))})
        self.lines = 0
        self.marks: Final[dict[int, str]] = {}

    @property
    def digest(self) -> str:
        """The digest of the lines so far."""
        return self._hash.hexdigest()

    def add(self, lines: Sequence[bytes]) -> None:
        """Add the next lines."""
        begin, end = self.lines, self.lines + len(lines)
        while self.lines < end:
            stop = self._stops[bisect_right(self._stops, self.lines)]
            until = min(stop, end)
            if some := list(filter(None, lines[self.lines - begin : until - begin])):
                self._hash.update(b"\n".join((*some, b"")))
            self.lines = until
            if until == stop:
                self.marks[stop] = self.digest


class Scannable(Protocol):
    """A file to identify."""

    @property
    def path(self) -> str:
        """Its path."""

    @property
    def base(self) -> str:
        """The beginning of its stream's name."""

    def scan(self, marker: Marker, lines: int) -> None:
        """Add the first `lines` lines, or all if it has fewer, to `marker`; they can still be read after that."""


def identify(file: Scannable, known: Mapping[str, TopicPosition]) -> str:
    """Return the name of a file's stream: that of the known stream that it continues, or a new name.

    A file continues a stream if its first lines are the lines read of that stream, even if it was moved, renamed
    or compressed. Two files may begin with the same lines, such as a header or the same first event.

    Args:
        file: the file.
        known: the positions of the streams that were read, by name.

    Raises:
        SourceError: lines that were read are missing from the file or have changed.
    """
    candidates = {name: at for name, at in known.items() if name == file.base or name.startswith(f"{file.base}.")}
    if not candidates:
        return file.base
    were = {name: at.identity or Identity() for name, at in candidates.items()}
    longest = max(was.lines for was in were.values())
    marker = Marker(was.lines for was in were.values())
    file.scan(marker, longest)
    same = [name for name, was in were.items() if not was.lines or _common(was, marker) == was.lines]
    if same:
        return max(same, key=lambda name: (were[name].lines, candidates[name].read))
    for was in were.values():
        common = _common(was, marker)
        if marker.lines < was.lines and common and common == max(n for n in was.marks if n <= marker.lines):
            raise SourceError(
                f"{file.path} has {marker.lines} lines, but an earlier run has read {was.lines} of a file that begins "
                "with the same ones: it was truncated. Restore it, or begin a new store"
            )
        if common >= 2 and 2 * common >= was.lines:
            raise SourceError(
                f"{file.path} begins with the same {common} lines as a file of which an earlier run has read "
                f"{was.lines}, but those after them have changed: lines can only be appended. Restore it, or begin a "
                "new store"
            )
    return next(name for number in range(1, len(were) + 2) if (name := f"{file.base}.{number}") not in were)


def base_of(first_line: bytes) -> str:
    """Return the beginning of the names of all streams with this first line."""
    return f"file:{hashlib.blake2b(first_line, digest_size=8).hexdigest()}"


def _common(was: Identity, marker: Marker) -> int:
    """Return the greatest marked number of first lines that are equal."""
    return max((n for n, digest in was.marks.items() if marker.marks.get(n) == digest), default=0)
