"""Records, as the worker reads them."""

from collections.abc import Sequence
from typing import Final, Protocol

LOG_APPEND_TIME: Final = 1
"""Kafka's timestamp type LogAppendTime: the broker set the timestamp."""


class Record(Protocol):
    """A record as it was read: without the names of its topic and partition."""

    @property
    def offset(self) -> int:
        """Its place in the log."""

    @property
    def timestamp(self) -> int:
        """When it was written, or said to be: ms since the Unix epoch."""

    @property
    def timestamp_type(self) -> int:
        """0: the producer set the timestamp; 1: the broker did."""

    @property
    def key(self) -> bytes | None:
        """The key."""

    @property
    def value(self) -> bytes | None:
        """The value."""


def appended(records: Sequence[Record]) -> list[int] | None:
    """Return when the broker appended each record, ms since the Unix epoch; None if the producer set the times."""
    if {record.timestamp_type for record in records} != {LOG_APPEND_TIME}:
        return None
    return [record.timestamp for record in records]
