"""What a run has learned, for people and for machines."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from backchannel.schemas.events import EVENT_TYPES
from backchannel.streams.clock import since_epoch
from backchannel.streams.serving.reader import PolicyReader

TOO_OLD: Final = 315_532_800_000
"""1980, in ms since the Unix epoch. Seconds that are taken for milliseconds lie in 1970, whenever they were."""


class StrategySummary(Struct, frozen=True):
    """What is known of a strategy: turns that asked it (as far as not faded) and their mean reward."""

    strategy: str
    turns: float
    reward: float


class Summary(Struct, frozen=True):
    """What one run did, and the policy that stands after it.

    Attributes:
        store: where it is.
        events: read anew.
        turns: closed.
        late: events that came after every turn that could take them had closed.
        orphans: events that no turn took.
        duplicates: events that were there already.
        dead_letters: records that are no events.
        seconds: that it took.
        version: of the policy.
        watermark: event time that the policy has learned up to, ms since the Unix epoch.
        strategies: the bandit's view of each.
        remembered: queries in the memory index.
        rewrites: published.
        examples: some rewrites.
    """

    store: str
    events: int
    turns: int
    late: int
    orphans: int
    duplicates: int
    dead_letters: int
    seconds: float
    version: int
    watermark: int
    strategies: list[StrategySummary]
    remembered: int
    rewrites: int
    examples: dict[str, str]

    def show(self, console: Console) -> None:
        """Print it as tables."""
        numbers = Table(box=None, show_header=False, pad_edge=False)
        numbers.add_column(justify="right")
        numbers.add_column()
        rate = f"events in {self.seconds:.1f} s, {self.events / max(self.seconds, 1e-3):,.0f} per second"
        for count, what in (
            (self.events, rate),
            (self.turns, "turns closed and learned from"),
            (self.duplicates, "duplicate events"),
            (self.late, "late events (raise turns.lateness_s if there are many)"),
            (self.orphans, "events that no turn took (raise turns.window_s if there are many)"),
            (self.dead_letters, "dead letters"),
        ):
            numbers.add_row(f"{count:,}", what)
        console.print(numbers)
        console.print()
        console.print(f"[bold]Policy version {self.version}[/bold], learned up to {since_epoch(self.watermark)}")
        if 0 < self.watermark < TOO_OLD:
            console.print(
                f"[yellow]Event times lie in {since_epoch(self.watermark)[:4]}: `ts` is in milliseconds, are yours in "
                "seconds?[/yellow]"
            )
        if any(one.turns for one in self.strategies):
            bandit = Table("strategy", "turns", "mean reward", box=None, pad_edge=False)
            for column in bandit.columns[1:]:
                column.justify = "right"
            for one in self.strategies:
                bandit.add_row(one.strategy, f"{one.turns:,.0f}", f"{one.reward:.3f}")
            console.print(bandit)
        else:
            names = ", ".join(one.strategy for one in self.strategies)
            console.print(
                f"Strategy bandit: nothing is known of {names} yet. If turns have closed, set bandit.strategies to "
                "what your events name; what was learned with other bandit.features does not count"
            )
        console.print(f"Memory index: {self.remembered:,} queries")
        console.print(f"Rephrase graph: {self.rewrites:,} rewrites" + (", such as" if self.examples else ""))
        for source, target in self.examples.items():
            console.print(f"  {source!r} -> {target!r}", markup=False)


def summarize(store: str, new: Mapping[str, int], seconds: float) -> Summary:
    """Return what a run that counted `new` has done, reading the policy back as serving would."""
    reader = PolicyReader(store)
    try:
        policy = reader.policy
    finally:
        reader.close()
    rewrites = policy.rewrites()
    likeliest = sorted(rewrites, key=lambda source: -rewrites[source].probability)[:3]
    return Summary(
        store=str(make_url(store)),  # without its password
        events=sum(new.get(name, 0) for name in EVENT_TYPES),
        turns=new.get("turn", 0),
        late=new.get("late", 0),
        orphans=new.get("orphan", 0),
        duplicates=new.get("duplicate", 0),
        dead_letters=new.get("dead_letter", 0),
        seconds=seconds,
        version=policy.version,
        watermark=policy.snapshot.watermark,
        strategies=[StrategySummary(name, turns, reward) for name, (turns, reward) in policy.evidence().items()],
        remembered=policy.remembered,
        rewrites=len(rewrites),
        examples={source: rewrites[source].target for source in likeliest},
    )
