"""OpenTelemetry traces: a span for each chunk processed, each commit, and each version published.

Faust has two hooks. `app.tracer` must be an OpenTracing tracer, but OpenTracing is archived, and its bridge to
OpenTelemetry is deprecated (specification issue 4849, 2026). So this is a Faust sensor: sensors are notified when an
event begins and ends, and in a worker a Faust event is a chunk.
"""

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from faust import EventT, Sensor, StreamT
from faust.types import TP
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind

from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.monitoring.observer import Observer
from backchannel.streams.pipeline.commits import Commit


def exporting() -> TracerProvider:
    """Return a provider that exports by OTLP over HTTP, configured by OpenTelemetry's environment variables."""
    resource = Resource({"service.name": "backchannel-worker"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traces(Sensor, Observer):
    """A worker's activities as spans. It is both a Faust sensor and an observer.

    Args:
        provider: the provider of the tracer.
    """

    def __init__(self, provider: TracerProvider) -> None:
        super().__init__()
        self._tracer: Final = provider.get_tracer("backchannel", version("backchannel"))
        self._chunks: Final = dict[tuple[TP, int], Span]()  # being processed

    def on_stream_event_in(self, tp: TP, offset: int, stream: StreamT[Any], event: EventT[Any]) -> None:  # noqa: ARG002 -- Faust's
        """Begin the span of a chunk; `offset` is that of its last record."""
        attributes: dict[str, str | int] = {  # OpenTelemetry's semantic conventions for messaging
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": tp.topic,
            "messaging.destination.partition.id": str(tp.partition),
            "messaging.kafka.offset": offset,
            "messaging.batch.message_count": len(event.value),
        }
        self._chunks[tp, offset] = self._tracer.start_span(
            f"process {tp.topic}", kind=SpanKind.CONSUMER, attributes=attributes
        )

    def on_stream_event_out(
        self,
        tp: TP,
        offset: int,
        stream: StreamT[Any],  # noqa: ARG002 -- Faust's
        event: EventT[Any],  # noqa: ARG002
        state: dict[Any, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """End the span of a chunk."""
        span = self._chunks.pop((tp, offset), None)
        if span is not None:
            span.end()

    def on_commit(self, commit: Commit, seconds: float, closed: int | None) -> None:  # noqa: ARG002 -- Observer's
        """See `Observer`."""
        events = sum(commit.counts.get(event, 0) for event in EVENT_TYPES)
        partitions = [claim.number for claim in commit.claims]
        self._done("commit", seconds, {"backchannel.partitions": partitions, "backchannel.events": events})

    def on_publish(self, snapshot: Snapshot, started: int) -> None:
        """See `Observer`."""
        rows = sum(snapshot.rows.values())
        self._done(
            "publish", time.time() - started / 1000, {"backchannel.version": snapshot.version, "backchannel.rows": rows}
        )

    def _done(self, name: str, seconds: float, attributes: Mapping[str, int | Sequence[int]]) -> None:
        end = time.time_ns()
        self._tracer.start_span(name, start_time=end - round(1e9 * seconds), attributes=attributes).end(end)
