"""The file of the lines that `backchannel run` could not learn from."""

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import orjson

from backchannel.schemas.errors import BackchannelError
from backchannel.streams.turns.event_file import Chunk
from backchannel.streams.turns.partition import DeadLetter


def forget_lines(path: Path, user: str) -> int:
    """Delete the lines whose record names a user, and return how many; the file is replaced whole."""
    names = [json.dumps(user)[1:-1], orjson.dumps(user).decode()[1:-1]]  # as texts in JSON, with or without escapes
    mentions = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in names)).search
    kept, gone = path.with_name(f"{path.name}.kept"), 0
    with path.open("rb") as lines, kept.open("wb") as file:
        for line in lines:
            if mentions(_record_of(line)):
                gone += 1
            else:
                file.write(line)
    kept.replace(path)
    return gone


def _record_of(line: bytes) -> str:
    """Return the record in a line; the line itself if it is no letter, as if its writer was killed."""
    try:
        letter = orjson.loads(line)
        found: str = letter.get("record") or base64.b64decode(letter.get("record_base64", "")).decode(errors="replace")
    except (ValueError, AttributeError):
        return line.decode(errors="replace")
    return found


class DeadLetterError(BackchannelError, RuntimeError):
    """The dead-letter file cannot be written; the message says why and what to do."""


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
        """Write the letters among the lines of a chunk of a source.

        Raises:
            DeadLetterError: the file cannot be created.
        """
        for letter in letters:
            self._file = self._file or self._opened()
            number = chunk.numbers[bisect_left(chunk.offsets, letter.offset)]
            line: dict[str, str | int] = {"source": source, "line": number + 1, "reason": letter.reason}
            try:
                line["record"] = letter.record.decode()
            except UnicodeDecodeError:
                line["record_base64"] = base64.b64encode(letter.record).decode()
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self.count += len(letters)

    def _opened(self) -> IO[bytes]:
        try:
            return self.path.open("ab")
        except OSError as error:
            raise DeadLetterError(f"{self.path}: {error.strerror}; --dead-letters names another file") from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def flush(self) -> None:
        """Flush, before a commit: after a crash a letter may be written twice, but is never lost."""
        if self._file is not None:
            self._file.flush()
