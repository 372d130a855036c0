"""The batch transport: Faust delivers chunks of records instead of single events.

A stock Faust agent spends four asyncio tasks on every event. Here one Faust "message" is a chunk of raw records of one
topic partition, so that cost is paid once for hundreds of events. The rest of the worker is a `Receiver`.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import faust
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials
from faust.types import TP, AppT, EventT, StreamT
from faust.types.auth import CredentialsT
from mode import CrashingSupervisor
from yarl import URL

from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.consumer import ChunkConsumer, ChunkTransport
from backchannel.streams.kafka.receiver import Chunk, Receiver
from backchannel.streams.kafka.record import Record

CHUNK_RECORDS: Final = 2000
"""Maximum records in a chunk. Smaller ones cost more each; larger ones more memory, as many of them are queued."""

QUEUED_CHUNKS: Final = 32
"""Chunks waiting for the receiver at which fetching stops."""


class ChunkSchema(faust.Schema[None, Sequence[Record]]):
    """Leaves keys and values as they are: the receiver decodes chunks, and handles what cannot be decoded."""

    def loads_key(self, app: AppT, message: Any, **_: Any) -> None:
        """Return None: a chunk has no key."""

    def loads_value(self, app: AppT, message: Any, **_: Any) -> Any:  # noqa: ARG002 -- Faust's signature
        """Return the list of records."""
        return message.value


class _App(faust.App):
    """A Faust app that writes no files."""

    def _create_directories(self) -> None:
        """Do nothing: Faust would create a folder in the working directory."""


def chunk_app(
    config: KafkaConfig, topics: Iterable[str], receiver: Receiver, *, chunk_records: int = CHUNK_RECORDS
) -> faust.App:
    """Build a Faust app whose one agent feeds `receiver` with chunks of `topics`.

    `await app.start()` returns once the app has joined the group; `await app.stop()` flushes, commits and leaves.
    An error in the receiver crashes the app, and is its `crash_reason`.
    """
    app = _App(
        config.group,
        broker=[URL(f"kafka://{server}") for server in config.brokers],
        broker_credentials=_credentials(config),
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=config.session_timeout_s / 5,
        broker_max_poll_records=None,
        # Any other supervisor restarts a failed agent after the chunk on which it failed.
        agent_supervisor=CrashingSupervisor,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=QUEUED_CHUNKS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
    )
    app.transport = ChunkTransport(app.conf.broker_consumer, app, receiver, config, chunk_records)
    channel = app.topic(*topics, schema=ChunkSchema())

    @app.agent(channel, name=f"{__name__}.chunks")
    async def chunks(stream: StreamT[Sequence[Record]]) -> None:
        async for event in cast("faust.Stream[Any]", stream).noack().events():
            message = event.message
            await receiver.receive(Chunk(message.tp, message.value, _acker(event)))
            # Faust notifies its sensors only of the events that it acks itself.
            app.sensors.on_stream_event_out(message.tp, message.offset, stream, event)
            message.value = event.value = ()  # otherwise all records stay in memory until they are acked
            await asyncio.sleep(0)  # while chunks are queued, nothing else in this loop yields to other tasks

    return app


async def serve(app: faust.App, stop: asyncio.Event) -> None:
    """Run `app` until `stop` is set, then stop it cleanly.

    Raises:
        LogError: records were deleted before they were read.
        Exception: any other error that crashed the app.
    """
    try:
        await app.start()
        await app.wait(stop.wait())
    finally:
        await app.stop()
    if app.crash_reason is not None:
        raise app.crash_reason


async def log_ends(app: faust.App) -> Mapping[TP, int]:
    """Return the ends of the logs of the topic partitions assigned to `app`, as of now or later.

    Returns:
        the offset after the last record, by topic partition; empty if the brokers do not answer.
    """
    return await cast(ChunkConsumer, app.consumer).log_ends()


def _acker(event: EventT[Any]) -> Callable[[], None]:
    def ack() -> None:
        event.ack()

    return ack


def _credentials(config: KafkaConfig) -> CredentialsT | None:
    context = config.ssl_context()
    if config.oauth:
        return OAuthCredentials(oauth_cb=config.tokens(asynchronous=True), ssl_context=context)
    if config.sasl:
        return SASLCredentials(
            username=config.sasl_username,
            password=config.sasl_password,
            mechanism=config.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context is not None else None
