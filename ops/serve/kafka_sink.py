"""The sink that sends accepted events to Kafka."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import lru_cache
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from backchannel.ops.serve.sinks import RETRY_S, Accepted, GroupSink
from backchannel.ops.web.problems import RefusedError
from backchannel.schemas.events import EVENT_TYPES
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.partitioning import PARTITIONERS

GROUPS: Final = 4
"""Groups of requests that are being sent at a time: a partition without a leader does not stop all others at once."""

GATHER_S: Final = 0.02
"""Seconds after which a group is sent although another one is not acknowledged yet."""

_partition: Final = lru_cache(1 << 14)(PARTITIONERS["murmur2"])  # a session has several events

logger = logging.getLogger(__name__)


class KafkaSink(GroupSink):
    """Sends to the topics, keyed by session, with the idempotent producer.

    Args:
        config: how to reach Kafka, and the topics' names.
        pending: maximum size of events that are not durable yet, bytes.
    """

    def __init__(self, config: KafkaConfig, pending: int) -> None:
        super().__init__(pending, GROUPS, GATHER_S)
        self._config: Final = config
        self._topics: Final = {EVENT_TYPES[name]: topic for name, topic in config.event_topics.items()}
        self._client: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Sink`. Returns before the brokers answer, because decisions do not need them."""
        self._connecting = asyncio.create_task(self._connect())

    async def put(self, events: Sequence[Accepted]) -> None:
        """See `Sink`."""
        if self._client is None:
            raise RefusedError(
                503, f"Kafka at {self._config.servers} does not answer yet; send the events again", retry_after=RETRY_S
            )
        try:
            await super().put(events)
        except asyncio.CancelledError:  # serve.timeout_s is over
            raise RefusedError(
                503,
                f"Kafka at {self._config.servers} has not acknowledged the events in time; send them again",
                retry_after=RETRY_S,
            ) from None

    async def store(self, events: Iterable[Accepted]) -> None:
        """See `GroupSink`."""
        assert self._client is not None
        try:
            await asyncio.gather(*[sent async for sent in self._send(self._client, events)])
        except KafkaError as error:
            raise RefusedError(
                503, f"Kafka did not acknowledge the events: {error!r}; send them again", retry_after=RETRY_S
            ) from None

    async def _send(
        self, client: AIOKafkaProducer, events: Iterable[Accepted]
    ) -> AsyncIterator[asyncio.Future[RecordMetadata]]:
        """Send events in batches of our own: one by one, each costs the client several times as much.

        Yields what is done once a batch is acknowledged.
        """
        places = {topic: len(await client.partitions_for(topic)) for topic in self._topics.values()}
        batches: dict[tuple[str, int], BatchBuilder] = {}
        for kind, session, ts, record in events:
            topic, key = self._topics[kind], session.encode()
            place = topic, _partition(key, places[topic])
            batch = batches.get(place) or batches.setdefault(place, client.create_batch())
            if batch.append(key=key, value=record, timestamp=ts) is None:  # it is full
                yield await client.send_batch(batch, topic, partition=place[1])
                batches[place] = client.create_batch()
                batches[place].append(key=key, value=record, timestamp=ts)
        for (topic, partition), batch in batches.items():
            yield await client.send_batch(batch, topic, partition=partition)

    async def close(self) -> None:
        """See `Sink`."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._client is not None:
            await self.drain()
            await self._client.stop()

    async def _connect(self) -> None:
        while True:
            client = AIOKafkaProducer(
                **self._config.client_settings(asynchronous=True),
                enable_idempotence=True,
                acks="all",
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
