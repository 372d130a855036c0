"""Events from OpenSearch's User Behavior Insights (UBI 1.x): the indexes `ubi_queries` and `ubi_events`.

| event | from | at |
|---|---|---|
| query | its document with `user_query`, or else the first event that has the query's text | its `timestamp` |
| impression | its events `impression`, by `position.ordinal`, or else `query_response_hit_ids` | the first one |
| click | an event on an `object_id` whose action has a kind (`click`, `add_to_cart` ...) | its `timestamp` |

A session is a run of a client's queries without a gap, because UBI's query documents name no session. The
`client_id` is the user, unless there is a `user_id`. Ordinals count from 0 or 1: if any is 0, all count from 0.
All other actions (filters, hovering, paging) are left out and counted.

UBI has no strategies or propensities, so the memory index and rewrites can be learned, but not the bandit.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.convert.sessions import GAP_S, ms_of, sessions
from backchannel.ops.lab.convert.unreadable import Unreadable
from backchannel.schemas.events import Click, Event, Impression, Query, Result

KINDS: Final = {
    "click": "click",
    "item_click": "click",
    "product_click": "click",
    "result_click": "click",
    "add_to_cart": "add",
    "add_to_basket": "add",
    "purchase": "purchase",
    "buy": "purchase",
}
"""Action -> kind of click."""

_SHOWN: Final = "impression"
_SEARCH: Final = frozenset({"search", "on_search"})
_BULK: Final = frozenset({"index", "create", "update", "delete"})
_LONGEST: Final = 2000
_MOST: Final = 500


def documents(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of NDJSON: a bulk request, an export with `_source`, or plain documents.

    Raises:
        ConversionError: a line is not a JSON object.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConversionError(f"{name}, line {number}: {error}: one JSON object per line is needed") from None
        if len(document) == 1 and document.keys() <= _BULK:
            continue
        source = document.get("_source", document)
        if isinstance(source, dict):
            yield source


def events(
    found: Iterable[Mapping[str, Any]], kinds: Mapping[str, str], dropped: Counter[str], gap_s: float = GAP_S
) -> list[Event]:
    """Return the events of all documents, in time order.

    Args:
        found: queries and events, in any order.
        kinds: action -> kind of click.
        dropped: counts of documents that are left out, by reason; added to.
        gap_s: the silence that separates sessions, s.

    Raises:
        ConversionError: no document has a valid time.
    """
    unreadable = Unreadable()
    queries: dict[str, dict[str, Any]] = {}
    acts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in found:
        query_id = document.get("query_id")
        if not isinstance(query_id, str) or not query_id:
            dropped["documents without a query_id"] += 1
            continue
        try:
            one = {**document, "ts": ms_of(document.get("timestamp"))}
        except ValueError as error:
            unreadable.add(f"query {query_id}", "documents whose time cannot be read", f"timestamp: {error}")
            continue
        if "action_name" in one:
            acts[query_id].append(one)
        elif query_id not in queries or one["ts"] < queries[query_id]["ts"]:
            queries[query_id] = one
    dropped += unreadable.reasons(kept=bool(queries or acts))
    for query_id, own in acts.items():
        if query_id not in queries and (made := _made_up(own)) is not None:
            queries[query_id] = made
            dropped["query documents reconstructed from events"] += 1
    for query_id in [query_id for query_id, one in queries.items() if not _text(one)]:
        del queries[query_id]
        dropped["queries without a text"] += 1
    session_of = sessions(((query_id, _client(one) or query_id, one["ts"]) for query_id, one in queries.items()), gap_s)
    base = min((at for own in acts.values() for one in own if (at := _ordinal(one)) is not None), default=1)
    happened: list[Event] = []
    for query_id, query in queries.items():
        ids = {"session_id": session_of[query_id], "query_id": query_id}
        happened += _turn(ids, query, acts.pop(query_id, []), kinds, base=min(base, 1), dropped=dropped)
    dropped["events of missing queries"] += sum(map(len, acts.values()))
    dropped += Counter()  # drops zeros
    return sorted(happened, key=lambda event: (event.ts, not isinstance(event, Query), event.event_id))


def _turn(
    ids: Mapping[str, Any],
    query: Mapping[str, Any],
    acts: Iterable[Mapping[str, Any]],
    kinds: Mapping[str, str],
    *,
    base: int,
    dropped: Counter[str],
) -> Iterator[Event]:
    query_id, application = ids["query_id"], query.get("application")
    yield Query(
        event_id=f"{query_id}/query",
        ts=query["ts"],
        text=_text(query)[:_LONGEST],
        user_id=_client(query) or None,
        context={"application": application} if isinstance(application, str) and application else {},
        **ids,
    )
    shown: dict[str, int] = {}
    seen: list[int] = []
    clicked: dict[str, Click] = {}
    for act in acts:
        action, entity_id = str(act["action_name"]), _object(act)
        if action != _SHOWN and action not in kinds:
            dropped[f"{action} events"] += 1
        elif entity_id is None:
            dropped[f"{action} events without an object_id"] += 1
        elif action != _SHOWN:
            event_id = f"{query_id}/{action}/{entity_id}/{act['ts']}"[-256:]
            clicked[event_id] = Click(event_id=event_id, ts=act["ts"], entity_id=entity_id, kind=kinds[action], **ids)
        elif (ordinal := _ordinal(act)) is None:
            dropped["impression events without a position"] += 1
        else:
            place = ordinal + 1 - base
            shown[entity_id] = min(place, shown.get(entity_id, place))
            seen.append(act["ts"])
    if not shown:
        hits = query.get("query_response_hit_ids")
        shown = {str(hit)[:256]: place for place, hit in enumerate(hits, 1) if hit} if isinstance(hits, list) else {}
    if shown:
        results = sorted((place, entity_id) for entity_id, place in shown.items())[:_MOST]
        yield Impression(
            event_id=f"{query_id}/impression",
            ts=min(seen, default=query["ts"]),
            results=tuple(Result(entity_id, place) for place, entity_id in results),
            **ids,
        )
    yield from clicked.values()


def _made_up(acts: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a document for a query that has none, from the first event with the query's text."""
    acts = list(acts)
    for act in sorted(acts, key=lambda one: one["ts"]):
        text = _text(act) or (act.get("message") if act["action_name"] in _SEARCH else None)
        if isinstance(text, str) and text.strip():
            return {**act, "user_query": text, "ts": min(one["ts"] for one in acts)}
    return None


def _text(document: Mapping[str, Any]) -> str:
    text = document.get("user_query")
    return text.strip() if isinstance(text, str) else ""


def _client(document: Mapping[str, Any]) -> str:
    for name in ("user_id", "client_id"):
        if isinstance(value := document.get(name), str) and value:
            return value[:256]
    return ""


def _object(act: Mapping[str, Any]) -> str | None:
    found = _attribute(act, "object").get("object_id")
    return str(found)[:256] if isinstance(found, str | int) and str(found) else None


def _ordinal(act: Mapping[str, Any]) -> int | None:
    found = _attribute(act, "position").get("ordinal")
    return found if act["action_name"] == _SHOWN and isinstance(found, int) and 0 <= found < 10_000 else None


def _attribute(act: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    attributes = act.get("event_attributes")
    found = attributes.get(name) if isinstance(attributes, dict) else None
    return found if isinstance(found, dict) else {}
