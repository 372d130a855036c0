"""Records that a schema registry describes, read through a faithful registry in this process."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType
from typing import Any

import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from backchannel.schemas.codec import EventError, encode
from backchannel.schemas.events import Query
from backchannel.schemas.forms import EventConfig
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.decoding import event_decoders
from backchannel.streams.kafka.registry import RegistryError
from tests.support.registry import avro, framed, schema_registry

DEVICE = {"type": "record", "name": "Device", "namespace": "shop", "fields": [{"name": "kind", "type": "string"}]}
SEARCH: dict[str, Any] = {
    "type": "record",
    "name": "Search",
    "namespace": "shop",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "visitor", "type": "string"},
        {"name": "term", "type": "string"},
        {"name": "device", "type": "shop.Device"},
    ],
}
VALUE = {"event_id": "e1", "at": 1_700_000_000_000, "visitor": "v1", "term": "jazz", "device": {"kind": "phone"}}
FIELDS = {
    "event_id": "event_id",
    "query_id": "event_id",
    "ts": "at",
    "session_id": "visitor",
    "text": "term",
    "context": "{device: device.kind}",
}
EXPECTED = Query(
    event_id="e1",
    query_id="e1",
    ts=1_700_000_000_000,
    session_id="v1",
    text="jazz",
    context={"device": "phone"},
)
EVENTS = EventConfig(fields={"query": FIELDS})
SCHEMAS: dict[str, dict[str, Any]] = {
    "/schemas/ids/1": {
        "schema": json.dumps(SEARCH),
        "references": [{"name": "shop.Device", "subject": "device", "version": 3}],
    },
    "/subjects/device/versions/3": {
        "subject": "device",
        "id": 9,
        "version": 3,
        "schema": json.dumps(DEVICE),
    },
    "/schemas/ids/2": {"schemaType": "PROTOBUF", "schema": 'syntax = "proto3"; message Search { string term = 1; }'},
    "/schemas/ids/3": {"schemaType": "JSON", "schema": "{}"},
    "/schemas/ids/4": {"schema": '{"type": "record"}'},
}


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with schema_registry(SCHEMAS) as url:
        yield url


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of a Protobuf message, importable as shop_pb2:Search, as protoc would generate it."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    search = file.message_type.add(name="Search")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        [("event_id", kinds.TYPE_STRING), ("at", kinds.TYPE_INT64), ("visitor", kinds.TYPE_STRING)], 1
    ):
        search.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    search.field.add(name="term", number=4, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    module = ModuleType("shop_pb2")
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Search"))
    setattr(module, "Search", found)  # noqa: B010 - a module has no such attribute for mypy
    monkeypatch.setitem(sys.modules, "shop_pb2", module)
    return found


def test_avro_is_read_with_the_types_that_it_refers_to(registry: str) -> None:
    decoder = event_decoders(KafkaConfig(schema_registry=registry), EVENTS)["queries"]
    assert decoder.decode(framed(1, avro(SEARCH, VALUE, DEVICE))) == EXPECTED


def test_protobuf_is_read_by_the_class_of_the_event_type(registry: str, message: Any) -> None:
    config = KafkaConfig(schema_registry=registry, protobuf={"query": "shop_pb2:Search"})
    value = message(event_id="e1", at=1_700_000_000_000, visitor="v1", term="jazz")
    record = framed(2, b"\0" + value.SerializeToString())
    found = event_decoders(config, EVENTS)["queries"].decode(record)
    assert found == msgspec.structs.replace(EXPECTED, context={})
    with pytest.raises(EventError, match=r"kafka\.protobuf names no class for click"):
        event_decoders(config, EVENTS)["clicks"].decode(record)


def test_json_is_read_with_a_header_and_without(registry: str) -> None:
    decoder = event_decoders(KafkaConfig(schema_registry=registry), EventConfig())["queries"]
    assert decoder.decode(framed(3, encode(EXPECTED))) == EXPECTED
    assert decoder.decode(encode(EXPECTED)) == EXPECTED


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (framed(7, b"x"), "Schema not found"),
        (framed(4, b"x"), "record: "),
        (framed(1, b"\xff"), "record: "),
        (framed(1, b""), "record: "),
        (b"\0\0", "ends within the header"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_with_its_reason(registry: str, record: bytes, reason: str) -> None:
    decoder = event_decoders(KafkaConfig(schema_registry=registry), EVENTS)["queries"]
    with pytest.raises(EventError, match=reason):
        decoder.decode(record)
    assert decoder.decode(framed(1, avro(SEARCH, VALUE, DEVICE))) == EXPECTED


def test_a_registry_that_stays_away_makes_no_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backchannel.streams.kafka.registry._RETRIES", 0)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        closed = f"http://127.0.0.1:{server.server_port}"
    decoder = event_decoders(KafkaConfig(schema_registry=closed), EVENTS)["queries"]
    with pytest.raises(RegistryError, match=f"{closed} does not answer"):
        decoder.decode(framed(1, avro(SEARCH, VALUE, DEVICE)))


def test_a_class_that_is_not_there_is_said_at_once(registry: str) -> None:
    with pytest.raises(RegistryError, match=r"kafka\.protobuf: nowhere:Search"):
        event_decoders(KafkaConfig(schema_registry=registry, protobuf={"query": "nowhere:Search"}), EVENTS)
