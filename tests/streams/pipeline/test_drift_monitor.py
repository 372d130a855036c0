"""Alarms: a change is recorded once, whoever looks, and however often."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from sqlalchemy import insert, select

from backchannel.agents.quality.learner import QualityConfig
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.alarm import Alarm
from backchannel.schemas.events import Click, Event, Impression
from backchannel.streams.config import Config
from backchannel.streams.pipeline.drift_monitor import DriftMonitor
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import MINUTE_MS
from backchannel.streams.turns.assembler import TurnConfig
from tests.support.ledgers import sqlite_url

CONFIG = Config(turns=TurnConfig(window_s=10, lateness_s=1), quality=QualityConfig(bucket_s=60, keep_days=0.1))
START = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
NOW = 1_800_000_000_000 // MINUTE_MS * MINUTE_MS


def stream(clicks_until_minute: int, minutes: int) -> list[Event]:
    """Return 100 turns per minute; from some time on the system finds nothing, and there are no clicks."""
    events = mixed_stream(100 * minutes, np.random.default_rng(5), queries=20, start_ms=START, gap_ms=600)
    stop = START + clicks_until_minute * MINUTE_MS
    found = []
    for event in events:
        if event.ts < stop:
            found.append(event)
        elif isinstance(event, Impression):
            found.append(structs.replace(event, outcome="nothing"))
        elif not isinstance(event, Click):
            found.append(event)
    return found


def alarms(url: str) -> list[Alarm]:
    store = Store(url)
    with store.read() as connection:
        found = [Alarm(**row) for row in connection.execute(select(tables.alarm)).mappings()]
    store.close()
    return sorted(found, key=lambda alarm: (alarm.measure, alarm.strategy))


@pytest.mark.parametrize("chunk", [100, 1_000_000])
def test_a_change_is_written_down_once_whenever_somebody_looks(chunk: int, store_url: str) -> None:
    events = stream(clicks_until_minute=30, minutes=45)
    for begin in range(0, len(events), chunk):
        with LocalPipeline(store_url, CONFIG, "s") as pipeline:
            pipeline.feed(events[begin : begin + chunk])
            pipeline.commit()
            pipeline.publish()
            pipeline.publish()
    found = alarms(store_url)
    rates = ["click_rate", "goal_defect_rate", *["reward"] * len(CONFIG.bandit.expected)]
    assert [alarm.measure for alarm in found] == rates
    assert {alarm.strategy for alarm in found[2:]} == set(CONFIG.bandit.expected)
    click, goals = found[:2]
    assert goals.since == click.since
    assert goals.after > goals.before + 0.5
    assert click.since == START + 30 * MINUTE_MS
    assert click.since <= click.noticed <= click.since + 5 * MINUTE_MS
    assert click.before == pytest.approx(0.4, abs=0.05)
    assert click.after == 0.0


def test_a_change_too_small_is_no_alarm(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    indifferent = Config(turns=CONFIG.turns, quality=QualityConfig(bucket_s=60, drift_change=1.5))
    with LocalPipeline(url, indifferent, "s") as pipeline:
        pipeline.feed(stream(clicks_until_minute=30, minutes=45))
        pipeline.commit()
        pipeline.publish()
    # Clicks change by their whole rate at most; the defects of goals become eight times as many.
    assert [alarm.measure for alarm in alarms(url)] == ["goal_defect_rate"]


def test_old_buckets_are_forgotten(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, CONFIG, "s") as pipeline:
        pipeline.feed(stream(clicks_until_minute=300, minutes=200))
        pipeline.commit()
        pipeline.publish()
    store = Store(url)
    store.create(Learning(CONFIG).tables)
    with store.read() as connection:
        buckets = set(connection.execute(select(store.sum_tables["quality"].c.bucket)).scalars())
    store.close()
    assert max(buckets) - min(buckets) == 0.1 * 86_400_000


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    store.create(Learning(CONFIG).tables)
    yield store
    store.close()


def test_dead_letters_are_watched_by_the_clock(store: Store, store_url: str) -> None:
    rng = np.random.default_rng(2)
    with store.write() as connection:
        for minute in range(60):
            dead = int(rng.binomial(200, 0.0 if minute < 50 else 0.2))
            for name, value in (("query", 200 - dead), ("dead_letter", dead), ("turn", 77)):
                row = {"minute": NOW + minute * MINUTE_MS, "name": name, "value": value}
                connection.execute(insert(tables.tally).values(row))
    watch, other = DriftMonitor(store, CONFIG), DriftMonitor(store, CONFIG)
    times = [NOW + minute * MINUTE_MS for minute in range(70)]
    raised = [(time, watch.look(time), other.look(time)) for time in times]
    ((time, (alarm,), nobody),) = [look for look in raised if look[1] or look[2]]
    assert nobody == []
    assert (alarm.measure, alarm.since) == ("dead_letter_rate", NOW + 50 * MINUTE_MS)
    assert alarm.raised == time
    assert alarm.noticed == alarm.raised - 2 * MINUTE_MS  # a minute is complete when the next one is over
    assert alarms(store_url) == [alarm]
