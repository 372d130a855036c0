"""The worker: learns from Kafka into a store, as one of a group, and publishes if it owns partition 0."""

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

from backchannel.schemas.errors import BackchannelError
from backchannel.streams.clock import learned_up_to
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.producer import Producer
from backchannel.streams.kafka.receiver import Chunk, LogBounds
from backchannel.streams.kafka.topics import TopicError, topic_ids
from backchannel.streams.kafka.transport import chunk_app, log_ends, serve
from backchannel.streams.monitoring.observer import Observer, Observers
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import version_status
from backchannel.streams.snapshots.teachings import Teachings
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import Store, StoreAwayError, StoreError
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.position import Claim
from backchannel.streams.worker.assignment import Assignment, by_partition, resume_in, until_store_answers
from backchannel.streams.worker.heartbeat import BEAT_S, Heartbeat
from backchannel.streams.worker.processes import AssemblingProcess, LearningProcess, PublishingProcess

logger = logging.getLogger(__name__)

COMMIT_S: Final = 1.0
"""Seconds between commits, unless the configured number of events is reached earlier."""

FIRST_VERSIONS: Final = 10
"""Number of first versions that are published as often as a tenth of the time allows: early learning matters most."""

CATCHING_UP_S: Final = 10.0
"""Minimum seconds between versions while a worker catches up. They are out of date anyway, and merging 600,000 events
takes half as long per event as merging 150,000.
"""


def pause_between(publish_s: float, taken_s: float, before: int, after: int) -> float:
    """Return the seconds from the beginning of one attempt to publish to that of the next.

    Args:
        publish_s: the configured seconds between versions.
        taken_s: the seconds that the attempt took.
        before: the number of the version that readers served before the attempt; 0: none.
        after: the same after it. Where nothing new is served, it suffices to look as often as commits are made.
    """
    if after >= FIRST_VERSIONS:
        return publish_s
    return min(publish_s, 10 * taken_s if after > before else COMMIT_S)


class LostRecordsError(BackchannelError, RuntimeError):
    """The topics no longer hold unread records; the message says what is missing."""


class Worker:
    """One member of the consumer group: a `transport.Receiver`.

    It reads in this process, and assembles, learns and publishes in three others, so a script must create it under
    `if __name__ == "__main__":`.

    Args:
        url: SQLAlchemy URL of the store.
        config: what to learn, and how.
        kafka: connection settings, completed from the environment.
        accept_loss: whether to continue when topics were truncated or recreated, without the lost records.
        observer: an observer of the worker.
        sensor: a Faust sensor.

    Raises:
        StoreError: the store cannot be used; see the message.
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
        self._teachings: Final = Teachings(self._store, config.taught, config.turns.fold, config.snapshots.signing_key)
        self._assembler: Final = AssemblingProcess(kafka, config)
        self._learner: Final = LearningProcess(url, config)
        self._publisher: Final = PublishingProcess(url, config)
        self._kafka: Final = kafka
        self._source: Final = kafka.source
        self._topics: Final = set(kafka.event_topics.values())
        # An event may arrive this long after the last one and still belong to an open turn.
        self._quiet_ms: Final = round(1000 * (config.turns.window_s + config.turns.lateness_s))
        self._producer: Final = Producer(kafka)
        self._app: Final = chunk_app(kafka, self._topics, self)
        if sensor is not None:
            self._app.sensors.add(sensor)
        self._assignment: Assignment | None = None
        self._assigned: Final = asyncio.Event()
        self._published: Final = asyncio.Event()
        self._announced = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Learn until `stop` is set; then commit, and leave the group.

        Raises:
            TooManyOpenError: more turns are open than the configuration allows.
            FencedError: another process has claimed a partition that Kafka assigned to this one.
            CoPartitionError: the topics of a partition were not assigned together.
            LostRecordsError: topics were truncated or recreated.
            LogError: records were deleted before they were read.
        """
        await asyncio.gather(self._assembler.started(), self._learner.started())
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
                one.add_done_callback(lambda _: stop.set())  # they end only with an error
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
        """Wait for the commit and the publication in progress, and close the store."""
        self._assembler.close()
        self._learner.close()
        self._publisher.close()
        with suppress(StoreError):
            self._heartbeat.end()
        self._store.close()

    @property
    def stuck(self) -> str | None:
        """The reason why the worker should be restarted, in words; None if it is alive."""
        return self._assembler.stuck or self._learner.stuck or self._publisher.stuck

    @property
    def unready(self) -> str | None:
        """The reason why the worker is not ready, in words; None if it is."""
        if self._assignment is None:
            return "no partitions assigned yet"
        if behind := [number for number, one in self._assignment.partitions.items() if one.rebuilding]:
            return f"open turns of partitions {', '.join(map(str, behind))} are being rebuilt"
        return None

    async def resume(self, bounds: Mapping[TP, LogBounds]) -> Mapping[TP, int]:
        """See `Receiver.resume`."""
        self._end_assignment()
        grouped = by_partition(bounds, self._topics)
        ids = await self._topic_ids()
        claims = []
        for number in sorted(grouped):
            claim = await until_store_answers(partial(asyncio.to_thread, self._ledger.claim, self._source, number))
            claims.append(self._resumed(claim, grouped[number], ids))
        partitions = await self._assembler.assign(claims)
        if 0 in partitions:
            await self._publisher.started()  # takes seconds of CPU time, best spent before there is work
        self._assignment = Assignment(
            claims,
            partitions,
            self._assembler,
            self._learner,
            self._producer,
            commit_events=self._config.commits.events,
            quiet_ms=self._quiet_ms,
            observer=self._observer,
            teach=self._teachings.write,
        )
        self._observer.on_assigned(partitions)
        self._assigned.set()
        logger.info("assigned partitions: %s", ", ".join(map(str, partitions)) or "none")
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

    async def _topic_ids(self) -> Mapping[str, str]:
        try:
            return await asyncio.to_thread(topic_ids, self._kafka)
        except TopicError as error:
            logger.warning("cannot tell whether topics were recreated: %s", error)
            return {}

    def _resumed(self, claim: Claim, logs: Mapping[str, LogBounds], ids: Mapping[str, str]) -> Claim:
        position, losses = resume_in(logs, claim.position, ids)
        for loss in losses:
            logger.warning("partition %d: %s", claim.number, loss)
        if losses and not self._accept_loss:
            raise LostRecordsError(
                f"partition {claim.number}: {'; '.join(losses)}. "
                "`backchannel worker --accept-loss` continues without them"
            )
        return structs.replace(claim, position=position)

    async def _commit_regularly(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + COMMIT_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            await self._commit(COMMIT_S / 2)

    async def _commit(self, pause_s: float = 0.0) -> None:
        """Commit what was read, and the turns that its end closes; see `Assignment.commit`."""
        assignment = self._assignment
        if assignment is not None:
            await assignment.advance(lambda: log_ends(self._app), _now())
            await assignment.commit(pause_s)

    async def _publish_often(self) -> None:
        versions, last = 0, -CATCHING_UP_S
        while True:
            started, pause = time.monotonic(), COMMIT_S
            if self._catching_up and started < last + CATCHING_UP_S:
                await asyncio.sleep(COMMIT_S)
                continue
            if self._is_first:  # what was read by now is committed first, so that a turn waits only once
                await self._commit()
            if self._assignment is not None:
                first = self._is_first  # that may have changed: a commit waits while the store is away
                before, versions = versions, await self._publish(first=first) or versions
                if first:
                    last = time.monotonic()
                    pause = pause_between(self._config.commits.publish_s, last - started, before, versions)
            self._published.set()
            await asyncio.sleep(started + pause - time.monotonic())

    @property
    def _is_first(self) -> bool:
        """Whether this worker has the first partition, and so publishes."""
        return self._assignment is not None and 0 in self._assignment.partitions

    @property
    def _catching_up(self) -> bool:
        """See `Assignment.catching_up`."""
        return self._assignment is not None and self._assignment.catching_up

    async def _publish(self, *, first: bool) -> int | None:
        """Report the versions to the observer, and return the one that readers serve.

        The worker with the first partition publishes before that, and announces the version that readers serve.
        """
        started, at = time.monotonic(), _now()
        try:
            snapshot = await self._publisher.publish() if first else None
            there = await asyncio.to_thread(version_status, self._store)
        except StoreAwayError as error:
            if first:  # the others' commits and heartbeats say so
                logger.warning("cannot publish: %s", error)
            return None
        except CorruptPolicyError as error:
            logger.error("the served or the newest version is damaged: %s", error)
            return None
        if snapshot is not None:
            self._observer.on_publish(snapshot, at)
            logger.info(
                "published version %d: %s rows, %s, in %.2f s",
                snapshot.version,
                f"{sum(snapshot.rows.values()):,}",
                learned_up_to(snapshot.watermark),
                time.monotonic() - started,
                extra={"version": snapshot.version, "watermark": snapshot.watermark, "checksum": snapshot.checksum},
            )
        self._observer.on_versions(there)
        served = there.served
        if served is None:
            return None
        # Its publisher may have died before announcing it, or it is the target of a rollback.
        if first and served.version != self._announced and await self._producer.announce(served):
            self._announced = served.version
        return served.version

    async def _beat_regularly(self) -> None:
        while True:
            try:
                await self._heartbeat.beat()
            except StoreError as error:  # of any kind: a failed report must not end a worker
                logger.info("no heartbeat: %s", error)
            # A new assignment is written at once; otherwise its partitions would seem to have no owner.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._assigned.wait(), BEAT_S)
            self._assigned.clear()

    async def _watch_regularly(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._published.clear()
            if self._catching_up:  # right after a version, hardly anything is left to merge
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._published.wait(), CATCHING_UP_S)
            if not self._is_first:
                continue
            try:
                self._observer.on_alarms(await self._publisher.look(_now()))
            except StoreError as error:
                logger.info("cannot monitor rates for drift: %s", error)


def _now() -> int:
    return time.time_ns() // 1_000_000
