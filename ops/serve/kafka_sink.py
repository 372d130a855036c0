"""The sink that sends accepted events to Kafka."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from backchannel.ops.serve.sinks import RETRY_S, Pending
from backchannel.ops.web.problems import RefusedError
from backchannel.schemas.events import Event, name_of
from backchannel.streams.kafka.config import KafkaConfig

logger = logging.getLogger(__name__)


class KafkaSink:
    """Sends to the topics, keyed by session, with the idempotent producer.

    Args:
        config: how to reach Kafka, and the topics' names.
        pending: maximum size of events that are not durable yet, bytes.
    """

    def __init__(self, config: KafkaConfig, pending: int) -> None:
        self._config: Final = config
        self._topics: Final = config.event_topics
        self._pending: Final = Pending(pending)
        self._client: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Sink`. Returns before the brokers answer, because decisions do not need them."""
        self._connecting = asyncio.create_task(self._connect())

    async def put(self, events: Sequence[tuple[Event, bytes]]) -> None:
        """See `Sink`."""
        if self._client is None:
            raise RefusedError(
                503, f"Kafka at {self._config.servers} does not answer yet; send the events again", retry_after=RETRY_S
            )
        size = sum(len(record) for _, record in events)
        self._pending.add(size)
        try:
            sent = [
                await self._client.send(
                    self._topics[name_of(type(event))], record, key=event.session_id.encode(), timestamp_ms=event.ts
                )
                for event, record in events
            ]
            await asyncio.gather(*sent)
        except KafkaError as error:
            raise RefusedError(
                503, f"Kafka did not acknowledge the events: {error!r}; send them again", retry_after=RETRY_S
            ) from None
        finally:
            self._pending.done(size)

    async def close(self) -> None:
        """See `Sink`."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._client is not None:
            await self._client.stop()

    async def _connect(self) -> None:
        while True:
            client = AIOKafkaProducer(
                **self._config.client_settings(asynchronous=True),
                enable_idempotence=True,
                acks="all",
                linger_ms=2,
                max_batch_size=1 << 18,
            )
            try:
                await client.start()
            except KafkaError as error:
                logger.warning("Kafka at %s does not answer: %r", self._config.servers, error)
                await client.stop()
                await asyncio.sleep(RETRY_S)
            else:
                self._client = client
                return
