"""Stores for the dashboard to show."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.ranking.learner import RankingConfig
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.events import Click, Event, Impression, Never, Query, Result, Teach
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.snapshots.teachings import Teachings
from tests.support.dashboards import CONFIG, CUISINES, GARBLED, TEXT
from tests.support.ledgers import sqlite_url


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store learned without a broker."""
    url = sqlite_url(tmp_path_factory.mktemp("dashboard"))
    with LocalPipeline(url, CONFIG, "s") as embedded:
        events = mixed_stream(400, np.random.default_rng(2), queries=1, gap_ms=3_000)
        embedded.feed([structs.replace(event, text=TEXT) if hasattr(event, "text") else event for event in events])
        embedded.finish()
        embedded.commit()
        embedded.publish()
    return url


def sessions(count: int) -> Iterator[Event]:
    """Yield sessions that ask in three ways; every fourth person gives up after the second."""
    for number in range(count):
        for turn, text in enumerate(GARBLED[: 2 if number % 4 == 0 else 3]):
            ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"s{number}-{turn}"}
            ts = 1_700_000_000_000 + number * 60_000 + turn * 8_000
            yield Query(event_id=f"q{number}-{turn}", ts=ts, text=text, **ids)
            if turn == 2:
                yield Impression(event_id=f"i{number}", ts=ts, results=(Result("e", 1),), **ids)
                yield Click(event_id=f"c{number}", ts=ts, entity_id="e", **ids)


@pytest.fixture(scope="module")
def rephrased(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with two versions, a rewrite in the second, and a rule for everyone."""
    url = sqlite_url(tmp_path_factory.mktemp("rephrased"))
    with LocalPipeline(url, CONFIG, "s") as embedded:
        events = list(sessions(40))
        embedded.feed(events[:20])
        embedded.commit()
        embedded.publish()
        embedded.feed(events[20:])
        embedded.finish()
        embedded.commit()
        embedded.publish()
        rule = Never(entity_id="song/13")
        ids: dict[str, Any] = {"session_id": "s", "query_id": "q", "user_id": "boss"}
        Teachings(embedded.store, CONFIG.taught).write([Teach(event_id="t", ts=1, rule=rule, everyone=True, **ids)])
    return url


@pytest.fixture(scope="module")
def returning(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store of 80 people, half of whom come back each day; goals and tastes are learned, too."""
    config = structs.replace(
        CONFIG,
        bandit=BanditConfig(goal=2.0),
        ranking=RankingConfig(
            features=(Categorical("cuisine", CUISINES),), prior={"cuisine=thai": 1.0}, personal=("cuisine",)
        ),
        horizon=HorizonConfig(salt="a salt for tests only", least_days=0.5, days=1.0),
    )
    url = sqlite_url(tmp_path_factory.mktemp("returning"))
    with LocalPipeline(url, config, "s") as embedded:
        embedded.feed(list(visits(80)))
        embedded.finish()
        embedded.commit()
        embedded.publish()
    return url


def visits(people: int) -> Iterator[Event]:
    """Yield one query of every second person on each day, and of the others on the first day only."""
    for day in range(8):
        for person in range(0, people, 2 if day else 1):
            ids: dict[str, Any] = {"session_id": f"s{person}-{day}", "query_id": f"q{person}-{day}"}
            ids["ts"] = 1_700_000_000_000 + day * 86_400_000 + person * 1000
            yield Query(event_id="q", text="dinner", user_id=f"u{person}", **ids)
            shown = [
                Result(one, place, ("lexical",), features={"cuisine": one}) for place, one in enumerate(CUISINES, 1)
            ]
            yield Impression(event_id="i", results=tuple(shown), allocation={"lexical": 2}, **ids)
            if person % 2 == 0:
                yield Click(event_id="c", entity_id="greek", **ids)
