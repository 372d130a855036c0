"""Faust's Kafka consumer, delivering chunks of records.

This is the only module that touches Faust's internals. It overrides private parts of `faust.transport.consumer` and
reads private parts of aiokafka, so their versions are pinned and checked on import.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, cast

import cramjam  # noqa: F401 -- aiokafka needs it for compressed records, and would fail only at the first one
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage
from mode import Service
from yarl import URL

from backchannel.streams.extras import install
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.reading_order import chunks_in_turn, not_ahead
from backchannel.streams.kafka.receiver import LogBounds, LogError, Receiver
from backchannel.streams.kafka.record import Record

PINNED: Final = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}


def check_versions(found: Callable[[str], str] = version) -> None:
    """Check the versions of the libraries whose private parts this module uses.

    Raises:
        ImportError: a version differs; the message names the installed and the required versions.
    """
    wrong = {name: found(name) for name, required in PINNED.items() if found(name) != required}
    if wrong:
        raise ImportError(
            "the batch transport uses private parts of "
            + ", ".join(f"{name} {PINNED[name]} (found {other})" for name, other in wrong.items())
            + f": install exactly these versions, as `{install('kafka')}` does"
        )


check_versions()

logger = logging.getLogger(__name__)

HELD_BACK_PAUSE: Final = 0.005
"""Seconds between checks of a full queue. Faust waits 1 s, which caps the rate at one queue per second."""

COMMIT_TIMEOUT: Final = 5.0
"""Seconds that a commit for lag tools may take. aiokafka would retry for as long as the brokers are away."""

FETCH_WAIT_MS: Final = 50
"""How long a broker may wait for new records before it answers a fetch, ms. Until then it answers nothing else on that
connection, not even a fetch of partitions with a backlog. Faust's 1500 ms leave a worker idle most of the time."""

FETCH_BYTES: Final = 1 << 16
"""A broker answers earlier once it has this many bytes. Fewer would split a steady stream into many small fetches."""

PREFETCH_PAUSE: Final = 0.01
"""For how many seconds fetched records that are not taken yet, because their topic is ahead of the others, keep a
broker from being asked for more of any topic. With aiokafka's 0.1 s a worker that catches up is idle for a fifth of the
time."""

ENDS_TIMEOUT: Final = 2.0
"""Seconds that brokers may take to report where their logs end. aiokafka would wait for 40 s."""


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with faster fetches, and able to stop while the brokers are away."""

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        transport = cast(ChunkTransport, self.transport)
        consumer._isolation_level = transport.config.isolation
        consumer._client._bootstrap_servers = transport.config.brokers  # Faust drops the brackets of IPv6 addresses
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = FETCH_BYTES
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher
        fetcher._prefetch_backoff = PREFETCH_PAUSE
        fetcher._records = _Uncopied()

    async def on_thread_stop(self) -> None:
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            # aiokafka cancels its own fetch that waits for a retry, and lets the cancellation escape. Faust would take
            # it for the end of the thread, never report the end, and wait a minute for it.
            consumer = self._ensure_consumer()
            retries = consumer._fetcher._pending_tasks
            for retry in retries:
                retry.cancel()
            await asyncio.gather(*retries, return_exceptions=True)
            await consumer._client.close()


class _Uncopied(dict[TopicPartition, Any]):
    """What aiokafka has fetched, by topic partition, with the records as they are: copying each as a `ConsumerRecord`
    would take as long as reading it.
    """

    def __setitem__(self, tp: TopicPartition, fetched: Any) -> None:
        if isinstance(fetched, FetchResult):
            fetched._partition_records._consumer_record = _as_read
        super().__setitem__(tp, fetched)


class ChunkConsumer(driver.Consumer):
    """Faust's Kafka consumer, which delivers chunks and resumes where the receiver says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport = cast(ChunkTransport, self.transport)
        self._receiver = transport.receiver
        self._chunk_records = transport.chunk_records
        #: The offset after the last record delivered.
        self._position: dict[TP, int] = {}
        #: The offset before which nothing is left to deliver: transactions leave markers and aborted records.
        self._done: dict[TP, int] = {}
        #: Time of the records delivered last, ms.
        self._reached: dict[TP, int] = {}
        #: Topic partitions with records that were fetched but not delivered, and must be fetched again.
        self._left_out: set[TP] = set()
        #: Chunks delivered since the last seek and not yet committed, in order.
        self._handed_over: defaultdict[TP, deque[ConsumerMessage]] = defaultdict(deque)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 -- Faust's signature
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield chunks, round robin over the topic partitions, until the fetched records are used up."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records:
            return
        # A fetch that began before a rebalance may end after the seek that follows it, with records from elsewhere.
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
        # Compaction and transactions leave gaps, which are harmless. But if the log no longer holds the position,
        # aiokafka silently continues at the log's start.
        position, start = self._position[tp], (await self.earliest_offsets(tp))[tp]
        if offset < position or position < start:
            raise LogError(
                f"{_name(tp)}: offset {position} is to be read next, but the log was truncated or recreated: "
                f"it starts at {start}, and offset {offset} was received"
            )

    def _to_message(self, tp: TP, record: Sequence[Record]) -> ConsumerMessage:
        last = record[-1]
        return ConsumerMessage(
            *tp,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            headers=None,
            key=None,
            value=cast(Any, record),
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _wait_next_records(
        self,
        timeout: float,  # noqa: ASYNC109 -- Faust's signature
    ) -> tuple[Mapping[TP, list[Record]], set[TP]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        left = {tp: self._left(tp) for tp in self._get_active_partitions()}
        active = not_ahead(left, self._reached, self._chunk_records)
        # One queue serves all partitions: if it is too full for one of them, it is for all.
        if self._buffered_partitions or not active:
            await asyncio.sleep(HELD_BACK_PAUSE)
            return {}, active
        if self._left_out:
            await self._in_thread(
                self._seek_back, {tp: self._position[tp] for tp in self._left_out & self._position.keys()}
            )
            self._left_out.clear()
        self._note_done()
        return await self._getmany(active_partitions=active, timeout=timeout), active

    def _left(self, tp: TP) -> int:
        """The number of records known to exist and not delivered yet."""
        kafka, partition = self._kafka, TopicPartition(*tp)
        committed = kafka._isolation_level == "read_committed"
        end = kafka.last_stable_offset(partition) if committed else kafka.highwater(partition)
        return (end or 0) - max(self._position.get(tp, 0), self._done.get(tp, 0))

    def _note_done(self) -> None:
        """Note how far the last fetches came. Called while there is none, and nothing that they left to deliver."""
        subscription = self._kafka._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return
        for tp in self._position:
            state = assignment.state_value(TopicPartition(*tp)) if TopicPartition(*tp) in assignment.tps else None
            if state is not None and state.has_valid_position:
                self._done[tp] = state.position

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Track nothing: offsets inside a chunk are not gaps."""

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
        # For lag tools only; the ledger is authoritative. A failure is worth a log line, not a crash.
        if self._thread.should_stop:
            return False
        positions = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await self._in_thread(self._commit_in_time, positions)
        except (KafkaError, TimeoutError) as error:
            logger.info("could not commit the offsets for lag tools: %r", error)
            return False
        return True

    async def _commit_in_time(self, positions: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        # The timeout is set in the thread: an unbounded commit would keep the thread from ending.
        async with asyncio.timeout(COMMIT_TIMEOUT):
            await self._kafka.commit(positions)

    async def log_ends(self) -> Mapping[TP, int]:
        """Return the ends of the logs of the assigned topic partitions, as of now or later; empty without an answer."""
        if self._thread.should_stop:
            return {}
        try:
            ends: Mapping[TP, int] = await self._in_thread(self._log_ends_in_time, self.assignment())
        except (KafkaError, TimeoutError) as error:
            logger.info("could not fetch the ends of the logs: %r", error)
            return {}
        # Less the records that no reader ever receives: otherwise a log that ends with them would never be read to its
        # end.
        return {tp: self._position.get(tp, end) if self._done.get(tp, -1) >= end else end for tp, end in ends.items()}

    async def _log_ends_in_time(self, assigned: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(ENDS_TIMEOUT):
            found = await self._kafka.end_offsets([TopicPartition(*tp) for tp in assigned])
        return {TP(*tp): end for tp, end in found.items()}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Ask the receiver where to resume, and seek there."""
        assigned = self.assignment()
        # Faust takes its own timeout for a stop, and then neither runs nor ends: fail before it.
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
        for state in (self._acked, self._acked_index, self._gap, self._handed_over, self._reached, self._done):
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
        """Have the receiver make everything durable, then commit for lag tools."""
        # Heartbeats continue meanwhile, but the group waits no longer than this for its members to rejoin.
        deadline = 0.5 * self.app.conf.broker_rebalance_timeout
        try:
            async with asyncio.timeout(deadline):
                await self._receiver.flush()
        except TimeoutError:
            logger.warning("gave up flushing after %.1f s: the next owner reads again what is not durable", deadline)
        except Exception as error:
            # Not raised: Faust would then not stop the rest.
            await self.crash(error)
        await self.commit_and_end_transactions()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Check nothing: Faust would report every log that is quiet, or whose chunks are not acked yet, as an error."""

    @Service.task
    async def _watch_coordinator(self) -> None:
        # After an unexpected answer to a join, aiokafka's coordinator waits until someone checks for errors. Its own
        # getmany() does; Faust bypasses it.
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
                logger.warning("joining the consumer group failed; retrying: %r", error)

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
            # This task was not cancelled: the call was that the thread was executing when it ended.
            raise KafkaError("the consumer's thread has ended") from None


class ChunkTransport(driver.Transport):
    """Faust's Kafka transport with the chunk consumer and its receiver."""

    Consumer = ChunkConsumer

    def __init__(self, url: list[URL], app: AppT, receiver: Receiver, config: KafkaConfig, chunk_records: int) -> None:
        super().__init__(url, app)
        self.receiver = receiver
        self.config = config
        self.chunk_records = chunk_records


def _name(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"


def _as_read(_: TopicPartition, record: Record) -> Record:
    return record


async def _as_coroutine(function: Callable[[], None]) -> None:
    function()
