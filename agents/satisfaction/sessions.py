"""What happened in a session so far: it is logged with a query, so that learning looks nothing up."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

import numpy as np
from msgspec import structs

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.schemas.events import Earlier, Feedback, Query
from backchannel.schemas.turn import Turn

_REPEATED: Final = 0.5
"""The probability of a rephrase from which a query asks the same as the one before."""


def earlier_of(turns: Sequence[Turn], query: Query) -> Earlier:
    """Return what happened in a session before a query, to be logged as its `earlier`.

    Args:
        turns: the session's earlier turns, in the order in which they were asked.
        query: the query that comes now; its rephrases of the last turn count.
    """
    return _before(turns, query, _rephrased(turns, query) if turns else [])


def earlier_of_each(turns: Sequence[Turn]) -> list[Earlier]:
    """Return what happened in a session before each of its turns, in the order in which they were asked."""
    if not turns:
        return []
    rephrased = _rephrased(turns, turns[-1].query)
    return [_before(turns[:place], turn.query, rephrased[:place]) for place, turn in enumerate(turns)]


def _rephrased(turns: Sequence[Turn], query: Query) -> list[float]:
    """Return the probabilities that turns were rephrased by the next one; the last one by `query`."""
    from backchannel.agents.outcomes.judge import Judge  # noqa: PLC0415 - serving has no rapidfuzz

    following = [*(turn.query for turn in turns[1:]), query]
    known = [structs.replace(turn, next=after) for turn, after in zip(turns, following, strict=True)]
    found: list[float] = Judge(RewardConfig()).judge(columns_of(known)).rephrased.tolist()
    return found


def _before(turns: Sequence[Turn], query: Query, rephrased: Sequence[float]) -> Earlier:
    if not turns:
        return Earlier(turns=0)
    outcomes = [next((one.outcome for one in reversed(turn.impressions) if one.outcome), None) for turn in turns]
    surprises = [-turn.query.asr.hypotheses[0].score for turn in turns if turn.query.asr and turn.query.asr.hypotheses]
    certainties = [turn.query.nlu.score for turn in turns if turn.query.nlu and turn.query.nlu.score is not None]
    said = [one.value for one in turns[-1].all(Feedback) if one.value is not None]
    counted = Counter(outcome for outcome in outcomes if outcome)
    return Earlier(
        turns=len(turns),
        seconds=max(query.ts - turns[0].query.ts, 0) / 1000,
        clicks=sum(len(turn.clicks) for turn in turns),
        barge_ins=sum(bool(turn.barge_ins) for turn in turns),
        rephrased=round(sum(rephrased), 4),
        outcomes=dict(counted.most_common(32)),
        outcome=outcomes[-1],
        surprise=round(float(np.mean(surprises)), 4) if surprises else None,
        certainty=round(float(np.mean(certainties)), 4) if certainties else None,
        repeats=sum(1 for _ in takewhile(lambda one: one >= _REPEATED, reversed(rephrased))),
        answer=float(np.mean(said)) if said else None,
        reply=next((one.reply for one in reversed(turns[-1].impressions) if one.reply), None),
    )
