"""The gate: the share of the decisions that a newly learned policy may make.

A learning bandit makes a new version every few seconds, mostly by small steps. A leap is tried, on a share of
the decisions, beside the served policy; see `canary`. The first of these that applies decides:

    nothing is served yet                                          publish
    a small step from the served policy                            publish
    few rewards tell of the world as it is now, and by what        publish, unless it has lost a trial
    is known the policy keeps all but max_risk
    on trial, and surely worse                                     hold, for REST times as long as the trial took;
                                                                   each time it loses again, REST times that
    on trial, and surely not worse by more than max_loss           publish; where whole sessions are judged, only if
                                                                   these are no worse, either (see `followed`)
    on trial for so long that little can be wrong                  publish
    logged decisions speak for it                                  publish, unless whole sessions are judged
    it surely keeps all but max_risk of the logged rewards         publish, unless whole sessions are judged
    otherwise                                                      canary: a first share, and half once it is surely
                                                                   not BROKEN

The candidate is not one version but the line of the newest ones: each decision is made by the version that was the
newest then, which had learned from earlier decisions only, so no version is judged on its training data. The evidence
carries over from version to version until the line itself leaps, and is cut when the bandit detects a change. The
bounds are confidence sequences: they hold however often one looks.

If the line leaps again, what it was before takes the place of the served policy, provided that it looks no worse and is
surely not BROKEN. Otherwise a world that moves faster than trials end would leave an ever older policy served.

A small step is not judged, nor is a bandit that knows little yet, or whose world has just changed or keeps changing so
that old rewards tell little: the policy served then is unproven itself, and judging would only protect it from
learning.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
from msgspec import Meta, Struct, structs

from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.changes import CONTEXTS, Change, largest_change
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.estimators import diagnose, snips
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.kept import kept
from backchannel.agents.ope.sequences import Contrast, gain_bounds
from backchannel.agents.ope.whole import Replayed, whole
from backchannel.schemas.snapshot import Estimate, Evidence, Trial, Verdict

HALF: Final = 0.5
"""The most informative share, and the largest that a policy on trial gets."""
BROKEN: Final = 0.5
"""A policy that may lose this share of the rewards gets no more than the first share."""
REST: Final = 4
"""A policy that has lost is tried again after this many times the trial's length, so it is never shut out. With each
further loss it rests so many times longer, so that what is wrong for good costs ever less."""
LEAPT: Final = "anew, as it leapt again"
RESTED: Final = "again, as its rest is over"


Course: TypeAlias = Literal["first", "half", "won", "lost", "expired"]
"""The course of a trial: its share is the first one, or half; or it is over."""


class GateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a policy may go live."""

    turns: Annotated[
        int,
        Meta(ge=0, le=100_000, description="recent decisions kept to compare policies; 0 for no gate"),
    ] = 2000
    max_change: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="a policy goes live at once if no strategy's share of candidates changes by more than "
            "this, over all queries or in any segment of them",
        ),
    ] = 0.25
    established: Annotated[
        float,
        Meta(
            ge=0,
            le=1e12,
            description="rewards, such as clicks, per strategy since the last detected change, older ones counting for "
            "as much as they still tell, below which a policy goes live if by what it has learned it keeps all but "
            "max_risk of the rewards; as it does if what is served, not established itself, learned from fewer in all",
        ),
    ] = 100.0
    first_share: Annotated[
        float,
        Meta(
            ge=0.01,
            le=0.5,
            description="share of the decisions that a policy on trial makes at first, until it surely earns half of "
            "what is served; then it makes half of them. The lower, the slower trials and learning are",
        ),
    ] = 0.5
    max_loss: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="a policy on trial wins once it surely loses at most this share of the rewards",
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
            description="effective sample size of logged decisions below which they say nothing about a policy",
        ),
    ] = 100.0
    max_risk: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="a policy goes live without a trial if the log shows that it surely loses at most this share "
            "of the rewards, and either looks no worse, or keeps the rest whatever else it brings",
        ),
    ] = 0.25
    confidence: Annotated[
        float, Meta(ge=0.5, le=0.9999, description="confidence of either verdict, over all looks of a trial together")
    ] = 0.95
    trial_turns: Annotated[
        int, Meta(ge=100, description="decisions after which an undecided trial ends, and the policy goes live")
    ] = 100_000


class Tried(Struct, frozen=True):
    """A trial so far.

    Attributes:
        trial: the trial in the header of the newest version.
        policy: the newest version's candidate.
        contrast: the outcome of the trial so far.
    """

    trial: Trial
    policy: Allocator
    contrast: Contrast


class Case(Struct, frozen=True, kw_only=True):
    """A candidate to judge, and the evidence about it.

    Attributes:
        candidate: the candidate policy.
        served: the served policy that it would replace; None if there is none.
        tried: the trial that is in progress or was lost; None if there is none.
        decisions: a sample of the logged decisions.
        sessions: what deciding by the candidate surely adds to the success of whole sessions, as a share of it;
            unbounded without a trial. None if sessions are not judged.
        rewards: the total reward since `candidate.changed`.
        version: the number of the version to be made.
        at: event time up to which the candidate has learned, ms.
    """

    candidate: Allocator
    served: Allocator | None
    tried: Tried | None = None
    decisions: Sequence[LoggedDecision] = ()
    sessions: Estimate | None = None
    rewards: float = 0.0
    version: int = 1
    at: int = 0


class Judgement(Struct, frozen=True):
    """The gate's judgement of a policy.

    Attributes:
        verdict: the verdict; see the module.
        reason: the reason, in words.
        trial: the trial for the version's header; None if the policy goes live.
        evidence: the evidence of the log; None if the log was not consulted.
        change: the largest change of a share; None without a live policy or data.
        succeeds: whether the policy tried so far takes the place of the served one.
    """

    verdict: Verdict
    reason: str
    trial: Trial | None = None
    evidence: Evidence | None = None
    change: Change | None = None
    succeeds: bool = False


def judge(case: Case, config: GateConfig) -> Judgement:
    """Judge a policy. Pure: the same arguments give the same judgement."""
    if case.served is None or not case.decisions:
        early = "early learning: not judged, as no decision is logged with propensities yet"
        return Judgement("publish", "the first version" if case.served is None else early)
    new, old = Replayed(case.candidate), Replayed(case.served)
    anew = _anew(new, case, config)
    if anew == LEAPT and case.tried is not None and _looks_no_worse(case.tried, case.sessions, config):
        found = judge(structs.replace(case, served=case.tried.policy, tried=None), config)
        return structs.replace(found, succeeds=True)
    change = largest_change(old, new, case.decisions)
    if reason := _harmless(change, new, old, case, config, lost=anew in ("", RESTED) and _has_lost(case, config)):
        return Judgement("publish", f"{reason}; {change}", change=change)
    if not anew and case.tried is not None:
        verdict, told, trial = _tried(case.tried, case, config)
        return Judgement(verdict, f"{told}; {change}", trial, change=change)
    evidence = _evidence(new, old, case, config)
    low = _surely_kept(new, old, case, config)
    # The log has single turns, and cannot tell what whole sessions bring.
    if told := _assured(evidence, low, config) if anew != RESTED and case.sessions is None else "":
        return Judgement("publish", f"{told}; {change}", None, evidence, change)
    before = case.tried.trial.lost if case.tried is not None and anew == RESTED else 0
    trial = Trial(number=case.version, began=case.at, share=config.first_share, lost=before)
    return Judgement("canary", f"on trial {anew}; {change}", trial, evidence, change)


def _has_lost(case: Case, config: GateConfig) -> bool:
    """Return whether the policy tried so far is surely worse, or has lost a trial before."""
    tried = case.tried
    return tried is not None and (tried.trial.lost > 0 or tried.contrast.is_less(-config.harm, config.confidence))


def _harmless(change: Change, new: Replayed, old: Replayed, case: Case, config: GateConfig, *, lost: bool) -> str:
    """Return why a policy goes live without a trial; empty if it does not. What has `lost` takes small steps only."""
    if change.size <= config.max_change:
        return "a small step"
    if lost:
        return ""
    reason = _unproven(new.policy, old.policy, case.rewards, config)
    return reason if reason and _promises(new, old, case.decisions, config) else ""


def _unproven(candidate: Allocator, served: Allocator, rewards: float, config: GateConfig) -> str:
    """Return why the served policy is not established; empty if it is."""
    few = config.established * len(candidate.strategies)
    if rewards < few:
        since = " since rewards fell" if candidate.changed is not None else ""
        return f"early learning: {rewards:,.0f} rewards are known{since}"
    known, alike = _learned(candidate), candidate.encoder.fingerprint == served.encoder.fingerprint
    if known < few and alike:  # with other features it begins anew, whatever the world does
        return f"the world moves: {rewards:,.0f} rewards tell as much as {known:,.0f} new ones"
    learned = _learned(served)
    return "" if learned >= config.established else f"early learning: what is served knows {learned:,.0f} rewards"


def _learned(policy: Allocator) -> float:
    """Return the rewards that a policy has learned from, decayed as it found best."""
    return sum(turns * reward for turns, reward in policy.evidence.values())


def _promises(new: Replayed, old: Replayed, decisions: Sequence[LoggedDecision], config: GateConfig) -> bool:
    """Return whether a policy keeps all but max_risk of the rewards by what it has learned itself.

    One that does what it has learned does. One that does not, because of its configuration, is tried.
    """
    strategies = new.policy.strategies
    if not set(old.policy.strategies) <= set(strategies):
        return False  # of some it has learned nothing
    order = [strategies.index(name) for name in old.policy.strategies]
    own, other = 0.0, 0.0
    for one in decisions[:CONTEXTS]:
        chosen, served = new.mixture(one), old.mixture(one)
        planned, parts = new.candidates(one, chosen.parts), old.candidates(one, served.parts)
        counts = np.zeros((len(parts), len(strategies)), dtype=np.int64)
        counts[:, order] = parts
        own += float(chosen.shares @ new.policy.promised(one.context, planned, one.strategy_context))
        other += float(served.shares @ new.policy.promised(one.context, counts, one.strategy_context))
    return own >= (1.0 - config.max_risk) * other  # False where it is no number


def _surely_kept(new: Replayed, old: Replayed, case: Case, config: GateConfig) -> float:
    """Return the least share of the served policy's rewards that a policy keeps, 0 to 1; 0 if the log cannot tell."""
    low = interval(
        kept(new, old, [one for one in case.decisions if one.ts >= (case.candidate.changed or 0)]),
        "normal",
        _two_sided(config),
    ).low
    return max(0.0, low)  # in this order: also 0 where it is no number


def _assured(evidence: Evidence, low: float, config: GateConfig) -> str:
    """Return why the log assures that a policy may go live without a trial; empty if it does not."""
    gain = _relative(evidence)
    if gain is not None and gain.value >= 0.0 and gain.low > -config.max_risk:
        return f"the log speaks for it: {gain.value:+.1%} to what is served, at least {gain.low:+.1%}"
    return f"it surely keeps {low:.1%} of what is served" if low >= 1.0 - config.max_risk else ""


def _anew(new: Replayed, case: Case, config: GateConfig) -> str:
    """Return why a new trial begins; empty if the current one continues."""
    if case.tried is None:
        return "from now on"
    trial, changed = case.tried.trial, case.candidate.changed
    if changed is not None and changed > trial.began:
        return "anew, as rewards fell meanwhile"
    if largest_change(Replayed(case.tried.policy), new, case.decisions).size > config.max_change:
        return LEAPT
    return RESTED if trial.until is not None and case.at >= trial.until else ""


def _looks_no_worse(tried: Tried, sessions: Estimate | None, config: GateConfig) -> bool:
    if tried.trial.until is not None or (sessions is not None and (sessions.value < 0.0 or sessions.low <= -BROKEN)):
        return False
    return tried.contrast.gain >= 0.0 and tried.contrast.is_more(-BROKEN, config.confidence)


def course(contrast: Contrast, config: GateConfig, sessions: Estimate | None = None) -> Course:
    """Return the course of a trial so far; see `Case.sessions`."""
    sure = config.confidence
    if contrast.is_less(-config.harm, sure):
        return "lost"
    if contrast.is_more(-config.max_loss, sure) and (sessions is None or keeps_sessions(sessions, config)):
        return "won"
    if contrast.turns >= config.trial_turns:
        return "expired"
    return "half" if contrast.is_more(-BROKEN, sure) else "first"


def keeps_sessions(sessions: Estimate, config: GateConfig) -> bool:
    """Return whether a policy surely keeps enough of what whole sessions bring: less if it looks no worse."""
    return sessions.low > -(config.max_risk if sessions.value >= 0.0 else config.max_loss)


def _tried(tried: Tried, case: Case, config: GateConfig) -> tuple[Verdict, str, Trial | None]:
    """Return the verdict on a policy that is on trial or has lost it, the reason, and the trial if it continues."""
    if tried.trial.until is not None:
        return "hold", f"{_told(tried.trial)}, and waits", tried.trial
    trial = counted(tried, config)
    told = _told(trial) if case.sessions is None else f"{_told(trial)}; {percent(case.sessions)} in whole sessions"
    match course(tried.contrast, config, case.sessions):
        case "lost":
            return "hold", told, lost(trial, case.at)
        case "won":
            return "publish", told, None
        case "expired":
            return "publish", f"cannot be told from what is served: {told}", None
        case "half":
            return "canary", told, structs.replace(trial, share=max(trial.share, HALF))
    return "canary", told, trial


def counted(tried: Tried, config: GateConfig) -> Trial:
    """Return a trial with its outcome so far."""
    turns, rewards = tried.contrast.turns, float(tried.contrast.rewards.sum())
    gain = gain_bounds(tried.contrast, config.confidence)
    return structs.replace(tried.trial, turns=turns, rewards=rewards, gain=gain if np.isfinite(gain.high) else None)


def lost(trial: Trial, at: int) -> Trial:
    """Return a trial that is lost at event time `at` (ms), with its rest."""
    until = at + REST ** (trial.lost + 1) * max(at - trial.began, 1)
    return structs.replace(trial, share=0.0, until=until, lost=trial.lost + 1)


def percent(gain: Estimate) -> str:
    """Return a relative gain in words."""
    known = np.isfinite(gain.high)
    return f"{gain.value:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})" if known else "an unknown change"


def _told(trial: Trial) -> str:
    gain = trial.gain
    if gain is None:
        return f"too little is known after {trial.turns:,.0f} decisions with {trial.rewards:,.0f} rewards"
    return (
        f"{gain.value:+.1%} to what is served ({gain.low:+.1%} to {gain.high:+.1%}) in {trial.turns:,.0f} decisions "
        f"with {trial.rewards:,.0f} rewards"
    )


def _evidence(new: Replayed, old: Replayed, case: Case, config: GateConfig) -> Evidence:
    """Return the evidence of the decisions before the trial, since the last detected change; bounds are one-sided."""
    logs = whole({"candidate": new, "live": old}, case.decisions, case.candidate.changed or 0)
    diagnoses = {name: diagnose(log) for name, log in logs.items()}
    if any(diagnoses[name].faults(config.minimum_effective) for name in ("candidate", "live")):
        return Evidence(diagnoses["candidate"].effective)
    confidence = _two_sided(config)
    own = snips(logs["candidate"])
    others = {name: snips(logs[name]) for name in ("live", "uniform") if diagnoses[name].effective >= 2.0}
    gains = {name: interval(own.minus(other), "normal", confidence) for name, other in others.items()}
    return Evidence(diagnoses["candidate"].effective, interval(own, "normal", confidence), gains)


def _two_sided(config: GateConfig) -> float:
    """Return the confidence of an interval whose either bound holds with the configured one."""
    return max(2.0 * config.confidence - 1.0, 1e-6)


def _relative(evidence: Evidence) -> Estimate | None:
    """Return the relative gain over the served policy; None if the log cannot tell."""
    gain = evidence.gains.get("live")
    if gain is None or evidence.value is None:
        return None
    served = evidence.value.value - gain.value
    return Estimate(gain.value / served, gain.low / served, gain.high / served) if served > 0.0 else None
