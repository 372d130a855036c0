"""The contracts as documents, generated from the structs: JSON Schemas and an AsyncAPI 3 description."""

from typing import Any, Final

import msgspec

from backchannel.schemas.events import EVENT_TYPES

TOPICS: Final = {"query": "queries", "impression": "impressions", "click": "clicks", "barge_in": "barge_ins"}
"""Each event's topic."""


def documents() -> dict[str, dict[str, Any]]:
    """Return every document by its file name."""
    files: dict[str, dict[str, Any]] = {}
    for name, event_type in EVENT_TYPES.items():
        schema = msgspec.json.schema(event_type)
        # On a topic the type is known from the topic; in a file each line names it.
        definition = schema["$defs"][event_type.__name__]
        definition["required"].remove("type")
        # The newest draft that AsyncAPI tools must know; nothing in the schemas needs a newer one.
        files[f"{name}.schema.json"] = {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
    files["asyncapi.json"] = _asyncapi()
    return files


def _asyncapi() -> dict[str, Any]:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Backchannel",
            "version": "1.0.0",
            "description": "Events from which Backchannel learns. All four topics have the same number of partitions.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            topic: {
                "address": topic,
                "messages": {event: {"$ref": f"#/components/messages/{event}"}},
                "bindings": {"kafka": {"topic": topic, "bindingVersion": "0.5.0"}},
            }
            for event, topic in TOPICS.items()
        },
        "operations": {
            f"learn_from_{topic}": {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{topic}"},
                "messages": [{"$ref": f"#/channels/{topic}/messages/{event}"}],
            }
            for event, topic in TOPICS.items()
        },
        "components": {
            "messages": {
                event: {
                    "name": event,
                    "summary": (event_type.__doc__ or "").strip(),
                    "contentType": "application/json",
                    "payload": {
                        "schemaFormat": "application/schema+json;version=draft-07",
                        "schema": {"$ref": f"./{event}.schema.json"},
                    },
                    "bindings": {
                        "kafka": {
                            "key": {"type": "string", "description": "the event's session_id"},
                            "bindingVersion": "0.5.0",
                        }
                    },
                }
                for event, event_type in EVENT_TYPES.items()
            }
        },
    }
