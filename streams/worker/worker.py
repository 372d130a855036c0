"""The worker: learns from Kafka into a store, with others of its group, and publishes when it has partition 0."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from faust import Sensor
from faust.types import TP
from msgspec import structs
from sqlalchemy.exc import SQLAlchemyError

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import EVENT_TYPES, EventDecoder
from backchannel.streams.clock import since_epoch
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.producer import Producer
from backchannel.streams.kafka.transport import Chunk, LogBounds, chunk_app, log_ends, serve
from backchannel.streams.monitoring.observer import Observer, Observers
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import version_status
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import STORE_AWAY, Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.partition import Partition
from backchannel.streams.turns.position import Claim
from backchannel.streams.worker.assignment import Assignment, by_partition, resume_in, until_store_answers
from backchannel.streams.worker.heartbeat import BEAT_S, Heartbeat
from backchannel.streams.worker.processes import LearningProcess, PublishingProcess

logger = logging.getLogger(__name__)

COMMIT_S: Final = 1.0
"""Seconds between two commits, unless the configured number of events is reached before."""

FIRST_VERSIONS: Final = 10
"""Versions that are published as often as a tenth of the time allows: what is learned first matters most."""


class LostRecordsError(BackchannelError, RuntimeError):
    """The topics do not hold any more what was to be read; the message says what is missing."""


class Worker:
    """One member of the consumer group: a `transport.Receiver`.

    It reads in this process, and learns and publishes in two others, so a script that makes one does so under
    `if __name__ == "__main__":`.

    Args:
        url: of the store, SQLAlchemy's.
        config: what to learn, and how.
        kafka: how to reach Kafka, complete with what the environment says.
        accept_loss: go on where topics were cut or created anew, without what they held.
        observer: who is told.
        sensor: whom Faust tells.

    Raises:
        StoreError: the store cannot be used, see the message.
    """

    def __init__(
        self,
        url: str,
        config: Config,
        kafka: KafkaConfig,
        *,
        accept_loss: bool = False,
        observer: Observer | None = None,
        sensor: Sensor | None = None,
    ) -> None:
        self._config: Final = config
        self._accept_loss: Final = accept_loss
        learning = Learning(config)
        self._store: Final = Store(url)
        self._store.create(learning.tables)
        self._heartbeat: Final = Heartbeat(self._store)
        self._observer: Final = Observers(self._heartbeat, *([observer] if observer else []))
        self._ledger: Final = Ledger(self._store, learning.tables)
        self._learner: Final = LearningProcess(url, config)
        self._publisher: Final = PublishingProcess(url, config)
        self._source: Final = kafka.source
        self._topics: Final = {topic: EVENT_TYPES[event] for event, topic in kafka.event_topics.items()}
        # An event may come as late as this after the last one, and still belong to a turn of before.
        self._quiet_ms: Final = round(1000 * (config.turns.window_s + config.turns.lateness_s))
        self._producer: Final = Producer(kafka)
        self._app: Final = chunk_app(kafka, self._topics, self)
        if sensor is not None:
            self._app.sensors.add(sensor)
        self._assignment: Assignment | None = None
        self._assigned: Final = asyncio.Event()
        self._committed: Final = asyncio.Event()
        self._announced = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Learn until `stop` is set; then commit, leave the group and return.

        Raises:
            TooManyOpenError: more turns are open than the configuration allows.
            FencedError: another process has claimed a partition that Kafka gave to this one.
            CoPartitionError: the partitions of the four topics are not assigned together.
            LostRecordsError: topics were cut or created anew.
            LogError: records were deleted before they were read.
        """
        await self._learner.started()
        async with self._producer:
            routines = [
                asyncio.create_task(routine)
                for routine in (
                    self._commit_regularly(),
                    self._publish_often(),
                    self._beat_regularly(),
                    self._watch_regularly(),
                )
            ]
            for one in routines:
                one.add_done_callback(lambda _: stop.set())  # they end by an error only
            try:
                await serve(self._app, stop)
            finally:
                for one in routines:
                    one.cancel()
                ended = await asyncio.gather(*routines, return_exceptions=True)
        for result in ended:
            if isinstance(result, Exception):
                raise result

    def close(self) -> None:
        """Let what is being committed or published end, and close the store."""
        self._learner.close()
        self._publisher.close()
        with suppress(SQLAlchemyError):
            self._heartbeat.end()
        self._store.close()

    @property
    def unready(self) -> str | None:
        """Why the worker is not ready, in words; None when it is."""
        if self._assignment is None:
            return "no partitions were assigned yet"
        if behind := [number for number, one in self._assignment.partitions.items() if one.rebuilding]:
            return f"open turns of partitions {', '.join(map(str, behind))} are being rebuilt"
        return None

    async def resume(self, bounds: Mapping[TP, LogBounds]) -> Mapping[TP, int]:
        """See `Receiver.resume`."""
        self._end_assignment()
        grouped = by_partition(bounds, set(self._topics))
        partitions = {}
        for number in sorted(grouped):
            claim = await until_store_answers(partial(asyncio.to_thread, self._ledger.claim, self._source, number))
            partitions[number] = self._partition(claim, grouped[number])
        if 0 in partitions:
            await self._publisher.started()  # takes seconds of computing, better before there is a lot to do
        self._assignment = Assignment(
            partitions,
            self._learner,
            self._producer,
            self._config.commits.events,
            self._quiet_ms,
            observer=self._observer,
        )
        self._observer.on_assigned(partitions)
        self._assigned.set()
        logger.info("partitions %s are this worker's", ", ".join(map(str, partitions)) or "none")
        return self._assignment.offsets

    async def receive(self, chunk: Chunk) -> None:
        """See `Receiver.receive`."""
        if self._assignment is not None:
            await self._assignment.add(chunk, _now())

    async def flush(self) -> None:
        """See `Receiver.flush`."""
        try:
            if self._assignment is not None:
                await self._assignment.commit()
        finally:
            self._end_assignment()

    def _end_assignment(self) -> None:
        if self._assignment is not None:
            self._assignment.end()
            self._assignment = None
            self._observer.on_assigned({})

    def _partition(self, claim: Claim, logs: Mapping[str, LogBounds]) -> Partition:
        position, losses = resume_in(logs, claim.position)
        for loss in losses:
            logger.warning("partition %d: %s", claim.number, loss)
        if losses and not self._accept_loss:
            raise LostRecordsError(
                f"partition {claim.number}: {'; '.join(losses)}. "
                "`backchannel worker --accept-loss` goes on all the same"
            )
        decoders = {topic: EventDecoder(event_type) for topic, event_type in self._topics.items()}
        return Partition(structs.replace(claim, position=position), decoders, self._config.turns)

    async def _commit_regularly(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + COMMIT_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            assignment = self._assignment
            if assignment is not None:
                await assignment.advance(lambda: log_ends(self._app), _now())
                await assignment.commit(COMMIT_S / 2)
                self._committed.set()

    async def _publish_often(self) -> None:
        versions = 0
        while True:
            # Right after a commit, so that a turn waits once only.
            self._committed.clear()
            await self._committed.wait()
            started = time.monotonic()
            if self._assignment is None:
                continue
            first = 0 in self._assignment.partitions
            versions = await self._publish(first=first) or versions
            if first:
                taken, pause = time.monotonic() - started, self._config.commits.publish_s
                if versions < FIRST_VERSIONS:
                    pause = min(pause, 10 * taken)
                await asyncio.sleep(pause - COMMIT_S / 2 - taken)  # and then until the commit that is next to it

    async def _publish(self, *, first: bool) -> int | None:
        """Look which versions there are; return the one that readers serve.

        The worker with the first partition publishes what is new before, and announces it unless it was.
        """
        started, at = time.monotonic(), _now()
        try:
            snapshot = await self._publisher.publish() if first else None
            there = await asyncio.to_thread(version_status, self._store)
        except STORE_AWAY as error:
            logger.warning("nothing can be published, the store does not answer: %s", error.args[0])
            return None
        except CorruptPolicyError as error:
            logger.error("the version to be served, or the newest, is damaged: %s", error)
            return None
        if snapshot is not None:
            self._observer.on_publish(snapshot, at)
            logger.info(
                "published version %d: %s rows, learned up to %s, in %.2f s",
                snapshot.version,
                f"{sum(snapshot.rows.values()):,}",
                since_epoch(snapshot.watermark),
                time.monotonic() - started,
                extra={"version": snapshot.version, "watermark": snapshot.watermark, "checksum": snapshot.checksum},
            )
        self._observer.on_versions(there)
        served = there.served
        if served is None:
            return None
        # It may be that of a publisher which did not live to announce it, or one that was rolled back to.
        if first and served.version != self._announced and await self._producer.announce(served):
            self._announced = served.version
        return served.version

    async def _beat_regularly(self) -> None:
        while True:
            try:
                await self._heartbeat.beat()
            except SQLAlchemyError as error:  # of any kind: a worker must not end because it is not observed
                logger.info("no heartbeat, the store does not answer: %s", error.args[0])
            # What a worker has is to be known at once: else it seems that nobody has it.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._assigned.wait(), BEAT_S)
            self._assigned.clear()

    async def _watch_regularly(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if self._assignment is None or 0 not in self._assignment.partitions:
                continue
            try:
                self._observer.on_alarms(await self._publisher.look(_now()))
            except SQLAlchemyError as error:
                logger.info("rates are not watched, the store does not answer: %s", error.args[0])


def _now() -> int:
    return time.time_ns() // 1_000_000
