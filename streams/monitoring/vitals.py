"""How a running system is doing: facts from the store and the brokers, without a verdict."""

import socket
import time
from contextlib import closing
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from msgspec import Struct, structs
from sqlalchemy import Connection, func, select

from backchannel.agents.bandit.section import Unseen, unseen
from backchannel.agents.bandit.serving import Allocator
from backchannel.schemas.alarm import Alarm
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import TopicError, admin_client, check_topics_with
from backchannel.streams.monitoring.delays import read_delays
from backchannel.streams.monitoring.trends import Rates, read_rates
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.versions import CorruptPolicyError, Head
from backchannel.streams.store import tables
from backchannel.streams.store.dialects import dialect_of
from backchannel.streams.store.engine import Store
from backchannel.streams.turns.position import Position, TopicPosition

RECENT_MS: Final = 600_000
"""Period over which recent counts are taken, ms."""

CONNECT_S: Final = 1.5
"""Seconds that a broker may take to accept a connection."""

MOST_MARKERS: Final = 10
"""Unread offsets of a log that may all be markers of transactions."""

MARKERS_S: Final = 1.0
"""Seconds in which that is looked up."""


class PartitionState(Struct, frozen=True):
    """A partition's state in the ledger."""

    source: str
    number: int
    epoch: int
    position: Position


class WorkerState(Struct, frozen=True):
    """A worker's heartbeat. Times are wall clock, ms since the Unix epoch.

    Attributes:
        name: the worker's name.
        version: its version of Backchannel.
        started: when it started.
        seen: when its last heartbeat was written.
        committed: when it last committed; None if it has not yet.
        rate: events committed per second, over the last minute.
        partitions: the numbers of its partitions at its last heartbeat.
    """

    name: str
    version: str
    started: int
    seen: int
    committed: int | None
    rate: float
    partitions: list[int]


class StoreVitals(Struct, frozen=True):
    """Facts from the store.

    Attributes:
        partitions: the partitions of all sources.
        workers: the workers of the last days.
        head: the served version, and why later ones are not served.
        served: its header; None before the first.
        newest: the header of the newest version, served or not.
        withheld: since when readers have lacked something that was learned, ms since the Unix epoch; None if they lack
            nothing.
        unpublished: whether anything was learned since the newest version was made.
        recent: the workers' counts in the last minutes, by name.
        counted: the ledger's counts of all time, by name.
        alarms: the last 100 alarms, ordered from the latest raised, then by when they were noticed.
        bytes: the size of the store.
        free: the bytes that are free on its disk; None if that is another machine's.
        fault: what is wrong with the header of the served or the newest version; None if nothing is.
        rates: the quality of answers in the time buckets that are kept; None without turns.
        delays: strategy and position -> how long after the query people click; see `read_delays`.
        unseen: names that the served bandit has, and no turn that it was learned from.
    """

    partitions: list[PartitionState]
    workers: list[WorkerState]
    head: Head
    served: Snapshot | None
    newest: Snapshot | None
    withheld: int | None
    unpublished: bool
    recent: dict[str, int]
    counted: dict[str, int]
    alarms: list[Alarm]
    bytes: int
    free: int | None = None
    fault: str | None = None
    rates: Rates | None = None
    delays: dict[tuple[str, int], dict[int, float]] = {}
    unseen: Unseen = Unseen()


class BrokerVitals(Struct, frozen=True):
    """Facts from the brokers.

    Attributes:
        partitions: the number of partitions of each event topic; 0 if the topics are faulty.
        fault: what is wrong with the topics, and the remedy; None if nothing is.
        ends: the offset after the last record, by topic and partition.
    """

    partitions: int
    fault: str | None
    ends: dict[tuple[str, int], int]


def read_store(store: Store, now: int) -> StoreVitals:
    """Read the vitals of a store.

    Args:
        store: the store.
        now: wall clock, ms since the Unix epoch.

    Raises:
        StoreError: the store does not exist, does not answer, or is not one of Backchannel's.
    """
    with store.read() as connection:
        store.check(connection)
        return _read(connection, now)


def _read(connection: Connection, now: int) -> StoreVitals:
    partition, worker, tally, alarm = tables.partition, tables.worker, tables.tally, tables.alarm
    partitions = [
        PartitionState(
            row.source,
            row.number,
            row.epoch,
            Position(row.watermark, msgspec.json.decode(row.topics, type=dict[str, TopicPosition])),
        )
        for row in connection.execute(select(partition).order_by(partition.c.source, partition.c.number))
    ]
    workers = [
        WorkerState(**{**row, "partitions": msgspec.json.decode(row["partitions"], type=list[int])})
        for row in connection.execute(select(worker).order_by(worker.c.name)).mappings()
    ]
    head, fault = snapshots.current(connection), None
    served = newest = withheld = None
    try:
        served = None if head.version is None else snapshots.header(connection, head.version)
        newest = snapshots.newest(connection)
        withheld = snapshots.withheld(connection)
    except CorruptPolicyError as error:
        fault = str(error)
    since = now - RECENT_MS
    recent = select(tally.c.name, func.sum(tally.c.value)).where(tally.c.minute >= since).group_by(tally.c.name)
    alarms = connection.execute(select(alarm).order_by(alarm.c.raised.desc(), alarm.c.noticed).limit(100))
    return StoreVitals(
        partitions=partitions,
        workers=workers,
        head=head,
        served=served,
        newest=newest,
        withheld=withheld,
        unpublished=any(
            connection.execute(select(log.c.id).limit(1)).first() is not None for log in (tables.change, tables.segment)
        ),
        recent={name: int(value) for name, value in connection.execute(recent)},
        counted=dict(connection.execute(select(tables.counter)).all()),
        alarms=[Alarm(**row) for row in alarms.mappings()],
        bytes=dialect_of(connection).size(connection),
        free=dialect_of(connection).free(connection),
        fault=fault,
        rates=read_rates(connection),
        delays=read_delays(connection),
        unseen=Unseen() if served is None else _unseen(connection, served.version),
    )


def _unseen(connection: Connection, version: int) -> Unseen:
    section = snapshots.section(connection, version, Allocator.name)
    try:
        return unseen(section)
    except (KeyError, msgspec.MsgspecError):  # a row is missing or damaged, which readers of the version find out
        return Unseen()


def reach_brokers(kafka: KafkaConfig) -> None:
    """Check that a broker accepts connections: the Kafka client would retry for a long time before reporting an error.

    Raises:
        TopicError: no broker accepts a connection.
    """
    faults = []
    for server in kafka.brokers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S / len(kafka.brokers)).close()
        except OSError as error:
            faults.append(f"{server}: {error}")
        else:
            return
    raise TopicError(f"no broker accepts a connection: {'; '.join(faults)}")


def read_brokers(kafka: KafkaConfig) -> BrokerVitals:
    """Read the vitals of the topics.

    Raises:
        TopicError: the brokers do not answer.
    """
    reach_brokers(kafka)
    with admin_client(kafka) as admin:
        try:
            partitions = check_topics_with(admin, kafka)
        except TopicError as error:
            return BrokerVitals(0, str(error), {})
        logs = [TopicPartition(topic, number) for topic in kafka.event_topics.values() for number in range(partitions)]
        ends = admin.list_partition_offsets(dict.fromkeys(logs, OffsetSpec.LATEST))
        return BrokerVitals(partitions, None, {(log.topic, log.partition): end.offset for log, end in ends.items()})


def without_markers(kafka: KafkaConfig, store: StoreVitals, brokers: BrokerVitals) -> BrokerVitals:
    """Return the vitals with the ends of logs before the markers of transactions, which are no records.

    Only logs of which a few offsets are unread are asked, because a marker or two is what a reader leaves unread for
    ever.
    """
    read = unread(store, brokers, kafka.source)
    suspects = {
        TopicPartition(*log): brokers.ends[log] - count for log, count in read.items() if 0 < count <= MOST_MARKERS
    }
    if not suspects:
        return brokers
    settings = kafka.client_settings()
    with closing(KafkaConsumer(**settings, isolation_level=kafka.isolation, enable_auto_commit=False)) as consumer:
        consumer.assign(suspects)
        for log, offset in suspects.items():
            consumer.seek(log, offset)
        held: set[TopicPartition] = set()
        until = time.monotonic() + MARKERS_S
        while left := [log for log in suspects if consumer.position(log) < brokers.ends[log] and log not in held]:
            if time.monotonic() >= until:
                break
            held.update(consumer.poll(timeout_ms=100))
    passed = {tuple(log): offset for log, offset in suspects.items() if log not in held and log not in left}
    return structs.replace(brokers, ends={**brokers.ends, **passed})


def unread(store: StoreVitals, brokers: BrokerVitals, source: str) -> dict[tuple[str, int], int]:
    """Return the number of records of each topic partition that `source` has not committed yet."""
    read = {
        (topic, partition.number): at.read
        for partition in store.partitions
        if partition.source == source
        for topic, at in partition.position.topics.items()
    }
    return {log: max(end - read.get(log, 0), 0) for log, end in brokers.ends.items()}
