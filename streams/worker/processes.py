"""The two processes of a worker: one learns and commits, the other publishes, while the worker reads on."""

import pickle
from collections.abc import Sequence
from typing import Final

from backchannel.schemas.alarm import Alarm
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.commits import Commit, commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.partition import Batch
from backchannel.streams.worker.packing import packed
from backchannel.streams.worker.remote import RemoteObject


class LearningProcess(RemoteObject):
    """Learns and commits.

    Args:
        url: SQLAlchemy URL of the store.
        config: what to learn, and how.
    """

    def __init__(self, url: str, config: Config) -> None:
        super().__init__("learning", _Committer, url, config)

    async def commit(self, batches: Sequence[Batch]) -> Commit:
        """Learn and commit; see `commits.commit`, also for the errors."""
        done: Commit = await self.call("commit", packed(batches))
        return done


class _Committer:
    def __init__(self, url: str, config: Config) -> None:
        self._learning: Final = Learning(config)
        store = Store(url)
        store.create(self._learning.tables)
        self._ledger: Final = Ledger(store, self._learning.tables)

    def commit(self, batches: bytes) -> Commit:
        return commit(self._learning, self._ledger, pickle.loads(batches))  # noqa: S301 - of our own parent


class PublishingProcess(RemoteObject):
    """Publishes versions, and monitors rates for drift.

    Args:
        url: SQLAlchemy URL of the store.
        config: what is learned, and how it is published and monitored.
    """

    def __init__(self, url: str, config: Config) -> None:
        super().__init__("publishing", _Publisher, url, config)

    async def publish(self) -> Snapshot | None:
        """See `Publisher.publish`."""
        made: Snapshot | None = await self.call("publish")
        return made

    async def look(self, now: int) -> list[Alarm]:
        """See `DriftMonitor.look`."""
        alarms: list[Alarm] = await self.call("look", now)
        return alarms


class _Publisher:
    def __init__(self, url: str, config: Config) -> None:
        from backchannel.streams.pipeline.drift_monitor import DriftMonitor  # noqa: PLC0415 - River takes a second to import, which nobody waits for here

        learning, store = Learning(config), Store(url)
        store.create(learning.tables)
        self.publish: Final = Publisher(store, learning, config).publish
        self.look: Final = DriftMonitor(store, config).look
