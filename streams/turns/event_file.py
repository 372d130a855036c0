"""Event files: JSON lines, plain or compressed, or a pipe."""

import codecs
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, Self

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import MAX_RECORD_BYTES

try:
    import zstandard
except ImportError:  # an extra
    zstandard = None  # type: ignore[assignment]

_BLOCK: Final = 1 << 19
_DAMAGE: Final = (EOFError, OSError, zlib.error, *([zstandard.ZstdError] if zstandard else []))


class SourceError(BackchannelError, RuntimeError):
    """An event file cannot be read; the message says where it ends and what to do."""


class EventFile:
    """The lines of an event file.

    A file is identified by its first line, whose event_id is unique: moved, renamed or compressed, it is the same
    stream, and a file that has grown continues where it ended.

    Args:
        path: the path of the file, which is plain, gzip or Zstandard by its content; "-": standard input.

    Attributes:
        name: the name of the stream; None if there are no lines.
        size: the size of the file on disk in bytes; None for a pipe.

    Raises:
        SourceError: the file cannot be opened or decompressed.
    """

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._raw: Final[IO[bytes]] = _open(path)
        self.size: Final = None if path == "-" else Path(path).stat().st_size
        self._lines: Final = self._blocks(_decompress(self._raw, path))
        self._first: Final = next(self._lines, None)
        if self._first is not None:
            self._first[0] = self._first[0].removeprefix(codecs.BOM_UTF8)  # which some programs write
        self.name: Final = None if self._first is None else _name(self._first[0])

    @property
    def consumed(self) -> int:
        """The number of bytes read so far of the file on disk."""
        return self._raw.tell() if self.size is not None else 0

    def chunks(self, start: int) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        """Yield chunks of lines as (line numbers from 0, lines), from line `start` on, without empty lines.

        A line longer than any valid event is truncated to a length that is still too long, to bound memory.

        Raises:
            SourceError: the file is damaged, or has fewer than `start` lines.
        """
        number = 0
        block = self._first
        while block is not None:
            if number + len(block) > start:
                wanted = block[max(start - number, 0) :]
                offsets: Sequence[int] = range(number + len(block) - len(wanted), number + len(block))
                if not all(wanted):
                    offsets = [offset for offset, line in zip(offsets, wanted, strict=True) if line]
                    wanted = [line for line in wanted if line]
                yield offsets, wanted
            number += len(block)
            block = next(self._lines, None)
        if number < start:
            raise SourceError(
                f"{self._path} has {number} lines, but an earlier run has read {start} of a file with the same "
                "first line: it was truncated. Restore it, or begin a new store"
            )

    def close(self) -> None:
        """Close the file. A pipe stays open, because a thread may be waiting in it."""
        if self.size is not None:
            self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(self, stream: IO[bytes]) -> Iterator[list[bytes]]:
        read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        rest = b""
        try:
            while block := read(_BLOCK):
                lines = (rest + block).split(b"\n")
                rest = lines.pop()[: MAX_RECORD_BYTES + 1]
                if lines:
                    yield lines
        except _DAMAGE as error:
            raise SourceError(f"{self._path} is damaged: {error}. Everything before the damage was read") from None
        if rest:
            yield [rest]


def _open(path: str) -> IO[bytes]:
    if path == "-":
        # A reader of our own: Python cannot end while a thread waits in its own sys.stdin.
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None


def _decompress(raw: IO[bytes], path: str) -> IO[bytes]:
    start = raw.peek(4)[:4] if isinstance(raw, io.BufferedReader) else b""
    if start[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BLOCK)
    if start == b"\x28\xb5\x2f\xfd":
        if zstandard is None:
            raise SourceError(f"{path} is Zstandard: pip install 'backchannel[learn]' to read it")
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True), _BLOCK)
    return raw


def _name(first_line: bytes) -> str:
    return f"file:{hashlib.blake2b(first_line, digest_size=8).hexdigest()}"
