"""A bridge from topics that are not keyed by session to topics that are.

A batch is written before the position in the source is, so a crash may copy the last batch twice. A copy has the
event's own id and time, and so counts once: as a duplicate while its turn is open, and as late after that.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from backchannel.schemas.codec import EventError, encode
from backchannel.schemas.events import Event, name_of
from backchannel.schemas.forms import EventConfig
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.decoding import event_decoders
from backchannel.streams.kafka.producer import Producer, Rejected
from backchannel.streams.kafka.topics import TopicError, admin_client, check_topics, partition_counts

BATCH: Final = 2_000
"""Records that are copied before the position is written."""

WAIT_MS: Final = 200
"""Wait for records before looking again whether topics are read to their ends, ms."""

QUIET: Final = 10
"""Waits without a record after which topics count as read to their ends: the rest are markers of transactions."""


class Waiting(NamedTuple):
    """A record that was read and not copied yet; `time` is the event's, or if it is invalid the record's, ms."""

    time: int
    record: ConsumerRecord
    event: Event | EventError


async def rekey(
    source: KafkaConfig, events: EventConfig, target: KafkaConfig, stop: asyncio.Event, *, to_the_end: bool = False
) -> tuple[int, int]:
    """Copy events, in the order of their times, from where the last call ended.

    Returns the number of events copied, and the number of records that became dead letters.

    Args:
        source: the topics to read; those that do not exist are left out. The group GROUP-rekey keeps the position.
        events: how their records are written.
        target: the topics to write to, with the session as key.
        stop: ends the copying.
        to_the_end: whether to end where the source ends.

    Raises:
        TopicError: Kafka does not answer or refuses, a topic of the target is missing, or there is nothing to read.
    """
    logs = _logs(source, target)
    decoders = event_decoders(source, events)
    waiting: dict[TopicPartition, deque[Waiting]] = {log: deque() for log in logs}
    copied = letters = quiet = 0
    consumer = AIOKafkaConsumer(
        **source.client_settings(asynchronous=True),
        group_id=f"{source.group}-rekey",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level=source.isolation,
    )
    producer = AIOKafkaProducer(
        **target.client_settings(asynchronous=True), enable_idempotence=True, linger_ms=5, max_batch_size=1 << 17
    )
    try:
        async with consumer, producer, Producer(target) as dead:
            consumer.assign(logs)
            while not stop.is_set():
                if hungry := [log for log, queue in waiting.items() if len(queue) < BATCH]:
                    found = await consumer.getmany(*hungry, timeout_ms=WAIT_MS)
                    for log, records in found.items():
                        decoded = decoders[log.topic].decode_many([record.value for record in records])
                        waiting[log] += map(_waiting, records, decoded)
                    quiet = 0 if found else quiet + 1
                ends = await consumer.end_offsets(logs)
                unread = {log for log in logs if await consumer.position(log) < ends[log]} if quiet < QUIET else set()
                batch = merged(waiting, unread)
                if batch:
                    rejected = [
                        Rejected(one.record.topic, one.record.partition, one.record, str(one.event))
                        for one in batch
                        if isinstance(one.event, EventError)
                    ]
                    await _write(
                        producer, target, [one.event for one in batch if not isinstance(one.event, EventError)]
                    )
                    await dead.deliver(rejected)
                    await consumer.commit(_positions(batch))
                    copied, letters = copied + len(batch) - len(rejected), letters + len(rejected)
                elif to_the_end and not unread and not any(waiting.values()):
                    break
    except KafkaError as error:
        raise TopicError(f"Kafka at {source.servers} refuses: {error!r}; run it again, and it continues") from error
    return copied, letters


def merged(waiting: Mapping[TopicPartition, deque[Waiting]], unread: set[TopicPartition]) -> list[Waiting]:
    """Take the next records in the order of their times, at most BATCH.

    A worker believes that a topic that it has read to its end has nothing older to come. So nothing is taken that is
    younger than what a log in `unread` may still have.
    """
    if any(not queue and log in unread for log, queue in waiting.items()):
        return []
    heads = [(queue[0].time, place, log) for place, (log, queue) in enumerate(waiting.items()) if queue]
    heapify(heads)
    taken: list[Waiting] = []
    while heads and len(taken) < BATCH:
        _, place, log = heads[0]
        queue = waiting[log]
        taken.append(queue.popleft())
        if queue:
            heapreplace(heads, (queue[0].time, place, log))
        elif log in unread:
            break
        else:
            heappop(heads)
    return taken


def _logs(source: KafkaConfig, target: KafkaConfig) -> list[TopicPartition]:
    """Check the topics, and return the partitions to read."""
    if both := sorted(set(source.event_topics.values()) & set(target.event_topics.values())):
        raise TopicError(f"{both[0]} would be copied to itself: choose another prefix")
    check_topics(target)
    with admin_client(source) as admin:
        counts = partition_counts(admin, source)
    logs = [TopicPartition(name, part) for name in source.event_topics.values() for part in range(counts.get(name, 0))]
    if not logs:
        raise TopicError(f"none of {', '.join(source.event_topics.values())} exists: set kafka.topics")
    return logs


def _waiting(record: ConsumerRecord, event: Event | EventError) -> Waiting:
    return Waiting(record.timestamp if isinstance(event, EventError) else event.ts, record, event)


async def _write(producer: AIOKafkaProducer, target: KafkaConfig, events: Sequence[Event]) -> None:
    topics = target.event_topics
    sent = [
        await producer.send(
            topics[name_of(type(event))], encode(event), key=event.session_id.encode(), timestamp_ms=event.ts
        )
        for event in events
    ]
    await asyncio.gather(*sent)


def _positions(batch: Sequence[Waiting]) -> dict[TopicPartition, OffsetAndMetadata]:
    last = {TopicPartition(one.record.topic, one.record.partition): one.record.offset + 1 for one in batch}
    return {log: OffsetAndMetadata(offset, "") for log, offset in last.items()}
