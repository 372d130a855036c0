"""Metrics, and the answers to Prometheus and to probes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from backchannel.agents.quality.learner import AnswerQuality, QualityConfig
from backchannel.agents.sums import Sums
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.snapshot import Estimate, Evidence, Reached, Snapshot
from backchannel.streams.config import Config
from backchannel.streams.monitoring.metrics import FIELDS, Metrics, field_of
from backchannel.streams.monitoring.probes import answering
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import VersionStatus
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.partition import Partition
from backchannel.streams.turns.position import Claim, Position

NOW = 1_800_000_000.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Config().bandit.expected, lambda: NOW)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"backchannel_{name}", labels)


def partition() -> Partition:
    one = Partition(Claim("s", 0, 1, 0, Position()), {"events": EventDecoder()}, TurnConfig())
    records = [encode(event) for event in mixed_stream(100, np.random.default_rng(1))]
    one.add("events", range(len(records)), records, round(1000 * NOW))
    return one


def test_a_commit_counts_what_is_in_it(metrics: Metrics) -> None:
    one = partition()
    one.finish()
    batch = one.batch()
    learning = Learning(Config())
    (columns,) = batch.columns
    delta = learning.learn(learning.judge(columns))
    commit = Commit([], {**batch.counts, "answered:teach": 3}, delta["quality"], delta["goals"])
    metrics.on_commit(commit, 0.5, None)
    metrics.on_commit(commit, 0.5, None)
    assert value(metrics, "events_total", type="query") == 200
    assert value(metrics, "answers_total", kind="teach") == 6
    assert value(metrics, "answers_total", kind="satisfaction") == 0
    assert value(metrics, "turns_total") == 200
    assert value(metrics, "strategy_turns_total", strategy="memory") == 200
    assert value(metrics, "strategy_candidates_total", strategy="memory") == 400
    clicked = value(metrics, "turn_outcomes_total", outcome="clicked") or 0
    assert clicked == 2 * commit.counts["click"]
    assert 0 < (value(metrics, "turn_rewards_total") or 0) <= clicked
    reached = value(metrics, "goal_outcomes_total", outcome="reached") or 0
    assert 0 < reached <= (value(metrics, "goals_total") or 0) <= 200
    assert value(metrics, "commit_duration_seconds_sum") == 1.0
    assert value(metrics, "commit_timestamp_seconds") == NOW


def test_strategies_that_only_events_name_are_few(metrics: Metrics) -> None:
    table = AnswerQuality(QualityConfig(), ()).table
    keys = [(f"made up {number:02}", 0) for number in range(40)]
    metrics.on_commit(Commit([], {}, Sums(table, keys, np.ones((40, len(table.sums))))), 0.5, None)
    assert value(metrics, "strategy_turns_total", strategy="made up 26") == 1
    assert value(metrics, "strategy_turns_total", strategy="made up 27") is None
    assert value(metrics, "strategy_turns_total", strategy="other") == 13


def header(version: int, positions: dict[str, dict[int, Reached]] | None = None, **more: Any) -> Snapshot:
    now = round(1000 * NOW)
    return Snapshot(
        version=version,
        parent=version - 1,
        created=now,
        watermark=now - 9_000,
        positions=positions or {},
        fingerprint="",
        rows={"memory": 3},
        checksum="",
        **more,
    )


def committed(*reached: tuple[int, int]) -> Commit:
    """Return a commit that moved partitions to these watermarks."""
    return Commit([Claim("s", number, 1, 1, Position(watermark)) for number, watermark in reached], {})


def test_freshness_is_from_the_first_close_to_the_version_with_it(metrics: Metrics) -> None:
    """The metric does not depend on which worker made the version, or on the partition."""
    now = round(1000 * NOW)

    def told(*watermarks: int) -> float | None:
        reached = {"s": {number: Reached(watermark, {}) for number, watermark in enumerate(watermarks)}}
        served = header(7, reached)
        metrics.on_versions(VersionStatus(served, served, None))
        return value(metrics, "freshness_seconds_count")

    metrics.on_assigned({})
    metrics.on_commit(committed((1, 30), (2, 20)), 0.1, now - 4_000)
    metrics.on_commit(committed((2, 25)), 0.1, now - 5_000)
    metrics.on_commit(committed((2, 40)), 0.1, now - 3_000)
    assert told() == 0
    assert told(99, 29, 24) == 0
    assert told(99, 30, 25) == 1
    assert value(metrics, "freshness_seconds_sum") == pytest.approx(5.0)
    assert told(99, 30, 25) == 1
    assert told(99, 30, 40) == 2
    assert value(metrics, "freshness_seconds_sum") == pytest.approx(8.0)
    assert value(metrics, "snapshot_version") == 7
    assert value(metrics, "snapshot_watermark_timestamp_seconds") == NOW - 9


def test_what_the_gate_says_of_the_newest_version_is_shown(metrics: Metrics) -> None:
    gain = Estimate(-0.02, -0.05, 0.01)
    held = header(8, verdict="hold", evidence=Evidence(321.0, Estimate(0.3, 0.25, 0.35), {"live": gain}))
    metrics.on_versions(VersionStatus(header(7, verdict="publish"), held, round(1000 * NOW) - 60_000))
    assert value(metrics, "snapshot_version") == 7
    assert value(metrics, "snapshot_withheld_timestamp_seconds") == NOW - 60
    verdicts = {verdict: value(metrics, "gate_verdict", verdict=verdict) for verdict in ("publish", "warn", "hold")}
    assert verdicts == {"publish": 0, "warn": 0, "hold": 1}
    assert value(metrics, "ope_effective_turns") == 321
    assert value(metrics, "ope_reward", bound="low") == 0.25
    assert value(metrics, "ope_gain", policy="live", bound="estimate") == -0.02

    early = header(9, verdict="publish")
    metrics.on_versions(VersionStatus(early, early, None))
    assert value(metrics, "snapshot_withheld_timestamp_seconds") == 0
    assert value(metrics, "gate_verdict", verdict="hold") == 0
    assert value(metrics, "ope_reward", bound="low") is None
    assert value(metrics, "ope_gain", policy="live", bound="estimate") is None


def test_what_is_somebody_elses_now_is_not_shown_any_more(metrics: Metrics) -> None:
    one = partition()
    metrics.on_assigned({0: one.state})
    metrics.on_tick({0: one.state}, {TP("clicks", 0): 5})
    assert value(metrics, "open_turns", partition="0") == one.open == 100
    assert value(metrics, "lag_records", topic="clicks", partition="0") == 5
    metrics.on_assigned({})
    assert value(metrics, "open_turns", partition="0") is None
    assert value(metrics, "lag_records", topic="clicks", partition="0") is None


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_reasons_are_few_whatever_the_records_are(record: bytes) -> None:
    (found,) = EventDecoder().decode_many([record])
    assert field_of(str(found)) in FIELDS | {"other"}


@pytest.mark.parametrize(
    ("reason", "field"),
    [
        ("results[...].position: Expected `int` >= 1", "results"),
        ("context key: contains the character U+0000", "context"),
        ("my own key 17: contains the character U+0000", "other"),
        ("record: null", "record"),
        ("", "other"),
    ],
)
def test_a_producers_keys_make_no_labels(reason: str, field: str) -> None:
    assert field_of(reason) == field


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_prometheus_and_probes_are_answered(metrics: Metrics) -> None:
    stuck: Iterator[str | None] = iter([None, "it hangs", "it hangs", None, None])
    reasons: Iterator[str | None] = iter(["not yet", None])

    async def scenario() -> None:
        async with answering(metrics.registry, lambda: next(stuck), lambda: next(reasons), "127.0.0.1", 0) as port:
            ask = asyncio.to_thread
            assert await ask(get, port, "/healthz") == (200, "alive\n")
            assert await ask(get, port, "/healthz") == (503, "it hangs\n")
            assert await ask(get, port, "/readyz") == (503, "it hangs\n")
            assert await ask(get, port, "/readyz") == (503, "not yet\n")
            assert await ask(get, port, "/readyz") == (200, "ready\n")
            status, page = await ask(get, port, "/metrics")
            assert status == 200
            families = {family.name: family for family in text_string_to_metric_families(page)}
            assert "backchannel_events" in families
            assert all(family.documentation for family in families.values())

    asyncio.run(scenario())


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    """https://prometheus.io/docs/practices/naming: base units, and `_total` on counters."""
    for family in metrics.registry.collect():
        assert family.name.startswith(("backchannel_", "process_"))
        assert not family.name.endswith(("_ms", "_minutes", "_count", "_total"))
        assert family.documentation.endswith(".")


def test_a_taken_port_is_said(metrics: Metrics, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with answering(metrics.registry, lambda: None, lambda: None, "127.0.0.1", 0) as port:
            with pytest.raises(OSError, match="address already in use"):
                async with answering(metrics.registry, lambda: None, lambda: None, "127.0.0.1", port):
                    pass

    asyncio.run(scenario())
