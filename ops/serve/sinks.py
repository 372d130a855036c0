"""Destinations of accepted events. A sink answers once the events are durable, and refuses before it is overwhelmed."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from backchannel.ops.web.problems import RefusedError
from backchannel.schemas.events import Event
from backchannel.streams.journal.journal import Journal, JournalFullError

RETRY_S: Final = 1.0
"""Seconds after which a caller should retry."""


class Sink(Protocol):
    """Takes events."""

    async def start(self) -> None:
        """Start, in the running event loop."""

    async def put(self, events: Sequence[tuple[Event, bytes]]) -> None:
        """Return once all events, with their records, are durable.

        Raises:
            RefusedError: they are not, and must be sent again; those that arrived anyway still count once.
        """

    async def close(self) -> None:
        """Finish writing, and close."""


class Nowhere:
    """The sink of a service that accepts no events."""

    async def start(self) -> None:
        """See `Sink`."""

    async def put(self, events: Sequence[tuple[Event, bytes]]) -> None:
        """See `Sink`."""
        raise RefusedError(
            501, f"{len(events)} events: this service was started with --events none; send them to Kafka"
        )

    async def close(self) -> None:
        """See `Sink`."""


class Pending:
    """A bounded count of the bytes that are not durable yet."""

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._bytes = 0

    def add(self, size: int) -> None:
        """Add `size` bytes, until `done` subtracts them."""
        if self._bytes and self._bytes + size > self._limit:
            raise RefusedError(
                429,
                f"{self._bytes >> 20} MB of events are not durable yet, the most that serve.pending_mb allows",
                retry_after=RETRY_S,
            )
        self._bytes += size

    def done(self, size: int) -> None:
        """Subtract `size` bytes."""
        self._bytes -= size


class JournalSink:
    """Writes to the journal; events that arrive while the disk is busy are written together.

    Args:
        journal: the journal, which is closed with the sink.
        pending: maximum size of events that are not durable yet, bytes.
    """

    def __init__(self, journal: Journal, pending: int) -> None:
        self._journal: Final = journal
        self._pending: Final = Pending(pending)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._thread: Final = ThreadPoolExecutor(1, "backchannel-journal")
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Sink`."""

    async def put(self, events: Sequence[tuple[Event, bytes]]) -> None:
        """See `Sink`."""
        lines = b"".join([record + b"\n" for _, record in events])
        self._pending.add(len(lines))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lines, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def close(self) -> None:
        """See `Sink`."""
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()
        self._journal.close()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, self._waiting = self._waiting, []
            blob = b"".join([lines for lines, _ in taken])
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._journal.append, blob)
            except JournalFullError as full:
                error = RefusedError(429, str(full), retry_after=RETRY_S)
            except Exception as fault:
                error = fault
            self._pending.done(len(blob))
            for _, written in taken:
                if written.done():  # its caller is gone
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
