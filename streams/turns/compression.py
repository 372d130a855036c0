"""Files and pipes as streams of bytes, decompressed according to their first bytes."""

import gzip
import io
import os
import stat
import sys
import zlib
from typing import IO, Any, Final

try:
    import zstandard
except ImportError:  # an extra
    zstandard = None  # type: ignore[assignment]

BLOCK: Final = 1 << 18
"""Bytes per read."""

DAMAGE: Final = (EOFError, OSError, zlib.error, *([zstandard.ZstdError] if zstandard else []))
"""Errors raised by reading a damaged file."""

_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE: Final = 4096
"""Compressed bytes to decompress at once: Zstandard may expand them 32,768 times."""


class RawInput(io.RawIOBase):
    """The bytes of a file or pipe.

    Args:
        path: its path; "-" is standard input.

    Attributes:
        head: its first four bytes, fewer if it is shorter.
        count: the number of bytes read.
        size: its size in bytes; None for a pipe, a FIFO or a terminal, which can be read only once.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        # Our own descriptor: Python cannot exit while a thread waits in sys.stdin.
        self._descriptor = os.dup(sys.stdin.fileno()) if path == "-" else os.open(path, os.O_RDONLY)
        found = os.fstat(self._descriptor)
        self.size: Final = found.st_size if path != "-" and stat.S_ISREG(found.st_mode) else None
        self.count = 0
        self._ended = False
        self.head = b""
        while len(self.head) < len(_ZSTANDARD) and (more := self._read(len(_ZSTANDARD) - len(self.head))):
            self.head += more
        self._rest = self.head

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        some = self._rest[: len(buffer)] or self._read(len(buffer))
        self._rest = self._rest[len(some) :]
        buffer[: len(some)] = some
        self.count += len(some)
        return len(some)

    def _read(self, most: int) -> bytes:
        if self._ended:
            return b""
        some = os.read(self._descriptor, most)
        if not some and self.size is None:
            self._ended = True
            os.close(self._descriptor)
        return some

    def close(self) -> None:
        """Close it. A pipe that has not ended stays open, because a thread may be reading from it."""
        if not self._ended and self.size is not None:
            self._ended = True
            os.close(self._descriptor)
        super().close()


def decompressed(raw: RawInput) -> IO[bytes]:
    """Return the content of `raw`, which is plain, gzip or Zstandard.

    Raises:
        ModuleNotFoundError: it is Zstandard, and the package that reads it is missing.
    """
    if raw.head.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=io.BufferedReader(raw, BLOCK)), BLOCK)
    if raw.head.startswith(_ZSTANDARD):
        if zstandard is None:
            raise ModuleNotFoundError(name="zstandard")
        return io.BufferedReader(_Zstandard(raw), BLOCK)
    return io.BufferedReader(raw, BLOCK)


class _Zstandard(io.RawIOBase):
    """Decompresses any number of frames; a truncated last one is an error, as in gzip files."""

    def __init__(self, raw: RawInput) -> None:
        self._raw: Final = io.BufferedReader(raw, BLOCK)
        self._frame: Any = None
        self._left = b""  # compressed
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            piece = self._left or self._raw.read1(_PIECE)
            self._left = b""
            if not piece:
                if self._frame is not None:
                    raise EOFError("compressed file ended in the middle of a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(piece))
            if self._frame.eof:
                self._left, self._frame = self._frame.unused_data, None
        some = self._ready[: len(buffer)]
        self._ready = self._ready[len(some) :]
        buffer[: len(some)] = some
        return len(some)
