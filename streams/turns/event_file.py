"""Event files: JSON lines, plain or compressed, from a file or a pipe."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, Final, NamedTuple, Self

import msgspec

from backchannel.schemas.codec import MAX_RECORD_BYTES
from backchannel.streams.extras import install
from backchannel.streams.turns.compression import BLOCK, DAMAGE, RawInput, decompressed
from backchannel.streams.turns.identity import Marker, SourceError, base_of
from backchannel.streams.turns.position import Identity

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Chunk(NamedTuple):
    """Lines of an event file, without the empty ones.

    Attributes:
        offsets: each line's place among the lines as they are read, ascending; in an unsorted file, its number.
        lines: the lines.
        numbers: each line's number in the file, from 0.
        identity: the identity of the file up to the end of the chunk.
    """

    offsets: Sequence[int]
    lines: Sequence[bytes]
    numbers: Sequence[int]
    identity: Identity


class EventFile:
    """The lines of an event file.

    Args:
        path: the path of a file (plain, gzip or Zstandard, by its content), a pipe or a FIFO; "-" is
            standard input.
        complete: whether a last line without a line break is complete, even if it is not valid JSON. A pipe's
            always is.

    Attributes:
        path: the path.
        base: the beginning of the stream's name, see `identity`; empty if there are no lines.
        size: the size of the file on disk in bytes; None for a pipe.
        unfinished: the number, from 0, of an incomplete last line, which was not read; None if there is none.

    Raises:
        SourceError: the file cannot be opened or decompressed.
    """

    def __init__(self, path: str, *, complete: bool = False) -> None:
        self.path: Final = path
        self._complete: Final = complete
        self.unfinished: int | None = None
        try:
            self._raw: Final = RawInput(path)
            stream = decompressed(self._raw)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from None
        except ModuleNotFoundError:
            raise SourceError(f"{path} is Zstandard: to read it, {install('learn')}") from None
        if self._raw.head[:2] in _UTF_16:
            raise SourceError(f"{path} is UTF-16: convert it, as with `iconv -f UTF-16 -t UTF-8`")
        self.size: Final = self._raw.size
        self._blocks: Iterator[list[bytes]] = self._split(stream)
        first = next(self._blocks, None)
        if first is not None:
            first[0] = first[0].removeprefix(codecs.BOM_UTF8)  # written by some programs
            self._blocks = chain((first,), self._blocks)
        self.base: Final = "" if first is None else base_of(first[0])

    @property
    def consumed(self) -> int:
        """The number of bytes read so far of the file on disk."""
        return self._raw.count

    def chunks(self, start: int = 0) -> Iterator[Chunk]:
        """Yield the lines from line `start` on.

        A line longer than any valid event is truncated, to a length that is still invalid, to bound memory.

        Raises:
            SourceError: the file is damaged, or has fewer than `start` lines.
        """
        marker = Marker()
        for block in self._blocks:
            first = max(start - marker.lines, 0)
            numbers: Sequence[int] = range(marker.lines + first, marker.lines + len(block))
            wanted = block[first:]
            marker.add(block)
            if not all(wanted):
                numbers = [number for number, line in zip(numbers, wanted, strict=True) if line]
                wanted = [line for line in wanted if line]
            if wanted:
                read = numbers[-1] + 1
                yield Chunk(numbers, wanted, numbers, Identity(read, {**marker.marks, read: marker.digest}))
        if marker.lines < start:
            raise SourceError(
                f"{self.path} has {marker.lines} lines, but an earlier run has read {start}: it was truncated. "
                "Restore it, or begin a new store"
            )

    def scan(self, marker: Marker, lines: int) -> None:
        """See `Scannable.scan`."""
        if self.size is not None:
            with EventFile(self.path, complete=self._complete) as again:
                while marker.lines < lines and (block := next(again._blocks, None)) is not None:
                    marker.add(block)
            return
        # A pipe cannot be read again, and the scanned lines may not fit into memory.
        kept, ends = TemporaryFile(), []  # noqa: SIM115 -- closed by `blocks`
        while marker.lines < lines and (block := next(self._blocks, None)) is not None:
            marker.add(block)
            kept.write(b"\n".join(block))
            ends.append(kept.tell())

        def blocks() -> Iterator[list[bytes]]:
            with kept:
                kept.seek(0)
                for end in ends:
                    yield kept.read(end - kept.tell()).split(b"\n")

        self._blocks = chain(blocks(), self._blocks)

    def close(self) -> None:
        """Close the file. A pipe stays open, because a thread may be reading from it."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _split(self, stream: IO[bytes]) -> Iterator[list[bytes]]:
        read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        rest, count = b"", 0
        try:
            while block := read(BLOCK):
                text = rest + block
                lines = text.split(b"\n")
                rest = lines.pop()[: MAX_RECORD_BYTES + 1]
                if b"\r" in text:  # which may have been the last character of the block before
                    lines = [line.rstrip(b"\r") for line in lines]
                if lines:
                    yield lines
                    count += len(lines)
        except DAMAGE as error:
            raise SourceError(f"{self.path} is damaged: {error}. Everything before the damage was read") from None
        if not rest.strip():
            return
        if self._complete or self.size is None or _is_json(rest):
            yield [rest]
        else:
            self.unfinished = count


def _is_json(line: bytes) -> bool:
    try:
        # A number may still continue.
        return not isinstance(msgspec.json.decode(line), int | float)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
