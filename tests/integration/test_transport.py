"""The batch transport with a real broker."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import faust
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from faust.types import TP
from msgspec import structs

from backchannel.ops.local.broker import Broker
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.consumer import ChunkConsumer
from backchannel.streams.kafka.receiver import Chunk, LogBounds, LogError
from backchannel.streams.kafka.topics import admin_client, check_topics
from backchannel.streams.kafka.transport import QUEUED_CHUNKS, chunk_app, log_ends, serve

CHUNK = 100


class Ledger:
    """A store that holds every record once, shared by the workers of a test."""

    def __init__(self) -> None:
        self.values: defaultdict[TP, list[bytes]] = defaultdict(list)

    @property
    def total(self) -> int:
        return sum(map(len, self.values.values()))


class Worker:
    """A receiver that persists every `batch` chunks, and checks the transport's guarantees."""

    def __init__(self, ledger: Ledger, batch: int = 1) -> None:
        self.ledger = ledger
        self.batch = batch
        self.bounds: Mapping[TP, LogBounds] = {}
        self.received = 0
        self.flushed = 0
        self.in_hand: list[Chunk] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._next: dict[TP, int] = {}

    @property
    def waiting(self) -> int:
        return sum(len(chunk.records) for chunk in self.in_hand)

    async def resume(self, bounds: Mapping[TP, LogBounds]) -> Mapping[TP, int]:
        self.bounds = bounds
        self.in_hand.clear()
        self._next = {tp: len(self.ledger.values[tp]) for tp in bounds}
        assert len({frozenset(numbers) for numbers in by_topic(bounds).values()}) == 1, "same partitions of all topics"
        return dict(self._next)

    async def receive(self, chunk: Chunk) -> None:
        first = self._next[chunk.tp]
        self._next[chunk.tp] = first + len(chunk.records)
        assert [record.offset for record in chunk.records] == list(range(first, self._next[chunk.tp]))
        assert len(chunk.records) <= CHUNK
        self.received += len(chunk.records)
        self.in_hand.append(chunk)
        if len(self.in_hand) >= self.batch:
            self.persist()
        await self.may_go_on.wait()

    async def flush(self) -> None:
        self.flushed += len(self.in_hand)
        self.persist()

    def persist(self) -> None:
        for chunk in self.in_hand:
            values = self.ledger.values[chunk.tp]
            assert chunk.records[0].offset == len(values), "nothing lost, nothing twice"
            values.extend(record.value or b"" for record in chunk.records)
            chunk.ack()
        self.in_hand.clear()


def by_topic(tps: Iterable[TP]) -> dict[str, set[int]]:
    numbers = defaultdict(set)
    for tp in tps:
        numbers[tp.topic].add(tp.partition)
    return numbers


@asynccontextmanager
async def running(config: KafkaConfig, worker: Worker) -> AsyncIterator[faust.App]:
    """Run a worker while the block runs; then stop it cleanly, and raise the error that crashed it."""
    app = chunk_app(config, config.event_topics.values(), worker, chunk_records=CHUNK)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(app, stop))
    try:
        yield app
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await task


async def produce(config: KafkaConfig, count: int) -> dict[TP, list[bytes]]:
    """Send numbers to all event topics in turn, and return what was sent to each topic partition."""
    sent: defaultdict[TP, list[bytes]] = defaultdict(list)
    topics = list(config.event_topics.values())
    async with AIOKafkaProducer(bootstrap_servers=config.servers) as producer:
        for number in range(count):
            tp = TP(topics[number % len(topics)], number // len(topics) % 4)
            await producer.send(tp.topic, b"%d" % number, partition=tp.partition)
            sent[tp].append(b"%d" % number)
    return sent


async def until(condition: Callable[[], bool], *apps: faust.App) -> None:
    """Wait for `condition`, for a minute at most, or until an app crashes, whose error `running` raises."""
    async with asyncio.timeout(60):
        while not condition() and not any(app.crash_reason for app in apps):  # noqa: ASYNC110 -- of many kinds
            await asyncio.sleep(0.01)


async def committed(config: KafkaConfig) -> dict[TP, int]:
    """Return the committed offsets, which lag tools see."""
    admin = AIOKafkaAdminClient(bootstrap_servers=config.servers)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(config.group)
    finally:
        await admin.close()
    return {TP(*tp): at.offset for tp, at in offsets.items()}


def test_chunks_arrive_complete_and_in_order_and_lag_tools_see_them(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        backlog = await produce(kafka, 20_000)
        ledger = Ledger()
        async with running(kafka, Worker(ledger)) as app:
            await until(lambda: ledger.total == 20_000, app)
            live = await produce(kafka, 500)
            await until(lambda: ledger.total == 20_500, app)
        assert ledger.values == {tp: values + live[tp] for tp, values in backlog.items()}
        assert await committed(kafka) == {tp: len(values) for tp, values in ledger.values.items()}

    asyncio.run(scenario())


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_producers_is_read(kafka: KafkaConfig, codec: str) -> None:
    async def scenario() -> None:
        tp, ledger = TP(kafka.event_topics["query"], 0), Ledger()
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers, compression_type=codec, linger_ms=50) as producer:
            for number in range(500):
                await producer.send(tp.topic, b"%d" % number, partition=0)
        async with running(kafka, Worker(ledger)) as app:
            await until(lambda: ledger.total == 500, app)
        assert ledger.values[tp] == [b"%d" % number for number in range(500)]

    asyncio.run(scenario())


def test_brokers_may_have_ipv6_addresses(kafka: KafkaConfig) -> None:
    host, _, port = kafka.servers.rpartition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async def scenario() -> None:
        try:
            server = await asyncio.start_server(accept, "::1", 0)
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        async with server:
            address = f"[::1]:{server.sockets[0].getsockname()[1]}"
            config = structs.replace(kafka, servers=f"{address}, {address}")
            sent, ledger = await produce(kafka, 100), Ledger()
            assert await asyncio.to_thread(check_topics, config) == 4
            async with running(config, Worker(ledger)) as app:
                await until(lambda: ledger.total == 100, app)
            assert {tp: values for tp, values in ledger.values.items() if values} == sent  # most topics are empty

    asyncio.run(scenario())


def test_only_committed_transactions_are_read_and_the_log_is_read_to_its_end(kafka: KafkaConfig) -> None:
    tp = TP(kafka.event_topics["query"], 0)
    values: list[bytes | None] = []

    class Reader(Worker):
        async def receive(self, chunk: Chunk) -> None:
            values.extend(record.value or b"" for record in chunk.records)
            self._next[chunk.tp] = chunk.records[-1].offset + 1

        def at_end(self, ends: Mapping[TP, int]) -> bool:
            return bool(ends) and all(self._next[one] >= end for one, end in ends.items())

    async def scenario() -> None:
        reader = Reader(Ledger())

        async def at_end(app: faust.App) -> None:
            async with asyncio.timeout(30):
                while not reader.at_end(await log_ends(app)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        async with AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=kafka.group) as producer:

            async def send(value: bytes) -> None:
                await producer.send_and_wait(tp.topic, value, partition=0)

            async with producer.transaction():
                await send(b"kept")
            await producer.begin_transaction()
            await send(b"aborted")
            await producer.abort_transaction()
            async with running(kafka, reader) as app:
                await until(lambda: bool(values), app)
                await at_end(app)
                await producer.begin_transaction()
                await send(b"late")
                await at_end(app)
                assert values == [b"kept"]
                await producer.commit_transaction()
                await until(lambda: len(values) == 2, app)
                await at_end(app)
                assert values == [b"kept", b"late"]

    asyncio.run(scenario())


def test_small_records_are_not_read_far_ahead_of_large_ones(kafka: KafkaConfig) -> None:
    """A fetch returns 1 MiB of each topic: some 6,000 small records, or 600 large ones."""
    small, large = TP(kafka.event_topics["query"], 0), TP(kafka.event_topics["impression"], 0)
    count = 20_000

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers, linger_ms=5) as producer:
            for number in range(count):
                for tp, value in ((small, b"x" * 160), (large, b"x" * 1600)):
                    await producer.send(tp.topic, value, partition=0, timestamp_ms=1_700_000_000_000 + number)
        worker, gaps = Worker(Ledger()), []
        read: Counter[TP] = Counter()
        receive = worker.receive

        async def watch(chunk: Chunk) -> None:
            read[chunk.tp] += len(chunk.records)
            gaps.append(read[small] - read[large])
            await receive(chunk)

        worker.receive = watch  # type: ignore[method-assign]
        async with running(kafka, worker) as app:
            await until(lambda: worker.ledger.total == 2 * count, app)
        assert max(gaps) < count / 2, "no further than a fetch, and what waits in queues"

    asyncio.run(scenario())


def test_only_prefixes_of_acked_chunks_are_committed(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        tp = TP(kafka.event_topics["click"], 0)
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers) as producer:
            for _ in range(5 * CHUNK):
                await producer.send(tp.topic, b"x", partition=0)
        worker = Worker(Ledger(), batch=1_000_000)
        async with running(kafka, worker) as app:
            await until(lambda: worker.received == 5 * CHUNK, app)
            first, second, third, *rest = chunks = list(worker.in_hand)
            assert rest
            for chunk in (second, *rest):
                chunk.ack()
            await app.consumer.commit()
            assert await committed(kafka) == {}, "the first chunk is not acked"
            first.ack()
            await app.consumer.commit()
            assert await committed(kafka) == {tp: third.records[0].offset}
            third.ack()
            await app.consumer.commit()
            assert await committed(kafka) == {tp: chunks[-1].records[-1].offset + 1}

    asyncio.run(scenario())


def test_it_resumes_where_the_receiver_says_and_not_where_kafka_does(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        sent = await produce(kafka, 8_000)
        # According to Kafka, everything was read, except for one partition without an offset.
        offsets = {TopicPartition(*tp): OffsetAndMetadata(len(values), "") for tp, values in sent.items()}
        offsets.popitem()
        other = AIOKafkaConsumer(bootstrap_servers=kafka.servers, group_id=kafka.group, enable_auto_commit=False)
        await other.start()
        other.assign(list(offsets))
        await other.commit(offsets)
        await other.stop()

        ledger = Ledger()
        for tp, values in sent.items():
            ledger.values[tp] = values[: 7 * tp.partition]
        worker = Worker(ledger)
        async with running(kafka, worker) as app:
            await until(lambda: ledger.total == 8_000, app)
        assert worker.bounds == {tp: LogBounds(0, len(values)) for tp, values in sent.items()}
        assert ledger.values == sent

    asyncio.run(scenario())


def test_a_stop_flushes_what_was_received(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        sent = await produce(kafka, 4_000)
        ledger = Ledger()
        worker = Worker(ledger, batch=1_000_000)
        async with running(kafka, worker) as app:
            await until(lambda: worker.received == 4_000, app)
            assert ledger.total == 0
        assert ledger.values == sent
        assert await committed(kafka) == {tp: len(values) for tp, values in sent.items()}

    asyncio.run(scenario())


def test_partitions_change_hands_without_loss_or_repetition(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        ledger = Ledger()
        partitions = 4 * len(kafka.event_topics)
        sent: defaultdict[TP, list[bytes]] = defaultdict(list)

        enough = asyncio.Event()

        async def load() -> None:
            while not enough.is_set():
                for tp, values in (await produce(kafka, 500)).items():
                    sent[tp] += values

        async def come_and_go(app: faust.App) -> None:
            second = Worker(ledger, batch=5)
            await until(lambda: len(first.bounds) == partitions, app)
            async with running(kafka, second) as other:
                await until(lambda: len(first.bounds) == partitions // 2 and second.received > 0, app, other)
                assert not second.bounds.keys() & first.bounds.keys()

        first = Worker(ledger, batch=7)
        async with running(kafka, first) as app:
            producing = asyncio.create_task(load())
            for _ in range(3):
                await come_and_go(app)
            enough.set()
            await producing
            total = sum(map(len, sent.values()))
            await until(lambda: ledger.total + first.waiting == total, app)
        assert ledger.values == sent
        assert first.flushed, "chunks were in hand when partitions were taken away"

    asyncio.run(scenario())


def test_what_was_fetched_but_not_handed_over_is_fetched_again(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a fetch that began before a rebalance ends between the seek and the resumption of flow."""

    async def scenario() -> None:
        sent = await produce(kafka, 2_000)
        ledger = Ledger()
        interruptions = 0
        async with running(kafka, Worker(ledger)) as app:
            consumer = cast(ChunkConsumer, app.consumer)
            fetch = consumer._getmany

            async def interrupted(*args: Any, **kwargs: Any) -> Any:
                nonlocal interruptions
                records = await fetch(*args, **kwargs)
                if records and interruptions < 3:
                    interruptions += 1
                    consumer.stop_flow()
                    asyncio.get_running_loop().call_later(0.05, consumer.resume_flow)
                return records

            monkeypatch.setattr(consumer, "_getmany", interrupted)
            await until(lambda: ledger.total == 2_000, app)
        assert interruptions == 3
        assert ledger.values == sent

    asyncio.run(scenario())


def test_a_receiver_that_waits_holds_back_consumption(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        sent = await produce(kafka, 20_000)
        ledger = Ledger()
        worker = Worker(ledger)
        worker.may_go_on.clear()
        async with running(kafka, worker) as app:
            await until(lambda: worker.received > 0, app)
            await asyncio.sleep(2)
            waiting = sum(len(chunks) for chunks in cast(ChunkConsumer, app.consumer)._handed_over.values())
            assert waiting <= QUEUED_CHUNKS + 2
            assert worker.received <= CHUNK
            worker.may_go_on.set()
            await until(lambda: ledger.total == 20_000, app)
        assert ledger.values == sent

    asyncio.run(scenario())


@pytest.mark.parametrize("outage", ["stopped", "paused"])
def test_it_goes_on_after_the_broker_was_away(
    outage: str, own_broker: Broker, new_topics: Callable[[str], KafkaConfig]
) -> None:
    async def scenario() -> None:
        kafka = new_topics(str(own_broker.servers))
        ledger = Ledger()
        worker = Worker(ledger, batch=3)
        async with running(kafka, worker) as app:
            sent = await produce(kafka, 10_000)
            await until(lambda: worker.received > 5_000, app)
            await asyncio.to_thread(own_broker.stop if outage == "stopped" else own_broker.pause)
            # Longer than the session, so that the worker has left the group when the broker is back.
            await asyncio.sleep(1.5 * kafka.session_timeout_s)
            await asyncio.to_thread(own_broker.start if outage == "stopped" else own_broker.resume)
            for tp, values in (await produce(kafka, 1_000)).items():
                sent[tp] += values
            await until(lambda: ledger.total + worker.waiting == 11_000, app)
        assert ledger.values == sent

    asyncio.run(scenario())


def test_it_stops_in_good_order_while_the_broker_is_away(
    own_broker: Broker, new_topics: Callable[[str], KafkaConfig]
) -> None:
    async def scenario() -> None:
        kafka = new_topics(str(own_broker.servers))
        sent = await produce(kafka, 4_000)
        ledger = Ledger()
        worker = Worker(ledger, batch=1_000_000)
        async with running(kafka, worker) as app:
            await until(lambda: worker.received == 4_000, app)
            await asyncio.to_thread(own_broker.kill)
        assert ledger.values == sent

    asyncio.run(scenario())


def test_a_refused_join_is_tried_again(kafka: KafkaConfig, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        sent = await produce(kafka, 1_000)
        ledger = Ledger()
        # A member without Faust's assignment strategy: the group refuses the worker.
        other = AIOKafkaConsumer(
            kafka.event_topics["query"], bootstrap_servers=kafka.servers, group_id=kafka.group, session_timeout_ms=6000
        )
        await other.start()
        async with running(kafka, Worker(ledger)) as app:
            await until(lambda: "joining the consumer group failed" in caplog.text, app)
            await other.stop()
            await until(lambda: ledger.total == 1_000, app)
        assert ledger.values == sent

    asyncio.run(scenario())


def test_records_that_were_deleted_unread_end_the_worker(kafka: KafkaConfig) -> None:
    async def scenario() -> None:
        tp = TP(kafka.event_topics["query"], 0)
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers) as producer:
            for _ in range(20_000):
                await producer.send(tp.topic, bytes(300), partition=0)
        worker = Worker(Ledger())
        worker.may_go_on.clear()
        async with running(kafka, worker) as app:
            await until(lambda: worker.received > 0, app)
            with admin_client(kafka) as admin:
                admin.delete_records({TopicPartition(*tp): 19_990})
            worker.may_go_on.set()
            await until(lambda: worker.received == 20_000, app)

    with pytest.raises(LogError, match=r"queries\[0\]: offset \d+ .*starts at 19990"):
        asyncio.run(scenario())


@pytest.mark.parametrize("method", ["resume", "receive", "flush"])
def test_an_error_in_the_receiver_ends_the_worker(
    method: str, kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("the store is gone")

    async def scenario() -> None:
        await produce(kafka, 100)
        worker = Worker(Ledger())
        monkeypatch.setattr(worker, method, fail)
        async with running(kafka, worker) as app:
            await until(lambda: method == "flush" and worker.received == 100, app)

    with pytest.raises(OSError, match="the store is gone"):
        asyncio.run(scenario())
