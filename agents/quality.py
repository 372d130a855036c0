"""How well the answers do over time, as sums: for charts, metrics and drift alarms, not for the policy.

Per time bucket and strategy it counts turns, and adds up what people's feedback said. Rewards and rephrases lie on a
grid of 1/1024, so the sums are exact and do not depend on order.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.features import GRID
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, SumReader, Sums, SumTable

_NO_CREDIT: Final = (None, 0, 0)

EVERY: Final = ""
"""Stands in the place of a strategy for all turns together."""


class QualityConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the quality of answers is watched."""

    bucket_s: Annotated[float, Meta(ge=1, le=86_400, description="length of a time bucket")] = 300.0
    keep_days: Annotated[float, Meta(gt=0, le=36_500, description="for how long time buckets are kept")] = 30.0
    drift_confidence: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="ADWIN's delta: the smaller, the surer it must be that a rate has changed to raise an alarm",
        ),
    ] = 0.002
    drift_change: Annotated[
        float, Meta(ge=0, le=100, description="a change by a smaller share of what the rate was raises no alarm")
    ] = 0.1


class AnswerQuality(Learner):
    """Sums of feedback by strategy and time bucket. It publishes nothing.

    Its rows are of the turns that asked a strategy; those of `EVERY` are of all turns.

    - `turns`, and `candidates` drawn in them.
    - `clicked`, `barged_in`: turns with a click, with a barge-in. A strategy's clicks are those it is credited with.
    - `rephrased`: the probabilities that the query was rephrased, added up.
    - `defects`: turns with a barge-in, and of the others the probabilities that the query was rephrased.
    - `reward`: see `outcomes`; of all turns, their success.

    Args:
        config: how long a bucket is.
        strategies: that are watched. Any others are part of `EVERY` only.
    """

    name = "quality"

    def __init__(self, config: QualityConfig, strategies: Sequence[str]) -> None:
        self.config: Final = config
        self.table: Final = SumTable(
            name="quality",
            key=(("strategy", str), ("bucket", int)),
            sums=("turns", "candidates", "clicked", "barged_in", "rephrased", "defects", "reward"),
        )
        self.tables = (self.table,)
        self.bucket_ms: Final = round(config.bucket_s * 1000)
        self._strategies: Final = frozenset(strategies)

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`."""
        sums: dict[int, defaultdict[str, list[float]]] = {}
        for outcome in outcomes:
            turn = outcome.turn
            rows = sums.setdefault(turn.query.ts // self.bucket_ms, defaultdict(_empty))
            barged_in, rephrased = float(bool(turn.barge_ins)), _on_grid(outcome.rephrased)
            complaints = (barged_in, rephrased, max(barged_in, rephrased))
            drawn = 0
            for strategy, count in outcome.asked.items():
                drawn += count
                if strategy in self._strategies:
                    _add(rows[strategy], count, outcome.credited.get(strategy, _NO_CREDIT)[0], complaints)
            _add(rows[EVERY], drawn, outcome.success if turn.clicks else None, complaints)
        keys = [(strategy, bucket * self.bucket_ms) for bucket, rows in sums.items() for strategy in rows]
        values = [row for rows in sums.values() for row in rows.values()]
        return {self.table.name: Sums(self.table, keys, np.array(values))} if keys else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 -- Learner's
        """See `Learner.solve`: serving needs nothing of this."""
        return {}


def _empty() -> list[float]:
    return [0.0] * 7


def _add(row: list[float], drawn: int, reward: float | None, complaints: tuple[float, float, float]) -> None:
    """Add a turn; its reward is None without a click."""
    row[0] += 1.0
    row[1] += drawn
    if reward is not None:
        row[2] += 1.0
        row[6] += _on_grid(reward)
    if complaints[2]:
        row[3] += complaints[0]
        row[4] += complaints[1]
        row[5] += complaints[2]


def _on_grid(value: float) -> float:
    return round(value * GRID) / GRID if value else 0.0
