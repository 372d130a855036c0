"""Health of a real system: when it is well, and in the failures that operators meet."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from msgspec import structs

from backchannel.agents.ope.gate import GateConfig
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.broker import Broker
from backchannel.streams.config import HealthConfig
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.monitoring import vitals
from backchannel.streams.monitoring.vitals import (
    PartitionState,
    StoreVitals,
    read_brokers,
    unread,
    without_markers,
)
from backchannel.streams.snapshots.versions import Head
from backchannel.streams.turns.position import Position, TopicPosition
from tests.integration.workers import Fleet, send

UNJUDGED: Final = GateConfig(turns=0)


def test_health_says_what_is_wrong_and_what_to_do(
    own_broker: Broker, new_topics: Callable[[str], KafkaConfig], tmp_path: Path
) -> None:
    kafka = new_topics(str(own_broker.servers))
    bounds = HealthConfig(heartbeat_s=(8.0, 16.0))
    with Fleet(tmp_path, kafka, window_s=1, gate=UNJUDGED, health=bounds) as fleet:
        worker = fleet.start()
        _ask(kafka)
        checks = _until(fleet, "well", _well)
        assert "is served" in checks["policy"]["summary"]

        worker.send_signal(signal.SIGSTOP)
        _ask(kafka)
        checks = _until(fleet, "a worker is stuck", lambda checks: checks["workers"]["status"] == "critical")
        assert "silent for" in checks["workers"]["summary"]
        assert "start `backchannel worker`" in checks["workers"]["remedy"]
        worker.send_signal(signal.SIGCONT)

        own_broker.stop()
        checks = _until(fleet, "the broker is stopped", lambda checks: checks["workers"]["status"] == "ok")
        assert (checks["broker"]["status"], checks["store"]["status"]) == ("critical", "ok")
        own_broker.start()
        _until(fleet, "well again", _well)
        fleet.end(worker, signal.SIGTERM)


def test_the_marker_of_a_transaction_is_no_unread_record(kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine with much to do, one second may not do; what was not read in time is taken for records.
    monkeypatch.setattr(vitals, "MARKERS_S", 60.0)
    topic = kafka.event_topics["query"]

    async def write() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=kafka.group) as producer:
            for number in (0, 1):
                async with producer.transaction():
                    await producer.send_and_wait(topic, b"{}", partition=number)
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"{}", partition=1)
            await producer.abort_transaction()

    asyncio.run(write())
    brokers = read_brokers(kafka)
    ends = {number: brokers.ends[topic, number] for number in (0, 1)}
    assert ends == {0: 2, 1: 4}

    def unread_after(offset: int) -> dict[int, int]:
        position = Position(0, {topic: TopicPosition(read=offset)})
        states = [PartitionState(kafka.source, number, 1, position) for number in range(4)]
        store = StoreVitals(states, [], Head(None, None), None, None, None, False, {}, {}, [], 0)
        found = unread(store, without_markers(kafka, store, brokers), kafka.source)
        return {number: found[topic, number] for number in (0, 1)}

    assert unread_after(1) == {0: 0, 1: 0}
    assert unread_after(0) == {0: 2, 1: 4}


def _ask(kafka: KafkaConfig) -> None:
    """Send events that happen now, and are no duplicates of those that were sent before."""
    now = time.time_ns() // 1_000_000
    events = [
        structs.replace(
            one,
            event_id=f"{one.event_id} at {now}",
            query_id=f"{one.query_id} at {now}",
            session_id=f"{one.session_id} at {now}",
        )
        for one in mixed_stream(200, np.random.default_rng(now), start_ms=now, gap_ms=2)
    ]
    asyncio.run(send(kafka, events))


def _well(checks: dict[str, Any]) -> bool:
    """Return whether all checks are ok, and something was learned."""
    return {check["status"] for check in checks.values()} == {"ok"} and "the last one" in checks["commits"]["summary"]


def _until(fleet: Fleet, state: str, reached: Callable[[dict[str, Any]], bool]) -> Mapping[str, Mapping[str, str]]:
    """Wait until a state is reached; print and return its checks."""
    last: dict[str, dict[str, str]] = {}

    def look() -> bool:
        done = _health(fleet, "--json")
        report = json.loads(done.stdout)
        assert done.returncode == {"ok": 0, "warn": 3, "critical": 1}[report["status"]], done.stderr
        last.update({check["name"]: check for check in report["checks"]})
        return reached(last)

    fleet.until(look)
    print(f"\n# {state}\n{_health(fleet).stdout}")
    return last


def _health(fleet: Fleet, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "backchannel",
            "health",
            "--store",
            fleet.url,
            "--config",
            str(fleet.settings),
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )
