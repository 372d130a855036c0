"""Trends: columns of equal length, with the rates that follow from the sums."""

from collections.abc import Iterator

import numpy as np
import pytest
from sqlalchemy import insert

from backchannel.agents.quality.learner import QualityConfig
from backchannel.ops.lab.load import STRATEGIES, mixed_stream
from backchannel.schemas.events import Click
from backchannel.streams.config import Config
from backchannel.streams.monitoring.trends import Trends, read_rates, read_trends
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import MINUTE_MS

START = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
CONFIG = Config(quality=QualityConfig(bucket_s=60))


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    store.create(())
    yield store
    store.close()


def read(store: Store, buckets: int = 100, minutes: int = 100, versions: int = 100) -> Trends:
    with store.read() as connection:
        return read_trends(connection, buckets, minutes, versions)


def test_nothing_is_no_trend(store: Store) -> None:
    found = read(store)
    assert not found.versions
    assert found.answers.time == found.intake.time == []
    assert found.answers.clicked == found.answers.goals == found.intake.events == []


def test_rates_are_those_of_the_events(store: Store, store_url: str) -> None:
    events = list(mixed_stream(600, np.random.default_rng(4), start_ms=START, gap_ms=300))
    with LocalPipeline(store_url, CONFIG, "s") as pipeline:
        pipeline.feed(events)
        pipeline.finish()
        pipeline.commit()
        made = pipeline.publish()
    found = read(store)
    assert made is not None
    assert [(one.version, one.created) for one in found.versions] == [(made.version, made.created)]
    answers = found.answers
    assert answers.time == [START, START + MINUTE_MS, START + 2 * MINUTE_MS]
    assert answers.turns == [200, 200, 200]
    clicks = [
        sum(isinstance(event, Click) and event.ts // MINUTE_MS * MINUTE_MS == time for event in events)
        for time in answers.time
    ]
    assert answers.clicked == [count / 200 for count in clicks]
    assert set(answers.strategies) == set(STRATEGIES)
    assert all(trend.share == [0.2, 0.2, 0.2] for trend in answers.strategies.values())
    assert all(0 < reward < 1 for trend in answers.strategies.values() for reward in trend.reward if reward is not None)
    assert read(store, buckets=2).answers.time == answers.time[1:]
    with store.read() as connection:
        rates = read_rates(connection)
    assert rates is not None
    assert rates.turns == 600
    assert rates.goals == sum(goals for goals in answers.goals if goals is not None)
    assert 0 < rates.goals <= rates.turns
    assert 0 <= rates.goal_defects <= 1 - rates.goals_reached < 1


def test_minutes_without_events_are_shown(store: Store) -> None:
    with store.write() as connection:
        for minute, name, value in (
            (0, "query", 60),
            (0, "late", 6),
            (3, "click", 120),
            (3, "turn", 5),
            (4, "query", 1),
        ):
            row = {"minute": START + minute * MINUTE_MS, "name": name, "value": value}
            connection.execute(insert(tables.tally).values(row))
    intake = read(store).intake
    assert intake.time == [START + minute * MINUTE_MS for minute in range(4)]
    assert intake.events == [1.0, 0.0, 0.0, 2.0]
    assert intake.late == [0.1, 0.0, 0.0, 0.0]
    assert intake.dead_letters == [0.0] * 4
