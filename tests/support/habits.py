"""People with habits, whose queries are misheard, as events."""

from typing import Any

from backchannel.schemas.events import Click, Event, Query

TEXTS = ("play the songs of abba", "what is the weather in paris", "call my sister anna please")


def said(user: str, number: int) -> list[Event]:
    """Return a session in which a user says three things well, twice each, and garbles each at first."""
    events: list[Event] = []
    for place, text in enumerate(TEXTS):
        first = 1_000_000 * number + 200_000 * place
        garbled = f"{text[: 6 + number % 9]}x{text[6 + number % 9 :]}"
        for nth, (ts, heard) in enumerate(((0, garbled), (4_000, text), (100_000, text))):
            ids: Any = {"session_id": f"s {user} {number}", "query_id": f"{user} {place} {nth}"}
            asked = Query(event_id=f"q {user} {place} {nth}", ts=first + ts, text=heard, user_id=user, **ids)
            clicked = Click(event_id=f"c {user} {place} {nth}", ts=asked.ts + 10, entity_id="e", **ids)
            events += [asked, clicked] if heard == text else [asked]
    ids = {"session_id": f"s {user} {number}", "query_id": f"{user} other"}
    asked = Query(event_id=f"q {user}", ts=first + 150_000, text=f"news about number {number}", user_id=user, **ids)
    return [*events, asked, Click(event_id=f"c {user}", ts=asked.ts + 10, entity_id="e", **ids)]
