"""Other stream processors doing a small part of the worker's job; `make rivals` installs them.

They decode the same topics and count events by type. They neither assemble turns, nor learn, nor commit to a store.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from quixstreams import Application

from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import EVENT_TYPES
from backchannel.streams.kafka.config import KafkaConfig

BATCH: Final = 10_000


def count_with_quix(kafka: KafkaConfig, events: int) -> float:
    """Count events by type with Quix Streams; return the events per second between the first and the last."""
    clock = _Clock(events)
    with tempfile.TemporaryDirectory() as state:
        app = Application(
            kafka.servers,
            consumer_group=f"{kafka.group}-quix",
            auto_offset_reset="earliest",
            auto_create_topics=False,
            state_dir=state,
            loglevel="ERROR",
        )
        for event, topic in kafka.event_topics.items():
            app.dataframe(app.topic(topic, value_deserializer="bytes")).update(clock.counter(event))
        app.run(count=events, collect=False)
    return clock.rate()


def count_with_bytewax(kafka: KafkaConfig, events: int) -> float:
    """Count events by type with Bytewax; return the events per second between the first and the last."""
    clock = _Clock(events)
    flow = Dataflow("count")
    for event, topic in kafka.event_topics.items():
        records = op.input(event, flow, KafkaSource([kafka.servers], [topic], tail=False, batch_size=BATCH))
        values = op.map(f"{event}-value", records, attrgetter("value"))
        op.output(f"{event}-end", op.map(f"{event}-count", values, clock.counter(event)), _Nowhere())
    run: Any = run_main  # untyped
    run(flow)
    return clock.rate()


class _Clock:
    """Decodes and counts events, and measures the time between the first and the last."""

    def __init__(self, events: int) -> None:
        self._events: Final = events
        self._counts: Final[Counter[str]] = Counter()
        self._started = self._ended = 0.0

    def counter(self, event: str) -> Callable[[bytes], None]:
        """Return a function that decodes and counts events of type `event`."""
        decode = EventDecoder(EVENT_TYPES[event]).decode

        def count(record: bytes) -> None:
            decode(record)
            if not self._counts:
                self._started = time.perf_counter()
            self._counts[event] += 1
            self._ended = time.perf_counter()

        return count

    def rate(self) -> float:
        """Return the events per second; all events must have been counted."""
        assert self._counts.total() == self._events
        return self._events / (self._ended - self._started)


class _Nowhere(DynamicSink[Any]):
    def build(self, *_: object) -> StatelessSinkPartition[Any]:
        return _Discard()


class _Discard(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        """Nothing."""
