"""What people send is read where it can be: one unusable value costs no more than itself."""

import json
from typing import Any

import pytest

from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.schemas.events import Click, Impression
from backchannel.schemas.forms import EventConfig

QUERY = {"type": "query", "event_id": "e", "ts": 1_700_000_000_000, "session_id": "s", "query_id": "q", "text": "jazz"}
SHOWN = {**QUERY, "type": "impression", "results": [{"entity_id": "a", "position": 1}]}
CLICK = {**QUERY, "type": "click", "entity_id": "a"}
LENIENT, STRICT = EventDecoder(), EventDecoder(config=EventConfig(strict=True))


def read(document: dict[str, Any], config: EventConfig | None = None) -> tuple[Any, dict[str, str]]:
    """Return an event, and why values of its fields were left out."""
    decoder = EventDecoder(config=config or EventConfig())
    (event,), dropped = decoder.decode_noting([json.dumps(document).encode()])
    return event, {one.field: one.reason for _, one in dropped}


@pytest.mark.parametrize(
    ("document", "changed", "kept", "reasons"),
    [
        (QUERY, {"context": {"x": None, "y": 1}}, {"context": {"y": 1.0}}, {"context": "context.x: "}),
        (QUERY, {"context": {"x": [1], "y": 1}}, {"context": {"y": 1.0}}, {"context": "context.x: "}),
        (QUERY, {"context": {"x": float("nan")}}, {"context": {}}, {"context": "context.x: Expected `float`, got NaN"}),
        (
            QUERY,
            {"context": {"ua": "x" * 300}},
            {"context": {}},
            {"context": "context.ua: Expected `str` of length"},
        ),
        (QUERY, {"context": None}, {"context": {}}, {"context": "context: "}),
        (QUERY, {"context": {str(n): n for n in range(70)}}, {}, {"context": "context.6"}),
        (QUERY, {"user_id": ""}, {"user_id": None}, {"user_id": "user_id: "}),
        (SHOWN, {"allocation": None}, {"allocation": {}}, {"allocation": "allocation: "}),
        (SHOWN, {"allocation": {"a": 3, "b": None}}, {"allocation": {}}, {"allocation": "allocation.b: "}),
        (SHOWN, {"propensities": {"a": 1.0000000002}}, {"propensities": {"a": 1.0}}, {}),
        (SHOWN, {"propensities": {"a": 1.1}}, {"propensities": {}}, {"propensities": "propensities.a: "}),
        (SHOWN, {"rewrite": {"from": "a"}}, {"rewrite": None}, {"rewrite": "rewrite.to: missing"}),
        (SHOWN, {"canary": {"trial": 1, "share": 2, "propensity": 0}}, {"canary": None}, {"canary": "canary.share: "}),
        (CLICK, {"dwell_ms": -1}, {"dwell_ms": None}, {"dwell_ms": "dwell_ms: "}),
        (CLICK, {"dwell_ms": 3000.5}, {"dwell_ms": 3000}, {}),
        (CLICK, {"kind": None}, {"kind": "click"}, {"kind": "kind: "}),
    ],
)
def test_what_cannot_be_used_is_left_out_and_named(
    document: dict[str, Any], changed: dict[str, Any], kept: dict[str, Any], reasons: dict[str, str]
) -> None:
    event, why = read({**document, **changed})
    assert {name: getattr(event, name) for name in kept} == kept
    assert why.keys() == reasons.keys()
    assert all(why[field].startswith(reason) for field, reason in reasons.items()), why
    strict = STRICT.decode_many([json.dumps({**document, **changed}).encode()])[0]
    assert isinstance(strict, EventError) == bool(reasons)
    assert not reasons or str(strict).startswith(next(iter(reasons.values())))


def test_parts_of_results() -> None:
    results = [
        {"entity_id": "a", "position": 0, "strategies": ["x", ""], "features": {"price": None, "new": True}},
        {"entity_id": 7, "position": 1, "ranks": {"x": 0, "y": 2}},
    ]
    event, why = read({**SHOWN, "results": results})
    first, second = event.results
    assert (first.position, first.strategies, first.features) == (1, ("x",), {"new": True})
    assert (second.entity_id, second.position, second.ranks) == ("7", 2, {"y": 2})
    assert why == {
        "results.position": "results: positions begin at 0, and are counted from 1",
        "results.strategies": "results[0].strategies[1]: Expected `str` of length >= 1",
        "results.features": why["results.features"],
        "results.ranks": "results[1].ranks.x: Expected `int` >= 1, got 0",
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ts": None}, "ts: Expected `int`, got `null`"),
        ({"ts": float("nan")}, "ts: Expected `int`, got NaN"),
        ({"ts": True}, "ts: "),
        ({"ts": "yesterday"}, "ts: 'yesterday' is not a time"),
        ({"ts": "2023-11-14T22:13:20"}, "ts: '2023-11-14T22:13:20' has no time zone"),
        ({"session_id": 1.5}, "session_id: "),
        ({"session_id": None}, "session_id: "),
        ({"results": [{"entity_id": "a", "position": -1}]}, "results[0].position: "),
        ({"results": [{"position": 1}]}, "results[0].entity_id: missing"),
        ({"results": None}, "results: "),
    ],
)
def test_what_is_required_stays_required(changed: dict[str, Any], reason: str) -> None:
    event, dropped = read({**SHOWN, **changed})
    assert isinstance(event, EventError)
    assert str(event).startswith(reason)
    assert not dropped


@pytest.mark.parametrize(
    ("written", "id_"), [(7, "7"), (2**60 + 1, str(2**60 + 1)), (2**63, str(2**63)), (12.0, "12"), ("07", "07")]
)
def test_ids_may_be_numbers_and_are_exact(written: Any, id_: str) -> None:
    names = ("event_id", "session_id", "query_id", "entity_id")
    event, dropped = read({**CLICK, **dict.fromkeys(names, written)})
    assert {getattr(event, name) for name in names} == {id_}
    assert not dropped


@pytest.mark.parametrize(
    ("unit", "written", "ts"),
    [
        ("ms", "1700000000000", 1_700_000_000_000),
        ("ms", 1.7e12, 1_700_000_000_000),
        ("ms", 1_700_000_000_000.75, 1_700_000_000_000),
        ("ms", "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("s", 1_700_000_000, 1_700_000_000_000),
        ("s", 1_700_000_000.123, 1_700_000_000_123),
        ("s", "1700000000.5", 1_700_000_000_500),
        ("us", 1_700_000_000_123_456, 1_700_000_000_123),
        ("us", "2023-11-14 23:13:20+01:00", 1_700_000_000_000),
        ("iso", "2023-11-14T22:13:20.123456Z", 1_700_000_000_123),
        ("iso", "20231114T221320,5+0000", 1_700_000_000_500),
        ("iso", "2023-11-14t22:13:20z", 1_700_000_000_000),
    ],
)
def test_times_as_they_are_declared(unit: Any, written: Any, ts: int) -> None:
    event, dropped = read({**CLICK, "ts": written}, EventConfig(time=unit))
    assert event.ts == ts
    assert not dropped


def test_a_number_where_texts_are_declared_is_refused() -> None:
    event, _ = read({**CLICK, "ts": 1_700_000_000}, EventConfig(time="iso"))
    assert "events.time" in str(event)


@pytest.mark.parametrize(
    ("record", "config"),
    [
        (json.dumps({"payload": CLICK}), EventConfig(envelope="payload")),
        (json.dumps({"payload": json.dumps(CLICK)}), EventConfig(envelope="payload")),
        (json.dumps({"payload": {"after": CLICK}}), EventConfig(envelope="payload.after")),
        (json.dumps(json.dumps(CLICK)), EventConfig(encoded=True)),
        (json.dumps(json.dumps({"payload": CLICK})), EventConfig(encoded=True, envelope="payload")),
        ("\ufeff" + json.dumps({"payload": CLICK}), EventConfig(envelope="payload")),
        ("\ufeff" + json.dumps(CLICK), EventConfig()),
    ],
)
def test_events_within_something_else(record: str, config: EventConfig) -> None:
    decoder = EventDecoder(config=config)
    expected = LENIENT.decode(json.dumps(CLICK).encode())
    assert decoder.decode_many([record.encode()] * 2) == [expected, expected]


@pytest.mark.parametrize("record", [b"{}", b"[]", b"7", b"{", b'{"payload": {}}', b'{"payload": null}', b"\xff"])
def test_records_without_an_event_are_refused(record: bytes) -> None:
    for config in (EventConfig(envelope="payload"), EventConfig(encoded=True), EventConfig(envelope="payload.after")):
        assert isinstance(EventDecoder(config=config).decode_many([record])[0], EventError)


_SHOP = {
    "session": {"id": 7},
    "search": {"uid": "q1"},
    "hits": [{"sku": "a", "by": ["bm25"]}, {"sku": "b", "by": ["dense", "bm25"]}],
    "at": "2023-11-14T22:13:20Z",
}
_IMPRESSION = {
    "event_id": "join('/', ['i', search.uid])",
    "session_id": "session.id",
    "query_id": "search.uid",
    "ts": "at",
    "results": "hits[].{entity_id: sku, strategies: by}",
}


def test_fields_with_other_names_are_found_by_expressions() -> None:
    config = EventConfig(fields={"impression": _IMPRESSION}, envelope="data")
    record = json.dumps({"specversion": "1.0", "id": "x", "source": "shop", "data": _SHOP}).encode()
    event = EventDecoder(Impression, config).decode(record)
    assert isinstance(event, Impression)
    assert (event.event_id, event.session_id, event.ts) == ("i/q1", "7", 1_700_000_000_000)
    found = [(one.entity_id, one.position, one.strategies) for one in event.results]
    assert found == [("a", 1, ("bm25",)), ("b", 2, ("dense", "bm25"))]


def test_in_files_records_that_name_a_mapped_type_are_mapped() -> None:
    decoder = EventDecoder(config=EventConfig(fields={"impression": _IMPRESSION}))
    assert isinstance(decoder.decode(json.dumps(_SHOP | {"type": "impression"}).encode()), Impression)
    assert isinstance(decoder.decode(json.dumps(CLICK).encode()), Click)
    with pytest.raises(EventError, match="type: missing"):
        decoder.decode(json.dumps(_SHOP).encode())


def test_what_an_expression_does_not_find_is_missing() -> None:
    decoder = EventDecoder(Impression, EventConfig(fields={"impression": _IMPRESSION}))
    with pytest.raises(EventError, match="session_id: missing"):
        decoder.decode(json.dumps(_SHOP | {"session": {}}).encode())


def test_an_expression_that_fails_is_a_reason() -> None:
    decoder = EventDecoder(Impression, EventConfig(fields={"impression": {**_IMPRESSION, "ts": "abs(session)"}}))
    with pytest.raises(EventError, match=r"fields\.impression\.ts: .*abs"):
        decoder.decode(json.dumps(_SHOP).encode())


def test_an_invalid_expression_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"fields\.query\.text: "):
        EventConfig(fields={"query": {"text": "a["}})


@pytest.mark.parametrize("hits", [7, True, "hits", {"sku": "a"}, [1, None], [[{"sku": "a"}]]])
def test_results_that_are_no_list_are_a_reason(hits: Any) -> None:
    decoder = EventDecoder(Impression, EventConfig(fields={"impression": {**_IMPRESSION, "results": "hits"}}))
    with pytest.raises(EventError, match="results"):
        decoder.decode(json.dumps(_SHOP | {"hits": hits}).encode())
