"""Completion of events: a `decision_id` holds the decision, and events that name it need not repeat it.

The id is the decision itself, packed. So any process on any host can complete an event, no process keeps state for
it, and a restart loses nothing.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from backchannel.agents.bandit.decision import Decision
from backchannel.ops.serve.probing import Probe
from backchannel.schemas.codec import MAX_RECORD_BYTES, EventDecoder, EventError, encode
from backchannel.schemas.events import Event, Normalizer, Query, Rewrite
from backchannel.schemas.forms import EventConfig

DECISION_ID: Final = "decision_id"
_LIKE: Final = b'"decision_id"'
_UNPACKED: Final = 1 << 20
_EVENT: Final = EventDecoder(config=EventConfig(strict=True))  # the sender can still correct it


class Logged(Struct, frozen=True, array_like=True):
    """What is to be logged of a decision, and of the ranking that followed.

    Attributes:
        query: as asked.
        decision: what the policy decided.
        rewrite: what was served instead.
        normalizers, examined: of the ranking; see `Impression`.
        group: the user's group.
        probe: whether and with what probability the results' ranks are looked up.
    """

    query: Query
    decision: Decision
    rewrite: Rewrite | None = None
    normalizers: Mapping[str, Normalizer] = {}
    examined: tuple[float, ...] = ()
    group: str | None = None
    probe: Probe | None = None

    @property
    def served(self) -> str:
        """What is searched for: with an NLU's interpretation, a rewrite is one too, and the text remains."""
        return self.query.text if self.rewrite is None or self.query.interpretation else self.rewrite.target


_decode: Final = msgspec.msgpack.Decoder(Logged).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def pack(logged: Logged) -> str:
    """Return the id of a decision."""
    return base64.urlsafe_b64encode(zlib.compress(_encode(logged), 1)).decode().rstrip("=")


def unpack(decision_id: str) -> Logged:
    """Return the decision of an id.

    Raises:
        EventError: the id is damaged, or was made by another version.
    """
    try:
        unzip = zlib.decompressobj()
        packed = base64.b64decode(decision_id + "=" * (-len(decision_id) % 4), altchars=b"-_", validate=True)
        content = unzip.decompress(packed, _UNPACKED)
        if not unzip.eof:
            raise ValueError
        return _decode(content)
    except (ValueError, binascii.Error, zlib.error, msgspec.MsgspecError, RecursionError):
        shown = decision_id if len(decision_id) <= 24 else f"{decision_id[:20]}..."
        raise EventError(
            f"{DECISION_ID}: {shown!r} is not an id of this version of the service: copy it whole from the answer of "
            "/v1/decide or /v1/rank"
        ) from None


def completed(raw: bytes, now: int) -> tuple[Event, bytes]:
    """Return an event as it is to be learned, and its record.

    An event that names a decision takes from it what it lacks. Where `ts` is missing, it is `now`; a query and an
    impression need no `event_id`, as there is one of each.

    Args:
        raw: the event as it was sent, a JSON object.
        now: wall clock, ms since the Unix epoch.

    Raises:
        EventError: it is not a valid event; the message names the field.
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise EventError(f"event: {len(raw)} bytes, more than the {MAX_RECORD_BYTES} allowed")
    if _LIKE not in raw:
        try:
            event = _EVENT.decode(raw)
        except EventError as error:
            if "missing" not in str(error):
                raise
        else:
            return event, raw if b"\n" not in raw else encode(event)
    try:
        sent = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise EventError(f"event: {_shown(raw)} is not a JSON object")
    event = _EVENT.decode(msgspec.json.encode(_complete(sent, now)))
    return event, encode(event)


def _complete(sent: dict[str, Any], now: int) -> dict[str, Any]:
    kind = sent.get("type")
    known: dict[str, Any] = {"ts": now}
    named = sent.pop(DECISION_ID, None)
    if named is not None:
        if not isinstance(named, str):
            raise EventError(f"{DECISION_ID}: Expected `str`")
        logged = unpack(named)
        known |= _known(logged, kind, sent)
        if kind == "impression" and logged.probe is not None and sent.get("looked_up", True) is not None:
            known["looked_up"] = logged.probe.probability
            if isinstance(sent.get("results"), list):
                sent["results"] = logged.probe.logged(sent["results"])
    query_id = sent.get("query_id", known.get("query_id"))
    if kind in {"query", "impression"} and query_id is not None:
        known["event_id"] = f"{query_id}/{kind}"
    elif "event_id" not in sent:
        raise EventError("event_id: missing; make one up when it happens, and send it again with a retry")
    return {**known, **sent}


def _known(logged: Logged, kind: object, sent: Mapping[str, Any]) -> dict[str, Any]:
    query, decision = logged.query, logged.decision
    for name in ("session_id", "query_id"):
        if sent.get(name, getattr(query, name)) != getattr(query, name):
            raise EventError(f"{name}: {sent[name]!r} is not that of the decision, {getattr(query, name)!r}")
    ids = {"session_id": query.session_id, "query_id": query.query_id}
    if kind == "query":
        return msgspec.to_builtins(query) | ids  # type: ignore[no-any-return]
    if kind == "feedback" and decision.ask == "satisfaction":
        return {**ids, "asked": True, "propensity": decision.ask_propensity}
    if kind == "teach" and decision.ask == "teach":
        return {**ids, "asked": True}
    if kind != "impression":
        return ids
    if decision.planned and "allocation" not in sent:
        raise EventError(
            "allocation: missing; the budget is one of distinct candidates: say how deep each list was walked"
        )
    logs = msgspec.to_builtins(
        {name: value for name, value in structs.asdict(decision).items() if value is not None}
        | {"normalizers": logged.normalizers, "examined": logged.examined}
    )
    logs["strategy_context"] = {
        name: {key: value for key, value in own.items() if value is not None}
        for name, own in decision.strategy_context.items()
    }
    if logged.rewrite is not None:
        logs["rewrite"] = msgspec.to_builtins(logged.rewrite)
    return {**logs, **ids}


def _shown(raw: bytes) -> str:
    return repr(raw[:40].decode(errors="replace"))
