"""The cost of publishing, and of refreshing a reader, when most of a large policy has not changed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from statistics import median
from typing import Any, Final

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.memory.learner import MemoryIndex
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.sums import Delta
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.local.postgres import Postgres, PostgresError
from backchannel.schemas.events import Click, Impression, Query, Result
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.monitoring.vitals import read_store
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.position import Claim, Position

ROWS: Final = 1_000_000
CHANGED: Final = ROWS // 100
BATCH: Final = 50_000
START_MS: Final = 1_700_000_000_000


def store(load: Load) -> Iterator[Measure]:
    """Yield the figures for SQLite and, if it is installed, PostgreSQL."""
    config = Config()
    learning = Learning(config)
    load.say(f"{ROWS:,} turns, each with its own query")
    index, judge = MemoryIndex(config.memory), Judge(config.rewards)
    deltas = [
        index.learn(judge.judge(columns_of(_turns(range(first, min(first + BATCH, ROWS)), 0))))
        for first in range(0, ROWS, BATCH)
    ]
    with ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{load.folder / 'publish.db'}"}
        try:
            urls["PostgreSQL"] = stack.enter_context(Postgres()).url
        except PostgresError:
            load.say("PostgreSQL is not installed: left out")
        sites = {name: stack.enter_context(closing(_Site(url, config, learning))) for name, url in urls.items()}
        first = {}
        for name, site in sites.items():
            load.say(f"{name}: {ROWS:,} rows of sums")
            yield Measure(f"{name}: rows of sums committed, {BATCH:,} at once", ROWS / site.commit(deltas), "rows/s")
            yield Measure(f"{name}: rows of sums merged", ROWS / site.merge(), "rows/s")
            yield Measure(f"{name}: a query and one of its entities in the ledger", site.size() / ROWS, "bytes")
            load.say(f"{name}: the first version")
            first[name] = site.publish()
        later: dict[str, list[tuple[float, float]]] = {name: [] for name in sites}
        for number in range(1, load.rounds + 1):
            load.say(f"1% changed, {number} of {load.rounds}")
            changed = index.learn(judge.judge(columns_of(_turns(range(0, ROWS, ROWS // CHANGED), number))))
            for name, site in sites.items():
                site.commit([changed])
                later[name].append(site.publish())
    for name in sites:
        publish, refresh = (median(seconds) for seconds in zip(*later[name], strict=True))
        whole_publish, whole_refresh = first[name]
        yield Measure(f"{name}: publish {ROWS:,} memory rows, all of them new", whole_publish, "s")
        yield Measure(f"{name}: publish when 1% of them changed", publish, "s", publish / whole_publish, "all of them")
        yield Measure(f"{name}: a reader begins", whole_refresh, "s")
        yield Measure(f"{name}: a reader follows 1%", refresh, "s", refresh / whole_refresh, "begins")


class _Site:
    """A store with a worker's ledger, a publisher and a reader."""

    def __init__(self, url: str, config: Config, learning: Learning) -> None:
        self._store = Store(url)
        self._store.create(learning.tables)
        self._ledger = Ledger(self._store, learning.tables)
        self._claim: Claim = self._ledger.claim("bench", 0)
        self._publisher = Publisher(self._store, learning, config)
        self._reader = PolicyReader(url)

    def size(self) -> int:
        """Return the size of the store in bytes."""
        return read_store(self._store, 0).bytes

    def commit(self, deltas: Sequence[Delta]) -> float:
        """Commit `deltas` one by one; return the seconds taken."""
        began = time.perf_counter()
        for delta in deltas:
            position = Position(self._claim.position.watermark + 1 if self._claim.commits else START_MS)
            (self._claim,) = self._ledger.commit([Contribution(self._claim, position, delta, {})])
        return time.perf_counter() - began

    def merge(self) -> float:
        """Merge what was committed; return the seconds taken."""
        began = time.perf_counter()
        self._ledger.merge()
        return time.perf_counter() - began

    def publish(self) -> tuple[float, float]:
        """Publish and refresh the reader; return the seconds that each takes."""
        began = time.perf_counter()
        self._publisher.publish()
        published = time.perf_counter()
        if not self._reader.refresh():
            raise RuntimeError(f"the reader did not load the published version: {self._reader.status.error}")
        return published - began, time.perf_counter() - published

    def close(self) -> None:
        self._reader.close()
        self._store.close()


def _turns(numbers: Sequence[int], minute: int) -> list[Turn]:
    """Return a turn for each number, with its own query, one result, and a click on that result."""
    turns = []
    for number in numbers:
        at: dict[str, Any] = {
            "ts": START_MS + 60_000 * minute,
            "session_id": f"s{number}",
            "query_id": f"q{number}",
        }
        shown = Impression(
            event_id="i", results=(Result(f"e{number}", 1, ("lexical",)),), allocation={"lexical": 1}, **at
        )
        click = Click(event_id="c", entity_id=f"e{number}", **at)
        turns.append(Turn.of(Query(event_id="q", text=f"query {number}", **at), [shown, click]))
    return turns
