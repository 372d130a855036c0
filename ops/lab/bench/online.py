"""The cost of online rewrites with a million queries, beside RapidFuzz over the same list."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.random import Generator
from rapidfuzz import fuzz, process

from backchannel.agents.rewrites import habitual
from backchannel.agents.rewrites.likeness import CANDIDATES
from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.rewrites.online import OnlineRewrites
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import Habit, RewriteRow, Settings, Usual
from backchannel.agents.sums import ALL
from backchannel.ops.lab.bench.measure import Load, Measure

QUERIES: Final = 1_000_000
ASKED: Final = 2_000
HABITS: Final = 50
SCANNED: Final = 5
_WORDS: Final = 20_000
_EDGES: Final = tuple(place / 10 for place in range(12))
_RANKER: Final = Ranker(  # it serves whatever is nearest, so no habit is left out early
    0.0,
    dict.fromkeys(habitual.NAMES, _EDGES),
    dict.fromkeys(habitual.NAMES, (*_EDGES, 1.2)),
    ((-1.0, 1_000.0),),
)
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
    meant = [texts[number] for number in rng.integers(len(texts), size=ASKED).tolist()]
    asked = [_misspelt(text, rng) for text in meant]
    load.say("rewriting misspelt queries")
    found = sum(text in index.candidates(query, CANDIDATES) for text, query in zip(meant, asked, strict=True))
    yield Measure("query that was meant among the candidates", 100 * found / len(asked), "%")
    scanned = _taken(
        lambda query, _: process.extractOne(query, texts, scorer=fuzz.ratio, score_cutoff=90), asked[:SCANNED], meant
    )
    scan = float(np.median(scanned))
    others = rng.integers(len(texts), size=HABITS - 1).tolist()
    habits = {texts[number]: _habit(texts[number]) for number in others}
    ways: dict[str, Callable[[str, str], object]] = {
        "online rewrite": lambda query, _: rewrites.rewrite(query, None),
        f"online rewrite, {HABITS} habits": lambda query, text: rewrites.rewrite(
            query, None, Usual({**habits, text: _habit(text)}, _RANKER), form=_form(query)
        ),
    }
    for name, call in ways.items():
        taken = _taken(call, asked, meant)
        for quantile in (50, 99):
            value = float(np.percentile(taken, quantile))
            yield Measure(f"{name}, p{quantile}", value, "µs", value / scan, f"RapidFuzz scan of {scan / 1e3:.0f} ms")


def _habit(text: str) -> Habit:
    return Habit(3.0, 0.0, _form(text))


def _form(text: str) -> str:
    """Return an interpretation of three parts."""
    words = text.split()
    return f"{words[0]}(slot={words[-1]}, other={words[len(words) // 2]})"


def _taken(call: Callable[[str, str], object], asked: Sequence[str], meant: Sequence[str]) -> list[float]:
    """Return the microseconds of the thread's time that each call takes."""
    taken = []
    for query, text in zip(asked, meant, strict=False):
        began = time.thread_time_ns()
        call(query, text)
        taken.append((time.thread_time_ns() - began) / 1e3)
    return taken


def _texts(rng: Generator) -> list[str]:
    """Return distinct queries of three to six words, some words far more popular than others."""
    words = ["".join(row) for row in rng.choice(_SYLLABLES, size=(_WORDS, 3)).tolist()]
    popularity = 1.0 / np.arange(1, _WORDS + 1)
    drawn = QUERIES * 21 // 20
    chosen = rng.choice(_WORDS, (drawn, 6), p=popularity / popularity.sum()).tolist()
    lengths = rng.integers(3, 7, size=drawn).tolist()
    pairs = zip(chosen, lengths, strict=True)
    return sorted({" ".join(words[one] for one in row[:length]) for row, length in pairs})[:QUERIES]


def _misspelt(text: str, rng: Generator) -> str:
    place = int(rng.integers(len(text)))
    return f"{text[:place]}x{text[place + 1 :]}"
