"""The cost of the search engine on this machine: to build each index, and per query."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from msgspec import Struct

from backchannel.ops.lab.search.build import Engine
from backchannel.ops.lab.search.generators.base import Generator
from backchannel.ops.lab.search.union import unite

MOST_QUERIES = 300


class Cost(Struct, frozen=True):
    """Milliseconds per query: median and 99th percentile by the clock, and mean processor time."""

    p50_ms: float
    p99_ms: float
    cpu_ms: float


class Costs(Struct, frozen=True):
    """The cost of all generators.

    Attributes:
        documents, queries: numbers of documents and of queries measured.
        index_s: index -> processor time to build it, s; embeddings may come from the cache.
        generators: generator -> its cost per query.
        server: the cost per query of all generators in sequence, the features, and the union.
    """

    documents: int
    queries: int
    index_s: dict[str, float]
    generators: dict[str, Cost]
    server: Cost


def measure(engine: Engine, queries: Sequence[str], depth: int) -> Costs:
    """Time every generator on the same queries.

    Args:
        engine: the engine to measure.
        queries: the queries, of which at most MOST_QUERIES are asked.
        depth: the depth of lists.
    """
    asked = queries[:MOST_QUERIES]

    def serve(query: str) -> None:
        found = engine.find(query, depth)
        engine.features(query, found)
        unite({name: one.places.tolist() for name, one in found.items()}, dict.fromkeys(found, depth), depth)

    return Costs(
        documents=engine.index.size,
        queries=len(asked),
        index_s=dict(engine.seconds),
        generators={
            name: _cost(partial(_find, generator, depth), asked) for name, generator in engine.generators.items()
        },
        server=_cost(serve, asked),
    )


def _find(generator: Generator, depth: int, query: str) -> None:
    generator.find(query, depth)


def _cost(work: Callable[[str], None], queries: Sequence[str]) -> Cost:
    seconds = []
    processor = time.process_time()
    for query in queries:
        began = time.perf_counter()
        work(query)
        seconds.append(time.perf_counter() - began)
    processor = time.process_time() - processor
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return Cost(float(p50), float(p99), 1000 * processor / len(queries))
