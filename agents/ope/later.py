"""The second look of the gate: what a policy that leaps does to goals, to whole sessions and to returns.

The gate judges by success within a turn's window. A policy may win that, and lose what people do later. So, whatever
the gate says of a leap,

    on trial, and surely fewer goals are reached          hold, for REST times as long as the trial took;
    on trial, and sessions surely bring less success,     each time it loses again, REST times that
        or fewer goals
    on trial, and surely fewer visits are followed
        by a return
    fewer returns follow the strategies that it asks      hold, as long as that is so
    on trial and lost, but returns outweigh the loss      publish, if a return is worth anything to the bandit

Goals are counted by decision, as success is, and sessions and returns by the scores of the decisions that they follow
(see `followed`): with confidence sequences on the turns that the trial shared. Trials mostly end before visits are
mature. So returns are also compared by what is known about strategies (see `horizon.serving.LongTerm`), each policy by
the shares of the candidates that it draws from each. That is not caused by the policies alone, so it must be SURE.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.horizon.serving import LongTerm
from backchannel.agents.ope.changes import CONTEXTS, shares_of
from backchannel.agents.ope.gate import Case, GateConfig, Judgement, Tried, counted, lost, percent
from backchannel.agents.ope.sequences import Contrast, gain_bounds
from backchannel.agents.ope.whole import Replayed
from backchannel.schemas.snapshot import Estimate

SURE: Final = 3.0
"""Standard errors by which returns must differ."""
_UNKNOWN: Final = 0.25
"""The standard error of the returns after a strategy that few people met."""
_Z: Final = 1.96


class Later(Struct, frozen=True):
    """What is known about later.

    Attributes:
        returns: strategy -> what is known about it; empty if returns are not learned.
        weight: what a return is worth to the bandit, in successes.
        goals: the goals reached in the turns of the trial in progress; None if there is none.
        sessions_goals: what deciding by the policy on trial adds to the goals of whole sessions, relatively; None
            without a trial, or if sessions are not judged.
        followed: what it adds to the share of visits that a return follows, relatively; None without a trial.
    """

    returns: Mapping[str, LongTerm] = {}
    weight: float = 0.0
    goals: Contrast | None = None
    sessions_goals: Estimate | None = None
    followed: Estimate | None = None


def reviewed(judgement: Judgement, case: Case, later: Later, config: GateConfig) -> Judgement:
    """Return the judgement on a policy in view of what is known about later. Pure."""
    if case.served is None or judgement.change is None or judgement.change.size <= config.max_change:
        return judgement
    # The log is consulted when a trial begins, for which the last one says nothing.
    tried = case.tried if judgement.evidence is None else None
    if tried is not None and (found := _in_trial(judgement, case, tried, later, config)) is not None:
        return found
    returns = _returns(case, later.returns)
    if returns is None:
        return judgement
    before, change = returns
    bounds = f"{100 * change.low:+.1f} to {100 * change.high:+.1f} points"
    told = f"from {before:.1%} to {before + change.value:.1%} of visits ({bounds})"
    if judgement.verdict != "hold" and change.high < -config.harm * before:
        reason = f"fewer people would come back, {told}; {judgement.reason}"
        return Judgement("hold", reason, None, judgement.evidence, judgement.change)
    if judgement.verdict == "hold" and case.tried is not None and later.weight:
        contrast = case.tried.contrast
        loss = -gain_bounds(contrast, config.confidence).low * contrast.value
        if later.weight * change.low > loss:
            reason = f"more people would come back, {told}, which outweighs success: {judgement.reason}"
            return Judgement("publish", reason, None, judgement.evidence, judgement.change)
    return judgement


def _in_trial(judgement: Judgement, case: Case, tried: Tried, later: Later, config: GateConfig) -> Judgement | None:
    """Return the judgement on a policy on trial that follows from what came later; None if none does."""
    if tried.contrast.is_less(-config.harm, config.confidence):
        return None  # it has lost already
    outcomes = {
        "fewer goals are reached": None if later.goals is None else gain_bounds(later.goals, config.confidence),
        "whole sessions bring less": case.sessions,
        "whole sessions reach fewer goals": later.sessions_goals,
        "fewer people come back": later.followed,
    }
    for what, gain in outcomes.items():
        if gain is not None and gain.high < -config.harm:
            trial = judgement.trial or counted(tried, config)
            trial = lost(trial, case.at) if trial.until is None else trial
            reason = f"{what}, {percent(gain)}; {judgement.reason}"
            return Judgement("hold", reason, trial, None, judgement.change)
    return None


def _returns(case: Case, known: Mapping[str, LongTerm]) -> tuple[float, Estimate] | None:
    """Return the share of visits followed by a return as served, and its change by the candidate; None if unknown."""
    values = {name: one.value for name, one in known.items() if one.value is not None}
    if not values or case.served is None:
        return None
    strategies = sorted({*case.candidate.strategies, *case.served.strategies})
    some = case.decisions[:CONTEXTS]
    old, new = (shares_of(Replayed(policy), some, strategies).mean(axis=0) for policy in (case.served, case.candidate))
    usual = float(np.mean([one.value for one in values.values()]))
    value = np.array([values[name].value if name in values else usual for name in strategies])
    errors = np.array(
        [(values[name].high - values[name].low) / 2 / _Z if name in values else _UNKNOWN for name in strategies]
    )
    moved = new - old
    change, spread = float(moved @ value), SURE * float(np.linalg.norm(moved * errors))
    return float(old @ value), Estimate(change, change - spread, change + spread)
