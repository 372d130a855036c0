"""Events out of order and with duplicates, and worker processes that learn from them."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from msgspec import structs

from backchannel.ops.commands.config import render
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.schemas.events import EVENT_TYPES, Event, name_of
from backchannel.streams.config import CommitConfig, Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.turns.accounts import Account
from backchannel.streams.turns.assembler import TurnConfig
from tests.support.ledgers import assert_same, contents, sqlite_url

LATENESS_MS: Final = 5_000
GAP_MS: Final = 50
SLICE_MS: Final = 2_000
"""Maximum distance between topics in event time: with the disorder within them, less than the lateness."""

PATIENCE_S: Final = 240.0


def disordered(events: int, seed: int) -> list[Event]:
    """Return a mixed stream: 3% duplicates, 1% without a query, 10% swapped with an event up to 2 s younger."""
    rng = random.Random(seed)
    ordered: list[Event] = []
    for event in mixed_stream(events * 2 // 5, np.random.default_rng(seed), queries=400, gap_ms=GAP_MS):
        ordered += [event] * (1 + (rng.random() < 0.03))
        if rng.random() < 0.01:
            ordered.append(structs.replace(event, event_id=f"{event.event_id}-again", query_id=f"none-{len(ordered)}"))
    for _ in range(len(ordered) // 10):
        here = rng.randrange(len(ordered) - 100)
        there = here + rng.choice([1, 5, 30, 100])
        ordered[here], ordered[there] = ordered[there], ordered[here]
    return ordered


async def send(
    config: KafkaConfig,
    events: Sequence[Event],
    rate: float | None = None,
    written: Callable[[Event], bytes] = encode,
) -> None:
    """Send `events` to their topics, all topics keeping pace with each other; `rate` is in events per second."""
    started = time.monotonic()
    sent = 0
    async with AIOKafkaProducer(bootstrap_servers=config.servers, acks="all", linger_ms=2) as producer:
        for some in _slices(events):
            for event in some:
                topic = config.event_topics[name_of(type(event))]
                await producer.send(topic, written(event), key=event.session_id.encode(), timestamp_ms=event.ts)
            await producer.flush()
            sent += len(some)
            if rate is not None:
                await asyncio.sleep(started + sent / rate - time.monotonic())


def _slices(events: Sequence[Event]) -> Iterator[list[Event]]:
    rest = iter(events)
    # 2.5 events per turn, and as many in a slice as their turns take.
    while some := list(islice(rest, round(2.5 * SLICE_MS / GAP_MS))):
        yield some


def records_of(config: KafkaConfig, topics: Iterable[str]) -> list[Any]:
    """Return all records in `topics`."""
    with closing(KafkaConsumer(**config.client_settings(), auto_offset_reset="earliest")) as consumer:
        partitions = [
            TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)
        ]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        records: list[Any] = []
        while len(records) < sum(ends.values()):
            for some in consumer.poll(timeout_ms=500).values():
                records += some
    return records


def _tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, check=False).stdout
    return [pid, *chain.from_iterable(_tree(int(child)) for child in children.split())]


class Fleet:
    """Worker processes of one group, and their store.

    Args:
        folder: folder of the store, the configuration and the logs.
        kafka: connection settings and topics.
        window_s: attribution window, s. A quiet partition closes its last turns after this and the lateness.
        commit_events: see `CommitConfig.events`.
        max_open: see `TurnConfig`.
        sections: other sections of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        kafka: KafkaConfig,
        window_s: float,
        commit_events: int = 50_000,
        max_open: int = 500_000,
        **sections: Any,
    ) -> None:
        self.config: Final = Config(
            turns=TurnConfig(window_s=window_s, lateness_s=LATENESS_MS / 1000, max_open=max_open),
            commits=CommitConfig(events=commit_events, publish_s=1.0),
            kafka=kafka,
            **sections,
        )
        self.workers: list[subprocess.Popen[bytes]] = []
        self._folder: Final = folder
        self.settings: Final = folder / "backchannel.toml"
        self.settings.write_text(render(self.config))
        self._logs = 0
        self._log_of: Final[dict[int, Path]] = {}

    @property
    def url(self) -> str:
        return sqlite_url(self._folder, "worker.db")

    @property
    def database(self) -> Path:
        return self._folder / "worker.db"

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        self._logs += 1
        with (self._folder / f"worker-{self._logs}.log").open("wb") as log:
            given = {
                "--config": str(self.settings),
                "--store": self.url,
                "--servers": self.config.kafka.servers,
            }
            command = [sys.executable, "-m", "backchannel", "worker", *chain.from_iterable(given.items()), *options]
            worker = subprocess.Popen(command, stderr=log, stdout=log)
        self._log_of[worker.pid] = Path(log.name)
        self.workers.append(worker)
        return worker

    def end(self, worker: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """End a worker that must still be running; after SIGTERM it must exit cleanly."""
        assert worker.poll() is None, self.logs()
        worker.send_signal(number)
        code = worker.wait(PATIENCE_S)
        polite = number == signal.SIGTERM and self._log_of[worker.pid].stat().st_size  # it was listening for signals
        assert code == (0 if polite else -number) or (code == 0 and number == signal.SIGTERM), self.logs()
        self.workers.remove(worker)

    def stop(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Suspend all processes of a worker, none of which holds SQLite's lock; return their ids.

        PostgreSQL ends the transaction of a client that is silent; nobody can end SQLite's but the process itself.
        """
        while True:
            processes = _tree(worker.pid)
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            try:
                with closing(sqlite3.connect(self.database, timeout=0.5, isolation_level=None)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                for process in processes:
                    os.kill(process, signal.SIGCONT)
            else:
                return processes

    def processes(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Return the ids of the processes that a worker has started."""
        command = ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(worker.pid)]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
        return [int(line.split()[0]) for line in lines if b"spawn_main" in line]

    def refusal(self, *options: str) -> dict[str, str]:
        """Start a worker that must exit by itself, and return the last line of its log."""
        worker = self.start("--log", "json", *options)
        self.workers.remove(worker)
        assert worker.wait(PATIENCE_S) == 1, self.logs()
        last: dict[str, str] = json.loads((self._folder / f"worker-{self._logs}.log").read_bytes().splitlines()[-1])
        return last

    def logs(self) -> str:
        """Return the end of every log, for error messages."""
        return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in sorted(self._folder.glob("worker-*.log")))

    def counts(self) -> dict[str, int]:
        return dict(
            self._select(
                "SELECT name, sum(value) FROM (SELECT name, value FROM counter UNION ALL "
                "SELECT key, json_each.value FROM segment, json_each(counts)) GROUP BY name"
            )
        )

    def read(self) -> int:
        """Return the number of events in the ledger."""
        counts = self.counts()
        return sum(counts.get(name, 0) for name in EVENT_TYPES)

    def commits(self) -> int:
        return dict(self._select("SELECT 'commits', sum(commits) FROM partition")).get("commits") or 0

    def claims(self) -> int:
        return dict(self._select("SELECT 'claims', sum(epoch) FROM partition")).get("claims") or 0

    def until_commits(self, more: int, or_read: int) -> None:
        enough = self.commits() + more
        self.until(lambda: self.commits() >= enough or self.read() >= or_read)

    def until_claims(self, more: int) -> None:
        enough = self.claims() + more
        self.until(lambda: self.claims() >= enough)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`, while all workers must stay alive."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert all(worker.poll() is None for worker in self.workers), self.logs()
            assert time.monotonic() < deadline, f"{self.counts()}\n{self.logs()}"
            time.sleep(0.02)

    def assert_learned(self, events: Sequence[Event], dead_letters: int = 0) -> dict[str, int]:
        """Wait until everything is learned, end the workers, and compare with `backchannel run` on the same events."""
        file = self._folder / "events.jsonl"
        file.write_bytes(b"".join(encode(event) + b"\n" for event in events))
        run = [sys.executable, "-m", "backchannel", "run", str(file), "--config", str(self.settings)]
        once = sqlite_url(self._folder, "once.db")
        done = subprocess.run([*run, "--store", once, "--json"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        at = max(event.ts for event in events) + 3_600_000
        expected = contents(once, self.config, at)
        assert expected["counts"]["duplicate"]
        assert expected["counts"]["orphan"]
        assert "late" not in expected["counts"], "what is late depends on the topics' interleaving"
        if dead_letters:
            expected["counts"]["dead_letter"] = dead_letters
        self.until(lambda: self.counts().get("turn", 0) >= expected["counts"]["turn"])
        self.until(lambda: {name: n for name, n in self.counts().items() if n} == expected["counts"])
        for worker in list(self.workers):
            self.end(worker, signal.SIGTERM)
        assert not Account.of(expected["counts"]).unaccounted, expected["counts"]
        found = contents(self.url, self.config, at)
        found["positions"] = expected["positions"] = {}
        assert_same(found, expected)
        return dict(found["counts"])

    def _select(self, query: str) -> list[tuple[str, int]]:
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # does not exist yet
            return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
