"""A real broker with Avro and JSON records that a schema registry describes."""

import asyncio
import json
from pathlib import Path

from msgspec import structs

from backchannel.schemas.codec import encode
from backchannel.schemas.events import Event, Query
from backchannel.streams.kafka.config import KafkaConfig
from tests.integration.workers import Fleet, disordered, send
from tests.support.registry import avro, framed, schema_registry

_TEXT, _NUMBER = "string", "double"
_QUERY = {
    "type": "record",
    "name": "Query",
    "fields": [
        *({"name": name, "type": _TEXT} for name in ("event_id", "session_id", "query_id", "text")),
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "context", "type": {"type": "map", "values": [_TEXT, _NUMBER]}},
    ],
}


def written(event: Event) -> bytes:
    if isinstance(event, Query):
        return framed(1, avro(_QUERY, structs.asdict(event)))
    return framed(2, encode(event))


def test_workers_learn_from_avro_as_from_json(kafka: KafkaConfig, tmp_path: Path) -> None:
    events = disordered(2_000, seed=11)
    answers = {
        "/schemas/ids/1": {"schema": json.dumps(_QUERY)},
        "/schemas/ids/2": {"schemaType": "JSON", "schema": "{}"},
    }
    with schema_registry(answers) as url, Fleet(tmp_path, structs.replace(kafka, schema_registry=url), 1) as fleet:
        asyncio.run(send(kafka, events, written=written))
        fleet.start()
        fleet.assert_learned(events)
