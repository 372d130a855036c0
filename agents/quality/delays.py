"""How long after the query people click, by strategy and position: what the attribution window cuts off.

A click after the window is not learned, and its turn counts as one without it. If the clicks on what one strategy
brings come later than those on another's, that is a bias between strategies. Such clicks cannot be attributed any more,
as their turns are gone, so their number is estimated from those before: if of the people who have not clicked yet a
share z remains after each quarter of the window,

    clicks in its second half / clicks in its second quarter = (z^2 - z^4) / (z - z^2) = z (1 + z),

and as many as z^2 / (1 - z^2) times those in the second half come after it. That assumes delays that fall exponentially
from the first quarter on; if they fall more slowly, it is too few. A z above SLOWEST cannot be told from one without an
end: a few stray clicks, as of a page that was left open, do not fall within the window at all. So it counts as SLOWEST,
and what is expected after the window stays in proportion to what was seen in its second half.
"""

from collections.abc import Mapping, Sequence
from math import floor, log2, sqrt
from typing import Any, Final, Self

import numpy as np

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Delta, Groups, SumReader, SumTable

STEPS: Final = 4
"""Time buckets per doubling of the delay, from 1 s on."""
LONGEST: Final = STEPS * 17
"""The last time bucket; the longest window is 86,400 s."""
POSITIONS: Final = (1, 2, 4)
"""The first position of each bucket of positions."""
SLOWEST: Final = 0.9
"""The largest share of people that is taken to remain after a quarter of the window."""
CLICKS: Final = 100.0
"""Fewest clicks from which a share is estimated."""


class ClickDelays(Learner):
    """Numbers of clicked results by the strategy that brought them, position and delay. It publishes nothing.

    Args:
        strategies: names of the strategies; without any, those that turns name.
    """

    name = "delays"
    serving = None

    def __init__(self, strategies: Sequence[str]) -> None:
        self.table: Final = SumTable(
            name="delay", key=(("strategy", str), ("position", int), ("bucket", int)), sums=("clicks",)
        )
        self.tables = (self.table,)
        self._strategies: Final = tuple(strategies)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.bandit.strategies)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        turns, gains = outcomes.columns.turns, outcomes.gains
        clicked = outcomes.clicked[gains.turns[gains.of_shown]]
        if not clicked.any():
            return {}
        entities = max(len(outcomes.columns.pools.entities), 1)
        pairs = gains.turns * entities + gains.entities
        order = np.argsort(pairs)
        clicks = turns.clicks
        own = order[np.searchsorted(pairs, clicks.parents * entities + clicks.rows.entity, sorter=order)]
        first = np.full(len(pairs), np.iinfo(np.int64).max)
        np.minimum.at(first, own, clicks.rows.ts)
        seconds = np.maximum((first - turns.query.ts[gains.turns]) / 1000.0, 1.0)
        buckets = np.minimum(np.floor(STEPS * np.log2(seconds)).astype(np.int64), LONGEST)
        shown = turns.impressions.rows.results.rows.take(gains.shown[clicked])
        strategies = sorted(outcomes.strategies_of(self._strategies))
        code = {name: place for place, name in enumerate(strategies)}
        codes = np.array([code.get(name, -1) for name in outcomes.columns.pools.strategies], dtype=np.int64)
        brought = codes[shown.producers.rows.strategy]
        rows = shown.producers.parents[brought >= 0]
        positions = np.searchsorted(POSITIONS, shown.position[rows], side="right") - 1
        groups = Groups(
            (brought[brought >= 0], strategies),
            (positions, POSITIONS),
            (buckets[gains.of_shown[clicked][rows]], range(LONGEST + 1)),
        )
        return {self.table.name: groups.sums(self.table, [np.ones(len(rows))])}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 -- Learner's
        """See `Learner.solve`: nothing is published."""
        return {}


def cut_off(clicks: Mapping[int, float], window_s: float) -> float | None:
    """Return the share of all clicks that come after the window, 0 to 1; None if there are too few to tell.

    Args:
        clicks: time bucket -> number of clicks.
        window_s: the attribution window, s.
    """
    known = sum(clicks.values())
    if known < CLICKS:
        return None
    end = floor(STEPS * log2(max(window_s, 1.0)))
    quarter, half = (
        sum(count for bucket, count in clicks.items() if first <= bucket < first + STEPS)
        for first in (end - 2 * STEPS, end - STEPS)
    )
    left = min((sqrt(1.0 + 4.0 * half / max(quarter, 1.0)) - 1.0) / 2.0, SLOWEST)
    later = half * left**2 / (1.0 - left**2)
    return later / (known + later)
