"""What a worker produces: dead letters, and announcements of new policy versions."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Announcement, Snapshot
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.record import LOG_APPEND_TIME, Record

logger = logging.getLogger(__name__)

SNAPSHOT_KEY: Final = b"policy"
"""The key of all announcements, so that compaction keeps the newest."""

RETRY_S: Final = 1.0
"""Seconds between two attempts to deliver a dead letter."""

ANNOUNCE_TIMEOUT_S: Final = 10.0
"""Seconds after which an announcement is abandoned until the next publication."""

MAX_REQUEST_BYTES: Final = 1 << 30
"""Large enough that the topic, not the client, decides how large a dead letter may be."""

CLOCK_S: Final = 60.0
"""How far this machine's clock may lag behind the brokers', s."""


class ClockError(BackchannelError, RuntimeError):
    """This machine's clock is wrong; the message says by how much."""


class Rejected(NamedTuple):
    """A record that is not a valid event, where it came from, and the reason."""

    topic: str
    partition: int
    record: Record
    reason: str


class Producer:
    """Sends dead letters and announcements. Use it as an asynchronous context manager.

    Args:
        config: connection settings.
        clock: a clock that returns seconds since the Unix epoch.
    """

    def __init__(self, config: KafkaConfig, clock: Callable[[], float] = time.time) -> None:
        self._config: Final = config
        self._clock: Final = clock

    async def __aenter__(self) -> Self:
        self._client = AIOKafkaProducer(
            **self._config.client_settings(asynchronous=True), acks="all", max_request_size=MAX_REQUEST_BYTES
        )
        await self._client.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(ANNOUNCE_TIMEOUT_S):
                await self._client.stop()
        except TimeoutError:
            logger.warning("Kafka did not answer while the producer was closing")

    async def deliver(self, rejected: Sequence[Rejected]) -> None:
        """Send dead letters, and return once all are durable, however long the brokers are away.

        A letter has the record's key and value, and in its headers the reason and the record's origin. If the value is
        too large for the topic, the letter is sent without it, and its reason says so. A letter may be sent twice.

        Raises:
            KafkaError: a permanent error, such as a missing permission.
            ClockError: this machine's clock is behind the brokers', which may be why events seem invalid.
        """
        left = [(one, one.record.value) for one in rejected]
        while left:
            results = await asyncio.gather(*(self._send(*letter) for letter in left), return_exceptions=True)
            failed: list[tuple[Rejected, bytes | None]] = []
            for (one, value), result in zip(left, results, strict=True):
                if isinstance(result, MessageSizeTooLargeError) and value is not None:
                    omitted = f"value omitted: its {len(value)} bytes are more than this topic accepts"
                    failed.append((one._replace(reason=f"{one.reason} ({omitted})"), None))
                elif isinstance(result, TimeoutError) or (isinstance(result, KafkaError) and result.retriable):
                    failed.append((one, value))
                elif isinstance(result, BaseException):
                    raise result
                else:
                    self._compare_clocks(result)
            if any(value is not None or one.record.value is None for one, value in failed):
                logger.warning("dead letters not delivered yet; retrying")
                await asyncio.sleep(RETRY_S)
            left = failed

    def _compare_clocks(self, written: RecordMetadata) -> None:
        """Compare with the brokers' clock, if the topic has LogAppendTime, as `topics create` sets it."""
        behind = written.timestamp / 1000 - self._clock()
        if written.timestamp_type == LOG_APPEND_TIME and behind > CLOCK_S:
            raise ClockError(
                f"this machine's clock is {behind:,.0f} s behind the brokers', so events seem to come from "
                "the future: set it (NTP), then replay what was refused with `backchannel dead-letters replay`"
            )

    async def _send(self, rejected: Rejected, value: bytes | None) -> RecordMetadata:
        headers = [
            ("reason", rejected.reason.encode()),
            ("topic", rejected.topic.encode()),
            ("partition", str(rejected.partition).encode()),
            ("offset", str(rejected.record.offset).encode()),
        ]
        return await self._client.send_and_wait(
            self._config.dead_letter_topic, value, key=rejected.record.key, headers=headers
        )

    async def announce(self, snapshot: Snapshot) -> bool:
        """Announce a published version, and return whether the brokers accepted it. The store has it in any case."""
        announcement = Announcement(snapshot.version, snapshot.watermark, snapshot.checksum)
        try:
            async with asyncio.timeout(ANNOUNCE_TIMEOUT_S):
                await self._client.send_and_wait(
                    self._config.snapshot_topic, msgspec.json.encode(announcement), key=SNAPSHOT_KEY
                )
        except (KafkaError, TimeoutError) as error:
            logger.warning("version %d could not be announced: %r", snapshot.version, error)
            return False
        return True
