"""`backchannel lab satisfaction`: how well signals tell whether people are satisfied."""

from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.lab.satisfaction.evaluation import evaluate, read
from backchannel.ops.options import json_option
from backchannel.ops.paths import input_folder
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_WIDTH: Final = 130


@click.command()
@click.argument("folder", type=input_folder)
@click.option(
    "--first",
    type=click.IntRange(min=1),
    multiple=True,
    default=(5,),
    show_default=True,
    help="Also predict from the first turns only; may be given several times.",
)
@click.option("--salt", default="", help="Changes how callers are divided into folds.")
@json_option
def satisfaction(*, folder: Path, first: tuple[int, ...], salt: str, as_json: bool) -> None:
    """Learn from the answers of callers in FOLDER, DSTC2, whether their dialogues succeeded; predict those of others.

    There are five folds of callers; intervals of 95% are over callers.
    """
    with Console(stderr=True).status("learning"):
        report = evaluate(read(folder), (0, *first), salt)
    if as_json:
        print_json(report)
        return
    console = Console(width=_WIDTH)
    console.print(f"{report.dialogues:,} dialogues of {report.callers} callers; {report.success:.1%} succeeded.")
    table = Table("area under ROC, from", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("signals", "the last turn alone", "length alone", "mean defects", "Brier score", "of the mean"):
        table.add_column(name, justify="right")
    for count, one in report.quality.items():
        areas = map(_interval, (one.area, one.own_turn, one.length, one.defects))
        table.add_row(_turns(count), *areas, f"{one.brier:.4f}", f"{one.brier_of_mean:.4f}")
    console.print(table)
    groups = Table("calibration, held out", "dialogues", "predicted", "succeeded", box=SIMPLE_HEAD, pad_edge=False)
    for count, one in report.quality.items():
        for group in one.calibration:
            groups.add_row(_turns(count), str(group.dialogues), f"{group.predicted:.1%}", f"{group.succeeded:.1%}")
    console.print(groups)


def _turns(count: int) -> str:
    return f"first {count} turns" if count else "all turns"


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
