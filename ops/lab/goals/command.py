"""`backchannel lab goals`: how well it is told where goals begin."""

from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.agents.goals import weights as goal_weights
from backchannel.ops.lab.goals.evaluation import Quality, data_of, evaluate, fit
from backchannel.ops.lab.goals.pairs import learned, tried
from backchannel.ops.options import json_option
from backchannel.ops.paths import input_folder
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_WIDTH: Final = 130
_PER_LINE: Final = 16
_MEASURES: Final = ("area under ROC", "F1", "precision", "recall", "calibration error", "best F1")


@click.command()
@click.argument("folder", type=input_folder)
@click.option("--write", is_flag=True, help="Write the weights, fitted to all dialogues, into the package.")
@click.option("--salt", default="", help="Changes how dialogues are divided into folds.")
@json_option
def goals(*, folder: Path, write: bool, salt: str, as_json: bool) -> None:
    """Learn where goals begin from the dialogues in FOLDER, and tell it in those that were not learned from.

    FOLDER holds `sgd_goals`, written dialogues of several tasks each; `slurp_asr` and `dstc2`, learned from besides;
    and `snips_nlu_2017` and `trec_session_2013`, never learned from. There are five folds of dialogues, sentences and
    callers; intervals of 95% are over these.
    """
    with Console(stderr=True).status("learning"):
        pairs = learned(folder, salt)
        report = evaluate(pairs, tried(folder))
        if write:
            Path(goal_weights.__file__).write_text(_module(fit(data_of(pairs))), encoding="utf-8")
    if as_json:
        print_json(report)
        return
    console = Console(width=_WIDTH)
    console.print(
        f"sgd: {report.pairs:,} queries after the first of {report.groups:,} dialogues; {report.begins:.1%} begin a "
        "goal. The best F1 has its threshold from the pairs that it is of; of other services, the least and greatest "
        "are shown."
    )
    table = Table("told from", *_MEASURES, box=SIMPLE_HEAD, pad_edge=False)
    for name, one in report.quality.items():
        table.add_row(name, *map(_interval, _measured(one)))
    console.print(table)
    tenths = Table("pairs", "probability", "begin a goal", box=SIMPLE_HEAD, pad_edge=False)
    for tenth in report.calibration:
        tenths.add_row(f"{tenth.pairs:,}", f"{tenth.probability:.3f}", f"{tenth.begins:.3f}")
    console.print(tenths)
    for name, mean in report.mean.items():
        console.print(f"{name}: mean probability {mean:.1%}; {'all' if name == 'snips' else 'none'} begin a goal.")


def _measured(one: Quality) -> tuple[Estimate, ...]:
    return one.area, one.f1, one.precision, one.recall, one.calibration_error, one.best_f1


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.2f} to {one.high:.2f})"


def _module(weights: tuple[int, ...]) -> str:
    lines = (", ".join(map(str, weights[first : first + _PER_LINE])) for first in range(0, len(weights), _PER_LINE))
    numbers = "\n".join(f"    {line}," for line in lines)
    return f'''"""The numbers that tell where goals begin. `backchannel lab goals --write` wrote them: do not edit.

They were fitted to the Schema-Guided Dialogues (CC BY-SA 4.0), SLURP (CC BY 4.0) and DSTC2; see `ops.lab.goals.pairs`.
"""

from typing import Final

# fmt: off
WEIGHTS: Final = (
{numbers}
)
# fmt: on
"""Weights of the slots in `starts`, in units of 1/1024."""
'''
