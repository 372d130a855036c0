"""What people said about answers, and how much that counts.

What somebody says is another measurement than what clicks, barge-ins and rephrases say: one may be higher than the
other for everybody. Where more is asked, more turns would be measured by answers, and would only for that look better
or worse. So an answer to a question that was asked with a logged probability p counts

    s + (a - s) least / p        instead of a, if p is above `least`

with s what the other signals say, and a the answer. If people are asked with probabilities of at least `least`, every
turn is expected to count s + (a - s) least, whether it was asked about often or seldom. This is the doubly robust
estimate (Robins, Rotnitzky & Zhao, JASA 1994) of the mean answer, with s as the prediction, scaled down by `least` so
that it lies between s and a. It is a sum over single turns, like everything else.

Answers that were volunteered, or whose probability nobody logged, count in full. Whoever does not answer when asked is
not corrected for.
"""

import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.sums import Floats
from backchannel.schemas.events import Feedback, value_of


def said_of(columns: Columns) -> Floats:
    """Return what was said about each turn's answer, the mean if several times, in [0, 1]; (n,), NaN: nothing."""
    turns, fields = columns.others(Feedback)
    values = [value_of(one["answered"], one["rating"], one["thumbs_up"]) for one in fields]
    rows = turns[np.array([value is not None for value in values], dtype=bool)]
    counts = np.bincount(rows, minlength=len(columns))
    total = np.bincount(rows, [value for value in values if value is not None], len(columns))
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def shares_of(columns: Columns, least: float) -> Floats:
    """Return the share, 0 to 1, of what was said about each turn that counts, (n,): 1 if it was volunteered.

    It is 0 if nothing was said. Of several answers about a turn, the largest share counts.

    Args:
        columns: the turns.
        least: the least probability of a question; answers to questions that were asked less often count in full.
    """
    turns, fields = columns.others(Feedback)
    shares = np.zeros(len(columns))
    for turn, one in zip(turns.tolist(), fields, strict=True):
        if value_of(one["answered"], one["rating"], one["thumbs_up"]) is None:
            continue
        known = one["asked"] and one["propensity"] is not None
        shares[turn] = max(shares[turn], min(least / one["propensity"], 1.0) if known else 1.0)
    return shares
