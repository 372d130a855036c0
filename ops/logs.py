"""Logs on standard error: for people, or one JSON object a line."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CHATTY: Final = ("aiokafka", "faust", "kafka", "mode", "backchannel.streams.transport")
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


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Log what is worth knowing of us, and what goes wrong of the libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
