"""`backchannel bandits`: which bandit to choose, with the evidence."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from matplotlib.figure import Figure
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.evaluate.event_log import UnloggedError, evaluate
from backchannel.ops.evaluate.result import Evaluation, Options
from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.groups import Group
from backchannel.ops.lab.bandits.contenders import CONTENDERS
from backchannel.ops.lab.bandits.river import RIVER
from backchannel.ops.lab.worlds.contexts import EXPECTED, ContextualWorld, regret
from backchannel.ops.options import config_option, json_option
from backchannel.ops.progress import progress_bar
from backchannel.ops.terminal import print_json, require_writable
from backchannel.streams.config import Config
from backchannel.streams.turns.assembler import TooManyOpenError
from backchannel.streams.turns.identity import SourceError


class ContenderRegret(Struct, frozen=True):
    """A contender's regret in one world.

    Attributes:
        world: the world.
        contender: the contender's name.
        regret: mean regret over seeds, in percent of a uniform choice's.
        error: standard error of `regret`, in percentage points.
        curve: regret up to each refresh, in percent of a uniform choice's, (refreshes,).
    """

    world: ContextualWorld
    contender: str
    regret: float
    error: float
    curve: list[float]


@click.group(cls=Group)
def bandits() -> None:
    """Compare bandits."""


@bandits.command("compare")
@click.argument("log", required=False, metavar="[LOG]")
@config_option
@click.option(
    "--world", "rewards", type=click.Choice(list(EXPECTED)), multiple=True, help="Type of reward.  [default: all]"
)
@click.option(
    "--drifts",
    type=click.IntRange(0, 100),
    multiple=True,
    help="Number of times that all weights change.  [default: 0 and 2]",
)
@click.option("--rounds", type=click.IntRange(100), default=20_000, show_default=True, help="Number of decisions.")
@click.option(
    "--strategies",
    type=click.IntRange(2, 32),
    default=8,
    show_default=True,
    help="Number of strategies to choose from.",
)
@click.option(
    "--dimension", type=click.IntRange(1, 256), default=20, show_default=True, help="Number of context features."
)
@click.option(
    "--delay", type=click.IntRange(0), default=1000, show_default=True, help="Delay of rewards, in decisions."
)
@click.option("--refresh", type=click.IntRange(1), default=1000, show_default=True, help="Decisions per policy.")
@click.option(
    "--seeds",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="Number of runs of each bandit in each world.",
)
@click.option(
    "--rivals/--no-rivals", default=None, help="Also run Vowpal Wabbit and MABWiser.  [default: if installed]"
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the regret over time.")
@json_option
def compare(
    *,
    log: str | None,
    config: Config,
    rewards: tuple[Any, ...],
    drifts: tuple[int, ...],
    seeds: int,
    rivals: bool | None,
    plot: Path | None,
    as_json: bool,
    **world: int,
) -> None:
    """Run bandits through simulated worlds, or compare ways to explore on LOG, and recommend one.

    In the worlds, rewards arrive late and policies are refreshed periodically, as in production. Select the worlds that
    resemble yours; the bandit that falls least behind the best one in its worst world is recommended.

    LOG is an event file whose impressions have propensities. The bandit learns from the first half, and its ways to
    explore are evaluated on the second; `backchannel evaluate` prints more detail.

    \b
    Exit code: 0 done; 3 LOG is unusable for some policies, see the warnings; 1 an error; 2 the command or the
    configuration is wrong.
    """
    if log is not None:
        if plot is not None:
            raise click.UsageError("--plot draws the regret in simulated worlds: leave out LOG")
        _compare_on(log, config, as_json=as_json)
        return
    if plot is not None:
        require_writable(plot)
    contenders = CONTENDERS | RIVER
    if rivals or (rivals is None and all(map(importlib.util.find_spec, ("mabwiser", "vowpalwabbit")))):
        from backchannel.ops.lab.bandits.rivals import RIVALS  # noqa: PLC0415 - needs more packages

        contenders |= RIVALS
    worlds = [ContextualWorld(reward, drift, **world) for reward in rewards or EXPECTED for drift in drifts or (0, 2)]
    results = []
    with Console(stderr=True).status("") as status:
        for name, make in contenders.items():
            for one in worlds:
                status.update(f"{name}: {_title(one)}")
                lost = np.array([regret(one, make(one), seed) for seed in range(seeds)])
                results.append(_result(one, name, lost))
    if plot is not None:
        _draw(results, worlds).savefig(plot)
    if as_json:
        print_json(results)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print("Regret in percent of a uniform choice's, with standard errors")
    console.print(_table(results, worlds, seeds))
    best, behind = recommend(results)
    console.print(f"Recommended: [bold]{best}[/bold], never more than {behind:.0%} behind the best in any world.")


def _compare_on(log: str, config: Config, *, as_json: bool) -> None:
    try:
        with progress_bar() as progress:
            found = evaluate(log, config, {}, Options(), progress)
    except (SourceError, TooManyOpenError, UnloggedError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json(found)
    else:
        _show(found)
    sys.exit(0 if found.usable else INCOMPLETE)


def _show(found: Evaluation) -> None:
    table = Table("policy", "vs. logged", "95% from", "to", box=SIMPLE_HEAD)
    for policy in found.policies:
        table.add_row(policy.name, *(f"{number:+.4f}" for number in msgspec.structs.astuple(found.lift(policy))))
    Console().print(table)
    for policy in found.policies:
        for fault in policy.faults:
            click.echo(f"Warning: {policy.name}: {fault}")
    usable = [policy for policy in found.policies if not policy.faults]
    best = max(usable, key=lambda policy: found.lift(policy).low, default=None)
    if best is None:
        click.echo("This log cannot tell what these policies are worth.")
    elif found.lift(best).low > 0.0:
        click.echo(f"Recommended: {best.name}, which has the highest lower bound.")
    else:
        click.echo("Not distinguishable: no policy is surely better than the logged one.")


def _result(world: ContextualWorld, contender: str, lost: Any) -> ContenderRegret:
    shares = 100 * lost[:, :, 0].sum(axis=1) / lost[:, :, 1].sum(axis=1)
    running = 100 * lost[:, :, 0].sum(axis=0).cumsum() / lost[:, :, 1].sum(axis=0).cumsum()
    error = float(shares.std(ddof=1) / np.sqrt(len(shares)))
    return ContenderRegret(world, contender, float(shares.mean()), error, running.tolist())


def recommend(results: Sequence[ContenderRegret]) -> tuple[str, float]:
    """Return the contender whose worst relative gap to the best in any world is smallest, and that gap (0.1 is 10%)."""
    best: dict[ContextualWorld, float] = {}
    for one in results:
        best[one.world] = min(one.regret, best.get(one.world, np.inf))
    behind: dict[str, float] = {}
    for one in results:
        behind[one.contender] = max(one.regret / best[one.world] - 1.0, behind.get(one.contender, 0.0))
    name = min(behind, key=behind.__getitem__)
    return name, behind[name]


def _title(world: ContextualWorld) -> str:
    return f"{world.reward}, {world.drifts} drifts" if world.drifts else world.reward


def _table(results: Iterable[ContenderRegret], worlds: Sequence[ContextualWorld], seeds: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{seeds} runs, simulated", no_wrap=True)
    rows: dict[str, list[str]] = {}
    for world in worlds:
        table.add_column(_title(world), justify="right")
    for one in results:
        rows.setdefault(one.contender, []).append(f"{one.regret:.1f}±{one.error:.1f}")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _draw(results: Sequence[ContenderRegret], worlds: Sequence[ContextualWorld]) -> Figure:
    columns = min(len(worlds), 3)
    rows = -(-len(worlds) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, world in zip(panels, worlds, strict=False):
        axes.set_title(_title(world))
        axes.set_xlabel("decisions")
        axes.set_ylabel("regret so far, % of uniform's")
        for one in results:
            if one.world == world and one.contender != "uniform":
                wide = 2.4 if one.contender == "backchannel" else 1.0
                at = np.minimum(world.refresh * np.arange(1, len(one.curve) + 1), world.rounds)
                axes.plot(at, one.curve, label=one.contender, linewidth=wide)
        axes.set_ylim(bottom=0)
    for axes in panels[len(worlds) :]:
        axes.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Simulated worlds")
    return figure
