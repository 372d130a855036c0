"""The memory index's cost of serving and publishing, with a million queries of ten entities each."""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, Final

import msgspec
import numpy as np
from rapidfuzz import fuzz, process
from sqlalchemy import select

from backchannel.agents.memory.serving import PairEvidence, Row
from backchannel.agents.memory.similar import SimilarQueries
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import snapshot_row

QUERIES: Final = 1_000_000
ENTITIES: Final = 10
CALLS: Final = 50_000
CHANGED: Final = 1_000
PUBLISHED: Final = 10_000
GUESSES: Final = 5_000
SEARCHED: Final = 100
"""Guesses compared with an exhaustive search, which takes half a second per guess."""
WORDS: Final = 50_000
GUESS_FROM: Final = 0.9
_AT: Final = 1_700_000_000_000

# Runs in a process of its own, so that all memory it takes is the reader's.
_READ: Final = """
import gc, os, sys, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
from backchannel.streams.serving.reader import PolicyReader
guess_from = float(sys.argv[2]) if len(sys.argv) > 2 else None
reader = PolicyReader(sys.argv[1], guess_from=guess_from)
before, started = resident(), time.perf_counter()
reader.refresh()
assert reader.status.error is None, reader.status.error
took = time.perf_counter() - started
gc.collect()
print(took, resident() - before)
"""


def memory_index(load: Load) -> Iterator[Measure]:
    """Yield the costs of a reader of `QUERIES` queries, and of publishing a changed query."""
    url = f"sqlite:///{load.folder / 'memory-index.db'}"
    load.say(f"publishing {QUERIES:,} queries")
    rng = np.random.default_rng(0)
    texts = _texts(QUERIES, rng)
    with LocalPipeline(url, Config(), "bench") as embedded:
        embedded.feed(_turn(0, "the first query", rng))
        embedded.finish()
        embedded.commit()
        embedded.publish()
        _put(url, texts, rng)
        load.say("starting a reader")
        seconds, size = _start(url)
        pairs = QUERIES * ENTITIES / 1e6
        yield Measure(f"reader start, {QUERIES:,} queries", seconds, "s")
        yield Measure("reader, a million pairs", size / pairs, "MiB")
        guessing, with_index = _start(url, str(GUESS_FROM))
        yield Measure("reader start, that guesses", guessing, "s", guessing / seconds, "one that does not")
        yield Measure("reader that guesses, a million queries", (with_index - size) / QUERIES * 1e6, "MiB more")
        reader = PolicyReader(url, guess_from=GUESS_FROM)
        try:
            yield from _serving(reader, url, texts, rng, load)
        finally:
            reader.close()
    yield from _guessing(texts, rng, load)
    yield from _publishing(load, rng)


def _start(url: str, *arguments: str) -> tuple[float, float]:
    """Return the seconds that a reader takes to start, and its size in MiB."""
    command = [sys.executable, "-c", _READ, url, *arguments]
    seconds, size = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    return float(seconds), float(size) / 2**20


def _serving(
    reader: PolicyReader, url: str, texts: Sequence[str], rng: np.random.Generator, load: Load
) -> Iterator[Measure]:
    policy = reader.policy
    load.say("recall")
    asked = [texts[number] for number in rng.integers(QUERIES, size=CALLS).tolist()]
    plain = {query: (query,) for query in texts}
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
        yield Measure(f"dict lookup, {name}", lookup, "µs")
        yield Measure(f"recall of {ENTITIES}, {name}", ours, "µs", ours / lookup, "dict lookup")
        yield Measure(f"recall of {ENTITIES}, {name}", ours, "µs", ours / sql, f"SQL point read of {sql:.0f} µs")
    load.say("refresh")
    taken = []
    for number in range(load.rounds):
        _put(url, texts[number :: QUERIES // CHANGED], rng)
        started = time.perf_counter()
        assert reader.refresh()
        taken.append(time.perf_counter() - started)
    yield Measure(f"reader refresh, {CHANGED:,} queries changed", 1e3 * float(np.median(taken)), "ms")
    load.say("recall of unseen queries")
    misspelt = [_misspelt(texts[number], rng) for number in rng.integers(QUERIES, size=GUESSES).tolist()]
    guessed = _calls(lambda query: policy.recall(query, ENTITIES), misspelt)
    for share, name in ((50, "p50"), (99, "p99")):
        yield Measure(f"recall of {ENTITIES} by a guess, {name}", float(np.percentile(guessed, share)), "µs")


def _guessing(texts: Sequence[str], rng: np.random.Generator, load: Load) -> Iterator[Measure]:
    load.say("indexing queries")
    known = dict.fromkeys(texts)
    started = time.perf_counter()
    similar = SimilarQueries(GUESS_FROM).updated(texts, known)
    yield Measure(f"index to guess by, {QUERIES:,} queries", time.perf_counter() - started, "s")
    yield Measure("index to guess by, a query", similar.nbytes / QUERIES, "bytes")
    added = [f"{text} {text}" for text in texts[:CHANGED]]
    more = known | dict.fromkeys(added)
    started = time.perf_counter()
    similar.updated(added, more)
    yield Measure(f"index to guess by, {CHANGED:,} added", 1e3 * (time.perf_counter() - started), "ms")
    load.say("searching all queries")
    found = there = 0
    for number in rng.integers(QUERIES, size=SEARCHED).tolist():
        query = _misspelt(texts[number], rng)
        best = process.extractOne(query, texts, scorer=fuzz.token_sort_ratio, score_cutoff=100 * GUESS_FROM)
        if best is not None and query not in known:
            guess = similar.nearest(query, known)
            there += 1
            found += guess is not None and guess.similarity >= best[1] / 100
    yield Measure("guesses as good as those of an exhaustive search", 100 * found / there, "%")


def _publishing(load: Load, rng: np.random.Generator) -> Iterator[Measure]:
    load.say("publishing changed queries")
    url = f"sqlite:///{load.folder / 'publishing.db'}"
    taken = []
    with LocalPipeline(url, Config(), "bench") as embedded:
        for number in range(load.rounds + 1):
            at = number * PUBLISHED
            texts = [f"query number {number}" for number in range(PUBLISHED)]
            embedded.feed([event for one, query in enumerate(texts) for event in _turn(at + one, query, rng)])
            embedded.finish()
            embedded.commit()
            started = time.perf_counter()
            embedded.publish()
            taken.append(time.perf_counter() - started)
    yield Measure("publish, per changed query", 1e6 * float(np.median(taken[1:])) / PUBLISHED, "µs")


def _texts(count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` distinct queries of one to five made-up words; word n has a frequency proportional to 1 / n."""
    letters = list("etaoinshrdlucmfwypvbgkjqxz")
    shares = 1.0 / np.arange(2, 2 + len(letters))
    lengths = rng.poisson(4.5, WORDS) + 2
    drawn = "".join(rng.choice(letters, lengths.sum(), p=shares / shares.sum()))
    words = np.array([drawn[end - length : end] for end, length in zip(lengths.cumsum(), lengths, strict=True)])
    often = 1.0 / np.arange(1, WORDS + 1)
    texts: dict[str, None] = {}
    while len(texts) < count:
        some = words[rng.choice(WORDS, (count // 10, 5), p=often / often.sum())].tolist()
        texts |= dict.fromkeys(" ".join(row[:size]) for row, size in zip(some, cycle(range(1, 6))))
    return list(texts)[:count]


def _misspelt(text: str, rng: np.random.Generator) -> str:
    """Return `text` with one letter deleted, replaced or inserted."""
    place, letter = int(rng.integers(len(text))), "etaoinshrdlu"[rng.integers(12)]
    middle = ("", letter, text[place] + letter)[rng.integers(3)]
    return " ".join(f"{text[:place]}{middle}{text[place + 1 :]}".split())


def _turn(number: int, text: str, rng: np.random.Generator) -> list[Any]:
    ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"q{number}"}
    ts = _AT + 1000 * number
    shown = tuple(Result(f"entity-{one}", place) for place, one in enumerate(rng.permutation(ENTITIES).tolist(), 1))
    return [
        Query(event_id=f"{number}q", ts=ts, text=text, **ids),
        Impression(event_id=f"{number}i", ts=ts, results=shown, **ids),
        Click(event_id=f"{number}c", ts=ts, entity_id=shown[0].entity_id, **ids),
    ]


def _put(url: str, texts: Sequence[str], rng: np.random.Generator) -> None:
    """Publish `texts` with made-up evidence."""
    store = Store(url)
    values = rng.random((len(texts), ENTITIES, 2)).round(6).tolist()
    entities = rng.integers(1_000_000, size=(len(texts), ENTITIES)).tolist()
    encode = msgspec.json.Encoder().encode
    rows: dict[str, bytes | None] = {}
    for text, names, sums in zip(texts, entities, values, strict=True):
        known = [
            PairEvidence(f"entity-{name}", gain, 9 * shown) for name, (gain, shown) in zip(names, sums, strict=True)
        ]
        rows[text] = encode(Row(_AT, tuple(known)))
    with store.write() as connection:
        head = snapshots.newest(connection)
        assert head is not None
        provenance = snapshots.Provenance(
            created=head.created, watermark=head.watermark, positions=head.positions, fingerprint=head.fingerprint
        )
        snapshots.publish(connection, [{"memory": rows}], provenance)
    store.close()


def _calls(call: Callable[[str], object], queries: Sequence[str]) -> list[float]:
    """Return the microseconds of each call, after a warm-up."""
    taken = []
    gc.collect()
    for query in queries[: len(queries) // 10]:
        call(query)
    for query in queries:
        started = time.perf_counter_ns()
        call(query)
        taken.append((time.perf_counter_ns() - started) / 1000)
    return taken
