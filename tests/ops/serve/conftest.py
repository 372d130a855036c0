"""A service with a learned policy, and clients of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from litestar.testing import TestClient
from msgspec import structs

from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.serve.application import PUBLIC, application
from backchannel.ops.serve.metrics import ServiceMetrics
from backchannel.ops.serve.service import Service
from backchannel.ops.serve.sinks import Accepted
from backchannel.ops.web.access import Access
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Event
from backchannel.streams.config import Config, ServeConfig
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from tests.support.ledgers import sqlite_url

TEXT = "what was asked first"


class Kept:
    """A sink that keeps what it is given, or refuses it."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, bytes]] = []
        self.refusal: Exception | None = None

    async def start(self) -> None:
        pass

    async def put(self, events: Sequence[Accepted]) -> None:
        if self.refusal is not None:
            raise self.refusal
        for kind, session, ts, record in events:
            event = EventDecoder().decode(record)
            assert (type(event), event.session_id, event.ts) == (kind, session, ts)
            self.events.append((event, record))

    async def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with a policy."""
    url = sqlite_url(tmp_path_factory.mktemp("served"))
    with LocalPipeline(url, Config(), "s") as pipeline:
        events = mixed_stream(200, np.random.default_rng(2), queries=1, gap_ms=3_000)
        pipeline.feed([structs.replace(event, text=TEXT) if hasattr(event, "text") else event for event in events])
        pipeline.finish()
        pipeline.commit()
        pipeline.publish()
    return url


@pytest.fixture
def kept() -> Kept:
    """Return the sink of `client`."""
    return Kept()


@contextmanager
def serving(
    url: str,
    sink: Kept,
    *,
    tokens: tuple[str, ...] = (),
    config: ServeConfig | None = None,
    strategies: tuple[str, ...] = Config().bandit.expected,
) -> Iterator[TestClient[Access]]:
    """Serve a store."""
    config = config or ServeConfig()
    with PolicyReader(url) as reader:
        metrics = ServiceMetrics(shared=False)
        service = Service(reader, strategies, sink, rng=np.random.default_rng(1))
        app = Access(
            application(service, config, metrics),
            tokens=tokens,
            public=PUBLIC,
            timeout_s=config.timeout_s,
            rate=config.rate,
            observe=metrics.request,
        )
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
            yield client


@pytest.fixture
def client(learned: str, kept: Kept) -> Iterator[TestClient[Access]]:
    """Return a client of a service with a policy, which keeps the events in `kept`."""
    with serving(learned, kept) as one:
        yield one
