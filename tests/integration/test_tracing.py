"""Traces of a real worker, as an OpenTelemetry collector receives them."""

import asyncio
import gzip
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from backchannel.streams.kafka.config import KafkaConfig
from tests.integration.workers import Fleet, disordered, send


class Collector:
    """Receives spans by OTLP over HTTP.

    Attributes:
        spans: number of spans by name.
        services: names of the services that sent them.
    """

    def __init__(self) -> None:
        self.spans: Final = Counter[str]()
        self.services: Final = set[str]()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services.update(
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            )
            for scope in resource.scope_spans:
                self.spans.update(span.name for span in scope.spans)

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Receive spans at the address that is yielded."""
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


def test_chunks_commits_and_versions_are_traced(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    with collector.listening() as address, Fleet(tmp_path, kafka, window_s=1) as fleet:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        worker = fleet.start()
        asyncio.run(send(kafka, disordered(2_000, seed=9)))
        fleet.until(lambda: fleet.counts().get("turn", 0) > 0)
        fleet.until(lambda: b", learned up to 20" in next(tmp_path.glob("worker-*.log")).read_bytes())
        fleet.end(worker, signal.SIGTERM)
    print(f"\n{dict(collector.spans)}")
    assert collector.services == {"backchannel-worker"}
    sent = {kafka.event_topics[event_type] for event_type in ("query", "impression", "click", "barge_in")}
    assert {f"process {topic}" for topic in sent} | {"commit", "publish"} == set(collector.spans)
