"""Decisions over HTTP, one process, keep-alive: beside an endpoint of the same framework that answers with a constant,
and beside the call in the process."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np
from litestar import Litestar, Request, post

from backchannel.agents.bandit.learner import BanditConfig
from backchannel.ops.lab.bench.http_load import ask, bare_command, free_port, posted, running, serve_command
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader

STRATEGIES: Final = tuple(f"strategy{number}" for number in range(8))
BUDGET: Final = 50
CONNECTIONS: Final = 8
REQUESTS: Final = 2_000
"""Number of requests per round and side."""

PACE: Final = 500.0
"""Requests per second at which latencies are measured."""

CONTEXT: Final[Mapping[str, str | float]] = {"device": "speaker", "hour": 12.0}
_REQUEST: Final = posted(
    "/v1/decide",
    msgspec.json.encode(
        {"text": "play hey jude", "session_id": "s1", "budget": BUDGET, "context": CONTEXT, "recall": 20}
    ),
)


def bare() -> Litestar:
    """Return an application that reads a request and answers with a constant as long as a decision."""
    answer = {"decision": "x" * 1000}

    @post("/v1/decide", status_code=200)
    async def decide(request: Request[Any, Any, Any]) -> dict[str, str]:
        await request.body()
        return answer

    return Litestar([decide], openapi_config=None, logging_config=None)


def serve(load: Load) -> Iterator[Measure]:
    """Yield requests per second and latencies."""
    url = f"sqlite:///{load.folder / 'serve.db'}"
    with LocalPipeline(url, Config(bandit=BanditConfig(strategies=STRATEGIES)), "bench") as pipeline:
        pipeline.publish()
    ports = {name: free_port() for name in ("decide", "constant")}
    commands = {
        "decide": serve_command(url, ports["decide"], "--events", "none"),
        "constant": bare_command(ports["constant"]),
    }
    rates: dict[str, list[float]] = {name: [] for name in ports}
    paced: dict[str, list[Any]] = {name: [] for name in ports}
    with ExitStack() as stack:
        for name, command in commands.items():
            load.say(f"starting {name}")
            stack.enter_context(running(command, ports[name]))
        for number in range(load.rounds + 1):
            for name, port in ports.items():
                load.say(f"{name}, round {number}")
                seconds = asyncio.run(_flood(port))
                latencies = asyncio.run(_pace(port))
                if number:  # the first round warms up
                    rates[name].append(REQUESTS / seconds)
                    paced[name].append(np.percentile(latencies, (50, 99)) * 1e3)
    decide, constant = median(rates["decide"]), median(rates["constant"])
    yield Measure("decide over HTTP", decide, "requests/s", decide / constant, "a constant")
    yield Measure("a constant over HTTP", constant, "requests/s")
    for name, rounds in paced.items():
        for percent, value in zip((50, 99), np.median(rounds, axis=0).tolist(), strict=True):
            yield Measure(f"{name} at {PACE:.0f}/s, p{percent}", value, "ms")
    inside = _inside(url)
    yield Measure("decide in the process", inside * 1e3, "ms", inside * decide, "over HTTP")


def _inside(url: str) -> float:
    """Return the seconds of the same decision without HTTP."""
    with PolicyReader(url) as reader:
        policy, rng = reader.policy, np.random.default_rng(1)
        times = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            known = policy.history("play hey jude")
            policy.allocate(CONTEXT, BUDGET, rng, known)
            policy.recall("play hey jude", 20)
            times.append(time.perf_counter() - began)
    return median(times)


async def _flood(port: int) -> float:
    """Return the seconds that CONNECTIONS clients take for REQUESTS requests, one after the other each."""

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(REQUESTS // CONNECTIONS):
            await ask(reader, writer, _REQUEST)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return time.perf_counter() - began


async def _pace(port: int) -> list[float]:
    """Return the seconds from the time at which each request is due, at PACE, to its answer."""
    taken: list[float] = []
    began = time.perf_counter() + 0.05

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(first, REQUESTS, CONNECTIONS * 4):
            due = began + number / PACE
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            await ask(reader, writer, _REQUEST)
            taken.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(client(first) for first in range(CONNECTIONS * 4)))
    return taken
