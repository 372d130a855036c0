"""What holds of a turn, for whether it is the last of its goal and how that went: bins of numbers and hashed names.

A turn becomes a vector of zeros and ones, as in `failures.evidence`. What the weights of `starts` and the signals say
are bins among others, so labels correct both where people see it differently. Texts do not enter otherwise.
"""

from itertools import accumulate
from typing import Final
from zlib import crc32

import numpy as np

from backchannel.agents.goals.starts import last_outcomes
from backchannel.agents.labelled.bins import bins_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.said import said_of
from backchannel.agents.sums import Floats, Integers

BINS: Final[dict[str, tuple[float, ...]]] = {
    "probability that the next query begins a goal": (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98),
    "probability of a rephrase": (0.05, 0.2, 0.4, 0.6, 0.8),
    "seconds until the next query": (3, 5, 7, 10, 15, 20, 40),
    "success": (0.001, 0.25, 0.5, 0.75, 1.0),
    "clicks": (1, 2),
    "barge-ins": (1,),
    "what was said about the answer": (0.25, 0.5, 0.75),
}
"""Number -> the lower bounds of its bins from the second one on."""

_END: Final = "probability that the next query begins a goal"
_OUTCOMES: Final = 16
_SIZES: Final = (
    {"constant": 1}
    | {name: len(edges) + 2 for name, edges in BINS.items()}
    | {"outcome": _OUTCOMES, "outcome and success at the end": 1 + 2 * _OUTCOMES}
)
_STARTS: Final = dict(zip(_SIZES, accumulate((0, *_SIZES.values())), strict=False))
WIDTH: Final = sum(_SIZES.values())
"""The length of a vector."""
ENCODING: Final = f"{crc32(repr((BINS, _SIZES)).encode()):08x}"
"""Vectors of another encoding mean something else: their sums are kept apart."""


def slots_of(outcomes: Outcomes, begins: Floats) -> Integers:
    """Return the slots of turns in their vectors, (turns, slots of a turn).

    Args:
        outcomes: the outcomes of the turns.
        begins: the probabilities that the next queries begin a goal, (turns,); NaN without one.
    """
    columns, size = outcomes.columns, len(outcomes)
    turns, follows = columns.turns, ~np.isnan(begins)
    until = np.full(size, np.nan)
    until[follows] = (turns.following.rows.ts - turns.query.ts[follows]) / 1000
    numbers = {
        _END: begins,
        "probability of a rephrase": np.where(follows, outcomes.rephrased, np.nan),
        "seconds until the next query": until,
        "success": outcomes.unrephrased,
        "clicks": turns.clicks.counts.astype(float),
        "barge-ins": turns.barge_ins.astype(float),
        "what was said about the answer": said_of(columns),
    }
    bins = {name: bins_of(edges, numbers[name]) for name, edges in BINS.items()}
    names = [crc32(name.encode(errors="surrogatepass")) % _OUTCOMES for name in (*columns.pools.labels, "unknown")]
    named = np.array(names, dtype=np.int64)[last_outcomes(columns)]  # MISSING is the last one
    # How a turn went says how the goal went only if the turn is the last one.
    ended = np.nan_to_num(begins, nan=1.0) >= 0.5
    crossed = ended * (1 + 2 * named + (outcomes.unrephrased > 0))
    return np.stack(
        (
            np.zeros(size, dtype=np.int64),
            *(_STARTS[name] + places for name, places in bins.items()),
            _STARTS["outcome"] + named,
            _STARTS["outcome and success at the end"] + crossed,
        ),
        axis=1,
    )


def vectors(slots: Integers) -> Floats:
    """Return the vectors, (turns, WIDTH), of turns with `slots`, (turns, slots of a turn)."""
    matrix = np.zeros((len(slots), WIDTH))
    np.put_along_axis(matrix, slots, 1.0, axis=1)
    return matrix
