"""The processes of a worker, which reads itself: one assembles, one learns and commits, and one publishes."""

import pickle
from collections.abc import Mapping, Sequence
from typing import Final

from backchannel.schemas.alarm import Alarm
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.pipeline.commits import Commit, commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.partition import PartitionState
from backchannel.streams.turns.position import Claim
from backchannel.streams.worker.partitions import Added, Ends, Records, assembled
from backchannel.streams.worker.remote import RemoteObject


class AssemblingProcess(RemoteObject):
    """Holds the partitions: decodes records, and assembles turns; see `Partitions`, also for the errors.

    Args:
        kafka: connection settings, for the topics and how their records are written.
        config: how events are written, and what turns are.
    """

    def __init__(self, kafka: KafkaConfig, config: Config) -> None:
        super().__init__("assembling", assembled, kafka, config.events, config.turns, config.taught.operators)

    async def assign(self, claims: Sequence[Claim]) -> dict[int, PartitionState]:
        """See `Partitions.assign`."""
        states: dict[int, PartitionState] = await self.call("assign", claims)
        return states

    async def add(self, chunks: Sequence[Records], now: int) -> Added:
        """See `Partitions.add`."""
        added: Added = await self.call("add", chunks, now)
        return added

    async def advance(self, ends: Mapping[int, Ends], now: int) -> dict[int, PartitionState]:
        """See `Partitions.advance`."""
        states: dict[int, PartitionState] = await self.call("advance", ends, now)
        return states

    async def batches(self, claims: Sequence[Claim]) -> bytes:
        """See `Partitions.batches`."""
        batches: bytes = await self.call("batches", claims)
        return batches


class LearningProcess(RemoteObject):
    """Learns and commits.

    Args:
        url: SQLAlchemy URL of the store.
        config: what to learn, and how.
    """

    def __init__(self, url: str, config: Config) -> None:
        super().__init__("learning", _Committer, url, config)

    async def commit(self, batches: bytes) -> Commit:
        """Learn from batches of `Partitions.batches`, and commit; see `commits.commit`, also for the errors."""
        done: Commit = await self.call("commit", batches)
        return done


class _Committer:
    def __init__(self, url: str, config: Config) -> None:
        self._learning: Final = Learning(config)
        store = Store(url)
        store.create(self._learning.tables)
        self._ledger: Final = Ledger(store, self._learning.tables)

    def commit(self, batches: bytes) -> Commit:
        return commit(self._learning, self._ledger, pickle.loads(batches))  # noqa: S301 - of our own


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
