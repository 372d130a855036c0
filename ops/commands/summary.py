"""What a run has learned, for people and for machines."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import make_url

from backchannel.agents.goals.serving import GoalRate
from backchannel.agents.horizon.serving import Report
from backchannel.agents.satisfaction.serving import Rate
from backchannel.schemas.snapshot import Estimate, Verdict
from backchannel.streams.clock import learned_up_to
from backchannel.streams.monitoring.trends import Rates, read_rates
from backchannel.streams.pipeline.learners import UNKNOWN_KIND, UNKNOWN_STRATEGY
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions
from backchannel.streams.store.engine import Store
from backchannel.streams.turns.accounts import Account, counted_by_name

DISORDER_S: Final = 300.0
"""Lateness, s, beyond which a file counts as disordered: nobody wants all turns to stay open for so long."""


class StrategySummary(Struct, frozen=True):
    """What the bandit knows about a strategy.

    Attributes:
        strategy: its name.
        turns: the (decayed) number of turns that asked it.
        reward: their mean reward.
        doubled: by what share whole pages earn more than their candidates promise if twice as many are drawn from it.
    """

    strategy: str
    turns: float
    reward: float
    doubled: Estimate


class FieldDropped(Struct, frozen=True):
    """The number of unusable values of a field that were left out, and the reason for the first."""

    count: int
    example: str


class Summary(Struct, frozen=True):
    """What one run did, and the policy after it.

    Attributes:
        store: URL of the store, without its password.
        events: number of events read by this run.
        turns: number of turns closed by this run.
        late: number of events whose turn had already closed.
        orphans: number of events without a turn.
        duplicates: number of events seen before.
        dead_letters: number of invalid records.
        dropped: field -> its unusable values, which were left out of events that were learned from.
        unknown_strategies: unconfigured strategy -> number of turns that asked it.
        unknown_kinds: unconfigured kind of click -> number of clicks.
        lost: share of the records that were not learned: late, without a turn, or invalid.
        lateness_s: the value of turns.lateness_s, s, with which no event would have been late.
        seconds: duration of the run.
        version: version of the policy that is served.
        verdict: the gate's verdict on its bandit; None if it was not judged.
        reason: the reason for the verdict.
        hold: why later versions are not served; None if they are.
        watermark: event time up to which the policy has learned, ms since the Unix epoch.
        strategies: what the bandit knows about each strategy.
        taken: whether these are those that events name, as none are configured.
        unseen_features: the bandit's features that no learned turn had a value of, or only their center.
        goals: how many goals were reached, told from labels; None if there are too few.
        satisfaction: how many turns people are satisfied with; None if too few people said so.
        horizon: after which strategies people come back; None if that is not learned.
        remembered: number of queries in the memory index.
        rewrites: number of rewrites.
        examples: the most probable rewrites, source -> target.
        rates: the quality of answers in the time buckets that are kept; None without turns.
    """

    store: str
    events: int
    turns: int
    late: int
    orphans: int
    duplicates: int
    dead_letters: int
    dropped: dict[str, FieldDropped]
    unknown_strategies: dict[str, int]
    unknown_kinds: dict[str, int]
    lost: float
    lateness_s: float
    seconds: float
    version: int
    verdict: Verdict | None
    reason: str | None
    hold: str | None
    watermark: int
    strategies: list[StrategySummary]
    taken: bool
    unseen_features: list[str]
    goals: GoalRate | None
    satisfaction: Rate | None
    horizon: Report | None
    remembered: int
    rewrites: int
    examples: dict[str, str]
    rates: Rates | None

    def _late_advice(self) -> str:
        if not self.late:
            return ""
        if self.lateness_s > DISORDER_S:
            return " (out of order: sort them, with --sort)"
        return f" (with turns.lateness_s = {math.ceil(self.lateness_s)} none would be; or --sort)"

    def _show_unknown(self, console: Console) -> None:
        """Print the names in events that the configuration does not know, and the line that changes that."""
        if self.unknown_strategies:
            asked = ", ".join(f"{name} in {count:,} turns" for name, count in self.unknown_strategies.items())
            every = [*(one.strategy for one in self.strategies), *self.unknown_strategies]
            console.print(
                f"Strategies that are not configured, and so not learned: {asked}. Add them in [bandit]: strategies = "
                f"{json.dumps(every)}",
                style="yellow",
            )
        if self.unknown_kinds:
            clicks = ", ".join(f"{name} ({count:,})" for name, count in self.unknown_kinds.items())
            console.print(
                f"Kinds of clicks whose worth rewards.click_gain does not say, and that count as 1: {clicks}",
                style="yellow",
            )

    def _show_version(self, console: Console) -> None:
        console.print(Text.assemble((f"Policy version {self.version}", "bold"), f", {learned_up_to(self.watermark)}"))
        if self.hold:
            console.print(f"Later versions are withheld: {self.hold}", style="yellow")
        if self.verdict not in (None, "publish"):
            console.print(f"Verdict on the bandit: {self.verdict}: {self.reason}", style="yellow")

    def _show_bandit(self, console: Console) -> None:
        if any(one.turns for one in self.strategies):
            console.print(strategy_table(self.strategies))
            if idle := [one.strategy for one in self.strategies if not one.turns]:
                console.print(f"No learned turn names {', '.join(idle)}: do events write it so?", style="yellow")
            if self.unseen_features:
                console.print(
                    f"No learned turn has a value of the features {', '.join(self.unseen_features)}, or only their "
                    "center: do events write names and values so?",
                    style="yellow",
                )
            if self.taken:
                console.print("bandit.strategies names none, so these are those that events name")
        else:
            names = ", ".join(one.strategy for one in self.strategies)
            console.print(
                "Strategy bandit: no turn learned with these bandit.features names a strategy. Until one does, "
                f"decisions split the budget among {names}; set bandit.strategies to your own"
                if self.taken
                else f"Strategy bandit: nothing is known about {names} yet. If turns have closed, set "
                "bandit.strategies to the names in your events. What was learned with other bandit.features does not "
                "count",
            )

    def show(self, console: Console) -> None:
        """Print the summary as tables."""
        numbers = Table(box=None, show_header=False, pad_edge=False)
        numbers.add_column(justify="right")
        numbers.add_column()
        rate = f"events in {self.seconds:.1f} s, {self.events / max(self.seconds, 1e-3):,.0f} per second"
        for count, what in (
            (self.events, rate),
            (self.turns, "turns closed and learned from"),
            (self.duplicates, "duplicate events"),
            (self.late, "late events" + self._late_advice()),
            (self.orphans, "events without a turn (if there are many, raise turns.window_s)"),
            (self.dead_letters, "dead letters"),
        ):
            numbers.add_row(f"{count:,}", what)
        for name, left_out in self.dropped.items():
            numbers.add_row(f"{left_out.count:,}", f"values of {name} left out, such as {left_out.example}")
        console.print(numbers)
        if not self.events and not self.dead_letters:
            console.print("Nothing new: there is no event that this store has not read")
        self._show_unknown(console)
        console.print()
        self._show_version(console)
        self._show_bandit(console)
        if self.satisfaction is not None:
            console.print(f"Satisfied: {self.satisfaction}")
        if self.horizon is not None:
            _show_horizon(console, self.horizon)
        console.print(f"Queries in the memory index: {self.remembered:,}")
        console.print(f"Rewrites: {self.rewrites:,}" + (", such as" if self.examples else ""))
        for source, target in self.examples.items():
            console.print(f"  {source!r} -> {target!r}")
        if self.rates is not None:
            console.print(f"Quality: {self.rates}" + (f"; {self.goals}" if self.goals else ""))


def _show_horizon(console: Console, report: Report) -> None:
    """Print after which strategies people come back, and where signals have not predicted it."""
    surrogate = report.surrogate
    console.print(
        f"Returns {surrogate.least_days:g} to {surrogate.days:g} days later: of {surrogate.visits:,} visits it is "
        f"known of {surrogate.mature:,}, by {surrogate.people:,} people"
    )
    table = Table("strategy", "visits", "returns", "95%", "of those known", "by signals", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in report.strategies.items():
        value, known = one.value, one.returned
        table.add_row(
            name,
            f"{one.visits:,.0f}",
            "?" if value is None else f"{value.value:.1%}",
            "" if value is None else f"{value.low:.1%} to {value.high:.1%}",
            "?" if known is None else f"{known.value:.1%}",
            "?" if one.predicted is None else f"{one.predicted:.1%}",
        )
    console.print(table)
    for name, rest in report.rest.items():
        if rest.value is not None:
            within = f"{rest.value.low:.2f} to {rest.value.high:.2f}"
            console.print(f"After {name}, the rest of the session brings {rest.value.value:.2f} ({within})")
    for warning in report.warnings:
        console.print(f"Returns: {warning}", style="yellow")


def strategy_table(strategies: Sequence[StrategySummary]) -> Table:
    """Return what is known about strategies as a table."""
    table = Table("strategy", "turns (decayed)", "mean reward", box=None, pad_edge=False)
    learned = any(one.doubled.low < one.doubled.high for one in strategies)
    if learned:
        table.add_column("pages with twice as many")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in strategies:
        pages = f"{one.doubled.value:+.0%} ({one.doubled.low:+.0%} to {one.doubled.high:+.0%})"
        table.add_row(one.strategy, f"{one.turns:,.0f}", f"{one.reward:.3f}", *([pages] if learned else []))
    return table


def summarize(
    url: str,
    store: Store,
    new: Mapping[str, int],
    *,
    examples: Mapping[str, str],
    taken: bool,
    lateness_s: float,
    seconds: float,
) -> Summary:
    """Summarize a run, reading the policy back as a serving process would.

    Args:
        url: SQLAlchemy URL of the store.
        store: the store.
        new: the run's counts, by the ledger's counters.
        examples: field -> why the first of its values was left out.
        taken: whether no strategies are configured, so that those that events name are learned.
        lateness_s: the value of turns.lateness_s, s, with which no event would have been late.
        seconds: duration of the run.
    """
    policy, account = PolicyReader(store).policy, Account.of(new)
    with store.read() as connection:
        rates, hold = read_rates(connection), versions.current(connection).hold
    rewrites, learned = policy.rewrites(), policy.summaries()
    likeliest = sorted(rewrites, key=lambda source: -rewrites[source].probability)[:3]
    return Summary(
        store=str(make_url(url)),  # without its password
        events=account.received - account.dead_letters,
        turns=new.get("turn", 0),
        late=account.late,
        orphans=account.orphans,
        duplicates=account.duplicates,
        dead_letters=account.dead_letters,
        dropped={field: FieldDropped(count, examples.get(field, "")) for field, count in account.dropped.items()},
        unknown_strategies=counted_by_name(new, UNKNOWN_STRATEGY),
        unknown_kinds=counted_by_name(new, UNKNOWN_KIND),
        lost=account.share_lost,
        lateness_s=lateness_s,
        seconds=seconds,
        version=policy.version,
        verdict=policy.snapshot.verdict,
        reason=policy.snapshot.reason,
        hold=hold,
        watermark=policy.snapshot.watermark,
        strategies=[
            StrategySummary(name, turns, reward, learned[name].doubled)
            for name, (turns, reward) in policy.evidence().items()
        ],
        taken=taken,
        unseen_features=policy.unseen_features(),
        goals=policy.goals.rate,
        satisfaction=policy.satisfaction.rate,
        horizon=policy.horizon.report,
        remembered=policy.remembered,
        rewrites=len(rewrites),
        examples={source: rewrites[source].target for source in likeliest},
        rates=rates,
    )
