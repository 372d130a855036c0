"""Traces: the spans, their durations and attributes."""

import time
from types import SimpleNamespace
from typing import Any, Final

import pytest
from faust.types import TP
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.monitoring.tracing import Traces, exporting
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.turns.position import Claim, Position

SPANS: Final = InMemorySpanExporter()


@pytest.fixture
def traces() -> Traces:
    SPANS.clear()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(SPANS))
    return Traces(provider)


def only() -> tuple[str, float, dict[str, Any]]:
    """Return the name, duration in seconds and attributes of the only span that has ended."""
    span: ReadableSpan
    (span,) = SPANS.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    return span.name, (span.end_time - span.start_time) / 1e9, dict(span.attributes or {})


def test_a_chunk_is_a_span_from_its_begin_to_its_end(traces: Traces) -> None:
    at: Any = (TP("clicks", 3), 99, None, SimpleNamespace(value=[b"a", b"b"]))
    traces.on_stream_event_in(*at)
    assert not SPANS.get_finished_spans()
    traces.on_stream_event_out(*at)
    name, _, attributes = only()
    assert name == "process clicks"
    assert attributes["messaging.destination.partition.id"] == "3"
    assert (attributes["messaging.kafka.offset"], attributes["messaging.batch.message_count"]) == (99, 2)


def test_an_end_without_a_begin_is_none(traces: Traces) -> None:
    at: Any = (TP("clicks", 3), 99, None, SimpleNamespace(value=[]))
    traces.on_stream_event_out(*at)
    assert not SPANS.get_finished_spans()


def test_a_commit_took_as_long_as_it_is_said(traces: Traces) -> None:
    counts = {"query": 3, "click": 2, "turn": 3}
    both = [Claim("s", number, 1, 1, Position()) for number in (1, 4)]
    traces.on_commit(Commit(both, counts), 0.25, None)
    assert only() == ("commit", 0.25, {"backchannel.partitions": (1, 4), "backchannel.events": 5})


def test_a_version_took_from_its_start_until_now(traces: Traces) -> None:
    header = Snapshot(
        version=7,
        parent=6,
        created=0,
        watermark=0,
        positions={},
        fingerprint="",
        rows={"a": 3, "b": 4},
        checksum="",
    )
    traces.on_publish(header, time.time_ns() // 1_000_000 - 60_000)
    name, seconds, attributes = only()
    assert (name, attributes) == ("publish", {"backchannel.version": 7, "backchannel.rows": 7})
    assert seconds >= 60


@pytest.mark.parametrize(("given", "named"), [(None, "backchannel-worker"), ("mine", "mine")])
def test_the_service_has_a_name_unless_the_environment_gives_one(
    monkeypatch: pytest.MonkeyPatch, given: str | None, named: str
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    if given:
        monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    provider = exporting()
    provider.shutdown()
    assert provider.resource.attributes["service.name"] == named
