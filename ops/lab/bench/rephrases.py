"""The cost of rephrases: detecting them, solving the graph, looking up rewrites, and space in the ledger.

Times are processor time, except those of lookups.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final

import msgspec
import numpy as np
from numpy.random import Generator

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.learner import Learner
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rephrases.detector import RephraseDetector
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.rewrites.rows import RewriteRow
from backchannel.agents.serving import live_rows
from backchannel.agents.sketches import BUCKETS
from backchannel.agents.sums import Delta, MemorySums, Sums, merge
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.schemas.events import Click, Query
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn
from backchannel.streams.serving.policy import Policy
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger, LedgerSums

EDGES: Final = 1_000_000
CHANGED: Final = 1_000
_SYLLABLES: Final = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")
_NOW: Final = 1_700_000_000_000


def rephrases(load: Load) -> Iterator[Measure]:
    """Yield the costs; the graph has a million edges, from garbled queries to proper ones."""
    rng = np.random.default_rng(0)
    load.say("the rephrase detector")
    yield from _detecting(rng, load.rounds)
    load.say("rewrites looked up")
    yield from _looking_up(rng)
    load.say("the ledger's growth")
    yield from _growth(load, rng)
    load.say("a graph of 1,000,000 edges")
    yield from _solving(load, rng)


def _detecting(rng: Generator, rounds: int) -> Iterator[Measure]:
    detector = RephraseDetector()
    fresh: list[float] = []
    known: list[float] = []
    for _ in range(rounds):
        pairs = [turn for turn in _turns(20_000, rng, users=1000, queries=1_000_000) if turn.next is not None]
        for turn in pairs:  # done before detection in any case
            normalize(turn.query.text)
            normalize(turn.next.text if turn.next else "")
        for taken in (fresh, known):
            columns, rows = columns_of(pairs), np.arange(len(pairs))
            began = time.process_time()
            detector.probabilities(columns, rows)
            taken.append((time.process_time() - began) / len(pairs) * 1e6)
    yield Measure("detector, a pair of texts never seen", float(np.median(fresh)), "µs")
    yield Measure("detector, a pair of texts seen before", float(np.median(known)), "µs")


def _looking_up(rng: Generator) -> Iterator[Measure]:
    texts = _texts(100_000, rng)
    row = msgspec.json.encode(RewriteRow(target="something else", probability=0.5, support=10.0))
    own = msgspec.json.encode(dict.fromkeys(texts[:20], ("something of one's own", 0.5)))
    bandit = StrategyBandit(BanditConfig()).solve(MemorySums({}), {"bandit": set()}, 0)
    sections = {
        "bandit": live_rows(bandit),
        "rewrites": dict.fromkeys(texts, row),
        "personal_rewrites": {f"user-{number}": own for number in range(10_000)},
    }
    header = Snapshot(
        version=1, parent=None, created=0, watermark=0, positions={}, fingerprint="", rows={}, checksum=""
    )
    policy = Policy(header, sections, rng)
    asked = [texts[number] for number in rng.integers(len(texts), size=20_000)]
    for name, user in (("global", None), ("with a personal layer of 20", "user-7")):
        taken = []
        for number, text in enumerate(asked):
            began = time.perf_counter_ns()
            policy.rewrite(text, user=user, session=f"s{number}")
            taken.append((time.perf_counter_ns() - began) / 1000)
        for quantile in (50, 99):
            yield Measure(f"rewrite, {name}, p{quantile}", float(np.percentile(taken, quantile)), "µs")


def _growth(load: Load, rng: Generator) -> Iterator[Measure]:
    """Yield what a million turns by 50,000 users, a sixth of them rephrased, add to the ledger."""
    turns, learners, judge = 200_000, _learners(), Judge(RewardConfig())
    path = load.folder / "growth.db"
    store, book = _store(f"sqlite:///{path}", learners)
    claim = book.claim("bench", 0)
    empty = path.stat().st_size
    for part in range(5):
        outcomes = judge.judge(columns_of(_turns(turns, rng, users=50_000, queries=200_000, start=part)))
        delta = merge(learner.learn(outcomes) for learner in learners)
        (claim,) = book.commit([Contribution(claim, claim.position, delta, {})])
    with store.write() as connection:
        connection.exec_driver_sql("DELETE FROM change")
        for learner in learners:
            for table in learner.tables:
                rows = connection.exec_driver_sql(f"SELECT count(*) FROM {table.name}").scalar_one()
                if rows:
                    yield Measure(f"rows of {table.name}, 1,000,000 turns", float(rows), "rows")
    store.close()
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("VACUUM")
    yield Measure("ledger of rephrases, 1,000,000 turns", (path.stat().st_size - empty) / 2**20, "MiB")


def _solving(load: Load, rng: Generator) -> Iterator[Measure]:
    graph = RephraseGraph(RephraseConfig())
    store, book = _store(f"sqlite:///{load.folder / 'graph.db'}", [graph])
    claim = book.claim("bench", 0)
    delta, states = _graph(graph, rng)
    book.commit([Contribution(claim, claim.position, delta, {})])
    with store.read() as connection:
        sums = LedgerSums(store, connection)

        def solve(changed: set[str]) -> tuple[float, dict[str, bytes | None]]:
            began = time.process_time()
            found = graph.solve(sums, {graph.absorptions.name: changed}, _NOW)
            return time.process_time() - began, found

        asked = {states[number] for number in rng.integers(len(states), size=CHANGED)}
        solve(set(list(asked)[:10]))
        seconds, found = solve(asked)
        yield Measure(f"solve, {CHANGED:,} changed states", seconds / len(asked) * 1e6, "µs a changed state")
        yield Measure("states solved with them", len(found) / len(asked), "a changed state")
        seconds, found = solve(set(states))
        yield Measure("solve, all of 1,000,000 edges", seconds, "s")
        yield Measure("rewrites found", float(sum(row is not None for row in found.values())), "")
    store.close()


def _learners() -> list[Learner]:
    return [RephraseGraph(RephraseConfig()), PersonalRewrites(RephraseConfig())]


def _store(url: str, learners: Sequence[Learner]) -> tuple[Store, Ledger]:
    tables = [table for learner in learners for table in learner.tables]
    store = Store(url)
    store.create(tables)
    return store, Ledger(store, tables)


def _texts(count: int, rng: Generator) -> list[str]:
    syllables = rng.choice(_SYLLABLES, size=(count, 9))
    return [" ".join("".join(row[at : at + 3]) for at in (0, 3, 6)) for row in syllables.tolist()]


def _turns(count: int, rng: Generator, *, users: int, queries: int, start: int = 0) -> list[Turn]:
    """Return turns on Zipf-distributed queries by `users` users; every sixth is misspelt, then repeated correctly."""
    texts = _texts(queries, np.random.default_rng(1))
    popularity = 1.0 / np.arange(1, queries + 1)
    asked = rng.choice(queries, count, p=popularity / popularity.sum()).tolist()
    turns = []
    for number, place in enumerate(asked):
        ids: dict[str, Any] = {"session_id": f"session-{start}-{number}", "ts": _NOW + 1000 * (start * count + number)}
        user = f"user-{rng.integers(users)}"
        text = texts[place]
        again, clicked = number % 6 == 0, rng.random() < 0.4
        wrong = f"{text[:-1]}{'aeiou'[int(rng.integers(5))]}x"
        query = Query(event_id="q", query_id="q", user_id=user, text=wrong if again else text, **ids)
        following = Query(event_id="n", query_id="n", user_id=user, text=text, **{**ids, "ts": query.ts + 8000})
        click = Click(event_id="c", query_id="q", entity_id="e", **ids)
        turns.append(Turn.of(query, [click] * (clicked and not again), following if again else None))
    return turns


def _graph(graph: RephraseGraph, rng: Generator) -> tuple[Delta, list[str]]:
    """Return the sums of a graph from garbled queries to proper ones, popular ones more often; and its states."""
    proper, garbled = EDGES // 10, EDGES // 2
    states = [f"proper {number}" for number in range(proper)] + [f"garbled {number}" for number in range(garbled)]
    sources = proper + rng.integers(garbled, size=EDGES)
    targets = np.minimum(proper * rng.random(EDGES) ** 2, proper - 1).astype(int)
    pairs = sorted(set(zip(sources.tolist(), targets.tolist(), strict=True)))
    people = rng.poisson(0.4, (len(pairs), len(BUCKETS))).astype(float)
    means = np.repeat((8.0, 2.0), len(BUCKETS)) / len(BUCKETS)
    absorbed = rng.poisson(means, (len(states), len(means))).astype(float)
    absorbed[proper:, : len(BUCKETS)] = 0.0
    landmark = graph.absorptions.landmark(_NOW)
    steps = Sums(graph.transitions, [(states[one], states[other]) for one, other in pairs], people, landmark)
    ends = Sums(graph.absorptions, [(state,) for state in states], absorbed, landmark)
    return {steps.table.name: steps, ends.table.name: ends}, states
