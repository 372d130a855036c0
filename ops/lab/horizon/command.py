"""`backchannel lab horizon`: what choosing strategies by returns brings."""

from collections.abc import Iterator
from typing import Final

import click
import numpy as np
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from backchannel.agents.sums import Floats
from backchannel.ops.lab.horizon.policies import CLICKS, JUDGES, ORACLE, Played, play
from backchannel.ops.options import json_option
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_WIDTH: Final = 130
_BOTH: Final = {True: "signals tell all", False: "signals do not tell all"}


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
@json_option
def horizon(*, days: int, places: int, seeds: int, delays: tuple[int, ...], as_json: bool) -> None:
    """Simulate people who come back if they are satisfied, and strategies that bait clicks and lose them.

    Every ten days a new strategy replaces the oldest. Policies differ in what a strategy is worth to them: its clicks;
    returns, for which they wait; what signals predict of returns; that plus the residual of what has matured, in full;
    and the corrected value that is published. The oracle knows the best strategy. The worlds of a seed are the same for
    all policies.
    """
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
