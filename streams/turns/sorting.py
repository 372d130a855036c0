"""Event files in any order, read in time order: an external merge sort, for files larger than memory."""

import os
import struct
from collections.abc import Iterator
from errno import EDQUOT, EFBIG, ENOSPC
from heapq import merge
from itertools import islice
from tempfile import TemporaryFile, gettempdir
from typing import IO, Final, Self, TypeAlias

from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.streams.turns.event_file import Chunk, EventFile
from backchannel.streams.turns.identity import Marker, SourceError
from backchannel.streams.turns.position import Identity, TopicPosition

RUN_BYTES: Final = 1 << 27
"""Bytes of lines to sort in memory at a time."""

_READ: Final = 1 << 18
"""Bytes to read at a time from each sorted run."""

_LINES: Final = 2_000
"""Lines in a chunk."""

_HEADER: Final = struct.Struct("<qqI")  # event time, number of the line, length of the line

_Entry: TypeAlias = tuple[int, int, bytes]


class SortedFile:
    """The lines of an event file, in the order of their events' times; see `EventFile`.

    Lines of the same time keep their order. An invalid line is placed right after the line before it.

    Args:
        file: the file.
        decoder: the decoder of its events.
        run_bytes: bytes of lines to sort in memory at a time.
    """

    def __init__(self, file: EventFile, decoder: EventDecoder, run_bytes: int = RUN_BYTES) -> None:
        self._file: Final = file
        self._decoder: Final = decoder
        self._run_bytes: Final = run_bytes
        self._was: TopicPosition | None = None
        self.path: Final = file.path
        self.base: Final = file.base and file.base.replace("file:", "sorted:", 1)
        self.size: Final = file.size

    @property
    def consumed(self) -> int:
        """See `EventFile`."""
        return self._file.consumed

    @property
    def unfinished(self) -> int | None:
        """See `EventFile`."""
        return self._file.unfinished

    def scan(self, marker: Marker, lines: int) -> None:
        """See `Scannable.scan`: a file is identified by its unsorted lines."""
        self._file.scan(marker, lines)

    def continues(self, position: TopicPosition) -> None:
        """Check, while reading, that the lines read before still come first in time order."""
        self._was = position

    def chunks(self, start: int = 0) -> Iterator[Chunk]:
        """Sort the file, and yield its lines from place `start` on.

        Raises:
            SourceError: see `EventFile.chunks`; or there is no room to sort, or the disk fails; or events were added to
                the file that are older than some already read.
        """
        try:
            yield from self._sorted(start)
        except OSError as error:
            full = error.errno in {ENOSPC, EDQUOT, EFBIG}
            remedy = f": sorting needs room for all of its lines in {gettempdir()}, or where TMPDIR says"
            raise SourceError(f"{self.path}: {error.strerror}{remedy if full else ''}") from None

    def _sorted(self, start: int) -> Iterator[Chunk]:
        was = self._was or TopicPosition()
        with TemporaryFile() as spilled:
            runs, identity = self._spill(spilled)
            entries = merge(*(_entries(spilled.fileno(), *run) for run in runs))
            marker = Marker([was.read])
            while some := list(islice(entries, _LINES)):
                lines = [line for _, _, line in some]
                numbers = [number for _, number, _ in some]
                first, begin = max(start - marker.lines, 0), marker.lines
                marker.add(lines)
                if begin < was.read <= marker.lines and was.identity and marker.marks[was.read] != was.identity.order:
                    raise SourceError(
                        f"{self.path} has new events that are older than some of the {was.read} that an earlier run "
                        "has read in time order: begin a new store"
                    )
                if lines[first:]:
                    now = Identity(identity.lines, identity.marks, marker.digest)
                    yield Chunk(range(begin + first, marker.lines), lines[first:], numbers[first:], now)
        if marker.lines < start:
            raise SourceError(f"{self.path} is shorter than when it was last read: restore it, or begin a new store")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spill(self, target: IO[bytes]) -> tuple[list[tuple[int, int]], Identity]:
        """Write sorted runs to `target`; return the begin and end of each, in bytes, and the file's identity."""
        runs: list[tuple[int, int]] = []
        entries: list[_Entry] = []
        held, ts, identity = 0, 0, Identity()

        def spill() -> None:
            entries.sort(key=lambda entry: entry[:2])
            begin = target.tell()
            target.writelines(
                part for ts, number, line in entries for part in (_HEADER.pack(ts, number, len(line)), line)
            )
            runs.append((begin, target.tell()))
            entries.clear()

        for chunk in self._file.chunks():
            for number, line, event in zip(
                chunk.numbers, chunk.lines, self._decoder.decode_many(chunk.lines), strict=True
            ):
                ts = ts if isinstance(event, EventError) else event.ts
                entries.append((ts, number, line))
                held += len(line) + 100  # for the Python objects
            identity = chunk.identity
            if held > self._run_bytes:
                spill()
                held = 0
        spill()
        target.flush()
        return runs, identity


def _entries(descriptor: int, begin: int, end: int) -> Iterator[_Entry]:
    """Yield the entries of a sorted run; all runs are read through one descriptor."""
    buffer, at = b"", 0
    while True:
        while len(buffer) - at < _HEADER.size or len(buffer) - at < _HEADER.size + _HEADER.unpack_from(buffer, at)[2]:
            more = os.pread(descriptor, min(_READ, end - begin), begin)
            if not more:
                return
            begin += len(more)
            buffer, at = buffer[at:] + more, 0
        ts, number, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        yield ts, number, buffer[at : at + length]
        at += length
