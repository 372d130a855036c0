"""The evidence of satisfaction: signals of a turn and of its session so far, each a bin of a number or a hashed name.

A turn becomes a vector of zeros and ones, as in `failures.evidence`, but from arrays, as all turns have one. Texts do
not enter. What is absent from the events is a bin of its own.
"""

from functools import lru_cache
from itertools import accumulate
from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, Codes
from backchannel.agents.labelled.bins import bins_of
from backchannel.agents.sums import Floats, Integers, unique_inverse
from backchannel.schemas.events import Earlier, Recognition, Understanding

OUTCOMES: Final = ("answered", "offered", "asked", "confirmed", "repeated", "failed", "nothing")

_COUNTS: Final = (1, 2, 3, 4, 6)
_SURPRISES: Final = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0)
_SHARES: Final = (0.001, 0.15, 0.3, 0.45, 0.6, 0.8)

BINS: Final[dict[str, tuple[float, ...]]] = {
    "clicks": (1, 2),
    "seconds of the longest dwell": (5, 15, 30, 60, 180),
    "barge-ins": (1,),
    "probability of a rephrase": (0.05, 0.2, 0.4, 0.6, 0.8),
    "seconds until the next query": (3, 5, 7, 10, 15, 20, 40),
    "surprise of the recogniser": _SURPRISES,
    "turns so far": (2, 3, 4, 5, 6, 7, 8, 10, 12, 15),
    "seconds so far": (20, 30, 45, 60, 90, 120, 180),
    "clicks so far": (1, 2, 3),
    "share of turns interrupted so far": _SHARES,
    "rephrases so far": (0.2, 0.5, 1, 1.5, 2, 3, 4),
    "share of turns rephrased so far": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    "mean surprise of the recogniser so far": _SURPRISES,
    "mean certainty of the NLU so far": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
} | {f"turns {outcome} so far": _COUNTS for outcome in OUTCOMES}
"""Number -> the lower bounds of its bins from the second one on."""

NAMES: Final[dict[str, int]] = {"outcome": 16, "outcome before": 16}
"""Names of a kind -> the number of slots that they are hashed to."""

_SIZES: Final = {"constant": 1} | {name: len(edges) + 2 for name, edges in BINS.items()} | NAMES
_STARTS: Final = dict(zip(_SIZES, accumulate((0, *_SIZES.values())), strict=False))
WIDTH: Final = sum(_SIZES.values())
"""The length of a vector."""
ENCODING: Final = f"{crc32(repr((BINS, NAMES)).encode()):08x}"
"""Vectors of another encoding mean something else: their sums are kept apart."""

_earlier: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Earlier).decode)
_recognition: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Recognition).decode)
_understanding: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Understanding).decode)


def slots_of(columns: Columns, rephrased: Floats) -> Integers:
    """Return the slots of turns in their vectors, (turns, slots of a turn).

    Args:
        columns: the turns.
        rephrased: the probabilities that they were rephrased, (turns,).
    """
    outcomes = _outcomes(columns)
    numbers, before = _numbers(columns, rephrased, outcomes)
    found = [np.zeros(len(columns), dtype=np.int64)]
    found += [_STARTS[name] + bins_of(edges, numbers[name]) for name, edges in BINS.items()]
    of_label = np.array([_hashed("outcome", label) for label in (*columns.pools.labels, "unknown")], dtype=np.int64)
    of_before = np.array([_hashed("outcome before", one) for one in before], dtype=np.int64)
    return np.stack((*found, of_label[outcomes], of_before), axis=1)


def vectors(slots: Integers) -> Floats:
    """Return the vectors, (turns, WIDTH), of turns with `slots`, (turns, slots of a turn)."""
    matrix = np.zeros((len(slots), WIDTH))
    np.put_along_axis(matrix, slots, 1.0, axis=1)
    return matrix


def _numbers(columns: Columns, rephrased: Floats, outcomes: Integers) -> tuple[dict[str, Floats], list[str]]:
    """Return the numbers of turns, (turns,) each, NaN if unknown, and the outcomes before them."""
    turns, size = columns.turns, len(columns)
    follows = turns.following.counts > 0
    dwell, until = np.full(size, np.nan), np.full(size, np.nan)
    known = turns.clicks.rows.dwell_ms != MISSING
    np.fmax.at(dwell, turns.clicks.parents[known], turns.clicks.rows.dwell_ms[known] / 1000)
    until[follows] = (turns.following.rows.ts - turns.query.ts[follows]) / 1000
    surprise = _scores(columns, turns.query.asr, _surprise)
    certainty = _scores(columns, turns.query.nlu, _certainty)
    own = {
        "clicks": turns.clicks.counts.astype(float),
        "seconds of the longest dwell": dwell,
        "barge-ins": turns.barge_ins.astype(float),
        "probability of a rephrase": np.where(follows, rephrased, np.nan),
        "seconds until the next query": until,
        "surprise of the recogniser": surprise,
    }
    so_far = {name: np.full(size, np.nan) for name in BINS if name not in own}
    before = ["unknown"] * size
    labels = [*columns.pools.labels, ""]
    for row in np.flatnonzero(turns.query.earlier != MISSING).tolist():
        earlier = _earlier(columns.pools.contexts[turns.query.earlier[row]])
        count = earlier.turns + 1
        repeats = earlier.rephrased + (rephrased[row] if follows[row] else 0.0)
        so_far["turns so far"][row] = count
        so_far["seconds so far"][row] = earlier.seconds
        so_far["clicks so far"][row] = earlier.clicks + turns.clicks.counts[row]
        so_far["share of turns interrupted so far"][row] = (earlier.barge_ins + (turns.barge_ins[row] > 0)) / count
        so_far["rephrases so far"][row] = repeats
        so_far["share of turns rephrased so far"][row] = repeats / count
        for name, now, then in (
            ("mean surprise of the recogniser so far", surprise[row], earlier.surprise),
            ("mean certainty of the NLU so far", certainty[row], earlier.certainty),
        ):
            so_far[name][row] = now if then is None else mean_with(then, earlier.turns, now)
        for outcome in OUTCOMES:
            so_far[f"turns {outcome} so far"][row] = earlier.outcomes.get(outcome, 0) + (
                labels[outcomes[row]] == outcome
            )
        before[row] = earlier.outcome or "none"
    return own | so_far, before


def mean_with(mean: float, count: int, number: float) -> float:
    """Return the mean of `count` numbers and another one, which is left out if it is NaN."""
    return mean if np.isnan(number) else (mean * count + number) / (count + 1)


def _outcomes(columns: Columns) -> Integers:
    """Return the code of the last outcome of each turn, (turns,), or MISSING."""
    shown = columns.turns.impressions
    codes = np.full(len(columns), MISSING, dtype=np.int64)
    known = shown.rows.outcome != MISSING
    codes[shown.parents[known]] = shown.rows.outcome[known]
    return codes


def _scores(columns: Columns, codes: Codes, score: Any) -> Floats:
    known, place = unique_inverse(codes)
    scores = [np.nan if code == MISSING else score(columns.pools.contexts[code]) for code in known.tolist()]
    return np.array(scores, dtype=float)[place]


def _surprise(packed: bytes) -> float:
    hypotheses = _recognition(packed).hypotheses
    return -hypotheses[0].score if hypotheses else np.nan


def _certainty(packed: bytes) -> float:
    score = _understanding(packed).score
    return np.nan if score is None else score


@lru_cache(maxsize=4096)
def _hashed(kind: str, name: str) -> int:
    return _STARTS[kind] + crc32(name.encode(errors="surrogatepass")) % NAMES[kind]
