"""SIGKILLs of the whole service under load: is everything that it acknowledged learned, and once?

Turns that were not acknowledged are not sent again, so any turn that is learned twice is the service's fault. Turns
that were being sent when the service was killed may have been learned or not.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from backchannel.ops.commands.topics import create_topics
from backchannel.ops.lab.bench.http_load import ask, free_port, journalled, posted, running, serve_command
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.local.broker import Broker, BrokerError
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.turns.accounts import Account

KILLS: Final = 30
CLIENTS: Final = 4
BATCH: Final = 20
"""Turns of a request."""

EVENTS: Final = 3
"""Events of a turn."""

LONGEST_S: Final = 2.0
"""Seconds under load before a kill, at most; evenly distributed."""

PARTITIONS: Final = 4
_SETTINGS: Final = """\
[turns]
window_s = 2.0
lateness_s = 2.0
[commits]
publish_s = 0.5
"""


def kills(load: Load) -> Iterator[Measure]:
    """Yield what was acknowledged, lost and learned twice, with the journal and with Kafka."""
    store, settings = load.folder / "kills.db", load.folder / "kills.toml"
    settings.write_text(_SETTINGS)
    options = ["--config", str(settings)]
    acknowledged = _killed(load, "journal", f"sqlite:///{store}", options)
    arrived = Counter(str(event["query_id"]) for event in journalled(Path(f"{store}.journal")))
    with LocalPipeline(f"sqlite:///{store}", Config(), "nothing") as pipeline:
        account = Account.of(pipeline.ledger.counts())
    yield from _verdict("the journal", acknowledged, arrived)
    # The ledger counts events, not ids; but none came twice, so it must have as many as the journal.
    learned = account.learned + account.open
    yield Measure("the journal: written and not learned once", sum(arrived.values()) - learned, "events")
    broker = Broker(load.folder / "kafka")
    try:
        kafka = KafkaConfig(servers=broker.start())
    except BrokerError as error:
        load.say(f"without Kafka: {error}")
        return
    try:
        create_topics(kafka, PARTITIONS, replication=1)
        options += ["--events", "kafka", "--servers", kafka.servers]
        acknowledged = _killed(load, "Kafka", f"sqlite:///{load.folder / 'kafka.db'}", options)
        arrived = Counter(asyncio.run(_in_topics(kafka)))
    finally:
        broker.stop()
    yield from _verdict("Kafka", acknowledged, arrived)


def _verdict(name: str, acknowledged: set[str], arrived: Counter[str]) -> Iterator[Measure]:
    yield Measure(f"{name}: SIGKILLs", KILLS, "kills")
    yield Measure(f"{name}: acknowledged", len(acknowledged), "turns")
    yield Measure(f"{name}: acknowledged and lost", sum(arrived[turn] < EVENTS for turn in acknowledged), "turns")
    yield Measure(f"{name}: written twice", sum(count > EVENTS for count in arrived.values()), "turns")


def _killed(load: Load, name: str, store: str, options: list[str]) -> set[str]:
    """Load a service and kill it KILLS times, then let it end in peace; return the turns that it acknowledged."""
    rng = np.random.default_rng(1)
    acknowledged: set[str] = set()
    for number in range(KILLS + 1):
        load.say(f"{name}: {number} of {KILLS} kills")
        port = free_port()
        with running(serve_command(store, port, *options), port, load.folder / "kills.log") as service:
            victim = service.pid if number < KILLS else None
            asyncio.run(_load(port, str(number), acknowledged, seconds=rng.uniform(0.0, LONGEST_S), victim=victim))
    return acknowledged


async def _load(port: int, name: str, acknowledged: set[str], *, seconds: float, victim: int | None) -> None:
    """Send turns for some seconds from the first answer on; then kill the process group `victim`, or stop sending."""
    answered, ended = asyncio.Event(), False

    async def client(number: int) -> None:
        sent = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            while not ended:
                turns = [f"{name}-{number}-{sent + place}" for place in range(BATCH)]
                sent += BATCH
                events = [event for turn in turns for event in _turn(turn)]
                try:
                    await ask(reader, writer, posted("/v1/events", msgspec.json.encode(events)))
                except RuntimeError as refusal:  # 429, or 503 until Kafka is connected
                    if "retry-after" not in str(refusal):
                        raise
                    await asyncio.sleep(0.1)
                    continue
                acknowledged.update(turns)
                answered.set()

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    await asyncio.wait([asyncio.create_task(answered.wait()), *clients], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(seconds)
    if victim is not None:
        os.killpg(victim, signal.SIGKILL)
    ended = True
    for fault in await asyncio.gather(*clients, return_exceptions=True):
        if fault is not None and not (victim and isinstance(fault, OSError | asyncio.IncompleteReadError)):
            raise fault


def _turn(turn: str) -> Iterable[dict[str, object]]:
    ids = {"session_id": turn.rpartition("-")[0], "query_id": turn}
    shown = {"entity_id": "e", "position": 1, "strategies": ["lexical"]}
    yield {"type": "query", "text": "play hey jude", **ids}
    yield {"type": "impression", "results": [shown], "allocation": {"lexical": 5}, **ids}
    yield {"type": "click", "event_id": f"c-{turn}", "entity_id": "e", **ids}


async def _in_topics(kafka: KafkaConfig) -> list[str]:
    """Return the turn of each event in the topics."""
    found = []
    async with AIOKafkaConsumer(bootstrap_servers=kafka.servers, enable_auto_commit=False) as consumer:
        logs = [TopicPartition(topic, part) for topic in kafka.event_topics.values() for part in range(PARTITIONS)]
        consumer.assign(logs)
        await consumer.seek_to_beginning()
        left = sum((await consumer.end_offsets(logs)).values())
        until = time.monotonic() + 60
        while left and time.monotonic() < until:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [str(msgspec.json.decode(record.value)["query_id"]) for record in records]
                left -= len(records)
    return found
