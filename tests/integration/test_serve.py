"""The service's events in Kafka: acknowledged, keyed by session, and refused while the broker is away."""

import asyncio
import time

import pytest

from backchannel.ops.serve.kafka_sink import KafkaSink
from backchannel.ops.serve.sinks import Accepted
from backchannel.ops.web.problems import RefusedError
from backchannel.schemas.codec import encode
from backchannel.schemas.events import Click, Event, Query
from backchannel.streams.kafka.config import KafkaConfig
from tests.integration.workers import records_of


def turns(count: int) -> list[Accepted]:
    found: list[Event] = []
    for number in range(count):
        session, query = f"s{number % 50}", f"q{number}"
        found.append(Query(event_id=f"e{number}", ts=1000 + number, session_id=session, query_id=query, text="hey"))
        found.append(Click(event_id=f"c{number}", ts=2000 + number, session_id=session, query_id=query, entity_id="e"))
    return [Accepted(type(event), event.session_id, event.ts, encode(event)) for event in found]


async def connected(sink: KafkaSink) -> None:
    """Begin, and wait until the sink takes events."""
    await sink.start()
    until = time.monotonic() + 30
    while True:
        try:
            await sink.put([])
        except RefusedError:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        else:
            return


def test_accepted_events_are_in_the_topics_under_their_sessions(kafka: KafkaConfig) -> None:
    events = turns(500)

    async def send() -> None:
        sink = KafkaSink(kafka, 1 << 24)
        await connected(sink)
        await asyncio.gather(*(sink.put(events[first : first + 100]) for first in range(0, len(events), 100)))
        await sink.close()

    asyncio.run(send())
    found = records_of(kafka, [kafka.event_topics["query"], kafka.event_topics["click"]])
    assert sorted(record.value for record in found) == sorted(event.record for event in events)
    assert all(record.key in record.value for record in found)
    partitions: dict[bytes, set[int]] = {}
    for record in found:
        partitions.setdefault(record.key, set()).add(record.partition)
    assert all(len(numbers) == 1 for numbers in partitions.values())
    assert len(set().union(*partitions.values())) > 1


def test_before_a_broker_answers_events_are_refused() -> None:
    config = KafkaConfig(servers="127.0.0.1:1")

    async def send() -> RefusedError:
        sink = KafkaSink(config, 1 << 24)
        await sink.start()
        await asyncio.sleep(0.2)
        with pytest.raises(RefusedError) as refused:
            await sink.put(turns(1))
        await sink.close()
        return refused.value

    refused = asyncio.run(send())
    assert refused.status == 503
    assert refused.retry_after
    assert "127.0.0.1:1" in str(refused)
