"""Turns as events, and a pipeline that learns them, for tests of what is published."""

from typing import Any

import numpy as np

from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.events import Click, Event, Impression, Query
from backchannel.schemas.events import Result as Shown
from backchannel.streams.pipeline.local import LocalPipeline


def turn(number: int, clicked: bool, ts: int | None = None, text: str = "jazz", user: str | None = None) -> list[Event]:
    """Return the events of a turn that is shown entity `a`, and clicks it if `clicked`."""
    ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"q{number}"}
    at = 1_000_000 * number if ts is None else ts
    events: list[Event] = [
        Query(event_id=f"{number}q", ts=at, text=text, user_id=user, **ids),
        Impression(event_id=f"{number}i", ts=at + 1, results=(Shown("a", 1),), **ids),
    ]
    return [*events, Click(event_id=f"{number}c", ts=at + 2, entity_id="a", **ids)] if clicked else events


def learn(pipeline: LocalPipeline, events: list[Event]) -> None:
    """Learn all turns of `events`, commit and publish."""
    pipeline.feed(events)
    pipeline.finish()
    pipeline.commit()
    pipeline.publish()


def learn_mixed(pipeline: LocalPipeline, turns: int, start_ms: int = 1_700_000_000_000) -> None:
    """Learn turns of all kinds, and commit."""
    pipeline.feed(list(mixed_stream(turns, np.random.default_rng(7), queries=20, start_ms=start_ms)))
    pipeline.finish()
    pipeline.commit()
