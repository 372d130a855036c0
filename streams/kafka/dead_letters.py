"""Reading dead letters, and returning those that have become valid to their topics."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from msgspec import Struct

from backchannel.schemas.codec import EventError
from backchannel.schemas.forms import EventConfig
from backchannel.streams.clock import untimely
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.decoding import event_decoders
from backchannel.streams.kafka.topics import TopicError, admin_client, partition_counts

WAIT_MS: Final = 500
"""Wait for records known to exist before polling again, ms."""


class Letter(Struct, frozen=True):
    """A dead letter.

    Attributes:
        written: when it was written, ms since the Unix epoch.
        reason: why the record is not a valid event.
        topic, partition, offset: where the record was.
        key, value: of the record; the value is None if it was too large for the dead-letter topic.
    """

    written: int
    reason: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Replayed(Struct, frozen=True):
    """What `replay` did.

    Attributes:
        sent: letters that are valid events now, and were sent to their topics.
        left: reason -> letters that are still invalid.
    """

    sent: int
    left: dict[str, int]


async def read(config: KafkaConfig, last: int | None = None) -> AsyncIterator[Letter]:
    """Yield the dead letters that exist now.

    Args:
        config: connection settings.
        last: how many of each partition to read, the newest; None for all.

    Raises:
        TopicError: the topic does not exist, or Kafka does not answer.
    """
    async with _Reader(config) as reader:
        async for letter in reader.letters(last=last):
            yield letter


async def replay(
    config: KafkaConfig, events: EventConfig, max_ahead_ms: int, now: int, *, again: bool = False
) -> Replayed:
    """Send each dead letter that is a valid event now back to its topic partition, once; report the rest.

    The partition is kept, so that a session's events stay together.

    Args:
        config: connection settings.
        events: how events are written.
        max_ahead_ms: how far ahead of `now` an event may be.
        now: wall clock, ms since the Unix epoch.
        again: whether to begin with the first letter rather than after those already replayed.

    Raises:
        TopicError: as for `read`; or a record was refused.
    """
    judge = _judge(config, events, now, max_ahead_ms)
    sent, left = 0, dict[str, int]()
    async with _Reader(config) as reader:
        try:
            async with AIOKafkaProducer(**config.client_settings(asynchronous=True), acks="all") as producer:
                pending = []
                async for letter in reader.letters(None if again else "group"):
                    reason = judge(letter)
                    if reason is None:
                        pending.append(await producer.send(letter.topic, letter.value, letter.key, letter.partition))
                        sent += 1
                    else:
                        left[reason] = left.get(reason, 0) + 1
                for one in pending:
                    await one
        except KafkaError as error:
            raise TopicError(f"Kafka at {config.servers} refused an event: {error!r}; replay again") from error
        await reader.done()
    return Replayed(sent, dict(sorted(left.items(), key=lambda one: -one[1])))


def _judge(config: KafkaConfig, events: EventConfig, now: int, max_ahead_ms: int) -> Callable[[Letter], str | None]:
    """Return a function that returns why a letter is still invalid, or None if it is valid."""
    decoders = event_decoders(config, events)

    def judge(letter: Letter) -> str | None:
        if letter.topic not in decoders:
            return f"{letter.topic} is not a topic of this configuration"
        if letter.value is None:
            return "the letter has no value"
        try:
            event = decoders[letter.topic].decode(letter.value)
        except EventError as error:
            return str(error)
        return "ts: still ahead of the clock, or before 1980" if untimely(event.ts, now, max_ahead_ms) else None

    return judge


class _Reader:
    """A consumer of the dead letters. Use it as an asynchronous context manager."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config: Final = config
        self._read: Final[dict[TopicPartition, int]] = {}

    async def __aenter__(self) -> "_Reader":
        config = self._config
        self._partitions = range(await asyncio.to_thread(_partitions, config))
        self._consumer = AIOKafkaConsumer(
            **config.client_settings(asynchronous=True),
            group_id=f"{config.group}-dead-letters",
            enable_auto_commit=False,
        )
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def letters(self, since: str | None = None, last: int | None = None) -> AsyncIterator[Letter]:
        """Yield the letters that exist: all, those `since` the last `done`, or the `last` of each partition."""
        consumer = self._consumer
        logs = [TopicPartition(self._config.dead_letter_topic, number) for number in self._partitions]
        consumer.assign(logs)
        starts, left = await consumer.beginning_offsets(logs), await consumer.end_offsets(logs)
        for log in logs:
            newest = 0 if last is None else left[log] - last
            begin = max(starts[log], newest, (await consumer.committed(log) or 0) if since else 0)
            consumer.seek(log, begin)
            self._read[log] = begin
        while left := {log: end for log, end in left.items() if self._read[log] < end}:
            for records in (await consumer.getmany(*left, timeout_ms=WAIT_MS)).values():
                for record in records:
                    yield _letter(record)
            for log in left:
                self._read[log] = await consumer.position(log)

    async def done(self) -> None:
        """Remember how far was read, for the next `letters`."""
        await self._consumer.commit({log: OffsetAndMetadata(offset, "") for log, offset in self._read.items()})


def _partitions(config: KafkaConfig) -> int:
    """Return the number of partitions of the dead-letter topic."""
    with admin_client(config) as admin:
        found = partition_counts(admin, config)
    if config.dead_letter_topic not in found:
        raise TopicError(f"missing: {config.dead_letter_topic}; `backchannel topics create` creates it")
    return found[config.dead_letter_topic]


def _letter(record: ConsumerRecord) -> Letter:
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    return Letter(
        record.timestamp,
        headers.get("reason", ""),
        headers.get("topic", ""),
        int(headers.get("partition", 0)),
        int(headers.get("offset", 0)),
        record.key,
        record.value,
    )
