"""`backchannel lab failures`: how well failure points are told, and how few labels are enough."""

from pathlib import Path
from typing import Final

import click
from msgspec.structs import astuple
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.agents.failures.quality import MEASURES
from backchannel.ops.lab.failures.data import POINTS, read
from backchannel.ops.lab.failures.evaluation import evaluate
from backchannel.ops.options import json_option
from backchannel.ops.paths import input_folder
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_WIDTH: Final = 144


@click.command()
@click.argument("folder", type=input_folder)
@click.option(
    "--labels",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    default=(50, 200, 1_000, 5_000),
    show_default=True,
    help="Labels to learn from, for the learning curve.",
)
@click.option("--seeds", type=click.IntRange(1, 20), default=2, show_default=True, help="Random choices of labels.")
@click.option("--salt", default="", help="Changes how callers are divided into folds.")
@json_option
def failures(*, folder: Path, sizes: tuple[int, ...], seeds: int, salt: str, as_json: bool) -> None:
    """Learn failure points from the labelled dialogues in FOLDER, and diagnose callers that were not learned from.

    FOLDER holds `dstc2` and `failure_points`. The labels were made by rules from transcripts, not by annotators. There
    are five folds of callers; intervals of 95% are over callers. Where LightGBM is installed, what gradient boosting
    makes of the same evidence is shown for comparison; nothing uses it.
    """
    with Console(stderr=True).status("learning"):
        report = evaluate(read(folder, salt), sizes, seeds)
    if as_json:
        print_json(report)
        return
    console = Console(width=_WIDTH)
    console.print(
        f"{report.turns:,} turns of {report.callers} callers; calling all of them correct is right in "
        f"{report.majority:.1%} of them."
    )
    table = Table("labels", "of turns", box=SIMPLE_HEAD, pad_edge=False)
    for name in MEASURES:
        table.add_column(name, justify="right")
    table.add_row("none", "by rules", *map(_interval, astuple(report.rules)))
    for size in report.curve:
        for how, one in (("drawn at random", report.curve[size]), ("chosen", report.chosen[size])):
            table.add_row(f"{size:,}", how, *(f"{measured.value:.3f}" for measured in astuple(one)))
    table.add_row("all", "", *map(_interval, astuple(report.quality)))
    if (boosting := report.boosting) is not None:
        for size, one in boosting.curve.items():
            table.add_row(f"{size:,}", "gradient boosting", *(f"{measured.value:.3f}" for measured in astuple(one)))
        for labels, one in (("all", boosting.quality), ("sample", boosting.sampled)):
            table.add_row(labels, "gradient boosting", *map(_interval, astuple(one)))
        table.add_row("", "difference", *map(_interval, astuple(boosting.gain)))
    console.print(table)
    confusion = Table("true \\ told", *POINTS, box=SIMPLE_HEAD, pad_edge=False)
    for true, told in report.confusion.items():
        confusion.add_row(true, *(f"{told[point]:,}" for point in POINTS))
    console.print(confusion)
    shares = report.shares
    console.print(
        f"Shares of failure points by system, held out: off by {shares.estimated:.1%} on average, by "
        f"{shares.counted:.1%} if the likeliest are counted; {shares.covered:.0%} of the true shares are in their "
        f"intervals, which are {shares.width:.1%} wide. By rules, learned from the other systems, they are off by "
        f"{report.rules_shares:.1%}."
    )
    for declared, written in report.exported.items():
        right = "" if written.precision is None else f", of which {_interval(written.precision)} are right"
        what = f"the failure points of {written.share:.1%} of the turns{right}"
        console.print(f"`label export --precision {declared}` writes {what}.")


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
