"""A stream teaches the same, however it is cut into feeds and commits."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.memory.learner import MemoryConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.sketches import BUCKETS
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.store.ledger import FencedError
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.position import Position
from tests.support.ledgers import assert_same, contents

CONFIG = Config(turns=TurnConfig(window_s=3.0, lateness_s=1.0), rephrases=RephraseConfig(online_odds=12.0))
EVENTS = list(mixed_stream(200, np.random.default_rng(3), queries=15, gap_ms=400))


@pytest.fixture(scope="module")
def whole(new_store: Callable[[], str]) -> str:
    url = new_store()
    with LocalPipeline(url, CONFIG, "test") as pipeline:
        pipeline.feed(EVENTS)
        pipeline.finish()
        pipeline.commit()
    return url


@settings(max_examples=30)
@given(
    cuts=st.lists(st.tuples(st.integers(1, 120), st.sampled_from(["feed", "commit", "publish", "crash"])), max_size=12)
)
def test_feeds_commits_versions_and_crashes_make_no_difference(
    cuts: list[tuple[int, str]], whole: str, new_store: Callable[[], str]
) -> None:
    url = new_store()
    pipeline = LocalPipeline(url, CONFIG, "test")
    at = 0
    for size, then in cuts:
        pipeline.feed(EVENTS[at : at + size])
        at = min(at + size, len(EVENTS))
        if then in ("commit", "publish"):
            pipeline.commit()
        if then == "publish":
            pipeline.publish()
        if then == "crash":
            pipeline.close()
            pipeline = LocalPipeline(url, CONFIG, "test")
            at = pipeline.partition.claim.position.topic("events").resume
    pipeline.feed(EVENTS[at:])
    pipeline.finish()
    pipeline.commit()
    pipeline.close()
    assert_same(contents(url, CONFIG), contents(whole, CONFIG))


def test_two_sources_add_up_to_one(whole: str, store_url: str) -> None:
    """Sessions are split over two sources; the sums are those of one."""
    for half in (0, 1):
        with LocalPipeline(store_url, CONFIG, f"half {half}") as pipeline:
            pipeline.feed([event for event in EVENTS if int(event.session_id.split("-")[1]) % 2 == half])
            pipeline.finish()
            pipeline.commit()
            pipeline.publish()
    one, other = contents(store_url, CONFIG), contents(whole, CONFIG)
    one["positions"] = other["positions"] = {}
    assert_same(one, other)


def test_a_commit_that_failed_is_made_again(whole: str, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        pipeline.feed(EVENTS[:300])
        with monkeypatch.context() as broken:
            broken.setattr(pipeline.ledger, "commit", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pipeline.commit()
        pipeline.feed(EVENTS[300:])
        pipeline.finish()
        pipeline.commit()
        pipeline.publish()
    assert_same(contents(store_url, CONFIG), contents(whole, CONFIG))


def test_the_later_of_two_processes_has_the_stream(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as first, LocalPipeline(store_url, CONFIG, "test") as second:
        first.feed(EVENTS)
        with pytest.raises(FencedError):
            first.commit()
        second.feed(EVENTS)
        second.commit()


def test_nothing_read_is_nothing_committed(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        pipeline.finish()
        pipeline.commit()
        assert pipeline.ledger.claim("test", 0).position == Position()


def test_records_that_are_no_events_are_dead_letters_once(store_url: str) -> None:
    records = [encode(EVENTS[0]), b"nonsense", encode(EVENTS[1]), b"{}"]
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        dead = pipeline.feed_records(range(4), records)
        assert [(letter.offset, letter.record) for letter in dead] == [(1, b"nonsense"), (3, b"{}")]
        pipeline.commit()
        assert pipeline.ledger.counts()["dead_letter"] == 2
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        assert pipeline.feed_records(range(5), [*records, b"more"])[0].offset == 4
        pipeline.commit()
        assert pipeline.ledger.counts()["dead_letter"] == 3


def test_a_ledger_that_has_published_is_bounded(store_url: str) -> None:
    """The stream spans 60 half-lives; each of its 15 queries was shown up to 40 entities."""
    config = Config(turns=CONFIG.turns, memory=MemoryConfig(half_life_days=0.01, top=3, challengers=1, reserve=1))
    with LocalPipeline(store_url, config, "test") as pipeline:
        for period in range(0, 60, 3):
            start_ms = 1_700_000_000_000 + period * 864_000
            pipeline.feed(list(mixed_stream(200, np.random.default_rng(period), queries=15, start_ms=start_ms)))
            pipeline.finish()
            pipeline.commit()
            pipeline.publish()
    found = contents(store_url, config)
    assert max(Counter(query for query, *_ in found["memory"]).values()) <= 5 * len(BUCKETS)
    assert [period for _, period in sorted(found["examination"])] == [1967592 + period for period in (48, 51, 54, 57)]
