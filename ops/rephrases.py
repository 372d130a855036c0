"""`backchannel rephrases`: train the rephrase detector, and see what rephrases are good for."""

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.agents import rephrase_weights
from backchannel.agents.rephrase_detector import RephraseDetector
from backchannel.ops.rephrase_pairs import Pair, labelled
from backchannel.ops.rephrase_training import Quality, fit, measure

_data = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("../shared/data"),
    show_default=True,
    help="The folder with dstc2, trec_session_2013 and slurp_asr.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@click.group()
def rephrases() -> None:
    """Train and judge what tells rephrases, and what is made of them."""


@rephrases.command("train")
@_data
@click.option("--write", is_flag=True, help="Ship the numbers: write them into agents/rephrase_weights.py.")
@_json
def train(data: Path, write: bool, as_json: bool) -> None:
    """Fit the rephrase detector to public logs, and measure it on people it has not seen.

    The labels: callers of DSTC2 who say again what they meant, as annotated; searchers of the TREC Session Track, who
    explore rather than rephrase; SLURP's recordings of one sentence, as a recogniser misheard them. Three tenths of the
    callers, sessions and sentences are held out, and measured with.
    """
    logs = _labelled(data)
    weights = fit(logs)
    detector = RephraseDetector(weights)
    found = [measure(log, pairs, detector) for log, pairs in logs.items()]
    if write:
        Path(rephrase_weights.__file__).write_text(_module(weights, found), encoding="utf-8")
    _show(found, as_json)


@rephrases.command("detector")
@_data
@_json
def judge_detector(data: Path, as_json: bool) -> None:
    """Measure the shipped detector on held-out callers, sessions and sentences."""
    detector = RephraseDetector()
    _show([measure(log, pairs, detector) for log, pairs in _labelled(data).items()], as_json)


def _labelled(data: Path) -> dict[str, list[Pair]]:
    return labelled(data, np.random.default_rng(0))


def _show(found: Sequence[Quality], as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in (
        "held-out pairs of",
        "pairs",
        "rephrases",
        "precision",
        "recall",
        "false alarms",
        "area",
        "Brier",
        "off",
    ):
        table.add_column(name, justify="left" if name == "held-out pairs of" else "right")
    for one in found:
        table.add_row(*_cells(one))
    Console().print(table)


def _cells(one: Quality) -> list[str]:
    rates = (one.precision, one.recall, one.false_alarms, one.area, one.brier, one.calibration_error)
    return [
        one.log,
        f"{one.pairs:,}",
        f"{one.rephrased:,}",
        *("-" if rate is None else f"{rate:.3f}" for rate in rates),
    ]


def _module(weights: dict[str, float], found: Sequence[Quality]) -> str:
    rows = "\n".join(f"| {' | '.join(_cells(one))} |" for one in found)
    numbers = "\n".join(f'    "{name}": {value},' for name, value in weights.items())
    return f'''"""The numbers of the rephrase detector. `backchannel rephrases train --write` wrote them: do not edit.

Measured on held-out callers (dstc2), sessions (trec) and sentences (slurp); one half or more counts as a rephrase:

| held out of | pairs | rephrases | precision | recall | false alarms | area under ROC | Brier | calibration error |
|---|---|---|---|---|---|---|---|---|
{rows}

How the pairs are labelled is told in `ops.rephrase_pairs`.
"""

from typing import Final

WEIGHTS: Final = {{
{numbers}
}}
"""Of the features in `rephrase_detector.features`, by name."""
'''
