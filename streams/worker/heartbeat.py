"""A worker's heartbeat: a row that says that it is alive, and its counts per minute.

Both are for monitoring. They are written separately from commits: a crash loses the last few seconds, but no
commit waits for them. The ledger has the exact counts of what was learned.
"""

import asyncio
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from secrets import token_hex
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, or_

from backchannel.schemas.events import EVENT_TYPES
from backchannel.streams.monitoring.observer import Observer
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.store import tables
from backchannel.streams.store.dialects import insert_rows
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import MINUTE_MS
from backchannel.streams.turns.partition import PartitionState

BEAT_S: Final = 5.0
"""Seconds between two heartbeats."""

RATE_S: Final = 60.0
"""Seconds over which a worker's rate is averaged."""

KEPT_MS: Final = 2 * 86_400_000
"""How long the counts of a minute, and the row of a worker that vanished, are kept, ms."""


class Heartbeat(Observer):
    """Writes that this worker is alive, and its counts.

    Args:
        store: the store to write to.
        clock: a clock that returns seconds since the Unix epoch.

    Attributes:
        name: the worker's name: host, process id, and random digits that make it unique.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self.name: Final = f"{socket.gethostname()}:{os.getpid()}:{token_hex(2)}"
        self._started: Final = self._now()
        self._committed: int | None = None
        self._partitions: list[int] = []
        self._counts: Counter[tuple[int, str]] = Counter()  # by minute and name, not written yet
        self._recent: deque[tuple[int, int]] = deque()  # (time of a commit, number of events)

    def on_assigned(self, partitions: Mapping[int, PartitionState]) -> None:
        """See `Observer`."""
        self._partitions = sorted(partitions)

    def on_commit(self, commit: Commit, seconds: float, closed: int | None) -> None:  # noqa: ARG002 -- Observer's
        """See `Observer`."""
        self._committed = now = self._now()
        minute = now // MINUTE_MS * MINUTE_MS
        for name, count in commit.counts.items():
            self._counts[minute, name] += count
        self._recent.append((now, sum(commit.counts.get(event, 0) for event in EVENT_TYPES)))

    async def beat(self) -> None:
        """Write the row and the counts since the last beat.

        Raises:
            StoreError: the store does not answer. The next beat includes these counts.
        """
        now = self._now()
        while self._recent and self._recent[0][0] < now - 1000 * RATE_S:
            self._recent.popleft()
        seconds = min(RATE_S, max((now - self._started) / 1000, 1.0))
        row = {
            "name": self.name,
            "version": version("backchannel"),
            "started": self._started,
            "seen": now,
            "committed": self._committed,
            "rate": sum(events for _, events in self._recent) / seconds,
            "partitions": msgspec.json.encode(self._partitions).decode(),
        }
        counts, self._counts = self._counts, Counter()
        try:
            await asyncio.to_thread(self._write, row, counts, now - KEPT_MS)
        except Exception:
            self._counts.update(counts)
            raise

    def end(self) -> None:
        """Write the remaining counts and remove the row, because the worker ends cleanly.

        Raises:
            StoreError: the store does not answer.
        """
        with self._store.write() as connection:
            self._add(connection, self._counts)
            self._counts = Counter()
            connection.execute(delete(tables.worker).where(tables.worker.c.name == self.name))

    def _write(self, row: dict[str, object], counts: Counter[tuple[int, str]], oldest: int) -> None:
        worker, tally = tables.worker, tables.tally
        with self._store.write() as connection:
            connection.execute(delete(worker).where(or_(worker.c.name == self.name, worker.c.seen < oldest)))
            connection.execute(insert(worker).values(row))
            connection.execute(delete(tally).where(tally.c.minute < oldest))
            self._add(connection, counts)

    def _add(self, connection: Connection, counts: Counter[tuple[int, str]]) -> None:
        # Sorted, so that workers cannot deadlock.
        keys = sorted(key for key, count in counts.items() if count)
        columns: dict[str, Sequence[int | str]] = {
            "minute": [minute for minute, _ in keys],
            "name": [name for _, name in keys],
            "value": [counts[key] for key in keys],
        }
        insert_rows(connection, tables.tally, columns, add=["value"])

    def _now(self) -> int:
        return round(1000 * self._clock())
