"""`backchannel lab horizon`: what choosing strategies by returns brings."""

from collections.abc import Iterator, Mapping
from typing import Final

import click
import numpy as np
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from backchannel.agents.sums import Floats
from backchannel.ops.lab.horizon import bandits
from backchannel.ops.lab.horizon.policies import CLICKS, JUDGES, MONTH, ORACLE, Played, play
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import json_option
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_WIDTH: Final = 170
_BOTH: Final = {True: "signals tell all", False: "signals do not tell all"}


class Month(Struct, frozen=True):
    """A policy of the bandit in one world; means over the worlds, with intervals of 95%.

    Attributes:
        world: whether surrogacy holds, in words.
        delay: days within which a return must follow.
        policy: the policy.
        regret: visits per place and month that the oracle has more, in the same worlds.
        clicks: clicks per visit in the first month.
        visits: visits per place in the last month.
        more_clicks, more_visits: how many more than with success alone, in the same worlds.
    """

    world: str
    delay: int
    policy: str
    regret: Estimate
    clicks: Estimate
    visits: Estimate
    more_clicks: Estimate
    more_visits: Estimate


class Line(Struct, frozen=True):
    """One policy in one setting; means over the worlds, with intervals of 95%.

    Attributes:
        world: whether surrogacy holds, in words.
        delay: days within which a return must follow.
        policy: the policy.
        regret: visits per place and month that the oracle has more, in the same worlds.
        visits: visits per place and month.
        first_clicks: clicks per visit in the first month.
    """

    world: str
    delay: int
    policy: str
    regret: Estimate
    visits: Estimate
    first_clicks: Estimate


@click.command()
@click.option("--days", type=click.IntRange(30, 3650), default=120, show_default=True, help="Days.")
@click.option("--places", type=click.IntRange(50, 100_000), default=400, show_default=True, help="People at a time.")
@click.option("--seeds", type=click.IntRange(2, 1000), default=10, show_default=True, help="Worlds.")
@click.option(
    "--delay",
    "delays",
    type=click.IntRange(1, 365),
    multiple=True,
    default=(1, 7, 30),
    show_default=True,
    help="Days within which a return must follow; may be given several times.",
)
@click.option(
    "--bandit",
    "worths",
    type=FiniteRange(0, 1000),
    multiple=True,
    help="Play the bandit itself instead, with this `bandit.long_term` and with 0; may be given several times.",
)
@json_option
def horizon(
    *, days: int, places: int, seeds: int, delays: tuple[int, ...], worths: tuple[float, ...], as_json: bool
) -> None:
    """Simulate people who come back if they are satisfied, and strategies that bait clicks and lose them.

    Every ten days a new strategy replaces the oldest. Policies differ in what a strategy is worth to them: its clicks;
    returns, for which they wait; what signals predict of returns; that plus the residual of what has matured, in full;
    and the corrected value that is published. The oracle knows the best strategy. The worlds of a seed are the same for
    all policies.

    With --bandit, the bandit plays: it learns from events and publishes once a day.
    """
    if worths:
        with Console(stderr=True).status("playing"):
            months = list(_months(days, places, seeds, delays, worths))
        _show(months, as_json=as_json)
        return
    with Console(stderr=True).status("playing"):
        lines = list(_lines(days, places, seeds, delays))
    if as_json:
        print_json(lines)
        return
    columns = ("world", "days", "policy", "visits lost", "visits", "clicks, first month")
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    before = ("", 0)
    for line in lines:
        here = (line.world, line.delay)
        own = [line.world, str(line.delay)] if here != before else ["", ""]
        lost, visits, clicks = line.regret, line.visits, line.first_clicks
        table.add_row(
            *own,
            line.policy,
            f"{lost.value:.2f} ({lost.low:.2f} to {lost.high:.2f})",
            f"{visits.value:.2f}",
            f"{clicks.value:.1%}",
        )
        before = here
    Console(width=_WIDTH).print(table)
    click.echo("Visits are per place and month. Simulated.")


def _months(days: int, places: int, seeds: int, delays: tuple[int, ...], worths: tuple[float, ...]) -> Iterator[Month]:
    for holds in _BOTH:

        def play_all(policy: str | float, delay: int, *, holds: bool = holds) -> list[bandits.Days]:
            return [bandits.play(policy, days, places, delay, seed, holds=holds) for seed in range(seeds)]

        clicks, best = (play_all(policy, delays[0]) for policy in (0.0, bandits.BEST))  # these look at no returns
        for delay in delays:
            played = {0.0: clicks} | {worth: play_all(worth, delay) for worth in worths} | {bandits.BEST: best}
            yield from _months_of(_BOTH[holds], delay, played)


def _months_of(world: str, delay: int, played: Mapping[str | float, list[bandits.Days]]) -> Iterator[Month]:
    """Yield a line for each policy of the bandit -> what happened in each world."""
    clicks = {policy: np.array([one.clicks[1 : MONTH + 1].mean() for one in some]) for policy, some in played.items()}
    last = {policy: np.array([one.visits[-MONTH:].sum() for one in some]) for policy, some in played.items()}
    every = {policy: np.array([one.visits.mean() * MONTH for one in some]) for policy, some in played.items()}
    for policy in played:
        yield Month(
            world,
            delay,
            policy if isinstance(policy, str) else f"{policy:g} successes",
            regret=_over_worlds(every[bandits.BEST] - every[policy]),
            clicks=_over_worlds(clicks[policy]),
            visits=_over_worlds(last[policy]),
            more_clicks=_over_worlds(clicks[policy] - clicks[0.0]),
            more_visits=_over_worlds(last[policy] - last[0.0]),
        )


def _show(months: list[Month], *, as_json: bool) -> None:
    if as_json:
        print_json(months)
        return
    columns = (
        "world",
        "days",
        "a return is worth",
        "visits lost",
        "clicks, first month",
        "more",
        "visits, last month",
        "more",
    )
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for one in months:
        lost, more, longer = one.regret, one.more_clicks, one.more_visits
        table.add_row(
            one.world,
            str(one.delay),
            one.policy,
            f"{lost.value:.2f} ({lost.low:.2f} to {lost.high:.2f})",
            f"{100 * one.clicks.value:.1f}",
            f"{100 * more.value:+.1f} ({100 * more.low:+.1f} to {100 * more.high:+.1f})",
            f"{one.visits.value:.2f}",
            f"{longer.value:+.2f} ({longer.low:+.2f} to {longer.high:+.2f})",
        )
    Console(width=_WIDTH).print(table)
    click.echo(
        "Clicks are per 100 visits; visits per place, and lost ones per place and month. More: than with 0. Simulated."
    )


def _lines(days: int, places: int, seeds: int, delays: tuple[int, ...]) -> Iterator[Line]:
    for holds in _BOTH:

        def play_all(name: str, delay: int, *, holds: bool = holds) -> list[Played]:
            return [play(name, days, places, delay, seed, holds=holds) for seed in range(seeds)]

        always = {name: play_all(name, delays[0]) for name in (ORACLE, CLICKS)}  # these do not look at returns
        for delay in delays:
            played = always | {name: play_all(name, delay) for name in JUDGES if name not in always}
            yield from _compared(_BOTH[holds], delay, played)


def _compared(world: str, delay: int, played: dict[str, list[Played]]) -> Iterator[Line]:
    """Yield a line for each policy -> what happened in each world."""
    best = _column(played[ORACLE], "visits")
    for name, some in played.items():
        visits = _column(some, "visits")
        yield Line(
            world,
            delay,
            name,
            regret=_over_worlds(best - visits),
            visits=_over_worlds(visits),
            first_clicks=_over_worlds(_column(some, "first_clicks")),
        )


def _column(played: list[Played], name: str) -> Floats:
    return np.array([getattr(one, name) for one in played])


def _over_worlds(values: Floats) -> Estimate:
    """Return the mean of one value per world, (worlds,), with an interval of 95% by Student's t."""
    spread = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return Estimate(mean, mean - spread, mean + spread)
