"""The cost of online rewrites with a million queries, beside RapidFuzz over the same list."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.random import Generator
from rapidfuzz import fuzz, process

from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.rewrites.online import OnlineRewrites
from backchannel.agents.rewrites.rows import RewriteRow, Settings
from backchannel.agents.sums import ALL
from backchannel.ops.lab.bench.measure import Load, Measure

QUERIES: Final = 1_000_000
ASKED: Final = 2_000
SCANNED: Final = 5
_WORDS: Final = 20_000
_SYLLABLES: Final = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def online(load: Load) -> Iterator[Measure]:
    """Yield the costs of the index and of rewriting misspelt queries."""
    rng = np.random.default_rng(0)
    texts = _texts(rng)
    row = msgspec.json.encode(RewriteRow(success=8.0, failure=2.0))
    rows = {**dict.fromkeys(texts, row), ALL: msgspec.json.encode(Settings(odds=12.0, first=1_000))}
    load.say(f"an index of {QUERIES:,} queries")
    began = time.perf_counter()
    index = Nearby().updated(texts, rows)
    yield Measure(f"index of {len(texts):,} queries, built", time.perf_counter() - began, "s")
    yield Measure("index, a query", index.nbytes / len(texts), "bytes")
    began = time.perf_counter()
    index.updated([f"a new query {number}" for number in range(1_000)], rows)
    yield Measure("index, 1,000 queries added", (time.perf_counter() - began) * 1e3, "ms")
    rewrites = OnlineRewrites(index, rows)
    asked = [_misspelt(texts[number], rng) for number in rng.integers(len(texts), size=ASKED).tolist()]
    load.say("rewriting misspelt queries")
    ours = _taken(lambda query: rewrites.rewrite(query, None), asked)
    scanned = _taken(
        lambda query: process.extractOne(query, texts, scorer=fuzz.ratio, score_cutoff=90), asked[:SCANNED]
    )
    scan = float(np.median(scanned))
    for quantile in (50, 99):
        value = float(np.percentile(ours, quantile))
        yield Measure(
            f"online rewrite, p{quantile}", value, "µs", value / scan, f"RapidFuzz scan of {scan / 1e3:.0f} ms"
        )


def _taken(call: Callable[[str], object], asked: Sequence[str]) -> list[float]:
    """Return the microseconds that each call takes."""
    taken = []
    for query in asked:
        began = time.perf_counter_ns()
        call(query)
        taken.append((time.perf_counter_ns() - began) / 1e3)
    return taken


def _texts(rng: Generator) -> list[str]:
    """Return distinct queries of three to six words, some words far more popular than others."""
    words = ["".join(row) for row in rng.choice(_SYLLABLES, size=(_WORDS, 3)).tolist()]
    popularity = 1.0 / np.arange(1, _WORDS + 1)
    chosen = rng.choice(_WORDS, (QUERIES, 6), p=popularity / popularity.sum()).tolist()
    lengths = rng.integers(3, 7, size=QUERIES).tolist()
    pairs = zip(chosen, lengths, strict=True)
    return sorted({" ".join(words[one] for one in row[:length]) for row, length in pairs})


def _misspelt(text: str, rng: Generator) -> str:
    place = int(rng.integers(len(text)))
    return f"{text[:place]}x{text[place + 1 :]}"
