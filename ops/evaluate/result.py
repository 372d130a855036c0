"""Results of off-policy evaluation of some policies on one log."""

from collections.abc import Sequence
from math import isfinite
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from backchannel.agents.ope import union
from backchannel.agents.ope.estimators import (
    ESTIMATORS,
    Diagnosis,
    Feedback,
    Terms,
    diagnose,
    doubly_robust,
    ips,
    replay,
    snips,
)
from backchannel.agents.ope.intervals import Method, interval
from backchannel.agents.ope.places import Earnings, Examination
from backchannel.schemas.snapshot import Estimate

Horizon: TypeAlias = Literal["turn", "session", "user"]
"""What a value is over: a turn, a whole session, or all turns of a user."""

Reward: TypeAlias = Literal["success", "goals"]
"""What a turn of a session or user earns: its success, or the goals that it ends and that were reached."""

REPLAY: Final = "replay"
SHARED: Final = 0.01
"""Share of turns with several strategies above which estimates must be of whole allocations."""


class Options(Struct, frozen=True):
    """Options of an evaluation.

    Attributes:
        method: the method for intervals.
        confidence: confidence level of intervals, 0 to 1.
        minimum: effective sample size below which a log is unusable for a policy, turns.
        seed: the seed of all randomness.
        horizon: what the values to rely on are over.
        discount: the discount of a session's or user's rewards per turn, 0 to 1.
        reward: the reward of a session's or user's turns.
    """

    method: Method = "bootstrap"
    confidence: float = 0.95
    minimum: float = 100.0
    seed: int = 1
    horizon: Horizon = "turn"
    discount: float = 1.0
    reward: Reward = "success"


class Pages(Struct, frozen=True):
    """How strategies share pages in a log: estimates that weight each strategy by itself assume that they do not.

    Attributes:
        several: share of the turns that asked more than one strategy, 0 to 1.
        overlap: share of the results that more than one strategy brought, 0 to 1.
        asked: the largest share of the turns in which an evaluated policy would ask more than one strategy, 0 to 1.
    """

    several: float
    overlap: float
    asked: float

    def __str__(self) -> str:
        said = (
            f"{self.several:.0%} of the turns ask several strategies, and {self.overlap:.0%} of the results were "
            "brought by more than one"
        )
        return f"{said}; policies would ask several in up to {self.asked:.0%}" if self.asked > SHARED else said


class PageValue(Struct, frozen=True):
    """The value of a policy by an estimate that is valid however strategies share pages.

    Attributes:
        estimates: estimates of the success of a turn, session or user, by estimator.
        lift: the estimate to rely on minus the log's mean success, paired by turn, session or user.
        diagnosis: diagnosis of the weights.
        faults: reasons why the log cannot tell; empty if it can.
    """

    estimates: dict[str, Estimate]
    lift: Estimate
    diagnosis: Diagnosis
    faults: list[str]


class PolicyValue(Struct, frozen=True):
    """The value of one policy.

    Attributes:
        name: the policy's name.
        estimates: estimates of the reward per turn, by estimator; undefined ones are left out.
        lift: the doubly robust estimate minus the log's mean reward, paired by turn.
        diagnosis: diagnosis of the weights behind the estimates.
        faults: reasons not to rely on the estimates; empty if there are none.
        kept: number of turns that a replay kept; None without a replay.
        sessions: the value per session or user; None if the horizon is a turn.
        whole: the value from whole allocations; None unless all of these have propensities.
        union: the value from clicked items whose rank in every strategy was looked up; None if none was.
    """

    name: str
    estimates: dict[str, Estimate]
    lift: Estimate
    diagnosis: Diagnosis
    faults: list[str]
    kept: int | None = None
    sessions: PageValue | None = None
    whole: PageValue | None = None
    union: PageValue | None = None

    @property
    def of_pages(self) -> PageValue | None:
        """The estimate to rely on where strategies share pages; None if the log has none.

        Whole allocations, which assume nothing, if they can tell; else clicked items, which reach further.
        """
        if self.whole is not None and (not self.whole.faults or self.union is None or self.union.faults):
            return self.whole
        return self.union

    @property
    def relied(self) -> Diagnosis:
        """The diagnosis of the weights behind the estimate to rely on."""
        told = self.sessions or self.of_pages
        return self.diagnosis if told is None else told.diagnosis


class Evaluation(Struct, frozen=True):
    """A comparison of policies on a log.

    Attributes:
        log: the path of the log.
        kind: `events` or `open bandit`.
        turns: number of turns used.
        left_out: number of turns left out because their decisions have no propensities, or, with users as the horizon,
            no user.
        strategies: number of strategies, or of items, to choose from.
        logged: mean reward per turn of the logged policy.
        options: the options of the evaluation.
        policies: values of the policies.
        notes: notes on the method.
        pages: how strategies share pages; None for a log of single actions.
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
    pages: Pages | None = None

    @property
    def usable(self) -> bool:
        """Whether the log is usable for every policy."""
        return not any(policy.faults for policy in self.policies)

    @property
    def shared(self) -> bool:
        """Whether strategies share pages, so that estimates by strategy cannot be relied upon."""
        return self.pages is not None and max(self.pages.several, self.pages.asked) > SHARED

    def lift(self, policy: PolicyValue) -> Estimate:
        """Return the gain of a policy over the logged one, by the estimate to rely on."""
        if policy.sessions is not None:
            return policy.sessions.lift
        return policy.of_pages.lift if self.shared and policy.of_pages is not None else policy.lift


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
        name: the policy's name.
        log: the log weighted for the policy, with a model of the rewards.
        logged: the logged rewards by turn.
        options: the options of the evaluation.
        rng: the random generator.
        whole: the log weighted for the policy with one action per turn, for a replay; by default `log`, if it has one
            action per turn.
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


def from_whole(log: Feedback, options: Options, rng: np.random.Generator) -> PageValue:
    """Evaluate a policy on whole allocations.

    Args:
        log: whole allocations weighted for the policy, with the success of each turn, (turns, 1).
        options: the options of the evaluation.
        rng: the random generator.
    """
    logged = Terms(log.rewards[:, 0], 0.0, 1.0)
    diagnosis, estimators = diagnose(log), {"whole allocations, SNIPS": snips, "whole allocations, IPS": ips}
    found = {
        name: interval(estimate(log), options.method, options.confidence, rng) for name, estimate in estimators.items()
    }
    return PageValue(
        estimates={name: estimate for name, estimate in found.items() if isfinite(estimate.low)},
        lift=interval(snips(log).minus(logged), options.method, options.confidence, rng),
        diagnosis=diagnosis,
        faults=diagnosis.faults(options.minimum),
    )


def from_union(
    earnings: Earnings,
    examination: Examination,
    lookups: Sequence[union.Lookup],
    options: Options,
    rng: np.random.Generator,
) -> PageValue:
    """Evaluate a policy on clicked items.

    Args:
        earnings: what they would earn for the policy.
        examination: how clicks depend on places.
        lookups: what the turns tell of clicked items.
        options: the options of the evaluation.
        rng: the random generator.
    """
    terms = earnings.terms(examination)
    logged = Terms(np.array([one.success for one in lookups]), 0.0, 1.0)
    diagnosis = union.diagnose(earnings.values, lookups)
    return PageValue(
        estimates={"clicked items, IPS": interval(terms, options.method, options.confidence, rng)},
        lift=interval(terms.minus(logged), options.method, options.confidence, rng),
        diagnosis=diagnosis,
        faults=union.faults(diagnosis, lookups, earnings, examination, options.minimum),
    )
