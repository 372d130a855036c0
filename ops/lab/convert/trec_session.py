"""Events from a TREC Session Track log, in the form of 2013 (Carterette et al., TREC 2013 Session Track Overview).

Each interaction of a session becomes a query, an impression of the results shown, if there were any, and its clicks;
the session's final "current query", whose results were never logged, becomes a query alone. An entity is a ClueWeb12
document.

What the log does not say, and what stands in for it:

- The times are seconds on the session's own clock, without a date. So the sessions are laid end to end in the order of
  the file: the first clock starts at a given time, each further one `PAUSE_MS` after the last event before it.
- Results have no time of their own: they are taken to be shown at the time of their query.
- Everything came from one web search engine, which is the one strategy, `web`.
- There are no user ids and no propensities. The people were given their topics.
"""

import math
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Final
from xml.etree import ElementTree

from backchannel.ops.lab.convert import ConversionError
from backchannel.schemas.events import Click, Event, Impression, Query, Result

PAUSE_MS: Final = 30 * 60 * 1000
"""Between two sessions, ms: half an hour of silence is the customary end of a session in a search log."""

STRATEGIES: Final = ("web",)


def events(log: BufferedIOBase, start: int) -> Iterator[Event]:
    """Yield the log's events in time order, holding one session at a time.

    Args:
        log: the XML, uncompressed.
        start: when the first session's clock starts, ms since the Unix epoch.

    Raises:
        ConversionError: this is not XML, or not a Session Track log.
    """
    root: ElementTree.Element | None = None
    try:
        # The log is the user's own file, and expat bounds the growth of entities since 2.4.1.
        for moment, element in ElementTree.iterparse(log, ("start", "end")):  # noqa: S314
            if root is None:
                root = element
                if not root.tag.startswith("sessiontrack"):
                    raise ConversionError(
                        f"the root element is <{root.tag}>, not <sessiontrack...>: give the log, sessiontrack2013.xml"
                    )
            elif moment == "end" and element.tag == "session":
                session = sorted(_session(element, root.tag, start), key=lambda event: event.ts)
                yield from session
                if session:
                    start = session[-1].ts + PAUSE_MS
                root.clear()  # else the whole tree stays in memory
    except ElementTree.ParseError as error:
        raise ConversionError(f"not XML, or cut short ({error}): give sessiontrack2013.xml, plain or gzipped") from None


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
                raise ConversionError(f"{query_id}: a click on rank {rank!r}, which was not shown: mend or drop it")
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
        raise ConversionError(f"{where}: <{element.tag}> has no <{child}>, as it has in the log of 2013")
    return text


def _attribute(element: ElementTree.Element, name: str, where: str) -> str:
    value = element.get(name)
    if value is None:
        raise ConversionError(f"{where}: <{element.tag}> has no attribute {name}, as it has in the log of 2013")
    return value


def _rank(rank: str, where: str) -> int:
    if not rank.isdecimal():
        raise ConversionError(f"{where}: rank is {rank!r}, not a whole number from 1, as it is in the log of 2013")
    return int(rank)


def _ms(element: ElementTree.Element, name: str, where: str) -> int:
    value = _attribute(element, name, where)
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConversionError(
            f"{where}: {name} of <{element.tag}> is {value!r}, not seconds on its session's clock as in 2013"
        )
    return round(seconds * 1000)
