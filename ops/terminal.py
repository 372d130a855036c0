"""The output of commands: tables, JSON, files, and logs on standard error."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, Literal

import click
import msgspec
import orjson
from rich.console import Console

from backchannel.schemas.errors import BackchannelError

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LIBRARIES: Final = ("aiokafka", "faust", "kafka", "mode")
_CHATTY: Final = (*_LIBRARIES, "backchannel.streams.kafka.consumer")
"""Loggers that report below WARNING too often. The transport is a Faust service, which reports its every step."""


def console(width: int) -> Console:
    """Return a console on standard output, `width` columns wide where that is not a terminal.

    It prints text as it is: names come from events, and what is in them may look like rich's markup.
    """
    plain: Final = partial(Console, markup=False, emoji=False)
    found = plain()
    return found if found.is_terminal else plain(width=width)


def print_json(value: object) -> None:
    """Print a struct, or a container of structs, as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)))


def one_line(error: Exception) -> str:
    """Return the message of an error in one line; with the error's kind if the error is not one of ours."""
    words = " ".join(str(error).split())
    return words if isinstance(error, BackchannelError) else f"{type(error).__name__}: {words}".removesuffix(": ")


def require_writable(file: Path) -> None:
    """Check that `file` can be written, without changing it: better before long work than after.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    try:
        if file.is_file():
            file.open("ab").close()
        elif not file.exists():
            # Trying beats asking: permissions do not bind root, nor do they hold on every file system.
            TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, the call's extra fields, any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class OnceAWhile(logging.Filter):
    """Passes each message template of a library at most once every `REPEAT_S` seconds.

    While the brokers are down, aiokafka logs the same message a hundred times a second.

    Args:
        clock: monotonic clock, in seconds.
    """

    REPEAT_S: Final = 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        if record.name.partition(".")[0] not in _LIBRARIES:
            return True
        now = self._clock()
        template = record.name, str(record.msg)
        # Old entries are dropped: some libraries format numbers into their templates, so there is no end to them.
        self._said = {said: at for said, at in self._said.items() if now - at < self.REPEAT_S}
        if template in self._said:
            return False
        self._said[template] = now
        return True


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Log our messages from INFO and the libraries' from WARNING, each of theirs at most once a minute."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    )
    handler.addFilter(OnceAWhile())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
