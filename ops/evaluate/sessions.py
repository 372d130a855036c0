"""Values of policies over whole sessions, or over all turns of a user."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.ope.decisions import FOLDS, DecisionTable
from backchannel.agents.ope.estimators import Feedback, diagnose
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.session_models import Course
from backchannel.agents.ope.sessions import SESSION_ESTIMATORS, Places, Sessions, weighted_doubly_robust
from backchannel.agents.sums import Floats
from backchannel.ops.evaluate.result import Options, PageValue

MOST: Final = 64
"""The number of turns of a session or user that count, from the first: nobody weighs more."""
LOGGED: Final = "logged"


class Walks:
    """The sessions of logged decisions, or the turns of each user.

    Args:
        ids: the session or user of each decision, (decisions,), in time order.
        table: the decisions as columns.
        worth: see `DecisionTable.feedback`.
    """

    def __init__(self, ids: NDArray[Any], table: DecisionTable, worth: Floats) -> None:
        self.places: Final = Places.of(ids, MOST)
        kept = self.places.kept
        self._contexts: Final = table.contexts[kept]
        self._drawn: Final = table.drawn(worth)[kept]
        self._following: Final = self.places.following

    def value(self, whole: Feedback, extents: Floats, options: Options, rng: np.random.Generator) -> PageValue:
        """Evaluate a policy. It is to be relied upon by the weighted doubly robust estimate.

        Args:
            whole: whole allocations weighted for the policy, with the success of each turn, (decisions, 1).
            extents: the policy's expected share of each strategy's list, (decisions, strategies).
            options: the options of the evaluation.
            rng: the random generator.
        """
        places = self.places
        weights, rewards = whole.weights[places.kept, 0], whole.rewards[places.kept, 0]
        course = Course(self._contexts, self._drawn, self._following, rewards, places.rows % FOLDS)
        expected, predicted = course.predict(extents[places.kept], options.discount)
        log = Sessions(
            places.table(weights, 1.0),
            places.table(rewards, 0.0),
            options.discount,
            places.table(expected, 0.0),
            places.table(predicted, 0.0),
        )
        found = {LOGGED: log.logged(), **{name: estimate(log) for name, estimate in SESSION_ESTIMATORS.items()}}
        diagnosis = diagnose(log.first_turns())
        return PageValue(
            estimates={name: interval(terms, options.method, options.confidence, rng) for name, terms in found.items()},
            lift=interval(weighted_doubly_robust(log).minus(log.logged()), options.method, options.confidence, rng),
            diagnosis=diagnosis,
            faults=diagnosis.faults(options.minimum, of=options.horizon),
        )
