"""Records, as the worker reads them."""

from typing import Protocol


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
