"""What successes lead to: the goal's outcome as a reward of the bandit.

A click is not yet a goal: somebody may click a result and go on with the same task. A success of strategy k reaches a
goal with the probability

    q_k = sum of e_t r_tk / sum of r_tk

with r_tk what k is credited with in turn t (see `outcomes.Asked`), and e_t the probability that the turn is the last of
its goal or, of labelled turns, the share of the labellers who say that the goal was reached (see `learner`). Both sums
decay. Strategies with few successes are drawn to what holds for all together. `horizon.worth` makes a worth of q_k.

Assumptions, as `docs/design.md` asks of every learner: credits are corrected neither for position nor for depth, which
cancel out in the ratio unless goals end more often after results far down. Nobody's goals are bounded.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np

from backchannel.agents.goals.learner import GoalConfig, reached_of
from backchannel.agents.goals.serving import GoalCredit, GoalCredits
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import ALL, GRID, Delta, Groups, SumReader, SumTable

PRIOR: Final = 10.0
"""Prior strength, in successes, that draws a strategy to all strategies together."""


class CreditedGoals(Learner):
    """The learner of the goals that successes reach. Its section: ALL -> strategy -> `serving.GoalCredit`.

    Args:
        config: whose half-life of turns is used here, too.
        strategies: names of the strategies that are learned; without any, those that turns name.
    """

    name = GoalCredits.name
    serving = GoalCredits

    def __init__(self, config: GoalConfig, strategies: Sequence[str] = ()) -> None:
        self.table: Final = SumTable(
            name=self.name,
            key=(("strategy", str),),
            sums=("successes", "reached"),
            half_life_ms=round(config.half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        self._strategies: Final = tuple(strategies)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.goals, config.bandit.strategies)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if a goal is worth something to the bandit."""
        return bool(config.bandit.goal)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        strategies = sorted(outcomes.strategies_of(self._strategies))
        asked = outcomes.asked_of(strategies)
        rows, codes = asked.rows[asked.credited], asked.codes[asked.credited]
        if not len(rows):
            return {}
        landmark = self.table.landmark(int(outcomes.times.max()))
        weights = self.table.weights(outcomes.times[rows], landmark)
        success = np.rint(asked.rewards * GRID) / GRID
        reached = np.rint(success * reached_of(outcomes)[rows] * GRID) / GRID
        sums = [weights * one for one in (success, reached)]
        return {self.table.name: Groups((codes, strategies)).sums(self.table, sums, landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. All is solved whenever anything changed: strategies are few."""
        if self.table.name not in changed:
            return {}
        rows = sums.read(self.table)
        keys, values = rows.ordered()
        success, reached = (values * self.table.decay(at, rows.landmark)).T
        usual = reached.sum() / success.sum() if success.sum() else 0.0
        shares = (reached + PRIOR * usual) / (success + PRIOR)
        known = {
            name: GoalCredit(*numbers)
            for (name,), *numbers in zip(keys, success.round(3).tolist(), shares.round(4).tolist(), strict=True)
        }
        return {ALL: msgspec.json.encode(known) if known else None}
