"""The checks of what came in and was not learned."""

from typing import Final

import msgspec
from msgspec import structs

from backchannel.ops.health.check import Check, Facts, Status, bounded, unknown
from backchannel.schemas.events import EVENT_TYPES
from backchannel.streams.config import Bounds, Config
from backchannel.streams.monitoring.delays import shares_cut_off
from backchannel.streams.pipeline.learners import UNKNOWN_KIND, UNKNOWN_STRATEGY
from backchannel.streams.turns.accounts import Account, counted_by_name

_FEW: Final = 5
"""Fewer records than these are at most a warning: else one stray click in a quiet night is critical."""


def dead_letters(facts: Facts, config: Config) -> Check:
    """Return the check of invalid records."""
    remedy = f"read the reasons in the topic {config.kafka.dead_letter_topic}, and fix the producer"
    return _share("dead-letters", "dead_letter", facts, config.health.dead_letters, remedy)


def late(facts: Facts, config: Config) -> Check:
    """Return the check of events that came after their turn had closed."""
    remedy = "raise turns.lateness_s, or find out which producer is slow"
    return _share("late-events", "late", facts, config.health.late, remedy)


def orphans(facts: Facts, config: Config) -> Check:
    """Return the check of events without a turn."""
    remedy = (
        "`backchannel topics check` tells whether producers disagree about partitions; otherwise queries are missing, "
        "or turns.window_s is too short"
    )
    return _share("orphans", "orphan", facts, config.health.orphans, remedy)


def late_clicks(facts: Facts, config: Config) -> Check:
    """Return the check of how much the attribution window cuts off, and whether that favours a strategy."""
    if isinstance(facts.store, str):
        return unknown("late-clicks", store=facts.store)
    shares = shares_cut_off(facts.store.delays, config.turns.window_s)
    strategies = sorted((share, name) for name, share in shares.items() if ":" not in name)
    if not strategies:
        return Check("late-clicks", "ok", "too few clicks to tell what comes after the window")
    (low, least), (high, most) = strategies[0], strategies[-1]
    summary = f"an estimated {high:.1%} of the clicks on what {most} brings come after the window"
    if least != most:
        summary += f", and {low:.1%} of {least}'s"
    remedy = "raise turns.window_s: such clicks are not learned, so strategies whose clicks come late look too bad"
    bounds = config.health.late_clicks
    return bounded("late-clicks", high - low, bounds, summary=summary, remedy=remedy, details={"shares": shares})


def losses(facts: Facts, config: Config) -> Check:
    """Return the check of the account of all records."""
    if isinstance(facts.store, str):
        return unknown("losses", store=facts.store)
    ever, recent = Account.of(facts.store.counted), Account.of(facts.store.recent)
    if not ever.received:
        return Check("losses", "ok", "nothing was received yet")
    # Workers count by the minute; `run` does not.
    account, period = (recent, "in ten minutes") if recent.received > 0 else (ever, "since the beginning")
    summary = (
        f"{account.lost:,} of {account.received:,} records were not learned {period}, {account.share_lost:.3%}: "
        f"{account.late:,} late, {account.orphans:,} without a turn, {account.dead_letters:,} invalid; "
        f"accounted for: {100 * (1 - abs(ever.unaccounted) / ever.received):.6g}%"
    )
    if ever.dropped:
        fields = ", ".join(f"{field} {count:,}" for field, count in ever.dropped.items())
        summary += f"; optional values left out: {fields}"
    details = {"account": account, "share": account.share_lost, "unaccounted": ever.unaccounted}
    if ever.unaccounted:
        remedy = "this is a bug of Backchannel: please report it with these numbers"
        return Check("losses", "critical", f"{summary}: {ever.unaccounted:,} are missing", remedy, details)
    remedy = (
        "late: raise turns.lateness_s, or sort; without a turn: raise turns.window_s, or check that queries are sent"
    )
    check = bounded("losses", account.share_lost, config.health.lost, summary=summary, remedy=remedy, details=details)
    return _tempered(check, account.lost)


def names(facts: Facts, config: Config) -> Check:
    """Return the check of names that only events have, or only the configuration."""
    if isinstance(facts.store, str):
        return unknown("names", store=facts.store)
    strategies = (
        {}
        if not config.bandit.strategies
        else {
            name: count
            for name, count in counted_by_name(facts.store.counted, UNKNOWN_STRATEGY).items()
            if name not in config.bandit.strategies
        }
    )
    kinds = {
        kind: count
        for kind, count in counted_by_name(facts.store.counted, UNKNOWN_KIND).items()
        if not config.rewards.names(kind)
    }
    unseen = facts.store.unseen
    details = {"strategies": strategies, "kinds": kinds, "unseen": unseen}
    said = [f"strategy {name} in {count:,} turns" for name, count in strategies.items()]
    said += [f"clicks of kind {kind}: {count:,}" for kind, count in kinds.items()]
    summaries, remedies = ["all strategies and clicks in events are configured"], []
    if said:
        summaries = [f"events name unconfigured strategies or clicks: {'; '.join(said)}"]
    if strategies:  # clicks of such kinds are worth 1, which may be intended
        every = msgspec.json.encode([*config.bandit.strategies, *strategies]).decode()
        remedies.append(f"to learn from these strategies: bandit.strategies = {every}")
    if unseen.strategies:
        summaries.append(f"no learned turn names the strategies {', '.join(unseen.strategies)}")
    if unseen.features:
        features = ", ".join(unseen.features)
        summaries.append(f"no learned turn has a value of the features {features}, or only their center")
    if unseen.strategies or unseen.features:
        remedies.append("do events write these names and values as [bandit] does?")
    status: Status = "warn" if remedies else "ok"
    return Check("names", status, "; ".join(summaries), "; ".join(remedies), details)


def _share(name: str, counted: str, facts: Facts, bounds: Bounds, remedy: str) -> Check:
    if isinstance(facts.store, str):
        return unknown(name, store=facts.store)
    recent = facts.store.recent
    count = recent.get(counted, 0)
    events = sum(recent.get(event, 0) for event in EVENT_TYPES) + (count if counted == "dead_letter" else 0)
    share = count / events if events else 0.0
    summary = f"{count:,} of {events:,} in ten minutes, {100 * share:.3g}%" if events else "no events in ten minutes"
    details = {"count": count, "records": events, "share": share}
    return _tempered(bounded(name, share, bounds, summary=summary, remedy=remedy, details=details), count)


def _tempered(check: Check, count: int) -> Check:
    return structs.replace(check, status="warn") if check.status == "critical" and count < _FEW else check
