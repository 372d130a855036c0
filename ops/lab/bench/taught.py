"""From teaching to serving: over Kafka, by a worker and a reader that polls; and over HTTP, by the service alone.

Meanwhile, other users teach RATE rules a second.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
from aiokafka import AIOKafkaProducer

from backchannel.ops.lab.bench.http_load import ask, free_port, posted, running, serve_command
from backchannel.ops.lab.bench.kafka import running_worker, topics_of
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.broker import Broker
from backchannel.schemas.codec import encode
from backchannel.schemas.events import Event, Means, Teach, name_of
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader

RATE: Final = 1_000
"""Rules a second that others teach."""
OTHERS: Final = 5_000
PROBES: Final = 150
WARM_UP: Final = 10
"""Probes that do not count: they wait for the start."""
PATIENCE_S: Final = 60.0
_TICK_S: Final = 0.05
_PAUSE_S: Final = 0.25
_LOOK_S: Final = 0.005

Send: TypeAlias = Callable[[Event], None]


def taught(load: Load) -> Iterator[Measure]:
    """Yield percentiles of the time from sending a rule until it is served."""
    load.say("starting a broker")
    broker = Broker(load.folder / "kafka")
    servers = broker.start()
    try:
        load.say("rules over Kafka")
        yield from _measures("Kafka, worker, PolicyReader", _over_kafka(load, topics_of(servers, "taught-")))
    finally:
        broker.stop()
    load.say("rules over HTTP")
    yield from _measures("the service alone, over HTTP", _over_http(load))


def _measures(name: str, seconds: list[float]) -> Iterator[Measure]:
    for percentile in (50, 99):
        yield Measure(
            f"taught to served: {name}, p{percentile}", 1000 * float(np.percentile(seconds, percentile)), "ms"
        )


def _over_kafka(load: Load, kafka: KafkaConfig) -> list[float]:
    url = f"sqlite:///{load.folder / 'taught.db'}"
    with running_worker(load.folder, kafka, url), PolicyReader(url) as reader:

        def serves(user: str, event_id: str) -> bool:
            try:
                return any(one.event_id == event_id for one in reader.policy.taught(user))
            except NoPolicyError:
                return False

        with asyncio.Runner() as runner:
            producer = runner.run(_producer(kafka))

            def send(event: Event) -> None:
                topic = kafka.event_topics[name_of(type(event))]
                runner.run(producer.send_and_wait(topic, encode(event), key=event.session_id.encode()))

            try:
                _publish(send)
                with _meanwhile(_teach_kafka, kafka):
                    return _probed(send, serves)
            finally:
                runner.run(producer.stop())


def _over_http(load: Load) -> list[float]:
    port = free_port()
    service = running(serve_command(f"sqlite:///{load.folder / 'served.db'}", port), port)
    with service, closing(HTTPConnection("127.0.0.1", port)) as connection:

        def answer() -> Any:
            with connection.getresponse() as response:
                return json.load(response)

        def send(event: Event) -> None:
            connection.request("POST", "/v1/events", encode(event), {"Content-Type": "application/json"})
            answer()

        def serves(user: str, event_id: str) -> bool:
            connection.request("GET", f"/v1/taught?user_id={user}")
            return any(one["event_id"] == event_id for one in answer()["rules"])

        _publish(send)
        with _meanwhile(_teach_http, port):
            return _probed(send, serves)


def _publish(send: Send) -> None:
    """Send turns of the past, so that there is a version of the policy."""
    for event in islice(mixed_stream(100, np.random.default_rng(0), start_ms=_now() - 600_000), 250):
        send(event)
    for event in islice(mixed_stream(4, np.random.default_rng(1), start_ms=_now()), 10):
        send(event)


def _probed(send: Send, serves: Callable[[str, str], bool]) -> list[float]:
    """Return the seconds of each probe, which come at random times."""
    rng, found = np.random.default_rng(2), []
    for number in range(WARM_UP + PROBES):
        user, event_id = f"probe{number % 50}", f"probe/{number}"
        event = _rule(event_id, user, f"text {number}")
        began = time.perf_counter()
        send(event)
        while not serves(user, event_id):
            if time.perf_counter() - began > PATIENCE_S:
                raise RuntimeError(f"rule {event_id} is not served after {PATIENCE_S:.0f} s")
            time.sleep(_LOOK_S)
        found.append(time.perf_counter() - began)
        time.sleep(float(rng.uniform(0, _PAUSE_S)))
    return found[WARM_UP:]


@contextmanager
def _meanwhile(teach: Callable[[Any], None], to: Any) -> Iterator[None]:
    """Have others teach, in a process of their own."""
    process = multiprocessing.get_context("spawn").Process(target=teach, args=(to,))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _teach_kafka(kafka: KafkaConfig) -> None:
    async def teach() -> None:
        producer = await _producer(kafka)
        topic = kafka.event_topics[name_of(Teach)]
        async for rules in _rules():
            for rule in rules:
                await producer.send(topic, encode(rule), key=rule.session_id.encode())

    asyncio.run(teach())


def _teach_http(port: int) -> None:
    async def teach() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async for rules in _rules():
            await ask(reader, writer, posted("/v1/events", b"[%b]" % b",".join(map(encode, rules))))

    asyncio.run(teach())


async def _producer(kafka: KafkaConfig) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, linger_ms=2)
    await producer.start()
    return producer


async def _rules() -> AsyncIterator[list[Teach]]:
    """Yield rules, RATE a second."""
    each, number, due = round(RATE * _TICK_S), 0, time.monotonic()
    while True:
        yield [
            _rule(f"other/{one}", f"user{one % OTHERS}", f"text {one // OTHERS}")
            for one in range(number, number + each)
        ]
        number, due = number + each, due + _TICK_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))


def _rule(event_id: str, user: str, text: str) -> Teach:
    rule = Means(source=text, target="meant")
    return Teach(event_id=event_id, ts=_now(), session_id=user, query_id=event_id, user_id=user, rule=rule)


def _now() -> int:
    return time.time_ns() // 1_000_000
