"""What off-policy evaluation found of some policies on one log."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import numpy as np
from msgspec import Struct

from backchannel.agents.ope.estimators import ESTIMATORS, Diagnosis, Feedback, Terms, diagnose, doubly_robust, replay
from backchannel.agents.ope.intervals import Method, interval
from backchannel.agents.ope.sessions import Sessions
from backchannel.schemas.snapshot import Estimate

REPLAY = "replay"


class Options(Struct, frozen=True):
    """How sure one wants to be.

    Attributes:
        method: of intervals.
        confidence: of them.
        minimum: effective sample size below which a log counts as unusable for a policy.
        seed: of all chance.
    """

    method: Method = "bootstrap"
    confidence: float = 0.95
    minimum: float = 100.0
    seed: int = 1


class PolicyValue(Struct, frozen=True):
    """One policy's value.

    Attributes:
        name: of the policy.
        estimates: by estimator; those that the log says nothing of are left out.
        lift: the doubly robust estimate less the mean reward of the log, turn by turn.
        diagnosis: of the weights that the estimates rest on.
        faults: why they cannot be relied upon; none if they can.
        kept: turns that a replay kept; None if there was none.
        sessions: values of whole sessions, by estimator, where whole allocations have propensities.
        session_diagnosis: of the weights that those rest on.
        session_faults: likewise.
    """

    name: str
    estimates: dict[str, Estimate]
    lift: Estimate
    diagnosis: Diagnosis
    faults: list[str]
    kept: int | None = None
    sessions: dict[str, Estimate] = {}
    session_diagnosis: Diagnosis | None = None
    session_faults: list[str] = []


class Evaluation(Struct, frozen=True):
    """Policies compared on a log.

    Attributes:
        log: its path.
        kind: `events` or `open bandit`.
        turns: that were evaluated on.
        left_out: turns that could not be: their decision was not logged with its propensities.
        strategies: or actions, to choose from.
        logged: the mean reward of what was done.
        options: see there.
        policies: by value.
        notes: on how it was done.
    """

    log: str
    kind: str
    turns: int
    left_out: int
    strategies: int
    logged: Estimate
    options: Options
    policies: list[PolicyValue]
    notes: list[str]

    @property
    def usable(self) -> bool:
        """Whether the log tells something of every policy."""
        return not any(policy.faults for policy in self.policies)


def assess(
    name: str,
    log: Feedback,
    logged: Terms,
    options: Options,
    rng: np.random.Generator,
    *,
    whole: Feedback | None = None,
) -> PolicyValue:
    """Evaluate one policy.

    Args:
        name: of the policy.
        log: weighed for it, with a model of the rewards.
        logged: the rewards of what was done, turn by turn.
        options: see there.
        rng: where chance comes from.
        whole: one action a turn, weighed for it, for a replay; by default `log`, if it is that.
    """
    estimates = {
        estimator: interval(estimate(log), options.method, options.confidence, rng)
        for estimator, estimate in ESTIMATORS.items()
    }
    if whole is None and log.weights.shape[1] == 1:
        whole = log
    kept = None
    if whole is not None:
        replayed = replay(whole, rng)
        kept = replayed.kept
        estimates[REPLAY] = interval(replayed.terms, options.method, options.confidence, rng)
    estimates = {name: estimate for name, estimate in estimates.items() if isfinite(estimate.low)}
    diagnosis = diagnose(log)
    lift = interval(doubly_robust(log).minus(logged), options.method, options.confidence, rng)
    return PolicyValue(name, estimates, lift, diagnosis, diagnosis.faults(options.minimum), kept)


def over_sessions(
    log: Sessions,
    estimators: Mapping[str, Callable[[Sessions], Terms]],
    options: Options,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the fields of a `PolicyValue` that tell of whole sessions."""
    diagnosis = diagnose(log.first_turns())
    return {
        "sessions": {
            name: interval(estimate(log), options.method, options.confidence, rng)
            for name, estimate in estimators.items()
        },
        "session_diagnosis": diagnosis,
        "session_faults": diagnosis.faults(options.minimum),
    }
