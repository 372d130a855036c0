"""The service against its OpenAPI document: what that allows is answered as it says, and the rest is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from litestar.testing import TestClient

from backchannel.ops.web.access import Access
from tests.ops.serve.test_application import decide

schemathesis = pytest.importorskip("schemathesis", reason="no schemathesis: make install")
DOCUMENT = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
# U+0000 is refused everywhere, because SQL cannot store it; a schema cannot say so.
CONFIG = schemathesis.config.SchemathesisConfig.from_dict({"generation": {"allow-x00": False}})
EXAMPLES = 25
ASKED = {
    f"{method.upper()} {path}": (path, method)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if path.startswith("/v1/") and ("requestBody" in operation or "parameters" in operation)
}


@pytest.fixture
def schema(client: TestClient[Access]) -> Any:
    """Return the document that is checked in, over the service of `client`."""
    found = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
    found.app = client.app
    return found


def fitted(body: Any, decision: str) -> Any:
    """Return a body with what no schema can say: a decision that was made, a strategy that is on, no lookups
    of what is distinct, no candidate twice, a time that has been."""
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if isinstance(body.get("decision_id"), str):
        body["decision_id"] = decision
        body.pop("session_id", None)
        body.pop("query_id", None)
    if isinstance(body.get("available"), list) and body["available"]:
        body["available"] = ["lexical"]
    if body.get("distinct"):
        body.pop("look_up", None)
    if isinstance(body.get("candidates"), list):
        body["candidates"] = list({one["entity_id"]: one for one in body["candidates"]}.values())
    if isinstance(body.get("ts"), int | float) and not isinstance(body["ts"], bool) and body["ts"] >= 0:
        body["ts"] = 1_700_000_000_000
    return body


# The client that schemathesis makes for each request leaves a stream open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("asked", ASKED)
def test_answers_are_those_of_the_document(asked: str, mode: Any, schema: Any, client: TestClient[Access]) -> None:
    path, method = ASKED[asked]
    valid = mode == schemathesis.GenerationMode.POSITIVE
    decision = decide(client)["decision_id"]
    # Of events more is accepted than the document says, such as numbers as ids.
    excluded = [schemathesis.checks.negative_data_rejection] if path == "/v1/events" else []

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],  # an example that fails is printed as a curl command, and need not be the smallest
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if valid:
            one = case.body
            case.body = [fitted(item, decision) for item in one] if isinstance(one, list) else fitted(one, decision)
        case.call_and_validate(base_url="http://127.0.0.1", excluded_checks=excluded)

    check()
