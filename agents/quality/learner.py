"""The quality of answers over time, as sums: for charts, metrics and drift alarms, not for the policy.

It counts turns and adds up feedback per time bucket and strategy. Rewards and probabilities are multiples of 1/1024, so
the sums are exact, in any order.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import ALL, GRID, Delta, Groups, SumReader, SumTable

SUMS: Final = ("turns", "candidates", "clicked", "barged_in", "rephrased", "defects", "reward")
"""See `AnswerQuality`."""

RATES: Final = {"click_rate": "clicked", "defect_rate": "defects"}
"""The rates over all turns that are monitored for drift -> the sum that is divided by the number of turns."""


class QualityConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the quality of answers is monitored."""

    bucket_s: Annotated[float, Meta(ge=1, le=86_400, description="length of a time bucket")] = 300.0
    keep_days: Annotated[float, Meta(gt=0, le=36_500, description="how long time buckets are kept")] = 30.0
    drift_confidence: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="ADWIN's delta: the smaller it is, the more evidence an alarm needs",
        ),
    ] = 0.002
    drift_change: Annotated[
        float, Meta(ge=0, le=100, description="smallest change that raises an alarm, as a share of the earlier rate")
    ] = 0.1


class AnswerQuality(Learner):
    """Sums of feedback by strategy and time bucket. It publishes nothing.

    A strategy's rows add up the turns that asked it; the rows of `ALL` add up all turns:

    - `turns`, and the `candidates` drawn in them;
    - `clicked`, `barged_in`: turns with a click, with a barge-in. A strategy's clicks are those it is credited with;
    - `rephrased`: the probability that the query was rephrased;
    - `defects`: the probability that the turn was a defect, see `agents.outcomes.defects`;
    - `reward`: the strategy's reward, or the turn's success, see `agents.outcomes`.

    Args:
        config: the length of a bucket, and the bounds of drift.
        strategies: names of the strategies with rows of their own; without any, those that turns name. Others count in
            `ALL` only.
    """

    name = "quality"
    serving = None

    def __init__(self, config: QualityConfig, strategies: Sequence[str]) -> None:
        self.config: Final = config
        self.table: Final = SumTable(
            name=self.name,
            key=(("strategy", str), ("bucket", int)),
            sums=SUMS,
        )
        self.tables = (self.table,)
        self.bucket_ms: Final = round(config.bucket_s * 1000)
        self._strategies: Final = tuple(strategies)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.quality, config.bandit.strategies)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        turns = len(outcomes)
        if not turns:
            return {}
        strategies = sorted(outcomes.strategies_of(self._strategies))
        asked, every = outcomes.asked_of(strategies), outcomes.asked
        # First a line per turn for all strategies together, then one per strategy asked.
        rows = np.concatenate((np.arange(turns), asked.rows))
        candidates = np.concatenate((np.bincount(every.rows, every.drawn, turns), asked.drawn)).astype(float)
        clicked, reward = np.zeros(len(rows)), np.zeros(len(rows))
        clicked[:turns], reward[:turns] = outcomes.clicked, outcomes.success
        clicked[turns + asked.credited] = outcomes.clicked[asked.rows[asked.credited]]
        reward[turns + asked.credited] = asked.rewards
        reward = np.rint(reward * GRID) / GRID
        feedback = (outcomes.barged_in[rows].astype(float), outcomes.rephrased[rows], outcomes.defects[rows])
        codes = np.concatenate((np.zeros(turns, dtype=np.int64), asked.codes + 1))
        first, last = (int(one) // self.bucket_ms for one in (outcomes.times.min(), outcomes.times.max()))
        buckets = range(first * self.bucket_ms, (last + 1) * self.bucket_ms, self.bucket_ms)
        groups = Groups((codes, [ALL, *strategies]), ((outcomes.times // self.bucket_ms - first)[rows], buckets))
        columns = (np.ones(len(rows)), candidates, clicked, *feedback, reward)
        return {self.table.name: groups.sums(self.table, columns)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 -- Learner's
        """See `Learner.solve`: nothing is published."""
        return {}
