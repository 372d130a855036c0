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
    """A source cannot be read; the message says where it ends and what to do."""


class EventFile:
    """The lines of an event file.

    A file is known by its first line, which has an event_id of its own: moved, renamed or compressed, it is the same
    stream, and one that has grown goes on where it ended.

    Args:
        path: of the file, plain, gzip or Zstandard by its content; "-" for standard input.

    Attributes:
        name: of the stream; None when there is not a single line.
        size: of the file in bytes, as it lies there; None for a pipe.

    Raises:
        SourceError: it cannot be opened or is not what it claims to be.
    """

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._raw: Final[IO[bytes]] = _open(path)
        self.size: Final = None if path == "-" else Path(path).stat().st_size
        self._lines: Final = self._blocks(_decompress(self._raw, path))
        self._first: Final = next(self._lines, None)
        if self._first is not None:
            self._first[0] = self._first[0].removeprefix(codecs.BOM_UTF8)  # as some programs put before it
        self.name: Final = None if self._first is None else _name(self._first[0])

    @property
    def consumed(self) -> int:
        """Bytes of the file read so far, as it lies there."""
        return self._raw.tell() if self.size is not None else 0

    def chunks(self, start: int) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        """Yield chunks of lines as (line numbers from 0, lines), from line `start` on, without empty lines.

        A line that is longer than any valid event is cut short, so that it stays too long and costs no more memory.

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
                f"{self._path} has {number} lines, but an earlier run has read {start} of what begins with the same "
                "line: it was cut short. Restore it, or begin a new store"
            )

    def close(self) -> None:
        """Close the file. Not a pipe: a thread may be waiting in it."""
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
            raise SourceError(f"{self._path} is damaged: {error}. What came before it was read") from None
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
