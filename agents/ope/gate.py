"""The gate: what of the decisions a newly learned policy may make.

A bandit that learns makes a new version every few seconds, mostly by small steps. What leaps is tried, on a share of
the decisions, beside the policy that is served; see `canary`. In this order:

    nothing is served yet                                          publish
    a small step from what is served                               publish
    few rewards are known since the world last changed             publish
    logged decisions speak for it                                  publish
    on trial, and surely worse                                     hold, for REST times as long as the trial took
    on trial, and surely not worse by more than max_loss           publish
    on trial for so long that only little can be wrong             publish
    otherwise                                                      canary: a first share, and half once it is surely
                                                                   not BROKEN

The candidate is not one version but the line of the newest ones: each decision is made by the version that was newest
then, which was learned from decisions before it, so nothing is judged by what it was trained on. The evidence goes on
from version to version until the line itself leaps, and is cut where the bandit saw the world change. The bounds are
those of a confidence sequence: they hold however often one looks.

A small step is not judged at all, nor is a bandit that knows little yet, or whose world has just changed: what is
served then has nothing to say for itself, and would only be protected from learning.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
from msgspec import Meta, Struct, structs

from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import LoggedDecision, vectors_of
from backchannel.agents.ope.estimators import diagnose, snips
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.sequences import Contrast, gain_bounds
from backchannel.agents.ope.whole import Replayed, whole
from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate, Evidence, Trial, Verdict

HALF: Final = 0.5
"""The share that tells most, and the largest of a policy on trial."""
BROKEN: Final = 0.5
"""A policy that may lose so large a share of what is earned gets no more than the first share."""
REST: Final = 4
"""A policy that has lost is tried again after this many times the trial's length, so that it is never shut out."""
SEGMENT: Final = 20
"""Turns that a segment must have to be looked at."""
_CONTEXTS: Final = 100  # on which two policies are compared


Course: TypeAlias = Literal["first", "half", "won", "lost", "expired"]
"""Of a trial: its share is the first one, or half; it is over."""


class GateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a policy may go live."""

    turns: Annotated[
        int,
        Meta(ge=0, le=100_000, description="recent decisions that are kept to compare policies on; 0: no gate"),
    ] = 2000
    max_change: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="a policy goes live at once if the share of candidates of no strategy changes by more than "
            "this, in all queries or in a segment of them",
        ),
    ] = 0.25
    established: Annotated[
        float,
        Meta(
            ge=0,
            description="rewards, such as clicks, since the last change of the world and for each strategy, below "
            "which every policy goes live: what is served is not established itself",
        ),
    ] = 100.0
    first_share: Annotated[
        float,
        Meta(ge=0.01, le=0.5, description="share of the decisions that a policy on trial makes to begin with"),
    ] = 0.25
    max_loss: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="a policy on trial wins once it surely loses no more than this share of what is earned",
        ),
    ] = 0.08
    harm: Annotated[
        float, Meta(ge=0, le=1, description="a policy on trial has lost once it surely loses more than this share")
    ] = 0.02
    minimum_effective: Annotated[
        float,
        Meta(
            ge=2,
            le=100_000,
            description="effective sample size of logged decisions below which they tell nothing of a policy",
        ),
    ] = 100.0
    max_risk: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="a policy goes live without a trial if by the log it looks no worse, and surely loses no more "
            "than this share",
        ),
    ] = 0.25
    confidence: Annotated[
        float, Meta(ge=0.5, le=0.9999, description="of either judgement, over all looks of a trial together")
    ] = 0.95
    trial_turns: Annotated[
        int, Meta(ge=100, description="decisions after which a trial ends that has not told, and the policy goes live")
    ] = 100_000


class Change(Struct, frozen=True):
    """A change of a strategy's mean share of candidates, in a segment of the queries; "": in all."""

    strategy: str
    segment: str
    before: float
    after: float

    def __str__(self) -> str:
        where = f" where {self.segment}" if self.segment else ""
        return f"{self.strategy} goes from {self.before:.0%} to {self.after:.0%} of the candidates{where}"

    @property
    def size(self) -> float:
        """The absolute change of the share, 0 to 1."""
        return abs(self.after - self.before)


class Tried(Struct, frozen=True):
    """A trial so far.

    Attributes:
        trial: as the newest version has it.
        policy: the newest version's candidate.
        contrast: the outcome of the trial so far.
    """

    trial: Trial
    policy: Allocator
    contrast: Contrast


class Case(Struct, frozen=True, kw_only=True):
    """A candidate to judge, and what is known about it.

    Attributes:
        candidate: the policy.
        served: what it would replace, without what is on trial; None if there is nothing.
        tried: the trial that is on, or was lost; None: there is none.
        decisions: a sample of those logged.
        rewards: known since `candidate.changed`.
        version: number of the version that is to be made.
        at: event time up to which was learned, ms.
    """

    candidate: Allocator
    served: Allocator | None
    tried: Tried | None = None
    decisions: Sequence[LoggedDecision] = ()
    rewards: float = 0.0
    version: int = 1
    at: int = 0


class Judgement(Struct, frozen=True):
    """What the gate says of a policy.

    Attributes:
        verdict: see the module.
        reason: in words.
        trial: for the version's header; None if the policy goes live.
        evidence: the evidence of the log; None if the log was not asked.
        change: of shares; None without a live policy or data.
    """

    verdict: Verdict
    reason: str
    trial: Trial | None = None
    evidence: Evidence | None = None
    change: Change | None = None


def judge(case: Case, config: GateConfig) -> Judgement:
    """Judge a policy. Pure: the same arguments give the same judgement."""
    if case.served is None:
        return Judgement("publish", "the first version")
    if not case.decisions:
        return Judgement("publish", "early learning: unjudged, as no decision is logged with its propensities yet")
    new, old = Replayed(case.candidate), Replayed(case.served)
    change = _largest_change(old, new, case.decisions)
    if reason := _harmless(change, case, config):
        return Judgement("publish", f"{reason}; {change}", change=change)
    reason = _anew(new, case, config)
    if not reason and case.tried is not None:
        verdict, told, trial = _tried(case.tried, case.at, config)
        return Judgement(verdict, f"{told}; {change}", trial, change=change)
    evidence = _evidence(new, old, case, config)
    gain = _relative(evidence)
    if gain is not None and gain.value >= 0.0 and gain.low > -config.max_risk:
        told = f"the log speaks for it: {gain.value:+.1%} to what is served, at least {gain.low:+.1%}"
        return Judgement("publish", f"{told}; {change}", None, evidence, change)
    trial = Trial(number=case.version, began=case.at, share=config.first_share)
    return Judgement("canary", f"on trial {reason}; {change}", trial, evidence, change)


def _harmless(change: Change, case: Case, config: GateConfig) -> str:
    """Why a policy goes live untried, whatever it is; empty: it does not."""
    if change.size <= config.max_change:
        return "a small step"
    if case.rewards >= config.established * len(case.candidate.strategies):
        return ""
    since = " since rewards fell" if case.candidate.changed is not None else ""
    return f"early learning: {case.rewards:,.0f} rewards are known{since}"


def _anew(new: Replayed, case: Case, config: GateConfig) -> str:
    """Why a trial begins; empty: the one that there is goes on."""
    if case.tried is None:
        return "from now on"
    trial, changed = case.tried.trial, case.candidate.changed
    if _largest_change(Replayed(case.tried.policy), new, case.decisions).size > config.max_change:
        return "anew, as it leapt again"
    if changed is not None and changed > trial.began:
        return "anew, as rewards fell meanwhile"
    return "again, as its rest is over" if trial.until is not None and case.at >= trial.until else ""


def course(contrast: Contrast, config: GateConfig) -> Course:
    """Return how a trial stands, whenever one looks."""
    sure = config.confidence
    if contrast.is_less(-config.harm, sure):
        return "lost"
    if contrast.is_more(-config.max_loss, sure):
        return "won"
    if contrast.turns >= config.trial_turns:
        return "expired"
    return "half" if contrast.is_more(-BROKEN, sure) else "first"


def _tried(tried: Tried, at: int, config: GateConfig) -> tuple[Verdict, str, Trial | None]:
    """The verdict on a policy that is on trial, or has lost it; the reason; and the trial, if it goes on."""
    trial, contrast = tried.trial, tried.contrast
    if trial.until is not None:
        return "hold", f"{_told(trial)}, and waits", trial
    gain = gain_bounds(contrast, config.confidence)
    known = gain if np.isfinite(gain.high) else None
    trial = structs.replace(trial, turns=contrast.turns, rewards=float(contrast.rewards.sum()), gain=known)
    told = _told(trial)
    match course(contrast, config):
        case "lost":
            return "hold", told, structs.replace(trial, share=0.0, until=at + REST * max(at - trial.began, 1))
        case "won":
            return "publish", told, None
        case "expired":
            return "publish", f"cannot be told from what is served: {told}", None
        case "half":
            return "canary", told, structs.replace(trial, share=max(trial.share, HALF))
    return "canary", told, trial


def _told(trial: Trial) -> str:
    gain = trial.gain
    if gain is None:
        return f"too little is known after {trial.turns:,.0f} decisions with {trial.rewards:,.0f} rewards"
    return (
        f"{gain.value:+.1%} to what is served ({gain.low:+.1%} to {gain.high:+.1%}) in {trial.turns:,.0f} decisions "
        f"with {trial.rewards:,.0f} rewards"
    )


def _evidence(new: Replayed, old: Replayed, case: Case, config: GateConfig) -> Evidence:
    """What decisions from before the trial say, since the world last changed; bounds are one-sided."""
    logs = whole({"candidate": new, "live": old}, case.decisions, case.candidate.changed or 0)
    diagnoses = {name: diagnose(log) for name, log in logs.items()}
    if any(diagnoses[name].effective < config.minimum_effective for name in ("candidate", "live")):
        return Evidence(diagnoses["candidate"].effective)
    confidence = max(2.0 * config.confidence - 1.0, 1e-6)
    own = snips(logs["candidate"])
    others = {name: snips(logs[name]) for name in ("live", "uniform") if diagnoses[name].effective >= 2.0}
    gains = {name: interval(own.minus(other), "normal", confidence) for name, other in others.items()}
    return Evidence(diagnoses["candidate"].effective, interval(own, "normal", confidence), gains)


def _relative(evidence: Evidence) -> Estimate | None:
    """The gain over what is served as a share of what that earns; None: one cannot tell."""
    gain = evidence.gains.get("live")
    if gain is None or evidence.value is None:
        return None
    served = evidence.value.value - gain.value
    return Estimate(gain.value / served, gain.low / served, gain.high / served) if served > 0.0 else None


def _largest_change(before: Replayed, after: Replayed, decisions: Sequence[LoggedDecision]) -> Change:
    """The largest change of a strategy's mean share, over all turns and in segments that have enough of them."""
    some = decisions[:_CONTEXTS]
    known, encoder = after.policy.strategies, after.policy.encoder
    strategies = [*known, *(name for name in before.policy.strategies if name not in known)]
    shares = [_shares(policy, some, strategies) for policy in (before, after)]
    contexts = vectors_of(some, encoder, known)[:, 0]
    members = {"": np.ones(len(some), dtype=bool)}
    members |= {name: contexts[:, place] > 0 for name, place in encoder.segments.items()}
    found = []
    for segment, own in members.items():
        if own.sum() >= SEGMENT or not segment:
            means = [each[own].mean(axis=0).tolist() for each in shares]
            found += [Change(name, segment, *pair) for name, *pair in zip(strategies, *means, strict=True)]
    return max(found, key=lambda change: change.size)


def _shares(replayed: Replayed, decisions: Sequence[LoggedDecision], strategies: Sequence[str]) -> Floats:
    """Each strategy's expected share of the candidates, (decisions, strategies)."""
    shares = np.zeros((len(decisions), len(strategies)))
    columns = [strategies.index(name) for name in replayed.policy.strategies]
    for row, one in enumerate(decisions):
        mixture = replayed.mixture(one)
        asked = mixture.sets.propensities
        planned = mixture.shares @ mixture.parts
        shares[row, columns] = (1.0 - mixture.floor) * planned / max(planned.sum(), 1.0)
        shares[row, columns] += mixture.floor * asked / max(asked.sum(), 1.0)
    return shares
