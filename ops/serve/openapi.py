"""The OpenAPI document: Litestar's, with the structs' own schemas, and the parts about events and problems that it
lacks."""

from typing import Any, Final, get_args

import msgspec
from litestar import Litestar

from backchannel.ops.serve import contract
from backchannel.ops.serve.completion import DECISION_ID
from backchannel.ops.web.problems import PROBLEM, Problem
from backchannel.schemas.events import EVENT_TYPES, Event

_REF: Final = "#/components/schemas/{name}"
_DECIDED: Final = frozenset({"session_id", "query_id", "text"})
"""Fields of events that the service fills in from the decision."""

_FILLED: Final = _DECIDED | {"event_id", "ts"}
"""Fields of events that the service fills in."""
_RETRY: Final = {"description": "seconds to wait before trying again", "schema": {"type": "integer", "minimum": 1}}


def completed_document(app: Litestar) -> dict[str, Any]:
    """Return the document of the service's application."""
    document = app.openapi_schema.to_schema()
    schemas = _schemas()
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"token": []}, {}]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            responses = operation["responses"]
            if path.startswith("/v1/"):
                for status in ("400", "401", "403", "413", "415", "429", "500", "503"):
                    responses[status] = _problem(status)
                if path == "/v1/events":
                    responses["501"] = _problem("501")
            elif path == "/readyz":
                responses["503"] = {"description": "It should not", "content": responses["200"]["content"]}
                operation["security"] = [{}]
            else:
                operation["security"] = [{}]
    for path, struct in (("/v1/decide", contract.DecideRequest), ("/v1/rank", contract.RankRequest)):
        schema = {"$ref": _REF.format(name=struct.__name__)}
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        document["paths"][path]["post"]["requestBody"] = body
    document["paths"]["/v1/events"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": _REF.format(name="Event")},
                        {
                            "type": "array",
                            "items": {"$ref": _REF.format(name="Event")},
                            "maxItems": contract.MAX_EVENTS,
                        },
                    ]
                }
            },
            "application/x-ndjson": {"schema": {"type": "string", "description": "one event per line"}},
        },
    }
    return document


def _schemas() -> dict[str, Any]:
    structs = [
        value
        for value in vars(contract).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == contract.__name__
    ]
    _, schemas = msgspec.json.schema_components([*structs, Problem, *get_args(Event)], ref_template=_REF)
    for name, kind in EVENT_TYPES.items():
        schema = schemas[kind.__name__]
        repeated = [field for field in schema["required"] if field in _DECIDED]
        schema["required"] = [field for field in schema["required"] if field not in _FILLED]
        schema["anyOf"] = [{"required": repeated}, {"required": [DECISION_ID]}]
        schema["properties"][DECISION_ID] = {
            "type": "string",
            "description": "as /v1/decide or /v1/rank gave it: what is missing is then filled in",
        }
        schema["properties"]["event_id"]["description"] = (
            f"counts once per turn; QUERY_ID/{name} if missing"
            if name in {"query", "impression"}
            else "counts once per turn: make one up when it happens, and send it again with a retry"
        )
        if name not in {"query", "impression"}:
            schema["required"].append("event_id")
    schemas["Event"] = {
        "oneOf": [{"$ref": _REF.format(name=kind.__name__)} for kind in EVENT_TYPES.values()],
        "discriminator": {
            "propertyName": "type",
            "mapping": {name: _REF.format(name=kind.__name__) for name, kind in EVENT_TYPES.items()},
        },
    }
    return schemas


def _problem(status: str) -> dict[str, Any]:
    said = {
        "400": "The request is invalid: the detail names the field",
        "401": "A token is required",
        "403": "Without tokens, only this machine may call; and only operators teach everyone",
        "413": "The body is too long",
        "415": "The body is not JSON",
        "429": "Too much at once: wait, and send it again",
        "500": "An error of the service",
        "501": "This service takes no events",
        "503": "Not now: wait, and send it again",
    }
    answer: dict[str, Any] = {
        "description": said[status],
        "content": {PROBLEM: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    if status in {"429", "503"}:
        answer["headers"] = {"Retry-After": _RETRY}
    return answer
