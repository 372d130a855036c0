"""The TREC Session Track log: one small session for each rule, and the whole log of 2013."""

import gzip
import io
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.convert.trec_session import PAUSE_MS, events
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Click, Event, Impression, Query, Result

START = 1_000_000_000_000


def log(*sessions: str) -> str:
    return f"<sessiontrack2013>{''.join(sessions)}</sessiontrack2013>"


def session(body: str, num: int = 1) -> str:
    return f'<session num="{num}" starttime="0"><topic num="7"><desc>told</desc></topic>{body}</session>'


def interaction(clicks: str = "", *, num: int = 1, at: str = "2.5", documents: tuple[str, ...] = ("a", "b")) -> str:
    results = "".join(
        f'<result rank="{rank}"><url>u</url><clueweb12id>{document}</clueweb12id></result>'
        for rank, document in enumerate(documents, 1)
    )
    return (
        f'<interaction num="{num}" starttime="{at}"><query>civil war</query>'
        f"<results>{results}</results><clicked>{clicks}</clicked></interaction>"
    )


def click(rank: int = 2, *, num: int = 1, at: str = "4", end: str = 'endtime="5.25"') -> str:
    return f'<click num="{num}" starttime="{at}" {end}><rank>{rank}</rank></click>'


def convert(text: str) -> list[Event]:
    return list(events(io.BytesIO(text.encode()), START))


def test_an_interaction_is_a_query_its_results_and_its_clicks() -> None:
    session_id, query_id = "sessiontrack2013/1", "sessiontrack2013/1/1"
    assert convert(log(session(interaction(click())))) == [
        Query(
            event_id="sessiontrack2013/1/1/query",
            ts=START + 2500,
            text="civil war",
            session_id=session_id,
            query_id=query_id,
        ),
        Impression(
            event_id="sessiontrack2013/1/1/impression",
            ts=START + 2500,
            results=(Result("a", 1, ("web",)), Result("b", 2, ("web",))),
            session_id=session_id,
            query_id=query_id,
        ),
        Click(
            event_id="sessiontrack2013/1/1/click/1",
            ts=START + 4000,
            entity_id="b",
            dwell_ms=1250,
            session_id=session_id,
            query_id=query_id,
        ),
    ]


def test_the_current_query_is_a_query_alone() -> None:
    [*_, current] = convert(
        log(session(interaction() + '<currentquery starttime="9"><query>why</query></currentquery>'))
    )
    assert current == Query(
        event_id="sessiontrack2013/1/current/query",
        ts=START + 9000,
        session_id="sessiontrack2013/1",
        query_id="sessiontrack2013/1/current",
        text="why",
    )


def test_no_results_make_no_impression() -> None:
    assert [type(event) for event in convert(log(session(interaction(documents=()))))] == [Query]


@pytest.mark.parametrize("end", ['endtime="NA"', ""])
def test_a_click_without_an_end_has_no_dwell_time(end: str) -> None:
    [*_, last] = convert(log(session(interaction(click(end=end)))))
    assert isinstance(last, Click)
    assert last.dwell_ms is None


def test_a_click_after_the_next_query_comes_after_it() -> None:
    made = convert(log(session(interaction(click(at="30")) + interaction(num=2, at="20"))))
    assert [event.event_id.removeprefix("sessiontrack2013/1/") for event in made] == [
        "1/query",
        "1/impression",
        "2/query",
        "2/impression",
        "1/click/1",
    ]


def test_sessions_are_placed_one_after_another() -> None:
    made = convert(log(session(interaction(click(at="100"))), session("", num=2), session(interaction(), num=3)))
    assert made[2].ts == START + 100_000
    assert made[3].ts == made[2].ts + PAUSE_MS + 2500


def test_sessions_are_yielded_one_by_one() -> None:
    """The first session is yielded before the second, which is broken, is parsed."""
    text = log(session(interaction()), "x" * 1_000_000, "<broken")
    stream = events(io.BytesIO(text.encode()), START)
    assert isinstance(next(stream), Query)
    assert isinstance(next(stream), Impression)
    with pytest.raises(ConversionError, match="not XML"):
        next(stream)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not XML.*no element found"),
        ('{"type": "query"}', "not XML.* sessiontrack2013.xml"),
        ("<html></html>", "the root element is <html>, not <sessiontrack...>"),
        (log('<session starttime="0"/>'), "sessiontrack2013: <session> has no attribute num"),
        (log(session(interaction(at="NA"))), "2013/1/1: starttime of <interaction> is 'NA', not seconds"),
        (log(session(interaction(at="09:37:23.4"))), "starttime of <interaction> is '09:37:23.4', not seconds"),
        (log(session(interaction(at="-1"))), "starttime of <interaction> is '-1', not seconds"),
        (log(session(interaction(at="inf"))), "starttime of <interaction> is 'inf', not seconds"),
        (log(session(interaction(click(end='endtime="soon"')))), "endtime of <click> is 'soon', not seconds"),
        (log(session(interaction(click(rank=3)))), "2013/1/1: a click on rank '3', which was not shown"),
        (log(session(interaction().replace("clueweb12id", "docno"))), "2013/1/1: <result> has no <clueweb12id>"),
        (log(session(interaction().replace('rank="1"', 'rank="first"'))), "2013/1/1: rank is 'first', not a whole"),
        (log(session('<interaction num="1" starttime="1"/>')), "2013/1/1: <interaction> has no <query>"),
    ],
)
def test_another_format_is_an_error_that_gives_place_and_cause(text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        convert(text)


def test_the_log_of_2013(public_log: Callable[[str], Path]) -> None:
    """The figures are those of the log's PROVENANCE.md; the dwell times are missing where `endtime` is NA."""
    file = public_log("trec_session_2013/sessiontrack2013.xml.gz")

    def read() -> list[Event]:
        with gzip.open(file) as xml:
            return list(events(xml, START))

    made = read()
    assert Counter(type(event) for event in made) == {Query: 401 + 87, Impression: 399, Click: 586}
    assert len({event.session_id for event in made}) == 133
    assert sum(len(event.results) for event in made if isinstance(event, Impression)) == 4449
    assert sum(event.dwell_ms is None for event in made if isinstance(event, Click)) == 14
    assert len({event.event_id for event in made}) == len(made)
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(made))
    shown = {event.query_id: {r.entity_id for r in event.results} for event in made if isinstance(event, Impression)}
    assert all(event.entity_id in shown[event.query_id] for event in made if isinstance(event, Click))
    decoder = EventDecoder()
    assert [decoder.decode(encode(event)) for event in made] == made
    assert read() == made
