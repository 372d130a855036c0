"""The number of committers that PostgreSQL supports: processes without Kafka that commit prepared batches of the same
queries."""

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct
from sqlalchemy import create_engine, text

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.sums import Delta
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.postgres import Postgres
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.position import Position
from backchannel.streams.turns.rows import RowAssembler

COMMITTERS: Final = (1, 2, 4, 8)
BATCH: Final = 20_000
"""Approximate number of events in a batch, as of a worker that handles 20,000 events/s."""

BATCHES: Final = 32
"""Number of batches, of all committers together. They stay below the size at which commits would merge them."""

PATIENCE_S: Final = 600.0
"""Seconds after which a committer counts as failed."""

_SAMPLE_S: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LOCKED: Final = text(
    "SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()"
)


class _Prepared(Struct, frozen=True):
    """The encoded sums of a batch, and the number of its events."""

    delta: Delta
    events: int


def committers(load: Load) -> Iterator[Measure]:
    """Yield throughput, lock waits and server time for each number of committers, and the cost of merging later."""
    config = Config()
    learning = Learning(config)
    load.say("batches")
    batches = [_prepared(learning, np.random.default_rng(seed)) for seed in range(4)]
    file = load.folder / "batches"
    file.write_bytes(pickle.dumps(batches))
    with Postgres() as server:
        alone = 0.0
        for number in COMMITTERS:
            load.say(f"{number} committers")
            each = BATCHES // number
            events = number * sum(batches[one % len(batches)].events for one in range(each))
            seconds, locked, server_s = _run(server, learning, file, number, each)
            rate, name = events / seconds, f"PostgreSQL: {number} committer{'s' * (number > 1)}"
            alone = alone or rate
            yield Measure(name, rate, "events/s", rate / alone, "one committer")
            yield Measure(f"{name}: waiting for locks", 100 * locked, "% of samples")
            yield Measure(f"{name}: server's processor time", 1e6 * server_s / events, "us per event")
            with closing(Store(server.url)) as store:
                store.create(learning.tables)
                ledger = Ledger(store, learning.tables)
                began, before = time.perf_counter(), _server_seconds(server)
                ledger.merge()
                seconds, server_s = time.perf_counter() - began, _server_seconds(server) - before
            yield Measure(f"{name}: merging what they left", 1e6 * seconds / events, "us per event")
            yield Measure(f"{name}: merging, server's processor time", 1e6 * server_s / events, "us per event")


def _prepared(learning: Learning, rng: np.random.Generator) -> _Prepared:
    events = list(mixed_stream(BATCH * 2 // 5, rng))
    assembler = RowAssembler(["events"], TurnConfig())
    assembler.add("events", range(len(events)), events)
    assembler.finish()
    return _Prepared(learning.learn(learning.judge(Columns.concat(assembler.take()))), len(events))


def _run(server: Postgres, learning: Learning, file: Path, number: int, each: int) -> tuple[float, float, float]:
    """Return the seconds taken, the share of samples waiting for a lock, and server seconds."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(number + 1, timeout=PATIENCE_S)
    with closing(Store(server.url)) as store:
        store.create(learning.tables)
    processes = [
        context.Process(target=_commit, args=(server.url, file, f"{number}-{one}", each, barrier), daemon=True)
        for one in range(number)
    ]
    for one in processes:
        one.start()
    barrier.wait()
    began, before, done, samples = time.perf_counter(), _server_seconds(server), threading.Event(), list[Any]()
    watch = threading.Thread(target=partial(_sample, server.url, done, samples))
    watch.start()
    barrier.wait()
    seconds, server_s = time.perf_counter() - began, _server_seconds(server) - before
    done.set()
    watch.join()
    for one in processes:
        one.join()
    locked, active = np.array([(0, 0), *samples]).sum(axis=0).tolist()
    return seconds, locked / max(active, 1), server_s


def _commit(url: str, file: Path, source: str, each: int, barrier: Any) -> None:
    """Commit batches between two meetings at the `barrier`, which breaks if this fails."""
    try:
        _commit_all(url, file, source, each, barrier)
    except BaseException:
        barrier.abort()
        raise


def _commit_all(url: str, file: Path, source: str, each: int, barrier: Any) -> None:
    learning = Learning(Config())
    batches: list[_Prepared] = pickle.loads(file.read_bytes())  # noqa: S301 - of our own parent
    with closing(Store(url)) as store:
        store.create(learning.tables)
        ledger = Ledger(store, learning.tables)
        claim = ledger.claim(source, 0)
        barrier.wait()
        for number in range(each):
            delta = batches[number % len(batches)].delta
            (claim,) = ledger.commit([Contribution(claim, Position(number), delta, {"turn": 1})])
        barrier.wait()


def _sample(url: str, done: threading.Event, samples: list[tuple[int, int]]) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        while not done.wait(_SAMPLE_S):
            samples.append(tuple(connection.execute(_LOCKED).one()))
    engine.dispose()


def _server_seconds(server: Postgres) -> float:
    """Return the processor time of all processes of the server so far, s; Linux only."""
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(folder.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))  # including its children that have ended
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / _TICKS
