"""The worker's throughput, freshness and recovery after a kill, with a real broker.

Everything runs in a process of its own, so that the sides of a comparison do not share an interpreter's state.
"""

import asyncio
import importlib.util
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice, pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import faust
import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.types import StreamT
from msgspec import structs
from yarl import URL

from backchannel.ops.commands.config import render
from backchannel.ops.commands.topics import create_topics
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.broker import Broker
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import EVENT_TYPES, Event, name_of
from backchannel.streams.config import CommitConfig, Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.partitioning import PARTITIONERS
from backchannel.streams.kafka.receiver import Chunk
from backchannel.streams.pipeline.commits import commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.partition import Partition
from backchannel.streams.turns.position import TopicPosition
from backchannel.streams.worker.remote import tune_memory
from backchannel.streams.worker.worker import Worker

PARTITIONS: Final = 4
BACKLOG: Final = 6
"""A multiple of the other parts' events, so that the backlog spans several versions and commits."""
STOCK_EVENTS: Final = 50_000
"""Events for the stock agent, which is too slow to read the whole backlog."""
LOAD_RATE: Final = 10_000
"""Events per second of the live load."""
HEAVY_RATE: Final = 40_000
"""Events per second at which freshness is measured, too."""
SLOT_S: Final = 0.02
"""Seconds of live load that are sent together."""
KILLS: Final = 5
LIVE: Final = Config(turns=TurnConfig(window_s=1.0, lateness_s=0.5), commits=CommitConfig(publish_s=0.5))
"""The configuration for live load: turns close early, so that a short run yields many measurements."""
FRESH_MS: Final = 2_000
"""A worker whose commits are at most this far (ms) behind the events has caught up."""

_T = TypeVar("_T")


def kafka(load: Load) -> Iterator[Measure]:
    """Yield throughput, freshness and recovery."""
    folder = load.folder
    broker = Broker(folder / "kafka")
    load.say("starting a broker")
    servers = broker.start()
    try:
        yield from _throughput(load, topics_of(servers, "backlog-"))
        for rate, seconds in ((LOAD_RATE, 40.0), (HEAVY_RATE, 20.0)):
            load.say(f"freshness: {rate:,} events/s")
            yield from _freshness(folder, topics_of(servers, f"live-{rate}-"), rate, seconds)
        load.say(f"recovery: {KILLS} kills at {LOAD_RATE:,} events/s")
        yield from _recovery(folder, topics_of(servers, "killed-"))
    finally:
        broker.stop()


def _throughput(load: Load, backlog: KafkaConfig) -> Iterator[Measure]:
    load.say("throughput: filling the topics")
    folder, sent = load.folder, _remote(_fill, backlog, BACKLOG * load.events)
    raw, stock = "aiokafka getmany, decode", "the same learning in a stock Faust agent"
    own, two = "worker, from Kafka to a committed ledger", "two workers of a group"
    sides: dict[str, Callable[[KafkaConfig, str], float]] = {
        raw: lambda group, _: _remote(_read_raw, group, sent),
        stock: lambda group, name: _remote(_learn_stock, group, str(folder / f"stock-{name}.db"), STOCK_EVENTS),
        own: lambda group, name: _remote(_learn, group, str(folder / f"worker-{name}.db"), sent),
        two: lambda group, name: _learn_by_two(folder, group, folder / f"two-{name}.db", sent),
    }
    if all(map(importlib.util.find_spec, ("bytewax", "quixstreams"))):
        from backchannel.ops.lab.bench import kafka_peers  # noqa: PLC0415 - needs more packages

        sides["Quix Streams, which decodes and counts only"] = lambda group, _: _remote(
            kafka_peers.count_with_quix, group, sent
        )
        sides["Bytewax, which decodes and counts only"] = lambda group, _: _remote(
            kafka_peers.count_with_bytewax, group, sent
        )
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(load.rounds):
        for place, (side, measure) in enumerate(sides.items()):
            load.say(f"throughput, round {number + 1} of {load.rounds}: {side}")
            taken[side].append(measure(structs.replace(backlog, group=f"bench-{place}-{number}"), str(number)))
    rates = {side: median(rounds) for side, rounds in taken.items()}
    ours = {side: rates.pop(side) for side in (own, two)}
    for side, rate in rates.items():
        yield Measure(side, rate, "events/s")
    for name, worker in ours.items():
        for side, rate in rates.items():
            yield Measure(name, worker, "events/s", worker / rate, side)


def topics_of(servers: str, prefix: str) -> KafkaConfig:
    kafka = KafkaConfig(servers=servers, topic_prefix=prefix, group=prefix, session_timeout_s=6.0)
    create_topics(kafka, PARTITIONS, replication=1)
    return kafka


def _remote(function: Callable[..., _T], *args: Any) -> _T:
    """Call `function` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _fill(kafka: KafkaConfig, events: int) -> int:
    records = [
        (kafka.event_topics[name_of(type(event))], encode(event), event.session_id.encode())
        for event in mixed_stream(events * 2 // 5, np.random.default_rng(0))
    ]
    asyncio.run(_send(kafka, records))
    return len(records)


async def _send(kafka: KafkaConfig, records: list[tuple[str, bytes, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.servers, linger_ms=5, max_batch_size=1 << 17) as producer:
        for topic, record, key in records:
            await producer.send(topic, record, key=key)
        await producer.flush()


def _read_raw(kafka: KafkaConfig, events: int) -> float:
    """Read and decode all topics; return the events per second between the first and the last record."""
    tune_memory()
    decoders = {topic: EventDecoder(EVENT_TYPES[event]) for event, topic in kafka.event_topics.items()}

    async def read() -> float:
        async with AIOKafkaConsumer(
            bootstrap_servers=kafka.servers, group_id=f"{kafka.group}-raw", enable_auto_commit=False
        ) as consumer:
            partitions = [TopicPartition(topic, number) for topic in decoders for number in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning()
            left, started = events, 0.0
            while left:
                found = await consumer.getmany(timeout_ms=1000)
                started = started or time.perf_counter()
                for tp, records in found.items():
                    decoders[tp.topic].decode_many([record.value for record in records])
                    left -= len(records)
            return events / (time.perf_counter() - started)

    return asyncio.run(read())


class _Timed(Worker):
    """A worker that stops once `events` events are committed."""

    def __init__(self, url: str, kafka: KafkaConfig, events: int, stop: asyncio.Event) -> None:
        super().__init__(url, Config(), kafka)
        self.left = events
        self.started = self.ended = 0.0
        self._stop = stop

    async def receive(self, chunk: Chunk) -> None:
        self.started = self.started or time.perf_counter()
        await super().receive(chunk)
        self.left -= len(chunk.records)
        if not self.left:
            await self.flush()
            self.ended = time.perf_counter()
            self._stop.set()


def _learn(kafka: KafkaConfig, database: str, events: int) -> float:
    """Learn all events in a worker; return the events per second between the first chunk and the last commit."""
    tune_memory()

    async def learn() -> float:
        stop = asyncio.Event()
        worker = _Timed(f"sqlite:///{database}", kafka, events, stop)
        await worker.run(stop)
        worker.close()
        return events / (worker.ended - worker.started)

    return asyncio.run(learn())


def _learn_by_two(folder: Path, kafka: KafkaConfig, database: Path, events: int) -> float:
    """Learn events in two workers that share a store; return the events per second.

    It is measured from a fifth of the events to nine tenths: at first the workers start and share out the partitions,
    and at last one of them has nothing left to do. Where commits leave less than a half to measure, it is the whole.
    """
    url, wait_until = f"sqlite:///{database}", time.monotonic() + 600
    with running_worker(folder, kafka, url, Config()), running_worker(folder, kafka, url, Config()):
        read = [(time.perf_counter(), 0)]
        while read[-1][1] < 0.9 * events:
            if time.monotonic() > wait_until:
                raise RuntimeError(f"two workers do not read {events:,} events; see {folder / 'worker.log'}")
            topics = [msgspec.json.decode(row, type=dict[str, TopicPosition]) for row in _select(database, "topics")]
            done = sum(topic.read for own in topics for topic in own.values())
            if done > read[-1][1]:
                read.append((time.perf_counter(), done))
            time.sleep(0.02)
    started, first = next(sample for sample in read if sample[1] >= 0.2 * events)
    ended, last = read[-1]
    if last - first < 0.5 * events:
        started, first = read[0]
    return (last - first) / (ended - started)


def _learn_stock(kafka: KafkaConfig, database: str, events: int) -> float:
    """Learn `events` events in an agent as in Faust's documentation; return the events per second."""
    tune_memory()
    config = Config()
    learning = Learning(config)
    store = Store(f"sqlite:///{database}")
    store.create(learning.tables)
    ledger = Ledger(store, learning.tables)

    async def learn() -> float:
        decoders = {topic: EventDecoder(EVENT_TYPES[event]) for event, topic in kafka.event_topics.items()}
        partitions = [Partition(ledger.claim("stock", number), decoders, config.turns) for number in range(PARTITIONS)]
        app = faust.App(
            f"{kafka.group}-stock",
            broker=[URL(f"kafka://{kafka.servers}")],
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=4096,
            datadir=f"{database}-faust",
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            store="memory://",
        )
        done = asyncio.Event()
        times: list[float] = []
        seen = 0

        def commit_all() -> None:
            done = commit(learning, ledger, [partition.batch() for partition in partitions])
            for partition, claim in zip(partitions, done.claims, strict=True):
                partition.claim = claim

        @app.agent(app.topic(*decoders, key_serializer="raw", value_serializer="raw"))
        async def agent(stream: StreamT[bytes]) -> None:
            nonlocal seen
            times.append(time.perf_counter())
            async for event in stream.events():
                if not seen:
                    times[0] = time.perf_counter()
                message = event.message
                partition = partitions[message.partition]
                partition.add(message.topic, [message.offset], [message.value], time.time_ns() // 1_000_000)
                partition.advance()
                seen += 1
                if seen % config.commits.events == 0:
                    commit_all()
                if seen == events:
                    commit_all()
                    times.append(time.perf_counter())
                    done.set()

        await app.start()
        await done.wait()
        await app.stop()
        return events / (times[1] - times[0])

    rate = asyncio.run(learn())
    store.close()
    return rate


@contextmanager
def _live_load(kafka: KafkaConfig, rate: int, seconds: float) -> Iterator[BaseProcess]:
    """Send `rate` events a second, each at its event time, until the block ends; yield the sending process."""
    process = multiprocessing.get_context("spawn").Process(target=_load, args=(kafka, rate, seconds))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _load(kafka: KafkaConfig, rate: int, seconds: float) -> None:
    size = int(seconds * rate)
    asyncio.run(_stream(kafka, list(islice(mixed_stream(size, np.random.default_rng(1)), size)), rate))


async def _stream(kafka: KafkaConfig, events: list[Event], rate: int) -> None:
    """Send events at their times, in batches made before, so that sending takes little of the processor."""
    start = time.time() * 1000 + len(events) / 40  # allows for the time that encoding takes
    partition_of = PARTITIONERS["murmur2"]
    async with AIOKafkaProducer(bootstrap_servers=kafka.servers, linger_ms=0, max_batch_size=1 << 20) as producer:
        slots: list[dict[tuple[str, int], BatchBuilder]] = []
        for number, event in enumerate(events):
            if number % round(rate * SLOT_S) == 0:
                slots.append({})
            topic, key = kafka.event_topics[name_of(type(event))], event.session_id.encode()
            target = topic, partition_of(key, PARTITIONS)
            ts = round(start + 1000 * number / rate)
            if target not in slots[-1]:
                slots[-1][target] = producer.create_batch()
            slots[-1][target].append(key=key, value=encode(structs.replace(event, ts=ts)), timestamp=ts)
        for place, slot in enumerate(slots, 1):
            await asyncio.sleep(start / 1000 + place * SLOT_S - time.time())
            for (topic, partition), batch in slot.items():
                await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()


@contextmanager
def running_worker(
    folder: Path, kafka: KafkaConfig, store: str, config: Config = LIVE
) -> Iterator[subprocess.Popen[bytes]]:
    settings = folder / "live.toml"
    settings.write_text(render(structs.replace(config, kafka=kafka)))
    command = [sys.executable, "-m", "backchannel", "worker", "--config", str(settings), "--servers", kafka.servers]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen([*command, "--store", store], stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _freshness(folder: Path, kafka: KafkaConfig, rate: int, seconds: float) -> Iterator[Measure]:
    """Yield percentiles of the time from when a turn may close to when a reader in this process has a version with it.

    A turn may close when its window and the lateness are over. A version contains it when the version's watermark, the
    slowest partition's, is past the window's end. Time spent in Kafka is included.
    """
    url = f"sqlite:///{folder / f'fresh-{rate}.db'}"
    seen: list[tuple[float, int]] = []  # wall clock (ms) at which a version arrived, and its watermark
    with running_worker(folder, kafka, url), _live_load(kafka, rate, seconds):
        reader = PolicyReader(url)
        wait_until = time.monotonic() + 90
        while not seen or seen[-1][1] - seen[0][1] < seconds * 700:
            if reader.refresh() and (watermark := reader.policy.snapshot.watermark):
                seen.append((time.time() * 1000, watermark))
            time.sleep(0.02)
            if time.monotonic() > wait_until + seconds:
                raise RuntimeError(f"the worker does not publish; see {folder / 'worker.log'}")
        reader.close()
    # The first seconds include the worker's start.
    lag = [
        came - LIVE.turns.lateness_s * 1000 - end
        for (_, before), (came, watermark) in pairwise(seen)
        if before > seen[0][1] + 5_000
        for end in range(before + 1, watermark + 1, 10)
    ]
    for name, percentile in (("p50", 50), ("p99", 99)):
        yield Measure(
            f"turn's close to PolicyReader, {rate:,} events/s, {name}", float(np.percentile(lag, percentile)), "ms"
        )


def _recovery(folder: Path, kafka: KafkaConfig) -> Iterator[Measure]:
    """Yield the time from SIGKILL, with a new worker started at once, until commits have caught up."""
    database = folder / "killed.db"
    url = f"sqlite:///{database}"
    taken = []
    with _live_load(kafka, LOAD_RATE, 25.0 * (KILLS + 1)) as sending:
        for number in range(KILLS + 1):
            started, before = time.monotonic(), _epochs(database)
            with running_worker(folder, kafka, url) as worker:
                while _epochs(database) < before + PARTITIONS or _behind(database) > FRESH_MS:
                    if not sending.is_alive():
                        raise RuntimeError(
                            f"the worker cannot keep up with {LOAD_RATE:,} events/s: use a faster or less busy machine"
                        )
                    time.sleep(0.02)
                taken.append(time.monotonic() - started)
                time.sleep(2)
                if number < KILLS:
                    worker.kill()
    yield Measure("SIGKILL to caught up", 1000 * median(taken[1:]), "ms")


def _behind(database: Path) -> float:
    """Return how far (ms) the slowest partition's commits are behind the clock, less the lateness."""
    slowest = min(_select(database, "watermark"), default=0)
    return time.time() * 1000 - LIVE.turns.lateness_s * 1000 - slowest


def _epochs(database: Path) -> int:
    return sum(_select(database, "epoch"))


def _select(database: Path, column: str) -> list[Any]:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return [value for (value,) in connection.execute(f"SELECT {column} FROM partition")]
    except sqlite3.OperationalError:  # the tables do not exist yet
        return []
