"""The OpenAPI document is that of the code, and what it says is so."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from litestar.testing import TestClient

from backchannel.ops.serve.application import document
from backchannel.ops.web.access import Access
from tests.ops.serve.test_application import ASKED, decide

DOCUMENT = json.loads(json.dumps(document()))


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [one for value in node.values() for one in references(value)]
    return [one for value in node for one in references(value)] if isinstance(node, list) else []


def test_the_document_that_is_checked_in_is_that_of_the_code() -> None:
    file = Path(__file__).parents[3] / "docs" / "openapi.json"
    assert json.loads(file.read_text()) == DOCUMENT, "run `make schemas`"


def test_references_lead_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {one.removeprefix("#/components/schemas/") for one in references(DOCUMENT)} <= schemas.keys()


def test_a_client_is_given_the_same_document(client: TestClient[Access]) -> None:
    assert client.get("/openapi.json").json() == DOCUMENT


def test_answers_are_as_documented(client: TestClient[Access]) -> None:
    decided = decide(client, recall=5)
    validator("DecideRequest").validate(ASKED)
    validator("DecideResponse").validate(decided)
    asked = {"decision_id": decided["decision_id"], "candidates": [{"entity_id": "e", "features": {"score": 1}}]}
    validator("RankRequest").validate(asked)
    ranked = client.post("/v1/rank", json=asked | {"explain": True}).json()
    validator("RankResponse").validate(ranked)
    for event in (
        {"type": "query", "decision_id": ranked["decision_id"]},
        {"type": "impression", "decision_id": ranked["decision_id"], "results": ranked["results"]},
        {"type": "click", "decision_id": ranked["decision_id"], "event_id": "c", "entity_id": "e"},
    ):
        validator("Event").validate(event)
        assert client.post("/v1/events", json=event).status_code == 202
    validator("PolicyResponse").validate(client.get("/v1/policy").json())
    validator("Problem").validate(client.post("/v1/decide", json={}).json())


@pytest.mark.parametrize("event", [{"type": "click"}, {"type": "nothing"}, {}])
def test_what_is_refused_is_documented_as_invalid(client: TestClient[Access], event: dict[str, Any]) -> None:
    assert client.post("/v1/events", json=event).status_code == 400
    assert not validator("Event").is_valid(event)
