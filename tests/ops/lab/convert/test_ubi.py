"""UBI documents as events, of a small log and of a public one."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.lab.convert import ConversionError, ubi
from backchannel.ops.lab.convert.command import convert
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Click, Event, Impression, Query
from backchannel.streams.config import parse
from tests.ops.lab.convert.test_command import complaint, run

QUERY = {
    "query_id": "q1",
    "client_id": "c",
    "user_query": "gold",
    "timestamp": "2025-01-01T10:00:00Z",
    "application": "A",
}


def act(action: str, object_id: str | None = "e1", ordinal: int | None = None, second: int = 5, **more: Any) -> Any:
    attributes: dict[str, Any] = {"object": {"object_id": object_id}} if object_id else {}
    if ordinal is not None:
        attributes["position"] = {"ordinal": ordinal}
    when = f"2025-01-01T10:00:{second:02}Z"
    return {
        "action_name": action,
        "query_id": "q1",
        "client_id": "c",
        "timestamp": when,
        "event_attributes": attributes,
    } | more


LOG = [
    QUERY,
    act("impression", "e1", 0),
    act("impression", "e2", 1),
    act("click", "e2", second=7),
    act("add_to_cart", "e2", second=9),
    act("brand_filter", "e9"),
    QUERY | {"query_id": "q2", "timestamp": 1735726800000, "query_response_hit_ids": ["x", "y"]},
    {"action_name": "click", "query_id": "lost", "client_id": "c", "timestamp": 5, "event_attributes": {}},
]


def converted(log: Iterable[Any]) -> tuple[list[Event], Counter[str]]:
    dropped: Counter[str] = Counter()
    return ubi.events(log, ubi.KINDS, dropped), dropped


def test_documents_become_events() -> None:
    events, dropped = converted(LOG)
    first, shown, clicked, added, second, hits = events
    assert isinstance(first, Query)
    assert (first.text, first.user_id, first.context) == ("gold", "c", {"application": "A"})
    assert isinstance(shown, Impression)
    assert [(one.entity_id, one.position) for one in shown.results] == [("e1", 1), ("e2", 2)]
    assert isinstance(clicked, Click)
    assert isinstance(added, Click)
    assert (clicked.kind, added.kind, added.entity_id) == ("click", "add", "e2")
    assert isinstance(second, Query)
    assert second.session_id == first.session_id
    assert isinstance(hits, Impression)
    assert [(one.entity_id, one.position) for one in hits.results] == [("x", 1), ("y", 2)]
    assert dropped == {"brand_filter events": 1, "events of missing queries": 1}


@given(st.permutations(LOG))
def test_the_order_of_documents_does_not_matter(log: list[Any]) -> None:
    assert converted(log) == converted(LOG)


def test_a_document_that_comes_twice_counts_once() -> None:
    events, _ = converted(LOG + LOG)
    assert events == converted(LOG)[0]


def test_a_pause_begins_a_session() -> None:
    late = QUERY | {"query_id": "q3", "timestamp": "2025-01-01T11:00:00Z"}
    sessions = [event.session_id for event in converted([QUERY, late])[0]]
    assert len(set(sessions)) == 2


def test_a_query_without_a_document_is_made_up_from_what_was_done() -> None:
    events, dropped = converted([act("search", None, message="silver"), act("click", second=2)])
    assert isinstance(events[0], Query)
    assert (events[0].text, events[0].ts) == ("silver", 1735725602000)
    assert dropped["query documents reconstructed from events"] == 1


def test_ordinals_from_one_stay() -> None:
    events, _ = converted([QUERY, act("impression", "e1", 1), act("impression", "e2", 2)])
    (shown,) = [event for event in events if isinstance(event, Impression)]
    assert [one.position for one in shown.results] == [1, 2]


def test_documents_whose_time_cannot_be_read_are_left_out_and_counted() -> None:
    events, dropped = converted([*LOG, QUERY | {"timestamp": "soon", "query_id": "q9"}, QUERY | {"timestamp": None}])
    assert events == converted(LOG)[0]
    (reason,) = dropped.keys() - converted(LOG)[1].keys()
    assert reason.startswith(
        "documents whose time cannot be read, the first in query q9: timestamp: 'soon' is not a time: write "
    )
    assert dropped[reason] == 2


def test_a_time_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConversionError, match="query q1: timestamp: 'soon'"):
        converted([QUERY | {"timestamp": "soon"}])


@pytest.mark.parametrize("form", ["plain", "bulk", "export"])
def test_all_forms_of_ndjson_are_read(form: str, tmp_path: Path) -> None:
    lines: list[Any] = []
    for document in LOG:
        lines += [{"index": {"_index": "ubi"}}] if form == "bulk" else []
        lines.append({"_index": "ubi", "_source": document} if form == "export" else document)
    encoded = [msgspec.json.encode(line) + b"\n" for line in lines]
    (tmp_path / "a").write_bytes(b"".join(encoded[::2]))
    (tmp_path / "b").write_bytes(b"".join(encoded[1::2]))
    result = run("ubi", tmp_path / "b", tmp_path / "a", "--kind", "brand_filter=filter")
    assert result.exit_code == 0, result.output
    found = [EventDecoder().decode(line) for line in result.stdout_bytes.splitlines()]
    assert len(found) == len(converted(LOG)[0]) + 1
    assert "strategy bandit: no" in result.stderr
    assert "rewrites: yes" in result.stderr


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"{}\nnonsense\n")
    assert "a, line 2" in complaint(run("ubi", tmp_path / "a"))


def test_a_public_log_is_converted_and_can_be_learned(public_log: Callable[[str], Path], tmp_path: Path) -> None:
    file = public_log("ubi_esci/ubi_queries_events.ndjson.gz")
    settings = tmp_path / "fit.toml"
    result = CliRunner().invoke(convert, ["ubi", str(file), "--settings", str(settings)])
    assert result.exit_code == 0, result.stderr
    kinds = Counter(type(EventDecoder().decode(line)) for line in result.stdout_bytes.splitlines())
    assert kinds == {Query: 763, Impression: 263, Click: 498}
    config = parse(msgspec.toml.decode(settings.read_bytes()), "fit.toml")
    assert config.rewards.click_gain == {"add": 0.8, "click": 0.5, "purchase": 1.0}
