"""Events from a TREC Session Track log in the 2013 format (Carterette et al., TREC 2013 Session Track Overview).

Each interaction of a session becomes a query, an impression of its results, if there were any, and its clicks. The
session's final "current query", whose results were never logged, becomes a query alone. An entity is a ClueWeb12
document.

How gaps in the log are filled:

- Times are seconds on the session's own clock, without a date. So the sessions are placed one after another in file
  order: the first clock starts at a given time, each later one `PAUSE_MS` after the last event before it.
- Results have no time of their own: they are assumed to be shown at the time of their query.
- All results came from one web search engine, which is the only strategy, `web`.
- There are no user ids and no propensities. The users were assigned their topics.
"""

import math
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Final
from xml.etree import ElementTree

from backchannel.ops.lab.convert import ConversionError
from backchannel.schemas.events import Click, Event, Impression, Query, Result

PAUSE_MS: Final = 30 * 60 * 1000
"""Pause between two sessions, ms: half an hour of silence customarily ends a session in a search log."""

STRATEGIES: Final = ("web",)


def events(log: BufferedIOBase, start: int) -> Iterator[Event]:
    """Yield the log's events in time order, holding one session at a time.

    Args:
        log: the XML, uncompressed.
        start: start of the first session's clock, ms since the Unix epoch.

    Raises:
        ConversionError: the file is not XML, or not a Session Track log.
    """
    root: ElementTree.Element | None = None
    try:
        # The log is the user's own file, and expat bounds the growth of entities since 2.4.1.
        for moment, element in ElementTree.iterparse(log, ("start", "end")):  # noqa: S314
            if root is None:
                root = element
                if not root.tag.startswith("sessiontrack"):
                    raise ConversionError(
                        f"the root element is <{root.tag}>, not <sessiontrack...>: use the log, sessiontrack2013.xml"
                    )
            elif moment == "end" and element.tag == "session":
                session = sorted(_session(element, root.tag, start), key=lambda event: event.ts)
                yield from session
                if session:
                    start = session[-1].ts + PAUSE_MS
                root.clear()  # otherwise the whole tree stays in memory
    except ElementTree.ParseError as error:
        raise ConversionError(f"not XML, or incomplete ({error}): use sessiontrack2013.xml, plain or gzipped") from None


def _session(session: ElementTree.Element, log: str, start: int) -> Iterator[Event]:
    session_id = f"{log}/{_attribute(session, 'num', log)}"
    for interaction in session.iter("interaction"):
        query_id = f"{session_id}/{_attribute(interaction, 'num', session_id)}"
        asked = start + _ms(interaction, "starttime", query_id)
        yield _query(interaction, session_id, query_id, asked)
        shown = {
            _attribute(result, "rank", query_id): _text(result, "clueweb12id", query_id)
            for result in interaction.iterfind("results/result")
        }
        if shown:
            yield Impression(
                event_id=f"{query_id}/impression",
                ts=asked,
                session_id=session_id,
                query_id=query_id,
                results=tuple(Result(entity, _rank(rank, query_id), STRATEGIES) for rank, entity in shown.items()),
            )
        for click in interaction.iterfind("clicked/click"):
            rank = _text(click, "rank", query_id)
            if rank not in shown:
                raise ConversionError(f"{query_id}: a click on rank {rank!r}, which was not shown: fix or remove it")
            clicked = _ms(click, "starttime", query_id)
            # A click that ended the session has no end.
            endless = click.get("endtime", "NA") == "NA"
            yield Click(
                event_id=f"{query_id}/click/{_attribute(click, 'num', query_id)}",
                ts=start + clicked,
                session_id=session_id,
                query_id=query_id,
                entity_id=shown[rank],
                dwell_ms=None if endless else _ms(click, "endtime", query_id) - clicked,
            )
    for final in session.iter("currentquery"):
        query_id = f"{session_id}/current"
        yield _query(final, session_id, query_id, start + _ms(final, "starttime", query_id))


def _query(element: ElementTree.Element, session_id: str, query_id: str, ts: int) -> Query:
    text = _text(element, "query", query_id)
    return Query(event_id=f"{query_id}/query", ts=ts, session_id=session_id, query_id=query_id, text=text)


def _text(element: ElementTree.Element, child: str, where: str) -> str:
    text = element.findtext(child)
    if text is None:
        raise ConversionError(f"{where}: <{element.tag}> has no <{child}>: use the 2013 log")
    return text


def _attribute(element: ElementTree.Element, name: str, where: str) -> str:
    value = element.get(name)
    if value is None:
        raise ConversionError(f"{where}: <{element.tag}> has no attribute {name}: use the 2013 log")
    return value


def _rank(rank: str, where: str) -> int:
    if not rank.isdecimal():
        raise ConversionError(f"{where}: rank is {rank!r}, not a whole number from 1: use the 2013 log")
    return int(rank)


def _ms(element: ElementTree.Element, name: str, where: str) -> int:
    value = _attribute(element, name, where)
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConversionError(
            f"{where}: {name} of <{element.tag}> is {value!r}, not seconds on the session's clock: use the 2013 log"
        )
    return round(seconds * 1000)
