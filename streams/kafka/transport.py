"""The batch transport: Faust hands over chunks of records instead of single events.

A stock Faust agent spends four asyncio tasks on every event. Here one Faust "message" is a chunk of raw records of one
topic partition, so that this price is paid once for a thousand events.

This is the only module that touches Faust's internals. It overrides private parts of `faust.transport.consumer` and
reads private parts of aiokafka, therefore their versions are pinned, and checked when it is imported.

The rest of the worker is a `Receiver`: it says where to resume, takes chunks, and makes durable what it took.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple, Protocol, cast

import faust
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage, EventT, StreamT
from faust.types.auth import CredentialsT
from mode import CrashingSupervisor, Service
from yarl import URL

from backchannel.schemas.errors import BackchannelError
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.reading_order import chunks_in_turn, not_ahead

PINNED: Final = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}


def check_versions(found: Callable[[str], str] = version) -> None:
    """Check that the libraries are those whose private parts this module was written against.

    Raises:
        ImportError: they are not; the message names the found and the required versions.
    """
    wrong = {name: found(name) for name, required in PINNED.items() if found(name) != required}
    if wrong:
        raise ImportError(
            "the batch transport uses private parts of "
            + ", ".join(f"{name} {PINNED[name]} (found {other})" for name, other in wrong.items())
            + ": install exactly these, as `pip install 'backchannel[kafka]'` does"
        )


check_versions()

logger = logging.getLogger(__name__)

CHUNK_RECORDS: Final = 1000
"""Records in a chunk, at most. The event loop is blocked while a chunk is processed: some ten milliseconds."""

QUEUED_CHUNKS: Final = 16
"""Chunks that wait for the receiver before fetching stops."""

HELD_BACK_PAUSE: Final = 0.005
"""Seconds between looks at a full queue. Faust waits 1 s, which caps the rate at a queue a second."""


COMMIT_TIMEOUT: Final = 5.0
"""Seconds that a commit for lag tools may take. aiokafka would try for as long as the brokers are away."""

FETCH_WAIT_MS: Final = 50
"""How long a broker may wait for new records before it answers a fetch. Nothing else is answered on that connection
meanwhile, neither a fetch of partitions that have a backlog. Faust's 1500 ms leave a worker idle most of the time."""

FETCH_BYTES: Final = 1 << 16
"""A broker need not wait so long when it has as many. With less, a steady stream is fetched in a thousand morsels."""

ENDS_TIMEOUT: Final = 2.0
"""Seconds in which the brokers must say where their logs end. aiokafka would ask for 40 s."""


class LogError(BackchannelError, RuntimeError):
    """A topic partition no longer holds what is to be read next. The message names it and the offsets."""


class LogBounds(NamedTuple):
    """What a topic partition holds: offsets from `start` to just before `end`."""

    start: int
    end: int


class Chunk(NamedTuple):
    """Consecutive records of one topic partition, as they lie in the log."""

    tp: TP
    records: Sequence[ConsumerRecord]
    ack: Callable[[], None]
    """Call it when the chunk is durable. Lag tools see the partition's longest prefix of such chunks."""


class Receiver(Protocol):
    """What a worker does with the records. All three are awaited in Faust's event loop."""

    async def resume(self, bounds: Mapping[TP, LogBounds]) -> Mapping[TP, int]:
        """Return the offset to read from for each of the topic partitions that are ours from now on.

        Awaited on every assignment, before the first chunk of it; whatever was held of an earlier assignment is
        void. `bounds` tell whether what was to be read next is still there. It is cancelled when the assignment
        changes again meanwhile, and called anew; it has 0.9 of Faust's request timeout, 81 s. What it raises ends
        the worker.
        """

    async def receive(self, chunk: Chunk) -> None:
        """Take a chunk. The next one comes when this returns, so waiting here holds back consumption.

        Chunks of one topic partition come in order, without holes. A chunk that was taken before an assignment
        changed may still be waiting in here when `resume` is called: change state before the first await. What it
        raises ends the worker.
        """

    async def flush(self) -> None:
        """Make durable, and ack, what was received. After it nothing is ours until the next `resume`.

        Awaited when partitions are taken away and when the worker stops, then twice; also while a `receive` is
        waiting. It is cancelled if it takes longer than the group would wait. What it raises ends the worker.
        """


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with quicker answers, and ending also while the brokers are away."""

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = FETCH_BYTES
        return consumer

    async def on_thread_stop(self) -> None:
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            # aiokafka cancels its own fetch that waits to be retried, and lets that come out. Faust would take it for
            # the end of the thread, never say so, and wait a minute for it.
            consumer = self._ensure_consumer()
            retries = consumer._fetcher._pending_tasks
            for retry in retries:
                retry.cancel()
            await asyncio.gather(*retries, return_exceptions=True)
            await consumer._client.close()


class ChunkConsumer(driver.Consumer):
    """Faust's Kafka consumer, handing over chunks and resuming where the receiver says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport = cast(ChunkTransport, self.transport)
        self._receiver = transport.receiver
        self._chunk_records = transport.chunk_records
        #: The offset after the last record that was handed over.
        self._position: dict[TP, int] = {}
        #: Time (ms) of the records that were handed over last.
        self._reached: dict[TP, int] = {}
        #: Of these, something was fetched that was not handed over: it must be fetched again.
        self._left_out: set[TP] = set()
        #: What was handed over since the last seek and is not yet committed, in order.
        self._handed_over: defaultdict[TP, deque[ConsumerMessage]] = defaultdict(deque)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 -- Faust's signature
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield chunks, round robin over the topic partitions, until what was fetched is used up."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records:
            return
        # A fetch that began before a rebalance may end after the seek that follows it, with what was to be read first.
        self._left_out.update(records)
        for tp, chunk in chunks_in_turn(records, self._chunk_records):
            if self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id:
                return
            if tp in active or tp in self._buffered_partitions:
                if chunk[0].offset != self._position[tp]:
                    await self._explain_jump(tp, chunk[0].offset)
                self._position[tp] = chunk[-1].offset + 1
                self._reached[tp] = min(chunk[0].timestamp, chunk[-1].timestamp)
                message = self._to_message(tp, chunk)
                self._handed_over[tp].append(message)
                yield tp, message
        self._left_out -= active | self._buffered_partitions

    async def _explain_jump(self, tp: TP, offset: int) -> None:
        # Compaction and transactions leave holes, which are none of our business. But where the log has lost the
        # position, aiokafka goes on at its start without a word.
        position, start = self._position[tp], (await self.earliest_offsets(tp))[tp]
        if offset < position or position < start:
            raise LogError(
                f"{_name(tp)}: offset {position} was to be read next, but the log was cut or created anew: "
                f"it starts at {start}, and what came is {offset}"
            )

    def _to_message(self, tp: TP, record: Sequence[ConsumerRecord]) -> ConsumerMessage:
        message = super()._to_message(tp, record[-1])
        message.value = cast(Any, record)
        return message

    async def _wait_next_records(
        self,
        timeout: float,  # noqa: ASYNC109 -- Faust's signature
    ) -> tuple[Mapping[TP, list[ConsumerRecord]], set[TP]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        left = {tp: self._left(tp) for tp in self._get_active_partitions()}
        active = not_ahead(left, self._reached, self._chunk_records)
        # One queue serves all partitions: if it was too full for one, it is for all.
        if self._buffered_partitions or not active:
            await asyncio.sleep(HELD_BACK_PAUSE)
            return {}, active
        if self._left_out:
            await self._in_thread(
                self._seek_back, {tp: self._position[tp] for tp in self._left_out & self._position.keys()}
            )
            self._left_out.clear()
        return await self._getmany(active_partitions=active, timeout=timeout), active

    def _left(self, tp: TP) -> int:
        """Records that are known to be there and were not handed over."""
        return (self._kafka.highwater(TopicPartition(*tp)) or 0) - self._position.get(tp, 0)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets inside a chunk are no gaps: nothing to track."""

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset after the longest prefix of acked chunks, or None if there is nothing new."""
        # Faust's own bookkeeping commits past a chunk that is not acked.
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        handed_over = self._handed_over[tp]
        offset = None
        while handed_over and handed_over[0].acked:
            offset = handed_over.popleft().offset + 1
        return offset

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # For lag tools only, the ledger is what counts: a failure is worth a line, not a crash.
        if self._thread.should_stop:
            return False
        positions = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await self._in_thread(self._commit_in_time, positions)
        except (KafkaError, TimeoutError) as error:
            logger.info("Kafka did not take the positions for lag tools: %r", error)
            return False
        return True

    async def _commit_in_time(self, positions: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        # The limit is set in the thread: an unlimited commit there would keep the thread from ending.
        async with asyncio.timeout(COMMIT_TIMEOUT):
            await self._kafka.commit(positions)

    async def log_ends(self) -> Mapping[TP, int]:
        """Ask where the logs of the assigned topic partitions end, no earlier than now. No answer: empty."""
        if self._thread.should_stop:
            return {}
        try:
            ends: Mapping[TP, int] = await self._in_thread(self._log_ends_in_time, self.assignment())
        except (KafkaError, TimeoutError) as error:
            logger.info("Kafka does not say where its logs end: %r", error)
            return {}
        return ends

    async def _log_ends_in_time(self, assigned: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(ENDS_TIMEOUT):
            found = await self._kafka.end_offsets([TopicPartition(*tp) for tp in assigned])
        return {TP(*tp): end for tp, end in found.items()}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Ask the receiver where to resume, and seek there."""
        assigned = self.assignment()
        # Faust takes a timeout of its own for a stop and then neither runs nor ends. Be faster, and fail.
        async with asyncio.timeout(0.9 * self.app.conf.broker_request_timeout):
            starts = await self.earliest_offsets(*assigned)
            ends = await self.highwaters(*assigned)
            bounds = {tp: LogBounds(starts[tp], ends[tp]) for tp in assigned}
            offsets = await self._receiver.resume(bounds)
            if missing := assigned - offsets.keys():
                raise LookupError(f"no offset to resume from for {', '.join(map(_name, sorted(missing)))}")
            # In the consumer's thread, so that no fetch that began before the seek can return after it.
            await self._in_thread(self._seek_all, offsets)
        self._position = dict(offsets)
        for state in (self._acked, self._acked_index, self._gap, self._handed_over, self._reached):
            state.clear()
        return offsets

    async def _seek_all(self, offsets: Mapping[TP, int]) -> None:
        for tp, offset in offsets.items():
            self._kafka.seek(TopicPartition(*tp), offset)

    async def _seek_back(self, offsets: Mapping[TP, int]) -> None:
        held = self._kafka.assignment()
        await self._seek_all({tp: offset for tp, offset in offsets.items() if TopicPartition(*tp) in held})

    @Service.transitions_to("WAIT_EMPTY")
    async def wait_empty(self) -> None:
        """Have the receiver make durable what it took, then commit for the lag tools."""
        # Heartbeats go on meanwhile, but the group waits no longer than this for its members to join again.
        deadline = 0.5 * self.app.conf.broker_rebalance_timeout
        try:
            async with asyncio.timeout(deadline):
                await self._receiver.flush()
        except TimeoutError:
            logger.warning("gave up after %.1f s: what is not durable is read again by its next owner", deadline)
        except Exception as error:
            # Not raised: Faust would leave what remains to be stopped as it is.
            await self.crash(error)
        await self.commit_and_end_transactions()

    @Service.task
    async def _watch_coordinator(self) -> None:
        # After an unexpected answer to a join, aiokafka's coordinator waits until someone asks for errors. Its own
        # getmany() does; Faust goes around that.
        while not self.should_stop:
            await self.sleep(1.0)
            if not self.should_stop and self._thread._consumer is not None:
                await self._check_coordinator()

    async def _check_coordinator(self) -> None:
        coordinator = self._kafka._coordinator
        try:
            await self._in_thread(_as_coroutine, coordinator.check_errors)
        except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
            await self.crash(error)
        except KafkaError as error:
            heartbeat = coordinator._heartbeat_task
            if coordinator._coordination_task.done() or (heartbeat is not None and heartbeat.done()):
                await self.crash(error)
            else:
                logger.warning("joining the consumer group failed, trying again: %r", error)

    @property
    def _kafka(self) -> AIOKafkaConsumer:
        return self._thread._ensure_consumer()

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return await self._thread.call_thread(function, *args)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # It was not this task that was cancelled, but what the thread was doing when it ended.
            raise KafkaError("the consumer's thread has ended") from None


class ChunkTransport(driver.Transport):
    """Faust's Kafka transport with the chunk consumer and its receiver."""

    Consumer = ChunkConsumer

    def __init__(self, url: list[URL], app: AppT, receiver: Receiver, chunk_records: int) -> None:
        super().__init__(url, app)
        self.receiver = receiver
        self.chunk_records = chunk_records


class ChunkSchema(faust.Schema[None, Sequence[ConsumerRecord]]):
    """Leaves keys and values as they are: chunks are decoded by the receiver, which also knows what to do if not."""

    def loads_key(self, app: AppT, message: Any, **_: Any) -> None:
        """A chunk has no key of its own."""

    def loads_value(self, app: AppT, message: Any, **_: Any) -> Any:  # noqa: ARG002 -- Faust's signature
        """Return the list of records."""
        return message.value


class _App(faust.App):
    """A Faust app that keeps nothing in files."""

    def _create_directories(self) -> None:
        """Faust would make a folder wherever it is started."""


def chunk_app(
    config: KafkaConfig, topics: Iterable[str], receiver: Receiver, *, chunk_records: int = CHUNK_RECORDS
) -> faust.App:
    """Build a Faust app whose one agent feeds `receiver` with chunks of `topics`.

    `await app.start()` returns when it is a member of the group; `await app.stop()` flushes, commits and leaves.
    An error in the receiver crashes the app: `app.crash_reason` holds it.
    """
    app = _App(
        config.group,
        broker=[URL(f"kafka://{server}") for server in config.servers.split(",")],
        broker_credentials=_credentials(config),
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=config.session_timeout_s / 5,
        broker_max_poll_records=None,
        # Any other supervisor restarts an agent that failed, past the chunk that it failed on.
        agent_supervisor=CrashingSupervisor,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=QUEUED_CHUNKS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
    )
    app.transport = ChunkTransport(app.conf.broker_consumer, app, receiver, chunk_records)
    channel = app.topic(*topics, schema=ChunkSchema())

    @app.agent(channel, name=f"{__name__}.chunks")
    async def chunks(stream: StreamT[Sequence[ConsumerRecord]]) -> None:
        async for event in cast("faust.Stream[Any]", stream).noack().events():
            message = event.message
            await receiver.receive(Chunk(message.tp, message.value, _acker(event)))
            # Faust tells its sensors of the end of such events only that it acks itself.
            app.sensors.on_stream_event_out(message.tp, message.offset, stream, event)
            message.value = event.value = ()  # else all records would stay in memory until they are acked
            await asyncio.sleep(0)  # while chunks are queued, nothing else here would let others have their turn

    return app


async def serve(app: faust.App, stop: asyncio.Event) -> None:
    """Run `app` until `stop` is set, and end it in good order.

    Raises:
        LogError: records were deleted before they were read.
        Exception: what else crashed the app.
    """
    try:
        await app.start()
        await app.wait(stop.wait())
    finally:
        await app.stop()
    if app.crash_reason is not None:
        raise app.crash_reason


async def log_ends(app: faust.App) -> Mapping[TP, int]:
    """Ask where the logs of the topic partitions that `app` has end: at least where they end now.

    Returns:
        the offset after each one's last record; empty when the brokers do not answer.
    """
    return await cast(ChunkConsumer, app.consumer).log_ends()


def _acker(event: EventT[Any]) -> Callable[[], None]:
    def ack() -> None:
        event.ack()

    return ack


def _credentials(config: KafkaConfig) -> CredentialsT | None:
    context = config.ssl_context()
    if config.sasl:
        return SASLCredentials(
            username=config.sasl_username,
            password=config.sasl_password,
            mechanism=config.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context is not None else None


def _name(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"


async def _as_coroutine(function: Callable[[], None]) -> None:
    function()
