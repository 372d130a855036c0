"""`backchannel lab worlds`: the clicks of the bandit and its rivals in worlds in which strategies share a page."""

from collections.abc import Callable

import click
import numpy as np
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backchannel.agents.sums import Floats
from backchannel.ops.lab.shared_page.contenders import (
    Contender,
    Fixed,
    Learned,
    LinTS,
    Segments,
    choices,
    climb,
    even,
)
from backchannel.ops.lab.shared_page.worlds import LOOKED, WORLDS, World
from backchannel.ops.options import json_option
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

RIVALS = ("even split", "best fixed", "LinTS", "segments")
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # 97.5%


class WorldResult(Struct, frozen=True):
    """The results in a world: clicks per turn in the last quarter of the turns, as served.

    Attributes:
        earned: contender -> clicks per turn, mean over the seeds.
        differences: rival -> the bandit's clicks per turn less the rival's, paired by seed, with a 95% interval.
        lost_to: rivals whose interval excludes that the bandit earns as much.
    """

    world: str
    earned: dict[str, float]
    differences: dict[str, Estimate]
    lost_to: list[str]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(WORLDS)), metavar="[WORLD]...")
@click.option("--turns", type=click.IntRange(min=400), default=4_000, show_default=True, help="Turns of each run.")
@click.option("--seeds", type=click.IntRange(2, 10), default=5, show_default=True, help="Runs in each world.")
@click.option("--first-seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the first run.")
@json_option
def worlds(*, names: tuple[str, ...], turns: int, seeds: int, first_seed: int, as_json: bool) -> None:
    """Run simulated worlds in which strategies share a page, with the rivals that a user would try first.

    Worlds: twins, depth, position, newcomer, kinds, three, thirty, rare, drift,
    night and cauchy; by default all of them.
    """
    chosen = [WORLDS[name] for name in names or WORLDS]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("playing", total=len(chosen) * seeds * (len(RIVALS) + 1))
        results = [
            result(world, turns, range(first_seed, first_seed + seeds), lambda: progress.advance(task))
            for world in chosen
        ]
    if as_json:
        print_json(results)
        return
    table = Table("world", "bandit", *RIVALS, "less the best rival", "loses to", box=SIMPLE_HEAD, pad_edge=False)
    for one in results:
        best = max(RIVALS, key=one.earned.__getitem__)
        less = one.differences[best]
        table.add_row(
            one.world,
            *(f"{one.earned[name]:.4f}" for name in ("bandit", *RIVALS)),
            f"{less.value:+.4f} ({less.low:+.4f} to {less.high:+.4f})",
            ", ".join(one.lost_to) or "-",
        )
    Console().print(table)
    click.echo("Simulated. Clicks per turn in the last quarter, as served; intervals of 95%, paired by seed.")


def result(world: World, turns: int, seeds: range, advance: Callable[[], object] = lambda: None) -> WorldResult:
    """Run a world with every contender."""
    earned: dict[str, list[float]] = {name: [] for name in ("bandit", *RIVALS)}
    for seed in seeds:
        for name, own in earned.items():
            rng = np.random.default_rng([seed, 3])
            own.append(play(world, _contender(name, world, seed, rng), turns, seed))
            advance()
    differences = {name: _paired(np.subtract(earned["bandit"], earned[name])) for name in RIVALS}
    return WorldResult(
        world.name,
        {name: float(np.mean(values)) for name, values in earned.items()},
        differences,
        [name for name, less in differences.items() if less.high < 0],
    )


def play(world: World, contender: Contender, turns: int, seed: int) -> float:
    """Return the clicks per turn of a contender in the last quarter; all contenders serve the same people.

    A policy is learned after 50 turns, and whenever the number of turns has grown by a fifth.
    """
    rng = np.random.default_rng([seed, 1])
    people, times = world.people(turns, rng), np.arange(turns) / turns
    ranks, luck = world.ranks(people.kinds, times, rng), rng.random(turns)
    clicks = np.zeros(turns)
    done = 0
    while done < turns:
        due = min(done + max(done // 5, 50), turns)
        join = round(world.joins * turns)
        due = join if done < join < due else due
        own = slice(done, due)
        on = world.strategies - (done < join)
        counts = contender.allocate(people.part(own), on)
        positions = world.positions(counts, ranks[own])
        looked = luck[own] < np.maximum(positions, 1.0) ** -LOOKED
        positions = np.where(looked, positions, 0)
        clicks[own] = positions > 0
        contender.learn(people.part(own), counts, ranks[own], positions, done)
        done = due
    return float(clicks[-turns // 4 :].mean())


def _contender(name: str, world: World, seed: int, rng: np.random.Generator) -> Contender:
    if name == "bandit":
        return Learned(world, rng)
    if name == "LinTS":
        return LinTS(world, rng)
    if name == "segments":
        return Segments(world, rng)
    if name == "even split":
        return Fixed(even(tuple(range(world.strategies)), world))
    people = np.random.default_rng([seed, 2])
    kinds, times = people.integers(0, world.kinds, 4_000), people.uniform(0.75, 1.0, 4_000)
    ranks = world.ranks(kinds, times, people)
    starts = [each for each in choices(world, world.strategies) if each.sum() == world.budget]
    return Fixed(max((climb(start, world, kinds, ranks) for start in starts[-3:]), key=lambda one: one[0])[1])


def _paired(differences: Floats) -> Estimate:
    wide = _STUDENT[len(differences)] * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = float(differences.mean())
    return Estimate(mean, mean - float(wide), mean + float(wide))
