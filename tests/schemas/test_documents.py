"""The documents match the structs."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import validators
from jsonschema.protocols import Validator

import backchannel.schemas
from backchannel.ops.commands.schemas import rendered
from backchannel.schemas.documents import DEAD_LETTERS, SNAPSHOTS
from backchannel.schemas.events import EVENT_TYPES
from tests.support.cases import ALL_DOCUMENTS, JSON, Document, documents, faults, struct_of

FOLDER = Path(backchannel.schemas.__file__).parent / "json"
FILES = {name: json.loads(content) for name, content in rendered().items()}


@cache
def validator(event: str) -> Validator:
    schema = FILES[f"{event}.schema.json"]
    kind = validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def is_event(event: str, document: object) -> bool:
    """Return whether a document is an event as it should be written; a decoder also takes what can be made one."""
    try:
        msgspec.json.decode(json.dumps(document), type=EVENT_TYPES[event])
    except msgspec.ValidationError:
        return False
    return True


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [reference for item in node for reference in references(item)]
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [reference for item in node.values() for reference in references(item)]
    return []


def resolve(file: str, reference: str) -> Any:
    other, _, pointer = reference.partition("#")
    node = FILES[other.removeprefix("./") or file]
    for step in pointer.split("/")[1:]:
        node = node[step]
    return node


def test_the_files_are_those_of_the_structs() -> None:
    written = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert written == rendered(), "schemas/json has drifted from the structs: run `make schemas`"


@given(st.sampled_from(sorted(EVENT_TYPES)).flatmap(lambda event: st.tuples(st.just(event), documents(event))))
def test_valid_events_are_valid(case: tuple[str, Document]) -> None:
    event, document = case
    validator(event).validate(document)
    assert is_event(event, document)


@given(st.data())
def test_schema_and_decoder_agree(data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(sorted(EVENT_TYPES)))
    document = data.draw(ALL_DOCUMENTS | documents(event))
    fields = {field.encode_name: field for field in struct_of(event).fields}
    name = data.draw(st.sampled_from(sorted(fields.keys() | document)))
    change = data.draw(st.sampled_from(["remove", "anything", "fault"]))
    if change == "remove":
        assume(name in document)
        del document[name]
    elif change == "fault" and name in fields:
        document[name] = data.draw(st.sampled_from(list(faults(fields[name].type))))
    else:
        document[name] = data.draw(JSON)
    assert validator(event).is_valid(document) == is_event(event, document)


@pytest.mark.parametrize("name", FILES)
def test_every_reference_resolves(name: str) -> None:
    found = references(FILES[name])
    assert found
    for reference in found:
        assert resolve(name, reference)


def test_every_topic_carries_what_it_says() -> None:
    document = FILES["asyncapi.json"]
    carried = {**{name: event_type.topic for name, event_type in EVENT_TYPES.items()}, "announcement": SNAPSHOTS}
    assert {channel["address"] for channel in document["channels"].values()} == {*carried.values(), DEAD_LETTERS}
    for event, topic in carried.items():
        (message,) = document["channels"][topic]["messages"].values()
        payload = resolve("asyncapi.json", message["$ref"])["payload"]
        schema = resolve("asyncapi.json", payload["schema"]["$ref"])
        assert schema == FILES[f"{event}.schema.json"]
        # The message and the schema name the same draft.
        assert payload["schemaFormat"].rpartition("=")[2] in schema["$schema"]
