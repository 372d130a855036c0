"""Where goals begin: the probability that a session's next query begins another goal than this one's.

What holds of two queries in a row is bins of numbers and hashed words. A ridge regression on these, calibrated on
dialogues that it has not seen, gives a score, and the score a probability. `backchannel lab goals` fits the weights,
which are in `weights`.

Weights and probabilities are multiples of 1/1024, so scores are exact in any order, and every worker has the same.

What the weights do not see, because no public dialogues tell: the time between the queries, and what the NLU made of
them. Both enter by the rephrase detector, which sees them: a rephrase does not begin a goal.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import Final
from zlib import crc32

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.process import cpdist

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, Codes, distinct, spans
from backchannel.agents.goals.weights import WEIGHTS
from backchannel.agents.sums import GRID, Floats, Integers, unique_inverse
from backchannel.schemas.text import normalize

BINS: Final[dict[str, tuple[float, ...]]] = {
    "likeness": (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
    "shared words": (0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
    "words": (1, 2, 3, 4, 6, 8, 10, 13, 17),
    "words before": (1, 2, 3, 4, 6, 8, 10, 13, 17),
}
"""Number -> the lower bounds of its bins from the second one on."""

NAMES: Final[dict[str, int]] = {"outcome": 16, "word": 512, "pair of words": 1024, "word before": 128}
"""Names of a kind -> the number of slots that they are hashed to."""

_SIZES: Final = {"constant": 1} | {name: len(edges) + 1 for name, edges in BINS.items()} | NAMES
_STARTS: Final = dict(zip(_SIZES, accumulate((0, *_SIZES.values())), strict=False))
WIDTH: Final = sum(_SIZES.values())
"""The length of a vector."""


class Starts:
    """Estimates where goals begin.

    Args:
        weights: the weights of the slots, in units of 1/1024, (WIDTH,).
    """

    def __init__(self, weights: tuple[int, ...] = WEIGHTS) -> None:
        self._weights: Final = np.array(weights, dtype=float)

    def probabilities(self, columns: Columns, rows: Integers) -> Floats:
        """Return the probabilities that the next queries of turns begin a goal, (rows,). An empty query begins none.

        Args:
            columns: the turns.
            rows: indexes of turns with a next query, (rows,).
        """
        lines, slots = evidence(columns, rows)
        scores = np.bincount(lines, self._weights[slots], len(rows)) / GRID
        said = np.array([*map(bool, map(normalize, columns.pools.texts)), False])
        following = columns.turns.following.take(rows).rows.spelled
        return np.where(said[following], np.rint(GRID / (1.0 + np.exp(-scores))) / GRID, 0.0)


def evidence(columns: Columns, rows: Integers) -> tuple[Integers, Integers]:
    """Return what holds of turns and their next queries: pairs of an index in `rows` and a slot of its vector.

    Args:
        columns: the turns.
        rows: indexes of turns with a next query, (rows,).
    """
    turns, texts = columns.turns, columns.pools.texts
    query, after = turns.query.spelled[rows], turns.following.take(rows).rows.spelled
    first, pair = distinct(query, after)
    asked, then = ([normalize(texts[code]) for code in codes[first].tolist()] for codes in (query, after))
    likeness = cpdist(asked, then, scorer=Indel.normalized_similarity)
    shared = cpdist(asked, then, scorer=token_set_ratio) / 100
    of_pairs = np.stack(
        (np.zeros(len(first), np.int64), _slots("likeness", likeness), _slots("shared words", shared)), 1
    )
    every = np.arange(len(rows))
    before, words_before = _words(_before, texts, query)
    next_, words = _words(_next, texts, after)
    return (
        np.concatenate((every, np.repeat(every, of_pairs.shape[1]), before, next_)),
        np.concatenate((_outcomes(columns)[rows], of_pairs[pair].ravel(), words_before, words)),
    )


def _words(slots_of: Callable[[str], tuple[int, ...]], texts: Sequence[str], codes: Codes) -> tuple[Integers, Integers]:
    """Return pairs of an index in `codes`, (rows,), and one of its text's slots; each distinct text is read once."""
    found, place = unique_inverse(codes)
    slots = [slots_of(normalize(texts[code])) for code in found.tolist()]
    counts = np.fromiter(map(len, slots), np.int64, len(slots))
    starts, counts = (counts.cumsum() - counts)[place], counts[place]
    every = np.fromiter(chain.from_iterable(slots), np.int64)
    return np.repeat(np.arange(len(codes)), counts), every[spans(starts, counts)]


def last_outcomes(columns: Columns) -> Integers:
    """Return the code in `Pools.labels` of what the system did last in each turn, (turns,); MISSING if unknown."""
    shown = columns.turns.impressions
    told = np.flatnonzero(shown.rows.outcome != MISSING)
    found = np.full(len(columns), MISSING, dtype=np.int64)
    found[shown.parents[told]] = shown.rows.outcome[told]
    return found


def _outcomes(columns: Columns) -> Integers:
    slots = [_hashed("outcome", name) for name in (*columns.pools.labels, "")]
    return np.array(slots, dtype=np.int64)[last_outcomes(columns)]


def _slot(name: str, number: float) -> int:
    return _STARTS[name] + bisect_right(BINS[name], number)


def _slots(name: str, numbers: Floats) -> Integers:
    return _STARTS[name] + np.searchsorted(BINS[name], numbers, side="right")


def _hashed(kind: str, name: str) -> int:
    return _STARTS[kind] + crc32(name.encode(errors="surrogatepass")) % NAMES[kind]


@lru_cache(maxsize=1 << 14)
def _before(text: str) -> tuple[int, ...]:
    words = text.split()
    return _slot("words before", len(words)), *sorted({_hashed("word before", word) for word in words})


@lru_cache(maxsize=1 << 14)
def _next(text: str) -> tuple[int, ...]:
    words = text.split()
    slots = {_hashed("word", word) for word in words}
    slots |= {_hashed("pair of words", " ".join(pair)) for pair in pairwise(("^", *words, "$"))}
    return _slot("words", len(words)), *sorted(slots)
