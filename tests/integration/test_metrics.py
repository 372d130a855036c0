"""Metrics of real workers: each reports the freshness of its own turns, whoever publishes."""

import asyncio
import socket
import time
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from backchannel.ops.lab.load import mixed_stream
from backchannel.streams.kafka.config import KafkaConfig
from tests.integration.workers import Fleet, send


def test_every_worker_tells_how_fresh_its_turns_are(kafka: KafkaConfig, tmp_path: Path) -> None:
    ports = [_free(), _free()]
    with Fleet(tmp_path, kafka, window_s=1) as fleet:
        for port in ports:
            fleet.start("--metrics-port", str(port))
        fleet.until(lambda: all(_metrics(port).get("backchannel_open_turns") is not None for port in ports))
        now = time.time_ns() // 1_000_000
        asyncio.run(send(kafka, list(mixed_stream(400, np.random.default_rng(1), start_ms=now, gap_ms=2))))
        fleet.until(lambda: all(_metrics(port).get("backchannel_freshness_seconds_count") for port in ports))
        # Only one of them publishes, and both report the same version.
        fleet.until(lambda: len({_metrics(port).get("backchannel_snapshot_version") for port in ports}) == 1)
        found = [_metrics(port) for port in ports]
    assert [one["backchannel_gate_verdict"] for one in found] == [1, 1]
    assert [one["backchannel_snapshot_withheld_timestamp_seconds"] for one in found] == [0, 0]


def _free() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def _metrics(port: int) -> dict[str, float]:
    """Return a worker's metrics, summed over labels; nothing while it starts."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            page = response.read().decode()
    except URLError:
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
