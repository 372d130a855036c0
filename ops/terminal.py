"""Logs on standard error: for people, or one JSON object a line."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LIBRARIES: Final = ("aiokafka", "faust", "kafka", "mode")
_CHATTY: Final = (*_LIBRARIES, "backchannel.streams.kafka.transport")
"""The transport is a Faust service, which tells of each of its steps."""


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, error if there is one, and what else the call names."""

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
    """Lets each message of a library through at most once in `REPEAT_S` seconds, whatever it is about.

    While the brokers are away, aiokafka says so a hundred times a second.

    Args:
        clock: tells the time in seconds.
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
        # What is older than that is forgotten: some libraries write numbers into their templates.
        self._said = {said: at for said, at in self._said.items() if now - at < self.REPEAT_S}
        if template in self._said:
            return False
        self._said[template] = now
        return True


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Log what is worth knowing of us, and what goes wrong of the libraries, the same not more than once a minute."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    )
    handler.addFilter(OnceAWhile())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
