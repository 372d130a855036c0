"""Any bytes decode to an event, or to an EventError that names the fault."""

import json
from operator import setitem
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import NODEFAULT, inspect

from backchannel.schemas.codec import MAX_RECORD_BYTES, EventDecoder, EventError, checked, encode
from backchannel.schemas.events import EVENT_TYPES, Event, Impression, Query, Result
from backchannel.schemas.forms import EventConfig
from tests.support.cases import ALL_DOCUMENTS, JSON, Document, faults, leaves, minimal, struct_of

STRICT = EventConfig(strict=True)
UNTYPED = EventDecoder(config=STRICT)
DECODERS = [
    EventDecoder(event_type, config)
    for config in (STRICT, EventConfig())
    for event_type in (None, *EVENT_TYPES.values())
]
QUERY = minimal(struct_of("query"))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Generate a valid record with some stretches replaced."""
    record = json.dumps(draw(ALL_DOCUMENTS), ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(record)))
        end = draw(st.integers(start, min(start + 8, len(record))))
        piece = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"[", b"\\u0000", b"\\ud800", b"\\", b"NaN", b"1e400"])
        )
        record = record[:start] + piece + record[end:]
    return record


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """Generate a valid record with one field missing or changed."""
    document = draw(ALL_DOCUMENTS)
    name = draw(st.sampled_from(sorted(document)))
    if draw(st.booleans()):
        del document[name]
    else:
        document[name] = draw(JSON)
    return json.dumps(document).encode()


def refusal(record: bytes, decoder: EventDecoder = UNTYPED) -> str:
    with pytest.raises(EventError) as refused:
        decoder.decode(record)
    return str(refused.value)


def with_raw(name: str, value: bytes) -> bytes:
    """Return a query with a field of raw JSON."""
    return json.dumps({**QUERY, name: "@"}).encode().replace(b'"@"', value)


@given(st.lists(st.binary(max_size=64) | damaged() | altered(), max_size=4), st.sampled_from(DECODERS))
def test_nothing_but_an_event_error_is_raised(records: list[bytes], decoder: EventDecoder) -> None:
    one_by_one: list[Any] = []
    for record in records:
        try:
            one_by_one.append(decoder.decode(record))
        except EventError as error:
            one_by_one.append(str(error))
    together = [str(item) if isinstance(item, EventError) else item for item in decoder.decode_many(records)]
    assert together == one_by_one


@given(damaged() | altered())
def test_what_is_decoded_can_be_stored(record: bytes) -> None:
    (decoded,) = UNTYPED.decode_many([record])
    if not isinstance(decoded, EventError):
        stored = encode(decoded)
        assert b"\n" not in stored
        assert b"\\u0000" not in stored.replace(rb"\\", b"")
        assert UNTYPED.decode(stored) == decoded


@given(ALL_DOCUMENTS)
def test_round_trip(document: Document) -> None:
    event = UNTYPED.decode(json.dumps(document).encode())
    assert UNTYPED.decode(encode(event)) == event
    assert EventDecoder(type(event)).decode(encode(event)) == event


def test_defaults_are_not_written() -> None:
    ids: dict[str, Any] = {"event_id": "e", "ts": 1, "session_id": "s", "query_id": "q"}
    event = Impression(**ids, results=(Result("a", 1), Result("b", 2, ("lexical",))))
    results = [{"entity_id": "a", "position": 1}, {"entity_id": "b", "position": 2, "strategies": ["lexical"]}]
    assert json.loads(encode(event)) == {"type": "impression", **ids, "results": results}


def test_fields_without_a_mapping_share_one_that_stays_empty() -> None:
    one, other = (msgspec.json.decode(b'{"entity_id": "a", "position": 1}', type=Result) for _ in range(2))
    assert one.ranks is other.ranks is one.features
    for change in (
        lambda: one.ranks.update(a=1),
        lambda: one.ranks.setdefault("a", 1),
        lambda: setitem(one.ranks, "a", 1),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    assert one.ranks == {}


@pytest.mark.parametrize(
    ("event", "field"),
    [
        pytest.param(event, field, id=f"{event}-{field.encode_name}")
        for event in EVENT_TYPES
        for field in struct_of(event).fields
    ],
)
def test_a_fault_is_named(event: str, field: inspect.Field) -> None:
    name = field.encode_name
    for fault in faults(field.type):
        record = json.dumps({**minimal(struct_of(event)), name: fault}).encode()
        if (name in {"ts", "labelled_at"} or name.endswith("_ms")) and fault == 0.5:  # a fraction of a millisecond
            continue
        for decoder in (UNTYPED, EventDecoder(EVENT_TYPES[event], STRICT)):
            assert refusal(record, decoder).startswith(name), fault
        if name in {"results", "rule"}:  # have optional parts
            continue
        lenient = EventDecoder(EVENT_TYPES[event])
        says = field.default not in (NODEFAULT, None, (), {})
        if field.required or (says and fault is not None):  # nothing else than it says is assumed
            assert refusal(record, lenient).startswith(name), fault
            continue
        (decoded,), dropped = lenient.decode_noting([record])
        assert encode(cast("Event", decoded))
        assert {one.field.partition(".")[0] for _, one in dropped} == {name}
        assert all(one.reason.startswith(name) for _, one in dropped)


@pytest.mark.parametrize("event", EVENT_TYPES)
def test_a_missing_field_is_named(event: str) -> None:
    document = minimal(struct_of(event))
    for name in document:
        record = json.dumps({key: value for key, value in document.items() if key != name}).encode()
        assert refusal(record) == f"{name}: missing"
        if name != "type":  # known from the topic
            assert refusal(record, EventDecoder(EVENT_TYPES[event])) == f"{name}: missing"


@pytest.mark.parametrize("event", EVENT_TYPES)
def test_a_topic_tells_the_type(event: str) -> None:
    document = minimal(struct_of(event))
    del document["type"]
    decoded = EventDecoder(EVENT_TYPES[event], STRICT).decode(json.dumps(document).encode())
    assert type(decoded) is EVENT_TYPES[event]
    other = "click" if event == "query" else "query"
    assert refusal(json.dumps({**document, "type": other}).encode(), EventDecoder(EVENT_TYPES[event])).startswith(
        "type:"
    )


@pytest.mark.parametrize("event", EVENT_TYPES)
def test_everything_is_bounded(event: str) -> None:
    for info in leaves(struct_of(event)):
        match info:
            case inspect.StrType() | inspect.DictType() | inspect.VarTupleType():
                assert info.max_length is not None
            case inspect.IntType():
                # Exact in every JSON reader and in SQL's BIGINT.
                assert info.ge is not None
                assert max(bound or 0 for bound in (info.lt, info.le)) in range(1, 2**53 + 1)


@given(ALL_DOCUMENTS, st.dictionaries(st.text(max_size=8).map("new_{}".format), JSON, max_size=3))
def test_unknown_fields_are_ignored(document: Document, unknown: Document) -> None:
    assert UNTYPED.decode(json.dumps({**document, **unknown}).encode()) == UNTYPED.decode(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b'{"a": NaN}', "context.a: Expected `float`, got NaN"),
        (b'{"a": -Infinity}', "context.a: Expected `float`, got a number out of range"),
        (b'{"a": 1e400}', "context.a: Expected `float`, got a number out of range"),
        (b'{"a": ' + b"9" * 400 + b"}", "context.a: Expected `float`, got a number out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "context[...]: Number out of range"),
        (b'{"a\\u0000": 1}', "context.a"),
        (b'{"a": "\\u0000"}', "context.a: contains the character U+0000"),
        (b'{"a": "\0"}', "record: JSON is malformed"),
        (b'{"a": "\\ud800"}', "context.a: contains half of a surrogate pair"),
        (b'{"a": "\\udc00"}', "context.a: contains half of a surrogate pair"),
        (b'{"a": "\xed\xa0\x80"}', "record: not UTF-8"),
        (b'{"a": "\xff"}', "record: not UTF-8"),
        (b'{"": 1}', "context.: Expected `str` of length >= 1"),
    ],
)
def test_what_json_readers_differ_on_is_refused(value: bytes, message: str) -> None:
    assert refusal(with_raw("context", value)).startswith(message)


@pytest.mark.parametrize("name", ["context", "unknown"])
@pytest.mark.parametrize("piece", [b"[", b'{"a":'])
def test_deep_nesting_is_refused(name: str, piece: bytes) -> None:
    record = with_raw(name, piece * 40_000)
    assert refusal(record)
    assert isinstance(UNTYPED.decode_many([record])[0], EventError)


def test_a_huge_integer_is_refused() -> None:
    record = with_raw("ts", b"9" * 10_000)
    assert refusal(record).startswith("ts: ")


def test_a_record_may_be_no_longer_than_the_limit() -> None:
    padding = MAX_RECORD_BYTES - len(encode(UNTYPED.decode(json.dumps(QUERY).encode())))
    record = encode(UNTYPED.decode(json.dumps(QUERY).encode())) + b" " * padding
    assert UNTYPED.decode(record)
    for longer in (record + b" ", b"\0" * (MAX_RECORD_BYTES + 1)):
        assert str(MAX_RECORD_BYTES) in refusal(longer)
        assert isinstance(UNTYPED.decode_many([longer])[0], EventError)


def test_an_unknown_type_is_told_which_there_are() -> None:
    assert refusal(json.dumps({**QUERY, "type": "querry"}).encode()).startswith(
        "type: 'querry', must be one of query, "
    )


def test_a_message_about_a_value_that_looks_like_a_message() -> None:
    assert refusal(json.dumps({**QUERY, "type": "x` - at `$.text"}).encode()).startswith("type: ")


def test_an_event_that_cannot_be_written_is_an_event_error() -> None:
    half = Query(event_id="e", ts=1, session_id="s", query_id="q", text="\ud800")
    with pytest.raises(EventError, match=r"^query: .*surrogates"):
        checked(half)
