"""What the memory index costs, serving and publishing, at a million queries of ten entities."""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import select

from backchannel.agents.recall import Evidence, Row
from backchannel.ops.bench.measure import Load, Measure
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.streams import snapshots
from backchannel.streams.config import Config
from backchannel.streams.embedded import Embedded
from backchannel.streams.reader import PolicyReader
from backchannel.streams.store import Store, snapshot_row

QUERIES: Final = 1_000_000
ENTITIES: Final = 10
CALLS: Final = 50_000
CHANGED: Final = 1_000
PUBLISHED: Final = 10_000
_AT: Final = 1_700_000_000_000

# In a process of its own, so that its memory is the reader's.
_READ: Final = """
import gc, os, sys, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
from backchannel.streams.reader import PolicyReader
reader = PolicyReader(sys.argv[1])
before, started = resident(), time.perf_counter()
reader.refresh()
assert reader.status.error is None, reader.status.error
took = time.perf_counter() - started
gc.collect()
print(took, resident() - before)
"""


def memory_index(load: Load) -> Iterator[Measure]:
    """Yield what a reader of so many queries costs, and what publishing a changed query does."""
    url = f"sqlite:///{load.folder / 'memory-index.db'}"
    load.say(f"publishing {QUERIES:,} queries")
    rng = np.random.default_rng(0)
    with Embedded(url, Config(), "bench") as embedded:
        embedded.feed(_turn(0, "the first query", rng))
        embedded.finish()
        embedded.commit()
        embedded.publish()
        _put(url, range(QUERIES), rng)
        load.say("starting a reader")
        started = subprocess.run(
            [sys.executable, "-c", _READ, url], capture_output=True, check=True, text=True
        ).stdout.split()
        pairs = QUERIES * ENTITIES / 1e6
        yield Measure(f"reader start, {QUERIES:,} queries", float(started[0]), "s")
        yield Measure("reader, a million pairs", float(started[1]) / 2**20 / pairs, "MiB")
        reader = PolicyReader(url)
        try:
            yield from _serving(reader, url, rng, load)
        finally:
            reader.close()
    yield from _publishing(load, rng)


def _serving(reader: PolicyReader, url: str, rng: np.random.Generator, load: Load) -> Iterator[Measure]:
    policy = reader.policy
    load.say("recall")
    asked = [_text(number) for number in rng.integers(QUERIES, size=CALLS).tolist()]
    plain = {query: (query,) for query in map(_text, range(QUERIES))}
    store = Store(url)
    row = snapshot_row
    with store.read() as connection:
        point = select(row.c.value).where(row.c.section == "memory", row.c.valid_to.is_(None))

        def read(query: str) -> object:
            return connection.execute(point.where(row.c.key == query)).scalar()

        looked_up = _calls(plain.get, asked)
        read_by_sql = _calls(read, asked[: CALLS // 10])
        recalled = _calls(lambda query: policy.recall(query, ENTITIES), asked)
    store.close()
    del plain
    for share, name in ((50, "p50"), (99, "p99")):
        lookup, sql, ours = (float(np.percentile(times, share)) for times in (looked_up, read_by_sql, recalled))
        yield Measure(f"dict look-up, {name}", lookup, "µs")
        yield Measure(f"recall of {ENTITIES}, {name}", ours, "µs", ours / lookup, "dict look-up")
        yield Measure(f"recall of {ENTITIES}, {name}", ours, "µs", ours / sql, f"SQL point read of {sql:.0f} µs")
    load.say("refresh")
    taken = []
    for number in range(load.rounds):
        _put(url, range(number, QUERIES, QUERIES // CHANGED), rng)
        started = time.perf_counter()
        assert reader.refresh()
        taken.append(time.perf_counter() - started)
    yield Measure(f"reader refresh, {CHANGED:,} queries changed", 1e3 * float(np.median(taken)), "ms")


def _publishing(load: Load, rng: np.random.Generator) -> Iterator[Measure]:
    load.say("publishing changed queries")
    url = f"sqlite:///{load.folder / 'publishing.db'}"
    taken = []
    with Embedded(url, Config(), "bench") as embedded:
        for number in range(load.rounds + 1):
            at = number * PUBLISHED
            embedded.feed([event for query in range(PUBLISHED) for event in _turn(at + query, _text(query), rng)])
            embedded.finish()
            embedded.commit()
            started = time.perf_counter()
            embedded.publish()
            taken.append(time.perf_counter() - started)
    yield Measure("publish, per changed query", 1e6 * float(np.median(taken[1:])) / PUBLISHED, "µs")


def _text(number: int) -> str:
    return f"query number {number}"


def _turn(number: int, text: str, rng: np.random.Generator) -> list[Any]:
    ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"q{number}"}
    ts = _AT + 1000 * number
    shown = tuple(Result(f"entity-{one}", place) for place, one in enumerate(rng.permutation(ENTITIES).tolist(), 1))
    return [
        Query(event_id=f"{number}q", ts=ts, text=text, **ids),
        Impression(event_id=f"{number}i", ts=ts, results=shown, **ids),
        Click(event_id=f"{number}c", ts=ts, entity_id=shown[0].entity_id, **ids),
    ]


def _put(url: str, numbers: Sequence[int], rng: np.random.Generator) -> None:
    """Publish these queries with made-up evidence."""
    store = Store(url)
    values = rng.random((len(numbers), ENTITIES, 2)).round(6).tolist()
    entities = rng.integers(1_000_000, size=(len(numbers), ENTITIES)).tolist()
    encode = msgspec.json.Encoder().encode
    rows: dict[str, bytes | None] = {}
    for number, names, sums in zip(numbers, entities, values, strict=True):
        known = [Evidence(f"entity-{name}", gain, 9 * shown) for name, (gain, shown) in zip(names, sums, strict=True)]
        rows[_text(number)] = encode(Row(_AT, tuple(known)))
    with store.write() as connection:
        head = snapshots.newest(connection)
        assert head is not None
        provenance = snapshots.Provenance(
            created=head.created, watermark=head.watermark, positions=head.positions, fingerprint=head.fingerprint
        )
        snapshots.publish(connection, {"memory": rows}, provenance)
    store.close()


def _calls(call: Callable[[str], object], queries: Sequence[str]) -> list[float]:
    """The microseconds of each call, warm."""
    taken = []
    gc.collect()
    for query in queries[: len(queries) // 10]:
        call(query)
    for query in queries:
        started = time.perf_counter_ns()
        call(query)
        taken.append((time.perf_counter_ns() - started) / 1000)
    return taken
