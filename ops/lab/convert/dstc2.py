"""Events from the spoken dialogues of DSTC2 (Henderson, Thomson & Williams, SIGDIAL 2014): callers ask for restaurants.

A row of the log is a system prompt followed by the caller's utterance. So the prompt of row i + 1 is the response to
the utterance of row i, and its offer and barge-in belong to that utterance's query.

| event | from | at |
|---|---|---|
| query | the top recognition hypothesis; the top semantic one as `interpretation` | the end of the utterance |
| impression | a prompt; the restaurant that it offers, if any, at position 1 | the start of the prompt |
| barge_in | a prompt that was `aborted` | the caller's first word, but not before the prompt |
| click (kind `request_detail`) | a caller's request for a detail of the offered restaurant | the end of the utterance |

A query's `asr` and `nlu` hold all hypotheses with their scores, and its context the `prompt` that it answers. An
impression's `outcome` is the prompt's act, and its `reply` all of the prompt's acts with their values.

The click is a *proxy*: nobody clicks in a phone call. A request for the phone number, address or postcode (or the area,
food or price range) of the offered restaurant counts as choosing it. Requests are taken as the recogniser understood
them, right or wrong.

The system names the restaurant again when it gives the detail. That restates the offer and does not make a new one: its
impression has no results, and further requests are clicks on the same offer. The query "address" brings up no
restaurant.

Caveats, from the data's provenance:

- The callers were paid and had set goals.
- Barge-in is a detector's decision, and about ten times as frequent with one dialogue manager as with the other; after
  a barged-in offer, callers do not ask for an alternative more often. So it cannot serve as a rejection label.
- How callers were assigned to systems is not documented, so there are no propensities.

The greeting answers no query: barge-ins on it are left out. An utterance in which nothing was recognised is a query
with empty text.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Annotated, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from backchannel.ops.lab.convert import ConversionError
from backchannel.schemas.events import (
    BargeIn,
    Click,
    Event,
    Hypothesis,
    Impression,
    Meaning,
    Query,
    Recognition,
    Result,
    Understanding,
)

DIALOGS: Final = "dialogs.jsonl.gz"
TURNS: Final = "turns.jsonl.gz"

STRATEGIES: Final = ("database",)
"""The only source of offers: the system's lookup in its restaurant database."""

CLICK_KIND: Final = "request_detail"

_OUTCOMES: Final = {
    "canthelp.exception": "failed",
    "canthelp": "nothing",
    "offer": "offered",
    "request": "asked",
    "reqmore": "asked",
    "expl-conf": "confirmed",
    "impl-conf": "confirmed",
    "confirm-domain": "confirmed",
    "select": "confirmed",
    "repeat": "repeated",
    "welcomemsg": "repeated",
}
"""The system's act -> the outcome; the first one that a prompt has counts. The greeting is repeated after silence."""

Acts: TypeAlias = list[tuple[str, list[tuple[str, str]]]]
"""Dialogue acts with their slots and values: `[["inform", [["food", "thai"]]]]`."""

_Struct = TypeVar("_Struct", bound=Struct)


class _Dialog(Struct):
    session_id: str
    caller_id: str
    date: date
    time: time
    dialog_manager: int
    acoustic_condition: int
    n_turns: int


class _Exchange(Struct):
    """A row: a system prompt and the caller's utterance after it. Times are seconds from the dialogue's start."""

    session_id: str
    turn: int
    sys_acts: Acts
    sys_start: float
    aborted: bool
    usr_start: float
    usr_end: float
    # Hypotheses with scores, best first.
    asr: Annotated[list[tuple[str, float]], Meta(min_length=1)]
    slu: Annotated[list[tuple[Acts, float]], Meta(min_length=1)]


class _Offer(NamedTuple):
    query_id: str
    entity_id: str


def events(dialogs: Iterable[bytes], turns: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of all dialogues in time order.

    Dialogues of different callers overlap, so all events are held in memory. The log has no time zone: UTC is assumed.

    Args:
        dialogs: the lines of dialogs.jsonl.
        turns: the lines of turns.jsonl.

    Raises:
        ConversionError: a line has the wrong format, or a dialogue's rows are incomplete or out of order.
    """
    exchanges: dict[str, list[_Exchange]] = {}
    for exchange in _rows(turns, _Exchange, TURNS):
        exchanges.setdefault(exchange.session_id, []).append(exchange)
    happened: list[Event] = []
    for dialog in _rows(dialogs, _Dialog, DIALOGS):
        rows = exchanges.pop(dialog.session_id, [])
        if [row.turn for row in rows] != list(range(dialog.n_turns)):
            raise ConversionError(
                f"{TURNS}: dialogue {dialog.session_id} has {len(rows)} rows, not {dialog.n_turns} turns in order: "
                f"use the published files, both from the same copy"
            )
        happened.extend(_dialog(dialog, rows))
    if exchanges:
        raise ConversionError(
            f"{TURNS}: dialogue {next(iter(exchanges))} is not in {DIALOGS}: use both files from the same copy"
        )
    yield from sorted(happened, key=lambda event: event.ts)


def interpretation(acts: Acts) -> str | None:
    """Return a semantic hypothesis as one string, with its acts sorted; None if it is empty.

    Example: `inform(food=thai)&request(slot=phone)`
    """
    forms = {f"{act}({','.join(sorted(f'{slot}={value}' for slot, value in slots))})" for act, slots in acts}
    return "&".join(sorted(forms)) or None


def _dialog(dialog: _Dialog, exchanges: list[_Exchange]) -> Iterator[Event]:
    session_id = dialog.session_id
    start = datetime.combine(dialog.date, dialog.time, UTC)

    def ms(seconds: float) -> int:
        return round(start.timestamp() * 1000) + round(seconds * 1000)

    # The query that the next prompt responds to, whether it asked for a detail, and the current offer.
    query_id: str | None = None
    asked_detail = False
    offer: _Offer | None = None
    for exchange in exchanges:
        if query_id is not None:
            entity_id = _offered(exchange.sys_acts)
            restated = asked_detail and offer is not None and offer.entity_id == entity_id
            results: tuple[Result, ...] = ()
            if entity_id is not None and not restated:
                offer = _Offer(query_id, entity_id)
                results = (Result(entity_id, 1, STRATEGIES),)
            yield Impression(
                event_id=f"{query_id}/impression",
                ts=ms(exchange.sys_start),
                session_id=session_id,
                query_id=query_id,
                results=results,
                outcome="answered" if restated else outcome(exchange.sys_acts),
                reply=interpretation(exchange.sys_acts),
            )
            if exchange.aborted:
                # The detector may place the caller's first word slightly before the prompt.
                interrupted = max(exchange.sys_start, exchange.usr_start)
                yield BargeIn(
                    event_id=f"{query_id}/barge_in",
                    ts=ms(interrupted),
                    session_id=session_id,
                    query_id=query_id,
                    offset_ms=ms(interrupted) - ms(exchange.sys_start),
                )
        query_id = f"{session_id}/{exchange.turn}"
        (text, _), (acts, _) = exchange.asr[0], exchange.slu[0]
        asked_detail = any(act == "request" for act, _ in acts)
        if asked_detail and offer is not None:
            yield Click(
                event_id=f"{query_id}/click",
                ts=ms(exchange.usr_end),
                session_id=session_id,
                query_id=offer.query_id,
                entity_id=offer.entity_id,
                kind=CLICK_KIND,
            )
        yield Query(
            event_id=f"{query_id}/query",
            ts=ms(exchange.usr_end),
            session_id=session_id,
            query_id=query_id,
            text=text,
            user_id=dialog.caller_id,
            interpretation=interpretation(acts),
            # Labels, not quantities, hence strings.
            context={
                "dialog_manager": str(dialog.dialog_manager),
                "acoustic_condition": str(dialog.acoustic_condition),
                "prompt": outcome(exchange.sys_acts) or "other",
            },
            asr=Recognition(hypotheses=tuple(Hypothesis(one, max(score, -1e6)) for one, score in exchange.asr)),
            nlu=Understanding(
                score=exchange.slu[0][1],
                alternatives=tuple(Meaning(interpretation(some) or "", score) for some, score in exchange.slu[1:]),
            ),
        )


def outcome(acts: Acts) -> str | None:
    """Return what a prompt does, as the `outcome` of its impression; None if none of its acts is known."""
    said = {act for act, _ in acts}
    return next((name for act, name in _OUTCOMES.items() if act in said), None)


def _offered(acts: Acts) -> str | None:
    return next((value for act, slots in acts if act == "offer" for slot, value in slots if slot == "name"), None)


def _rows(lines: Iterable[bytes], row_type: type[_Struct], name: str) -> Iterator[_Struct]:
    decode = msgspec.json.Decoder(row_type).decode
    for number, line in enumerate(lines, 1):
        try:
            row = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConversionError(f"{name}, line {number}: {error}: use the published file") from None
        yield row
