"""The file of the lines that `backchannel run` could not learn from."""

import base64
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import orjson

from backchannel.streams.turns.event_file import Chunk
from backchannel.streams.turns.partition import DeadLetter


class DeadLetterFile:
    """The dead-letter file: created with the first letter, and appended to.

    Attributes:
        path: its path.
        count: the number of letters written.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.count = 0
        self._file: IO[bytes] | None = None

    def write(self, letters: Sequence[DeadLetter], chunk: Chunk, source: str) -> None:
        """Write the letters among the lines of a chunk of a source."""
        for letter in letters:
            self._file = self._file or self.path.open("ab")
            number = chunk.numbers[bisect_left(chunk.offsets, letter.offset)]
            line: dict[str, str | int] = {"source": source, "line": number + 1, "reason": letter.reason}
            try:
                line["record"] = letter.record.decode()
            except UnicodeDecodeError:
                line["record_base64"] = base64.b64encode(letter.record).decode()
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self.count += len(letters)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def flush(self) -> None:
        """Flush, before a commit: after a crash a letter may be written twice, but is never lost."""
        if self._file is not None:
            self._file.flush()
