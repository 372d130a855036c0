"""The dialogues of DSTC2: a few turns for each rule, and the whole log."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.convert.dstc2 import DIALOGS, TURNS, Acts, events, interpretation
from backchannel.schemas.codec import EventDecoder, encode
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

START = 1_364_412_789_000
"""2013-03-27 19:33:09 UTC."""

Row = dict[str, Any]


def dialog(n_turns: int, **changed: Any) -> Row:
    return {
        "session_id": "s",
        "caller_id": "ann",
        "date": "2013-03-27",
        "time": "19:33:09",
        "dialog_manager": 1,
        "acoustic_condition": 0,
        "n_turns": n_turns,
        "success": True,
    } | changed


def row(
    turn: int, *, offer: str | None = None, detail: str | None = None, request: str | None = None, **changed: Any
) -> Row:
    """Return a row: a prompt that starts at 10 * turn seconds and lasts 5, and an answer of two seconds."""
    acts: list[Any] = [["offer", [["name", offer]]]] if offer else [["welcomemsg", []]]
    if detail:
        acts.append(["inform", [[detail, "01223"]]])
    said: list[Any] = [["request", [["slot", request]]]] if request else [["inform", [["food", "thai"]]]]
    at = 10.0 * turn
    return {
        "session_id": "s",
        "turn": turn,
        "sys_acts": acts,
        "sys_start": at,
        "sys_end": at + 5,
        "aborted": False,
        "usr_start": at + 5,
        "usr_end": at + 7,
        "asr": [[f"said {turn}", -0.1], ["sad", -2.0]],
        "slu": [[said, 0.9], [[], 0.1]],
    } | changed


def lines(*rows: Row) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


def convert(*rows: Row) -> list[Event]:
    return list(events(lines(dialog(len(rows))), lines(*rows)))


def only(event_type: type[Any], made: list[Event]) -> list[Any]:
    return [event for event in made if isinstance(event, event_type)]


def test_a_query_is_the_top_hypotheses_at_the_end_of_the_utterance() -> None:
    assert convert(row(0)) == [
        Query(
            event_id="s/0/query",
            ts=START + 7000,
            session_id="s",
            query_id="s/0",
            text="said 0",
            user_id="ann",
            interpretation="inform(food=thai)",
            context={"dialog_manager": "1", "acoustic_condition": "0", "prompt": "repeated"},
            asr=Recognition(hypotheses=(Hypothesis("said 0", -0.1), Hypothesis("sad", -2.0))),
            nlu=Understanding(score=0.9, alternatives=(Meaning("", 0.1),)),
        )
    ]


def test_what_was_not_recognised_is_a_query_with_empty_text() -> None:
    [query] = only(Query, convert(row(0, asr=[["", -0.1]], slu=[[[], 0.5]])))
    assert (query.text, query.interpretation) == ("", None)


def test_an_offer_is_an_impression_for_the_query_before_it() -> None:
    impression, greeting = only(Impression, convert(row(0), row(1, offer="nandos"), row(2)))
    assert (greeting.query_id, greeting.results, greeting.outcome) == ("s/1", (), "repeated")
    assert impression == Impression(
        event_id="s/0/impression",
        ts=START + 10_000,
        session_id="s",
        query_id="s/0",
        results=(Result("nandos", 1, ("database",)),),
        outcome="offered",
        reply="offer(name=nandos)",
    )


def test_a_detail_requested_after_an_offer_is_a_click_on_it() -> None:
    [click] = only(Click, convert(row(0), row(1, offer="nandos", request="phone"), row(2)))
    assert click == Click(
        event_id="s/1/click",
        ts=START + 17_000,
        session_id="s",
        query_id="s/0",
        entity_id="nandos",
        kind="request_detail",
    )


def test_only_the_top_hypothesis_can_request_a_detail() -> None:
    slu = [[[["bye", []]], 0.5], [[["request", [["slot", "phone"]]]], 0.4]]
    assert not only(Click, convert(row(0), row(1, offer="nandos", slu=slu)))


def test_a_detail_requested_before_any_offer_is_not_a_click() -> None:
    assert not only(Click, convert(row(0, request="food"), row(1, request="area")))


def test_giving_a_detail_restates_the_offer_and_does_not_make_one() -> None:
    made = convert(
        row(0),
        row(1, offer="nandos", request="phone"),
        row(2, offer="nandos", detail="phone", request="addr"),
        row(3, offer="nandos", detail="addr"),
    )
    assert [(event.query_id, event.outcome, len(event.results)) for event in only(Impression, made)] == [
        ("s/0", "offered", 1),
        ("s/1", "answered", 0),
        ("s/2", "answered", 0),
    ]
    assert [(event.query_id, event.event_id) for event in only(Click, made)] == [
        ("s/0", "s/1/click"),
        ("s/0", "s/2/click"),
    ]


@pytest.mark.parametrize(("request_", "second"), [(None, "nandos"), ("phone", "thanh binh")])
def test_an_offer_for_another_search_or_of_another_restaurant_is_new(request_: str | None, second: str) -> None:
    made = convert(row(0), row(1, offer="nandos", request=request_), row(2, offer=second, request="addr"))
    assert [event.query_id for event in only(Impression, made)] == ["s/0", "s/1"]
    last = only(Click, made)[-1]
    assert (last.query_id, last.entity_id) == ("s/1", second)


def test_an_offer_stays_through_prompts_without_an_offer() -> None:
    [click] = only(Click, convert(row(0), row(1, offer="nandos"), row(2, request="postcode")))
    assert (click.query_id, click.entity_id) == ("s/0", "nandos")


def test_a_barge_in_interrupts_the_response_to_the_query_before_it() -> None:
    [barge_in] = only(BargeIn, convert(row(0), row(1, offer="nandos", aborted=True, usr_start=13.25), row(2)))
    assert barge_in == BargeIn(
        event_id="s/0/barge_in", ts=START + 13_250, session_id="s", query_id="s/0", offset_ms=3250
    )


def test_a_barge_in_is_never_before_its_prompt() -> None:
    [barge_in] = only(BargeIn, convert(row(0), row(1, aborted=True, usr_start=9.9)))
    assert (barge_in.ts, barge_in.offset_ms) == (START + 10_000, 0)


def test_the_greeting_answers_no_query() -> None:
    assert [type(event) for event in convert(row(0, offer="nandos", aborted=True))] == [Query]


def test_dialogues_that_overlap_are_merged_by_time() -> None:
    dialogs = lines(dialog(2), dialog(1, session_id="r", time="19:33:12"))
    made = list(events(dialogs, lines(row(0), row(1, offer="nandos"), row(0, session_id="r"))))
    assert [event.event_id for event in made] == ["s/0/query", "s/0/impression", "r/0/query", "s/1/query"]
    assert made[2].ts == START + 3000 + 7000


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ([], None),
        ([("bye", [])], "bye()"),
        ([("request", [("slot", "phone")]), ("inform", [("food", "thai")])], "inform(food=thai)&request(slot=phone)"),
        ([("confirm", [("food", "thai"), ("area", "north")])], "confirm(area=north,food=thai)"),
    ],
)
def test_an_interpretation_is_one_string(acts: Acts, expected: str | None) -> None:
    assert interpretation(acts) == expected


_slots = st.lists(st.tuples(st.sampled_from(["food", "area"]), st.sampled_from(["thai", "north"])), max_size=3)
_acts = st.lists(st.tuples(st.sampled_from(["inform", "deny"]), _slots), max_size=4)


@given(_acts, st.randoms(use_true_random=False))
def test_an_interpretation_does_not_depend_on_order(acts: Acts, random: Any) -> None:
    shuffled = [(act, random.sample(slots, len(slots))) for act, slots in acts]
    random.shuffle(shuffled)
    assert interpretation(shuffled) == interpretation(acts)


@pytest.mark.parametrize(
    ("dialogs", "turns", "message"),
    [
        ([b"<xml>"], [], "dialogs.jsonl.gz, line 1: JSON is malformed"),
        (
            lines(dialog(0), {"session_id": "r"}),
            [],
            "dialogs.jsonl.gz, line 2: Object missing required field `caller_id`",
        ),
        (lines(dialog(0, date="March")), [], r"dialogs.jsonl.gz, line 1: Invalid RFC3339 encoded date - at `\$.date`"),
        ([], lines(row(0, asr=[])), r"turns.jsonl.gz, line 1: Expected `array` of length >= 1 - at `\$.asr`"),
        ([], [b'"\xff"'], "turns.jsonl.gz, line 1: "),
        (lines(dialog(2)), lines(row(0)), "turns.jsonl.gz: dialogue s has 1 rows, not 2"),
        (lines(dialog(2)), lines(row(1), row(0)), "turns.jsonl.gz: dialogue s has 2 rows, not 2 turns in order"),
        ([], lines(row(0)), "turns.jsonl.gz: dialogue s is not in dialogs.jsonl.gz"),
    ],
)
def test_another_format_is_an_error_that_gives_place_and_cause(
    dialogs: list[bytes], turns: list[bytes], message: str
) -> None:
    with pytest.raises(ConversionError, match=message):
        list(events(dialogs, turns))


def test_the_whole_log(public_log: Callable[[str], Path]) -> None:
    """The counts are those of the published rows, with 1,455 of the source's 2,092 aborted prompts (PROVENANCE.md)."""
    folder = public_log("dstc2")
    dialogs, turns = (gzip.decompress((folder / name).read_bytes()).splitlines() for name in (DIALOGS, TURNS))
    rows = [json.loads(line) for line in turns]

    made = list(events(dialogs, turns))

    count = Counter(type(event) for event in made)
    assert len({event.session_id for event in made}) == len(dialogs) == 1552
    assert count[Query] == len(rows) == 11_486
    assert sum(row["aborted"] for row in rows) == 1455
    assert count[BargeIn] == sum(row["aborted"] for row in rows if row["turn"] > 0) == 1427
    assert count[Impression] == len(rows) - len(dialogs)  # every prompt but the greetings
    assert (sum(bool(one.results) for one in only(Impression, made)), count[Click]) == (3128, 2839)
    assert len({event.user_id for event in only(Query, made)}) == 126
    assert len({event.event_id for event in made}) == len(made)
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(made))
    offered = {event.query_id: event for event in only(Impression, made)}
    assert all(offered[click.query_id].results[0].entity_id == click.entity_id for click in only(Click, made))
    asked = {event.query_id: event for event in only(Query, made)}
    assert all(asked[event.query_id].ts <= event.ts for event in made)
    decoder = EventDecoder()
    assert [decoder.decode(encode(event)) for event in made] == made
    assert list(events(dialogs, turns)) == made
