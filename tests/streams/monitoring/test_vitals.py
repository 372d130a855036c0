"""The vitals of each kind of store."""

import asyncio
from contextlib import closing

import numpy as np
import pytest
from sqlalchemy import update

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.section import Limits, Unseen
from backchannel.agents.quality.delays import POSITIONS
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.events import Click
from backchannel.streams.config import Config
from backchannel.streams.monitoring.vitals import RECENT_MS, BrokerVitals, StoreVitals, read_store, unread
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.store.engine import Store, StoreError
from backchannel.streams.store.tables import snapshot, snapshot_row
from backchannel.streams.worker.heartbeat import Heartbeat

NOW = 1_800_000_000_000


def vitals_of(url: str, now: int) -> StoreVitals:
    with closing(Store(url)) as store:
        return read_store(store, now)


def test_a_store_says_how_it_does(store_url: str) -> None:
    events = list(mixed_stream(50, np.random.default_rng(1)))
    with LocalPipeline(store_url, Config(), "file") as pipeline:
        pipeline.feed(events)
        pipeline.finish()
        pipeline.commit()
        made = pipeline.publish()
    store = Store(store_url)
    heartbeat = Heartbeat(store, lambda: NOW / 1000)
    heartbeat.on_commit(Commit([], {"query": 7}), 0.1, None)
    asyncio.run(heartbeat.beat())
    store.close()
    found = vitals_of(store_url, NOW)
    assert made is not None
    assert found.served == found.newest == made
    assert found.head.version == made.version
    assert not found.unpublished
    assert [(one.source, one.number) for one in found.partitions] == [("file", 0)]
    assert found.partitions[0].position.watermark == made.watermark
    assert [(one.name, one.seen, one.partitions) for one in found.workers] == [(heartbeat.name, NOW, [])]
    assert found.recent == {"query": 7}
    clicks = sum(isinstance(event, Click) for event in events)
    assert clicks * 0.5 < sum(sum(buckets.values()) for buckets in found.delays.values())
    assert {position for _, position in found.delays} <= set(POSITIONS)
    assert found.bytes > 10_000
    assert vitals_of(store_url, NOW + 2 * RECENT_MS).recent == {}


def test_names_that_no_learned_turn_has_are_told(store_url: str) -> None:
    limits = {"late": Limits(on=False)}
    devise = Categorical("devise", ("car",))
    bandit = BanditConfig(strategies=("lexical", "late", "lexcal"), features=(devise,), limits=limits)
    with LocalPipeline(store_url, Config(bandit=bandit), "file") as pipeline:
        pipeline.publish()
        assert vitals_of(store_url, NOW).unseen == Unseen()
        pipeline.feed(list(mixed_stream(50, np.random.default_rng(1))))
        pipeline.finish()
        pipeline.commit()
        pipeline.publish()
    assert vitals_of(store_url, NOW).unseen == Unseen(["lexcal"], ["devise"])
    with closing(Store(store_url)) as store, store.write() as connection:
        connection.execute(update(snapshot_row).where(snapshot_row.c.section == "bandit").values(value=b"{"))
    assert vitals_of(store_url, NOW).unseen == Unseen()


def test_a_header_that_cannot_be_read_is_a_fault(store_url: str) -> None:
    with LocalPipeline(store_url, Config(), "file") as pipeline:
        pipeline.publish()
    store = Store(store_url)
    with store.write() as connection:
        connection.execute(update(snapshot).values(header="{"))
    store.close()
    found = vitals_of(store_url, NOW)
    assert (found.head.version, found.served) == (1, None)
    assert "its header cannot be read" in (found.fault or "")


def test_an_empty_store_says_so(store_url: str) -> None:
    store = Store(store_url)
    with store.write(new=True) as connection:
        connection.exec_driver_sql("CREATE TABLE nothing_of_ours (x INTEGER)")
    store.close()
    with pytest.raises(StoreError, match="nothing has been learned into it yet"):
        vitals_of(store_url, NOW)


def test_what_is_not_read_yet_is_counted(store_url: str) -> None:
    LocalPipeline(store_url, Config(), "file").close()
    found = vitals_of(store_url, NOW)
    brokers = BrokerVitals(2, None, {("events", 0): 10, ("events", 1): 0})
    assert unread(found, brokers, "file") == {("events", 0): 10, ("events", 1): 0}
