"""`backchannel lab asking`: what questions bring, and what their budget costs."""

from collections.abc import Callable
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.lab.asking.loop import Played, arms, play, spread
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import json_option
from backchannel.ops.terminal import print_json

_WIDTH: Final = 130
_COLUMNS: Final[dict[str, Callable[[Played], float]]] = {
    "failed turns": lambda one: 1000 * one.defects,
    "in the second half": lambda one: 1000 * one.late_defects,
    "asked: satisfied?": lambda one: 1000 * one.satisfaction,
    "asked: what is meant?": lambda one: 1000 * one.teach,
}


@click.command()
@click.option("--people", type=click.IntRange(2, 10_000), default=80, show_default=True, help="Simulated people.")
@click.option("--days", type=click.IntRange(2, 365), default=14, show_default=True, help="Days.")
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="Worlds.")
@click.option("--probability", type=FiniteRange(0, 1), default=0.1, show_default=True, help="ask.probability.")
@click.option("--teach", type=FiniteRange(0, 1), default=0.5, show_default=True, help="ask.teach.")
@click.option(
    "--budget",
    "budgets",
    type=click.IntRange(1, 96),
    multiple=True,
    default=(1, 3, 12),
    show_default=True,
    help="ask.per_day; may be given several times.",
)
@json_option
def asking(
    *, people: int, days: int, seeds: int, probability: float, teach: float, budgets: tuple[int, ...], as_json: bool
) -> None:
    """Simulate people who are asked whether they are satisfied, and what they mean; and others who are not asked.

    Figures are per 1,000 turns: means over the worlds, with intervals of 95%. The people of a world are the same in
    all lines. "Anywhere" asks what is meant at any turn, not only where it would help; in the others but the last one,
    a twentieth of the answers are untrue. The error is that of the published rate of satisfaction.
    """
    with Console(stderr=True).status("playing"):
        played = {arm.name: play(arm, people, days, seeds) for arm in arms(probability, teach, budgets)}
    if as_json:
        print_json(played)
        return
    table = Table("per 1,000 turns", *_COLUMNS, box=SIMPLE_HEAD, pad_edge=False)
    for name in ("most to one a day", "rules taught", "error of the rate"):
        table.add_column(name, justify="right")
    for name, worlds in played.items():
        errors = [one.error for one in worlds if one.error is not None]
        table.add_row(
            name,
            *("{:.0f} ± {:.0f}".format(*spread([of(one) for one in worlds])) for of in _COLUMNS.values()),
            str(max(one.most for one in worlds)),
            f"{spread([one.taught for one in worlds])[0]:,.0f}",
            "{:+.1%} ± {:.1%}".format(*spread(errors)) if errors else "-",
        )
    Console(width=_WIDTH).print(table)
