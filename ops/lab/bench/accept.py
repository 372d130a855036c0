"""Events accepted over HTTP in batches, by one process: into the journal and into Kafka, beside an endpoint of the same
framework that reads the same bodies and answers with a constant."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median
from typing import Final

import numpy as np

from backchannel.ops.commands.topics import create_topics
from backchannel.ops.lab.bench.http_load import ask, bare_command, free_port, posted, running, serve_command
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.broker import Broker
from backchannel.schemas.codec import encode
from backchannel.streams.kafka.config import KafkaConfig

BATCH: Final = 100
"""Events of a request."""

CONNECTIONS: Final = 32
EVENTS: Final = 40_000
"""Events of a round, for each side."""

PARTITIONS: Final = 4


def accept(load: Load) -> Iterator[Measure]:
    """Yield events accepted per second."""
    broker = Broker(load.folder / "kafka")
    load.say("starting a broker")
    servers = broker.start()
    rates: dict[str, list[float]] = {}
    try:
        create_topics(KafkaConfig(servers=servers), PARTITIONS, replication=1)
        ports = {name: free_port() for name in ("the journal", "Kafka", "a constant")}
        store = f"sqlite:///{load.folder / 'accept.db'}"
        commands = {
            "the journal": serve_command(store, ports["the journal"]),
            "Kafka": serve_command(store, ports["Kafka"], "--events", "kafka", "--servers", servers),
            "a constant": bare_command(ports["a constant"]),
        }
        bodies = list(_rounds(load.rounds + 1))
        for name, command in commands.items():  # one at a time: a service that learns takes a core from the next one
            load.say(f"starting {name}")
            path = "/v1/decide" if name == "a constant" else "/v1/events"
            with running(command, ports[name]):
                for number, sent in enumerate(bodies):
                    load.say(f"{name}, round {number}")
                    seconds = asyncio.run(_send(ports[name], [posted(path, body) for body in sent]))
                    if number:  # the first round warms up, and waits for Kafka
                        rates.setdefault(name, []).append(EVENTS / seconds)
    finally:
        broker.stop()
    constant = median(rates.pop("a constant"))
    for name, found in rates.items():
        yield Measure(f"accepted into {name}", median(found), "events/s", median(found) / constant, "a constant")
    yield Measure("a constant for the same bodies", constant, "events/s")


def _rounds(rounds: int) -> Iterator[list[bytes]]:
    """Yield the bodies of each round: a stream that ends now."""
    turns = rounds * EVENTS // 2
    stream = mixed_stream(turns, np.random.default_rng(0), start_ms=time.time_ns() // 1_000_000 - turns * 20)
    for _ in range(rounds):
        records = [encode(event) for event in islice(stream, EVENTS)]
        yield [b"[%b]" % b",".join(records[begin : begin + BATCH]) for begin in range(0, EVENTS, BATCH)]


async def _send(port: int, requests: Sequence[bytes]) -> float:
    """Return the seconds that CONNECTIONS clients take for the requests."""
    waiting = iter(requests)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            while True:
                try:
                    await ask(reader, writer, request)
                    break
                except RuntimeError as refusal:
                    if "retry-after" not in str(refusal):
                        raise
                    await asyncio.sleep(0.1)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return time.perf_counter() - began
