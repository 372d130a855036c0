"""The service over HTTP: the order of calls, what callers need not repeat, and what they are told when it is wrong."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from backchannel.ops.serve.completion import pack, unpack
from backchannel.ops.web.access import Access
from backchannel.ops.web.problems import PROBLEM, RefusedError
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Click, Event, Impression, Query
from backchannel.streams.config import Config, ServeConfig
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from tests.ops.serve.conftest import TEXT, Kept, serving
from tests.support.ledgers import sqlite_url

ASKED: dict[str, Any] = {"text": TEXT, "session_id": "s1", "query_id": "q1", "budget": 20}
STRATEGIES = Config().bandit.expected
TOKEN = "0123456789abcdef"


def decide(client: TestClient[Access], **more: Any) -> dict[str, Any]:
    response = client.post("/v1/decide", json=ASKED | more)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def problem(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document = response.json()
    assert document["status"] == status
    assert document["instance"] == response.headers["x-request-id"]
    return str(document["detail"])


def test_a_decision_says_what_to_ask_and_what_is_remembered(client: TestClient[Access]) -> None:
    found = decide(client)
    assert sum(found["allocation"].values()) == 20
    assert set(found["propensities"]) == set(STRATEGIES)
    assert (found["served"], found["rewrite"], found["policy_version"]) == (TEXT, None, 1)
    assert found["recalled"]
    assert found["ignored"] == []


def test_what_the_recogniser_may_have_heard_is_logged(client: TestClient[Access], kept: Kept) -> None:
    asr = {"hypotheses": [{"text": TEXT, "score": -1.0}, {"text": "other", "score": -2.0}]}
    decided = decide(client, asr=asr)
    event = {"type": "query", "decision_id": decided["decision_id"]}
    assert client.post("/v1/events", json=event).status_code == 202
    (query,) = (one for one, _ in kept.events if isinstance(one, Query))
    assert msgspec.json.decode(msgspec.json.encode(query.asr))["hypotheses"] == asr["hypotheses"]


def test_the_record_of_a_ranked_decision_is_complete(client: TestClient[Access], kept: Kept) -> None:
    decided = decide(client, user_id="u1", context={"device": "phone"}, locale="en")
    candidates = [
        {"entity_id": f"e{number}", "features": {"score": 1.0 / number}, "ranks": {STRATEGIES[0]: number}}
        for number in range(1, 6)
    ]
    ranked = client.post(
        "/v1/rank", json={"decision_id": decided["decision_id"], "candidates": candidates, "k": 3}
    ).json()
    assert [one["position"] for one in ranked["results"]] == [1, 2, 3]
    sent = [
        {"type": "query", "decision_id": ranked["decision_id"]},
        {"type": "impression", "decision_id": ranked["decision_id"], "results": ranked["results"]},
        {"type": "click", "decision_id": ranked["decision_id"], "event_id": "c1", "entity_id": "e1"},
    ]
    response = client.post("/v1/events", json=sent)
    assert (response.status_code, response.json()) == (202, {"accepted": 3})
    (query, _), (shown, _), (click, _) = kept.events
    assert isinstance(query, Query)
    assert isinstance(shown, Impression)
    assert isinstance(click, Click)
    assert (query.text, query.user_id, query.context, query.locale) == (TEXT, "u1", {"device": "phone"}, "en")
    assert query.ts == decided["ts"]
    assert {one.session_id for one in (query, shown, click)} == {"s1"}
    assert {one.query_id for one in (query, shown, click)} == {"q1"}
    assert shown.allocation == decided["allocation"]
    assert shown.propensities == decided["propensities"]
    assert shown.allocation_propensity == decided["allocation_propensity"]
    assert shown.policy_version == 1
    assert shown.examined == unpack(ranked["decision_id"]).examined != ()
    assert shown.normalizers
    assert [one.entity_id for one in shown.results] == [one["entity_id"] for one in ranked["results"]]
    assert shown.results[0].features["score"]
    for event, record in kept.events:
        assert EventDecoder().decode(record) == event


def test_what_is_sent_takes_precedence_over_the_decision(client: TestClient[Access], kept: Kept) -> None:
    decision_id = decide(client)["decision_id"]
    sent = {
        "type": "impression",
        "decision_id": decision_id,
        "ts": 1_700_000_000_005,
        "event_id": "own",
        "results": [],
        "allocation": {"a": 1},
    }
    assert client.post("/v1/events", json=sent).status_code == 202
    ((shown, _),) = kept.events
    assert isinstance(shown, Impression)
    assert (shown.ts, shown.event_id, shown.allocation) == (1_700_000_000_005, "own", {"a": 1})


def test_events_of_ones_own_are_taken_as_they_are(client: TestClient[Access], kept: Kept) -> None:
    own: list[Event] = [
        Query(event_id="a", ts=1_700_000_000_001, session_id="s", query_id="q", text="hey"),
        Click(event_id="b", ts=1_700_000_000_002, session_id="s", query_id="q", entity_id="e"),
    ]
    body = b"\n".join(map(encode, own)) + b"\n"
    response = client.post("/v1/events", content=body, headers={"content-type": "application/x-ndjson"})
    assert response.json() == {"accepted": 2}
    assert kept.events == [(event, encode(event)) for event in own]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"budget": 0}, "budget: Expected `int` >= 1, got 0"),
        ({"budget": "many"}, "budget: Expected `int`, got `str` 'many'"),
        ({"budget": 2.5}, "budget: Expected `int`, got 2.5"),
        ({"budget": None}, "budget: Expected `int`, got `null`"),
        ({"text": 5}, "text: Expected `str`, got 5"),
        ({"text": "a" * 9, "locale": ["a" * 999]}, "locale: Expected `str | null`, got `array`"),
        ({"look_up": "a" * 999}, "look_up: Expected `float | null`, got `str`"),
        ({"session_id": ""}, "session_id"),
        ({"context": {"hour": 1, "device": [1]}}, "context.device: Expected `bool | float | str`, got `array`"),
        ({"strategy_context": {"a": {"b": 1}, "c": {"d": {}}}}, "strategy_context.c.d: Expected"),
        ({"strategy_context": {"a.b": {"c[0].d": []}}}, "strategy_context.a.b.c[0].d: Expected"),
        ({"context": {str(number): number if number < 41 else None for number in range(64)}}, "context.41: Expected"),
        ({"budget": 20.0, "context": {"device": [1]}}, "context.device: Expected"),
        ({"buget": 5}, "buget"),
        ({"available": ["nobody"]}, "available"),
    ],
)
def test_a_wrong_field_is_named(client: TestClient[Access], change: dict[str, Any], field: str) -> None:
    said = problem(client.post("/v1/decide", json=ASKED | change), 400)
    assert field in said
    assert len(said) < 150


def test_a_missing_field_is_named(client: TestClient[Access]) -> None:
    assert "budget: missing" in problem(client.post("/v1/decide", json={"text": "a", "session_id": "s"}), 400)


def test_a_body_that_is_not_json_is_refused(client: TestClient[Access]) -> None:
    json = {"content-type": "application/json"}
    for body in (b"{", b"\xff", b"[" * 100_000, b"", b'"text"', b'{"text": "\\u0000", "session_id": "s", "budget": 1}'):
        problem(client.post("/v1/decide", content=body, headers=json), 400)
        problem(client.post("/v1/events", content=body, headers=json), 400)
    problem(client.post("/v1/decide", content=b"{}", headers={"content-type": "text/plain"}), 415)


def test_a_damaged_decision_id_is_refused(client: TestClient[Access]) -> None:
    decision_id = decide(client)["decision_id"]
    for wrong in ("", "nonsense", decision_id[:-9], decision_id[:40] + "A" + decision_id[41:], "é"):
        said = problem(client.post("/v1/rank", json={"decision_id": wrong, "candidates": []}), 400)
        assert "decision_id" in said


def test_an_entity_is_ranked_once(client: TestClient[Access]) -> None:
    asked = {"decision_id": decide(client)["decision_id"], "candidates": [{"entity_id": "a"}, {"entity_id": "a"}]}
    assert "'a' is among them 2 times" in problem(client.post("/v1/rank", json=asked), 400)


def test_one_invalid_event_refuses_all_and_is_named(client: TestClient[Access], kept: Kept) -> None:
    now = int(time.time() * 1000)
    good = {"type": "click", "event_id": "c", "ts": now, "session_id": "s", "query_id": "q", "entity_id": "e"}
    wrong = [good | {"entity_id": None}, {"type": "click"}, good | {"ts": 1 << 45}, good | {"ts": now // 1000}]
    response = client.post("/v1/events", json=[good, *wrong])
    assert "entity_id" in problem(response, 400)
    errors = response.json()["errors"]
    assert [(one["index"], one["detail"].partition(":")[0]) for one in errors] == [
        (1, "entity_id"),
        (2, "event_id"),
        (3, "ts"),
        (4, "ts"),
    ]
    assert kept.events == []


def test_an_event_of_another_query_does_not_take_a_decision(client: TestClient[Access]) -> None:
    sent = {"type": "query", "decision_id": decide(client)["decision_id"], "query_id": "other"}
    assert "query_id: 'other'" in problem(client.post("/v1/events", json=sent), 400)


def test_the_plan_of_a_distinct_budget_needs_the_depths(client: TestClient[Access], kept: Kept) -> None:
    decided = decide(client, distinct=True)
    sent = {"type": "impression", "decision_id": decided["decision_id"], "results": []}
    assert "allocation: missing" in problem(client.post("/v1/events", json=sent), 400)
    assert client.post("/v1/events", json=sent | {"allocation": {STRATEGIES[0]: 33}}).status_code == 202
    ((shown, _),) = kept.events
    assert isinstance(shown, Impression)
    assert (shown.planned, shown.allocation) == (decided["planned"], {STRATEGIES[0]: 33})
    assert shown.distinct == ASKED["budget"]


def test_results_that_are_looked_up_are_logged_with_the_probabilities_of_their_places(
    client: TestClient[Access], kept: Kept, learned: str
) -> None:
    fallen = [decide(client, look_up=0.5, query_id=f"q{number}")["look_up"] for number in range(60)]
    assert 15 < sum(fallen) < 45
    assert not decide(client)["look_up"]
    decided = decide(client, look_up=1.0)
    assert decided["look_up"]
    deepest = max(decided["allocation"], key=decided["allocation"].__getitem__)
    other = next(name for name in STRATEGIES if name != deepest)
    ranks = {deepest: decided["allocation"][deepest], other: 500}
    ranked = client.post(
        "/v1/rank", json={"decision_id": decided["decision_id"], "candidates": [{"entity_id": "e", "ranks": ranks}]}
    ).json()
    assert ranked["results"][0]["strategies"] == [deepest]
    sent = {"type": "impression", "decision_id": ranked["decision_id"], "results": ranked["results"]}
    assert client.post("/v1/events", json=sent).status_code == 202
    ((shown, _),) = kept.events
    assert isinstance(shown, Impression)
    with PolicyReader(learned) as reader:
        brought = reader.policy.retrieval({"query.words": 4.0}, 20).places(ranks)
    (result,) = shown.results
    assert (shown.looked_up, result.ranks) == (1.0, ranks)
    assert result.places == pytest.approx(brought)
    bare = {**sent, "results": [{"entity_id": "e", "position": 1}]}
    assert "results[0].ranks" in problem(client.post("/v1/events", json=bare), 400)
    assert client.post("/v1/events", json={**bare, "looked_up": None}).status_code == 202
    refused = client.post("/v1/decide", json=ASKED | {"look_up": 0.5, "distinct": True})
    assert "look_up" in problem(refused, 400)


def test_a_refused_event_says_when_to_come_again(client: TestClient[Access], kept: Kept) -> None:
    kept.refusal = RefusedError(429, "too much", retry_after=2.0)
    response = client.post("/v1/events", json={"type": "query", "session_id": "s", "query_id": "q", "text": "a"})
    problem(response, 429)
    assert response.headers["retry-after"] == "2"


def test_before_there_is_a_policy_defaults_are_served_and_said_to_be(tmp_path: Path, kept: Kept) -> None:
    with serving(sqlite_url(tmp_path, "none.db"), kept, strategies=("a", "b", "c")) as client:
        found = decide(client, budget=4)
        assert found["policy_version"] is None
        assert sorted(found["allocation"].values()) == [1, 1, 2]
        assert found["propensities"] == {"a": 1.0, "b": 1.0, "c": 1.0}
        assert found["allocation_propensity"] == pytest.approx(1 / 3)
        few = decide(client, budget=1, available=["a", "b", "x"])
        assert sum(few["allocation"].values()) == 1
        assert few["propensities"] == {"a": 0.5, "b": 0.5, "c": 0.0}
        assert few["ignored"] == ["x"]
        candidates = [{"entity_id": "e1"}, {"entity_id": "e2"}]
        ranked = client.post("/v1/rank", json={"decision_id": few["decision_id"], "candidates": candidates}).json()
        assert [one["entity_id"] for one in ranked["results"]] == ["e1", "e2"]
        assert client.get("/v1/recall", params={"text": TEXT}).json() == {"recalled": [], "policy_version": None}
        assert client.get("/v1/rewrite", params={"text": TEXT}).json() == {"rewrite": None, "policy_version": None}
        assert client.get("/v1/policy").json()["version"] is None


def test_recall_and_policy_are_served(client: TestClient[Access]) -> None:
    found = client.get("/v1/recall", params={"text": TEXT, "k": 1}).json()
    assert len(found["recalled"]) == 1
    assert client.get("/v1/policy").json()["version"] == found["policy_version"] == 1
    assert "k" in problem(client.get("/v1/recall", params={"text": TEXT, "k": 0}), 400)
    assert "text" in problem(client.get("/v1/recall"), 400)
    problem(client.get("/v1/nothing"), 404)
    problem(client.get("/v1/decide"), 405)


def test_a_token_is_needed_where_there_are_some(learned: str, kept: Kept) -> None:
    with serving(learned, kept, tokens=(TOKEN, "another-token-of-ours")) as client:
        response = client.get("/v1/policy")
        problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        problem(client.get("/v1/policy", headers={"authorization": "Bearer wrong"}), 401)
        for token in (TOKEN, "another-token-of-ours"):
            assert client.get("/v1/policy", headers={"authorization": f"Bearer {token}"}).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_without_tokens_only_this_machine_may_call(client: TestClient[Access]) -> None:
    for host in ("localhost", "127.0.0.1:8766", "[::1]:80"):
        assert client.get("/v1/policy", headers={"host": host}).status_code == 200
    for host in ("example.org", "127.0.0.1.example.org"):
        problem(client.get("/v1/policy", headers={"host": host}), 403)


def test_limits(learned: str, kept: Kept) -> None:
    with serving(learned, kept, config=ServeConfig(body_kb=1, rate=2.0)) as client:
        problem(client.post("/v1/decide", json=ASKED | {"text": "a" * 2000}), 413)
        assert client.get("/v1/policy").status_code == 200
        response = client.get("/v1/policy")
        problem(response, 429)
        assert response.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200


def test_other_sites_are_answered_only_if_they_are_configured(learned: str, kept: Kept) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    with serving(learned, kept) as client:
        assert "access-control-allow-origin" not in client.options("/v1/events", headers=asked).headers
    with serving(learned, kept, config=ServeConfig(origins=("https://shop.example",))) as client:
        allowed = client.options("/v1/events", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.options("/v1/events", headers=asked | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_an_error_of_ours_tells_callers_where_to_look(
    client: TestClient[Access], kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.refusal = ZeroDivisionError("secret")
    sent = {"type": "query", "session_id": "s", "query_id": "q", "text": "a"}
    response = client.post("/v1/events", json=sent, headers={"x-request-id": "mine"})
    assert "secret" not in problem(response, 500)
    assert response.json()["instance"] == "mine"
    assert any(record.exc_info and record.__dict__["request_id"] == "mine" for record in caplog.records)


def test_requests_are_counted(client: TestClient[Access]) -> None:
    decide(client)
    client.post("/v1/decide", json={})
    text = client.get("/metrics").text
    assert 'backchannel_serve_requests_total{path="/v1/decide",status="200"} 1.0' in text
    assert 'backchannel_serve_requests_total{path="/v1/decide",status="400"} 1.0' in text


def test_a_decision_id_is_short_enough_for_a_header(client: TestClient[Access]) -> None:
    context = {name: {f"strategy.feature{number}": 0.1 * number for number in range(5)} for name in STRATEGIES}
    decision_id = decide(client, strategy_context=context)["decision_id"]
    assert len(decision_id) < 2000
    assert pack(unpack(decision_id)) == decision_id
    logged = msgspec.to_builtins(unpack(decision_id).decision.strategy_context)
    assert all(logged[name].items() >= own.items() for name, own in context.items())


def test_what_is_taught_is_served_before_what_was_learned(tmp_path: Path, kept: Kept) -> None:
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, Config(), "s") as pipeline:
        pipeline.publish()
        with serving(url, kept) as client:
            rules = [
                {"kind": "means", "from": "mum", "to": "Call Mary!"},
                {"kind": "prefer", "entity_id": "e3", "query": "call mary"},
                {"kind": "never", "entity_id": "e1"},
            ]
            ids = {"type": "teach", "session_id": "s1", "query_id": "q1", "user_id": "u1", "group_id": "home"}
            for number, rule in enumerate(rules):
                sent = client.post("/v1/events", json={**ids, "event_id": f"t{number}", "rule": rule})
                assert sent.status_code == 202, sent.text
            pipeline.feed([event for event, _ in kept.events])
            whose = {"user_id": "u2", "group_id": "home"}
            until = time.monotonic() + 30.0
            while not client.get("/v1/taught", params=whose).json()["rules"] and time.monotonic() < until:
                time.sleep(0.02)
            found = client.get("/v1/taught", params=whose).json()["rules"]
            assert [one["rule"]["kind"] for one in found] == ["never", "prefer", "means"]
            decided = decide(client, **whose, text="Mum")
            assert (decided["served"], decided["rewrite"]["layer"]) == ("call mary", "taught")
            assert [(one["entity_id"], one["taught"]) for one in decided["recalled"]] == [("e3", True)]
            candidates = [{"entity_id": f"e{number}"} for number in range(1, 5)]
            ranked = client.post("/v1/rank", json={"decision_id": decided["decision_id"], "candidates": candidates})
            assert [one["entity_id"] for one in ranked.json()["results"]] == ["e3", "e2", "e4"]
            assert client.get("/v1/recall", params={"text": "call mary", **whose}).json()["recalled"]
            assert client.get("/v1/rewrite", params={"text": "mum", **whose}).json()["rewrite"]["target"] == "call mary"
            for other in ({}, {"user_id": "u1"}, {"group_id": "u1"}):
                assert decide(client, **other, text="Mum")["rewrite"] is None


def test_only_operators_teach_everyone(client: TestClient[Access], kept: Kept) -> None:
    ids = {"type": "teach", "event_id": "t", "session_id": "s1", "query_id": "q1", "user_id": "u1", "everyone": True}
    refused = client.post("/v1/events", json={**ids, "rule": {"kind": "never", "entity_id": "e"}})
    assert "everyone: true is for operators; 'u1' is not one of taught.operators" in problem(refused, 403)
    assert kept.events == []
