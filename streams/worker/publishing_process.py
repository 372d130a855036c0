"""The process that publishes for a worker, and watches rates, so that reading and learning go on meanwhile."""

from typing import Final

from backchannel.schemas.alarm import Alarm
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.worker.processes import Apart


class PublishingProcess:
    """See `Apart`.

    Args:
        url: of the store, SQLAlchemy's.
        config: what is learned, and how it is published and watched.
    """

    def __init__(self, url: str, config: Config) -> None:
        self._apart: Final = Apart("publishing", _Publisher, url, config)
        self.started: Final = self._apart.started
        self.close: Final = self._apart.close

    async def publish(self) -> Snapshot | None:
        """See `Publisher.publish`."""
        made: Snapshot | None = await self._apart.call("publish")
        return made

    async def look(self, now: int) -> list[Alarm]:
        """See `Watch.look`."""
        alarms: list[Alarm] = await self._apart.call("look", now)
        return alarms


class _Publisher:
    def __init__(self, url: str, config: Config) -> None:
        from backchannel.streams.pipeline.drift_monitor import Watch  # noqa: PLC0415 - River takes a second, which nobody waits for here

        learning, store = Learning(config), Store(url)
        store.create(learning.tables)
        self.publish: Final = Publisher(store, learning, config).publish
        self.look: Final = Watch(store, config).look
