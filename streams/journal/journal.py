"""An append-only log of events in a folder: written by the processes of a service, read by the one that learns.

Segments are files of JSON lines, named by the offset of their first byte. The offset of a record is the number of bytes
before it in the whole journal, so a reader seeks instead of counting, and a journal is resumed like a topic: from the
offset in the ledger.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from backchannel.schemas.errors import BackchannelError

SEGMENT_BYTES: Final = 64 << 20
_BLOCK: Final = 1 << 20
_SUFFIX: Final = ".jsonl"
_NO_SYNC: Final = (errno.EBADF, errno.EINVAL)


class JournalError(BackchannelError, RuntimeError):
    """The journal cannot be used; the message says why and what to do."""


class JournalFullError(BackchannelError, RuntimeError):
    """There is no room for more records until some are learned, or the folder can be written again."""


class Journal:
    """The writing half, which alone creates files. Several processes and threads may write to the same folder.

    Args:
        folder: the folder, created if it is missing; its parent must exist.
        max_bytes: the total size, in bytes, at which appending is refused.
        segment_bytes: the size, in bytes, at which a new segment begins.

    Attributes:
        folder: as given.
        source: the name of the stream. A new journal is a new stream, even in the same folder.

    Raises:
        JournalError: the folder cannot be written.
    """

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder: Final = folder
        self._max_bytes: Final = max_bytes
        self._segment_bytes: Final = segment_bytes
        try:
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                _sync(folder.parent)
            self._lock: Final = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with self._locked():
                self.source: Final = f"journal:{_identity(folder)}"
        except OSError as error:
            raise JournalError(f"journal {folder}: {error.strerror}; choose a writable folder") from None

    def append(self, records: bytes) -> None:
        """Append lines, each ended by a line break, and return once they are on disk.

        Raises:
            JournalFullError: the journal has reached its maximum size, or cannot be written. Some of the lines may be
                in the journal already; if they are sent again, their events still count once.
        """
        try:
            with self._locked():
                found = segments(self.folder)
                if sum(size for _, size in found) + len(records) > self._max_bytes:
                    raise JournalFullError(
                        f"the journal {self.folder} holds {self._max_bytes >> 20} MB not learned yet: learning "
                        "has stopped or does not keep up; see its log, or raise serve.journal_gb"
                    )
                base, size = found[-1] if found else (0, 0)
                if size >= self._segment_bytes:
                    base, size = base + size, 0
                file = os.open(_path(self.folder, base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    if not size:  # in the lock: whoever writes next does not know whether the name is on disk
                        _sync(self.folder)
                    self._write(file, size, records)
                except OSError:
                    os.close(file)
                    raise
            try:
                os.fdatasync(file)  # after the lock, so that others can write meanwhile
            finally:
                os.close(file)
        except OSError as error:
            raise JournalFullError(f"the journal {self.folder} cannot be written: {error.strerror}") from None

    def begin_at(self, offset: int) -> None:
        """Continue from `offset` if the journal ends before it: a power failure may have lost records already
        learned.
        """
        with self._locked():
            found = segments(self.folder)
            if offset > (sum(found[-1]) if found else 0):
                _path(self.folder, offset).touch(0o600)

    def close(self) -> None:
        """Close the journal."""
        os.close(self._lock)

    @staticmethod
    def _write(file: int, size: int, records: bytes) -> None:
        # A process that was killed while writing leaves half a line, which was never acknowledged: end it.
        torn = size and os.pread(file, 1, size - 1) != b"\n"
        rest = memoryview(b"\n" + records if torn else records)
        while rest:
            written = os.pwrite(file, rest, size)
            size, rest = size + written, rest[written:]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other processes. Threads of a process share the lock, so only one of them may use it at a time."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


class JournalReader:
    """Reads a journal while it is written. One process at a time.

    Args:
        folder: the folder of the journal.
        start: see `seek`.

    Attributes:
        skipped: the number of unread bytes that were removed before they could be read.

    Raises:
        JournalError: another process reads the journal.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder: Final = folder
        self._lock: Final = os.open(folder / "reader", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise JournalError(
                f"another service learns from the journal {folder}: stop it, or give this one its own --journal"
            ) from None
        self.seek(start)

    def seek(self, start: int) -> None:
        """Continue at the offset `start`: the first record read begins there or later."""
        found = segments(self._folder)
        first = found[0][0] if found else 0
        self.skipped = max(first - start, 0)
        # The record that begins at `start` is preceded by a line break, unless its segment begins with it.
        self._inside = any(base < start <= base + size for base, size in found)
        self._next = max(start, first) - self._inside

    def read(self) -> tuple[list[int], list[bytes]]:
        """Return the offsets and lines of the next records; empty if no record is complete."""
        while (found := self._block()) is not None:
            if found[0]:
                return found
        return [], []

    def _block(self) -> tuple[list[int], list[bytes]] | None:
        """Read on, at most to the end of the segment; return None if no record is complete."""
        found = segments(self._folder)
        ahead = [(base, size) for base, size in found if base + size > self._next]
        if not ahead:
            return None
        base, size = ahead[0]
        self._next = max(self._next, base)
        with _path(self._folder, base).open("rb") as file:
            file.seek(self._next - base)
            block = file.read(_BLOCK)
            while b"\n" not in block and (more := file.read(_BLOCK)):
                block += more
        last = (base, size) == found[-1]
        complete = block.rfind(b"\n") + 1
        # A closed segment is read to its end, even if its last record was torn.
        if not complete and (last or self._next + len(block) < base + size):
            return None
        lines = block[: complete or len(block)].split(b"\n")
        offset = self._next
        self._next += complete or len(block)
        offsets, records = [], []
        for line in lines:
            if line and not self._inside:
                offsets.append(offset)
                records.append(line)
            self._inside = False
            offset += len(line) + 1
        return offsets, records

    def remove_before(self, offset: int, keep_bytes: int) -> None:
        """Remove the oldest segments that end at or before `offset`, while the journal is larger than `keep_bytes`."""
        found = segments(self._folder)
        total = sum(size for _, size in found)
        for base, size in found[:-1]:  # the last one is written to
            if total <= keep_bytes or base + size > offset:
                break
            _path(self._folder, base).unlink()
            total -= size

    def close(self) -> None:
        """Let another process read."""
        os.close(self._lock)


def segments(folder: Path) -> Sequence[tuple[int, int]]:
    """Return the offset and the size of each segment, in bytes, the oldest first."""
    with os.scandir(folder) as entries:
        return sorted(
            (int(entry.name.removesuffix(_SUFFIX)), entry.stat().st_size)
            for entry in entries
            if entry.name.endswith(_SUFFIX)
        )


def _sync(folder: Path) -> None:
    """Return once the names of a folder's files are on disk: a power failure loses files without a name.

    Some file systems cannot sync folders, and a folder may be closed to us. Both are ignored, as PostgreSQL does.
    """
    with suppress(PermissionError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(opened)


def _path(folder: Path, base: int) -> Path:
    return folder / f"{base:020}{_SUFFIX}"


def _identity(folder: Path) -> str:
    """The journal's id, made with the journal: offsets of one journal mean nothing in another."""
    file = folder / "id"
    try:
        return file.read_text()
    except FileNotFoundError:
        made = secrets.token_hex(8)
        new = folder / "id.new"
        with new.open("w") as opened:
            opened.write(made)
            opened.flush()
            os.fsync(opened.fileno())
        new.rename(file)
        return made
