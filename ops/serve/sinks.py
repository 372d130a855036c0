"""Destinations of accepted events. A sink answers once the events are durable, and refuses before it is overwhelmed."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final, NamedTuple, Protocol

from backchannel.ops.web.problems import RefusedError
from backchannel.schemas.events import Event
from backchannel.streams.journal.journal import Journal, JournalFullError

RETRY_S: Final = 1.0
"""Seconds after which a caller should retry."""


class Accepted(NamedTuple):
    """What a sink must know of an event. The event itself is not kept: those of some requests at once are more than a
    processor's cache holds, and to decode them takes three times as long.

    Attributes:
        kind: the type of the event.
        session_id: of the event.
        ts: event time, ms since the Unix epoch.
        record: the event as JSON, without line breaks.
    """

    kind: type[Event]
    session_id: str
    ts: int
    record: bytes


class Sink(Protocol):
    """Takes events."""

    async def start(self) -> None:
        """Start, in the running event loop."""

    async def put(self, events: Sequence[Accepted]) -> None:
        """Return once all events are durable.

        Raises:
            RefusedError: they are not, and must be sent again; those that arrived anyway still count once.
        """

    async def close(self) -> None:
        """Finish writing, and close."""


class Nowhere:
    """The sink of a service that accepts no events."""

    async def start(self) -> None:
        """See `Sink`."""

    async def put(self, events: Sequence[Accepted]) -> None:
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
        gather_s: seconds for which another group is gathered while one is being stored: the larger groups are, the
            less each event costs.
    """

    def __init__(self, pending: int, groups: int, gather_s: float = 0.0) -> None:
        self._pending: Final = Pending(pending)
        self._groups: Final = groups
        self._gather_s: Final = gather_s
        self._waiting: list[tuple[Sequence[Accepted], int, asyncio.Future[None]]] = []
        self._storing: list[asyncio.Task[None]] = []

    async def put(self, events: Sequence[Accepted]) -> None:
        """See `Sink`."""
        size = sum([len(event.record) for event in events])
        self._pending.add(size)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, size, stored))
        self._storing = [task for task in self._storing if not task.done()]
        if len(self._storing) < self._groups:
            self._storing.append(asyncio.create_task(self._store_groups(self._gather_s if self._storing else 0.0)))
        await stored

    async def drain(self) -> None:
        """Wait until nothing is being stored any more."""
        await asyncio.gather(*self._storing)

    @abstractmethod
    async def store(self, events: Iterable[Accepted]) -> None:
        """Return once all events are durable.

        Raises:
            RefusedError: they are not, and must be sent again.
        """

    async def _store_groups(self, gather_s: float) -> None:
        if gather_s:
            await asyncio.sleep(gather_s)
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

    async def store(self, events: Iterable[Accepted]) -> None:
        """See `GroupSink`."""
        lines = b"\n".join([event.record for event in events]) + b"\n"
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._journal.append, lines)
        except JournalFullError as full:
            raise RefusedError(429, str(full), retry_after=RETRY_S) from None
