"""The contracts as documents, generated from the structs: JSON Schemas and an AsyncAPI 3 description."""

from typing import Any, Final

import msgspec

from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.snapshot import Announcement

DEAD_LETTERS: Final = "dead-letters"
"""The topic of invalid events."""
SNAPSHOTS: Final = "policy-snapshots"
"""The topic that announces policy versions."""


def documents() -> dict[str, dict[str, Any]]:
    """Return every document by its file name."""
    files: dict[str, dict[str, Any]] = {}
    for name, struct in {**EVENT_TYPES, "announcement": Announcement}.items():
        schema = msgspec.json.schema(struct)
        # A topic determines the type of its events; in a file each line names it.
        required = schema["$defs"][struct.__name__]["required"]
        if "type" in required:
            required.remove("type")
        # The newest draft that AsyncAPI tools must support; the schemas need nothing newer.
        files[f"{name}.schema.json"] = {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
    files["asyncapi.json"] = _asyncapi()
    return files


def _asyncapi() -> dict[str, Any]:
    messages = {
        event: {
            **_message(event, event_type),
            "bindings": _kafka(key={"type": "string", "description": "the event's session_id"}),
        }
        for event, event_type in EVENT_TYPES.items()
    }
    messages["dead_letter"] = {
        "name": "dead_letter",
        "summary": "An invalid event: a record's key and value as they came.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {
                "reason": {"type": "string", "description": "what is wrong with it, naming the field"},
                "topic": {"type": "string", "description": "the topic of the record"},
                "partition": {"type": "string", "description": "the number of its partition"},
                "offset": {"type": "string", "description": "its offset, a number"},
            },
            "required": ["reason", "topic", "partition", "offset"],
        },
    }
    messages["announcement"] = {
        **_message("announcement", Announcement),
        "bindings": _kafka(key={"type": "string", "const": "policy"}),
    }
    events = {event_type.topic: name for name, event_type in EVENT_TYPES.items()}
    channels = {**events, DEAD_LETTERS: "dead_letter", SNAPSHOTS: "announcement"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Backchannel",
            "version": "1.0.0",
            "description": "Events from which Backchannel learns, one topic per type, all with the same number of "
            "partitions; and the messages that it sends.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            topic: {
                "address": topic,
                "messages": {message: {"$ref": f"#/components/messages/{message}"}},
                "bindings": _kafka(topic=topic),
            }
            for topic, message in channels.items()
        },
        "operations": {
            **{f"learn_from_{topic}": _operation("receive", topic, event) for topic, event in events.items()},
            "reject": _operation("send", DEAD_LETTERS, "dead_letter"),
            "announce": _operation("send", SNAPSHOTS, "announcement"),
        },
        "components": {"messages": messages},
    }


def _message(name: str, struct: type) -> dict[str, Any]:
    return {
        "name": name,
        "summary": (struct.__doc__ or "").strip(),
        "contentType": "application/json",
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-07",
            "schema": {"$ref": f"./{name}.schema.json"},
        },
    }


def _operation(action: str, topic: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/{message}"}],
    }


def _kafka(**binding: Any) -> dict[str, Any]:
    return {"kafka": {**binding, "bindingVersion": "0.5.0"}}
