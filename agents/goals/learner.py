"""Goals: how many there were, how many were reached, and how many ended in a defect, as sums.

A goal is one or more turns of a session in a row that serve one task. It ends with a turn if the session's next query
begins another goal (see `starts`), or does not come within the attribution window. So every turn has a probability of
being the last of its goal, and as each goal has one last turn, the sum of these probabilities is the number of goals.
How the last turn went is how the goal went: a user who says it twice and then gets it has one goal, reached, not two
turns of which one failed.

A turn is all that is needed, so the sums are exact in any order, on any number of workers and after a restart; goals
have no state that could be lost. A query that comes too late to be a turn is in nobody's sums, and is the next query of
no turn that closed before; the goal before it then ends there.

Assumptions, as `docs/design.md` asks of every learner: goals are not interleaved, and someone who gives up in silence
after a rephrase has neither reached the goal nor told a defect. That, too, is why goals that are neither reached nor
defective are unknown, not failed. Nobody's goals are bounded: they are for charts, as turns are in `quality`.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.goals.starts import Starts, last_outcomes
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcomes, RewardConfig, said_of
from backchannel.agents.sums import ALL, GRID, Booleans, Delta, Floats, Groups, Integers, SumReader, SumTable

SUMS: Final = ("goals", "reached", "defects")
"""See `Goals`."""
FAILED: Final = frozenset({"failed", "nothing"})
"""The outcomes with which a goal ends in a defect; see `schemas.events.Impression`."""

_STARTS: Final = Starts()


class Goals(Learner):
    """Sums over goals by strategy and time bucket. It publishes nothing.

    A goal counts where its last turn is: in the bucket of that turn's query, in the rows of `ALL` and of each strategy
    that the turn asked.

    - `goals`: the probability that the turn is the last of its goal;
    - `reached`: that, times the success of the turn; see `agents.outcomes`. It includes what people said about it;
    - `defects`: that, times the probability that the turn was a defect: interrupted, or the system said that it could
      not or found nothing, unless people said otherwise. A rephrase is none: it goes on with the goal.

    Args:
        bucket_s: the length of a time bucket, s.
        strategies: names of the strategies with rows of their own; without any, those that turns name.
        feedback_weight: see `RewardConfig`.
    """

    name = "goals"
    serving = None

    def __init__(self, bucket_s: float, strategies: Sequence[str], feedback_weight: float = 1.0) -> None:
        self.bucket_s: Final = bucket_s
        self.table: Final = SumTable(name=self.name, key=(("strategy", str), ("bucket", int)), sums=SUMS)
        self.tables = (self.table,)
        self._strategies: Final = tuple(strategies)
        self._feedback_weight: Final = feedback_weight

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        rewards: RewardConfig = config.rewards
        return cls(config.quality.bucket_s, config.bandit.strategies, rewards.feedback_weight)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        turns = len(outcomes)
        if not turns:
            return {}
        ends = ends_of(outcomes)
        defects = ended_badly(outcomes, self._feedback_weight)
        values = [ends, *(np.rint(ends * one * GRID) / GRID for one in (outcomes.unrephrased, defects))]
        # First a line per turn for all strategies together, then one per strategy asked.
        strategies = sorted(outcomes.strategies_of(self._strategies))
        asked = outcomes.asked_of(strategies)
        rows = np.concatenate((np.arange(turns), asked.rows))
        codes = np.concatenate((np.zeros(turns, dtype=np.int64), asked.codes + 1))
        bucket_ms = round(self.bucket_s * 1000)
        first, last = (int(one) // bucket_ms for one in (outcomes.times.min(), outcomes.times.max()))
        buckets = range(first * bucket_ms, (last + 1) * bucket_ms, bucket_ms)
        groups = Groups((codes, [ALL, *strategies]), ((outcomes.times // bucket_ms - first)[rows], buckets))
        return {self.table.name: groups.sums(self.table, [one[rows] for one in values])}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 -- Learner's
        """See `Learner.solve`: nothing is published."""
        return {}


def ends_of(outcomes: Outcomes, turns: Integers | None = None) -> Floats:
    """Return the probability that each turn is the last of its goal, on the grid, (turns,).

    The next query does not both rephrase this one and begin a goal, so it begins one at most with the probability that
    it is not a rephrase.

    Args:
        outcomes: the outcomes of turns.
        turns: indexes of turns; None: all.
    """
    if turns is None:
        turns = np.arange(len(outcomes))
    ends = np.ones(len(turns))
    followed = outcomes.columns.turns.following.counts[turns] > 0
    rows = turns[followed]
    rephrased = np.rint(outcomes.rephrased[rows] * GRID) / GRID
    ends[followed] = np.minimum(_STARTS.probabilities(outcomes.columns, rows), 1.0 - rephrased)
    return ends


def ended_badly(outcomes: Outcomes, feedback_weight: float) -> Floats:
    """Return the probability that a goal whose last turn this is ended in a defect, (turns,); see `Goals`."""
    columns = outcomes.columns
    defects = (outcomes.barged_in | _failed(columns)).astype(float)
    said = said_of(columns)
    weight = np.where(np.isnan(said), 0.0, feedback_weight)
    return np.asarray((1.0 - weight) * defects + weight * (1.0 - np.nan_to_num(said)))


def _failed(columns: Columns) -> Booleans:
    failed = np.array([*(name in FAILED for name in columns.pools.labels), False])
    return np.asarray(failed[last_outcomes(columns)])
