"""What a worker sends: dead letters, and announcements of new policy versions."""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from backchannel.schemas.snapshot import Announcement, Snapshot
from backchannel.streams.kafka.config import KafkaConfig

logger = logging.getLogger(__name__)

SNAPSHOT_KEY: Final = b"policy"
"""All announcements have it, so that compaction leaves the newest."""

RETRY_S: Final = 1.0
"""Seconds between two attempts to deliver a dead letter."""

ANNOUNCE_TIMEOUT_S: Final = 10.0
"""Seconds after which an announcement is given up, until it is time to publish again."""

MAX_REQUEST_BYTES: Final = 1 << 30
"""How large a dead letter may be is for its topic to decide, not for the client."""

Rejected = tuple[ConsumerRecord, str]
"""A record that is no valid event, and the reason."""


class Producer:
    """Sends what a worker has to send. To be used as an asynchronous context."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config: Final = config

    async def __aenter__(self) -> Self:
        self._client = AIOKafkaProducer(
            **self._config.client_settings(), acks="all", max_request_size=MAX_REQUEST_BYTES
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
            logger.warning("Kafka did not answer at the end")

    async def deliver(self, rejected: Sequence[Rejected]) -> None:
        """Send dead letters, and return when all are durable, however long the brokers are away.

        A letter has the record's key and value, and in its headers the reason and where the record lies. Should the
        topic not take so large a value, it comes without, and says so in the reason. A letter may come twice.

        Raises:
            KafkaError: one that does not pass, such as a missing permission.
        """
        left = [(record, reason, record.value) for record, reason in rejected]
        while left:
            results = await asyncio.gather(*(self._send(*letter) for letter in left), return_exceptions=True)
            failed = []
            for (record, reason, value), result in zip(left, results, strict=True):
                if isinstance(result, MessageSizeTooLargeError) and value is not None:
                    too_large = f"{reason} (left out here: {len(value)} bytes are more than this topic takes)"
                    failed.append((record, too_large, None))
                elif isinstance(result, TimeoutError) or (isinstance(result, KafkaError) and result.retriable):
                    failed.append((record, reason, value))
                elif isinstance(result, BaseException):
                    raise result
            if any(value is not None or record.value is None for record, _, value in failed):
                logger.warning("dead letters are not delivered yet, trying again")
                await asyncio.sleep(RETRY_S)
            left = failed

    async def _send(self, record: ConsumerRecord, reason: str, value: bytes | None) -> None:
        headers = [
            ("reason", reason.encode()),
            ("topic", record.topic.encode()),
            ("partition", str(record.partition).encode()),
            ("offset", str(record.offset).encode()),
        ]
        await self._client.send_and_wait(self._config.dead_letter_topic, value, key=record.key, headers=headers)

    async def announce(self, snapshot: Snapshot) -> bool:
        """Say that a version was published, and return whether the brokers took it. Who misses it asks the store."""
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
