"""Trials: the outcomes of the decisions that the served policy and a policy on trial shared, as sums.

The serving process tosses the coin that picks the policy, and logs its share and the probability with which the
policy on trial would have decided the same. So the log gives the probability that this policy made the decision:

    weight = share * propensity / allocation_propensity,

and rewards by share and weight give what either policy earns; see `sequences.Contrast`. Weights are kept on a grid of
1/32, rounded up or down at random (by a hash of the turn) so that their expectation is right; counts and rewards are
exact. So the sums are equal to the last bit, in any order and on any number of workers.
"""

from typing import Final, NamedTuple

import numpy as np

from backchannel.agents.columnar.frames import distinct
from backchannel.agents.goals.learner import ends_of
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.ope.decisions import chances_of
from backchannel.agents.ope.sequences import Contrast
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import GRID, Delta, Floats, Integers, SumReader, Sums, SumTable

WEIGHTS: Final = 32
"""Steps of the grid of weights, which range from 0 to 1."""
SHARES: Final = 1024
"""Steps of the grid of shares, which holds the gate's shares."""


class Tosses(NamedTuple):
    """The turns that a served policy and one on trial shared, by the toss of a coin.

    Attributes:
        turns: indexes of turns, (n,), rising.
        trials: the numbers of the trials, (n,).
        shares: the probabilities that the policy on trial decides, (n,).
        weights: the probabilities that it decided, given the decision, (n,), 0 to 1.
    """

    turns: Integers
    trials: Integers
    shares: Floats
    weights: Floats


def tosses_of(outcomes: Outcomes) -> Tosses:
    """Return the turns that are part of a trial. Those whose impressions log no probabilities of the decision are not.

    A turn is decided once: by the first of its impressions that logs the probabilities.
    """
    impressions = outcomes.columns.turns.impressions
    canaries, whole = impressions.rows.canary, impressions.rows.allocation_propensity
    shown = np.flatnonzero((canaries.counts > 0) & (whole > 0.0))
    turns, first = np.unique(impressions.parents[shown], return_index=True)
    shown = shown[first]
    canary = canaries.rows.take(canaries.starts[shown])
    weights = np.minimum(canary.share * canary.propensity / whole[shown], 1.0)
    return Tosses(turns, canary.trial.astype(np.int64), canary.share, weights)


def reached_in(outcomes: Outcomes, turns: Integers) -> Floats:
    """Return the number of goals that ended with turns and were reached, on the grid, (n,); see `goals.learner.Goals`.

    Args:
        outcomes: the outcomes of turns.
        turns: indexes of turns, (n,).
    """
    return np.asarray(np.rint(ends_of(outcomes)[turns] * outcomes.unrephrased[turns] * GRID) / GRID)


class Trials(Learner):
    """Sums of the turns that are part of a trial. It publishes nothing; the gate reads it.

    A row is for one trial, share and weight: the number of `turns`, and `rewards`, the sum of their success; in the
    table of goals, `reached`: the number of goals that ended with these turns and were reached (see
    `goals.learner.Goals`). Turns whose impressions log no probabilities of the decision are part of no trial.
    """

    name = "trials"
    serving = None

    def __init__(self) -> None:
        key = (("trial", str), ("share", int), ("weight", int))
        self.table: Final = SumTable(name="trial", key=key, sums=("turns", "rewards"))
        self.goals: Final = SumTable(name="trial_goals", key=key, sums=("reached",))
        self.tables = (self.table, self.goals)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        turns, trials, every, weights = tosses_of(outcomes)
        if not len(turns):
            return {}
        steps = np.floor(weights * WEIGHTS + chances_of(outcomes.columns)[turns]).astype(np.int64)
        shares = np.rint(every * SHARES).astype(np.int64)
        rewards = np.rint(outcomes.success[turns] * GRID) / GRID
        places, row = distinct(trials, shares, steps)
        keys = [
            (str(trial), share, step)
            for trial, share, step in zip(
                trials[places].tolist(), shares[places].tolist(), steps[places].tolist(), strict=True
            )
        ]
        reached = reached_in(outcomes, turns)
        sums = np.array([np.bincount(row, each, len(keys)) for each in (np.ones(len(row)), rewards, reached)]).T
        return {
            self.table.name: Sums(self.table, keys, sums[:, :2]),
            self.goals.name: Sums(self.goals, keys, sums[:, 2:]),
        }

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 -- Learner's
        """See `Learner.solve`: nothing is published."""
        return {}

    def contrast(self, sums: SumReader, trial: int) -> Contrast:
        """Return the rewards of both policies in a trial."""
        return self._contrast(sums.read(self.table, "trial", [str(trial)]))

    def reached(self, sums: SumReader, trial: int) -> Contrast:
        """Return the goals that were reached with both policies in a trial, without the number of turns."""
        return self._contrast(sums.read(self.goals, "trial", [str(trial)]))

    def _contrast(self, found: Sums) -> Contrast:
        keys = np.array([key[1:] for key in found.keys], dtype=float).reshape(-1, 2)
        told = (keys[:, 0] > 0) & (keys[:, 0] < SHARES)
        turns = float(found.values[told, 0].sum()) if found.table == self.table else 0.0
        return Contrast(keys[told, 0] / SHARES, keys[told, 1] / WEIGHTS, found.values[told, -1], turns)
