"""Destinations of accepted events. A sink answers once the events are durable, and refuses before it is overwhelmed."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
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


class GroupSink(ABC):
    """Stores the events of many requests together: those that arrive while others are being stored.

    Args:
        pending: maximum size of events that are not durable yet, bytes.
        groups: maximum number of groups that are being stored at a time.
    """

    def __init__(self, pending: int, groups: int) -> None:
        self._pending: Final = Pending(pending)
        self._groups: Final = groups
        self._waiting: list[tuple[Sequence[tuple[Event, bytes]], int, asyncio.Future[None]]] = []
        self._storing: list[asyncio.Task[None]] = []

    async def put(self, events: Sequence[tuple[Event, bytes]]) -> None:
        """See `Sink`."""
        size = sum([len(record) for _, record in events])
        self._pending.add(size)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, size, stored))
        self._storing = [task for task in self._storing if not task.done()]
        if len(self._storing) < self._groups:
            self._storing.append(asyncio.create_task(self._store_groups()))
        await stored

    async def drain(self) -> None:
        """Wait until nothing is being stored any more."""
        await asyncio.gather(*self._storing)

    @abstractmethod
    async def store(self, events: Iterable[tuple[Event, bytes]]) -> None:
        """Return once all events are durable.

        Raises:
            RefusedError: they are not, and must be sent again.
        """

    async def _store_groups(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await self.store(chain.from_iterable([events for events, _, _ in group]))
            except Exception as fault:
                error = fault
            for _, size, stored in group:
                self._pending.done(size)
                if stored.done():  # its caller is gone
                    continue
                if error is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(error)


class JournalSink(GroupSink):
    """Writes to the journal.

    Args:
        journal: the journal, which is closed with the sink.
        pending: see `GroupSink`.
    """

    def __init__(self, journal: Journal, pending: int) -> None:
        super().__init__(pending, groups=1)
        self._journal: Final = journal
        self._thread: Final = ThreadPoolExecutor(1, "backchannel-journal")

    async def start(self) -> None:
        """See `Sink`."""

    async def close(self) -> None:
        """See `Sink`."""
        await self.drain()
        self._thread.shutdown()
        self._journal.close()

    async def store(self, events: Iterable[tuple[Event, bytes]]) -> None:
        """See `GroupSink`."""
        lines = b"".join([record + b"\n" for _, record in events])
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._journal.append, lines)
        except JournalFullError as full:
            raise RefusedError(429, str(full), retry_after=RETRY_S) from None
