"""`backchannel lab labels`: how often a rephrase tells what a misunderstood recording meant."""

from pathlib import Path
from typing import Final

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.lab.labels.evaluation import Quality, evaluate
from backchannel.ops.lab.labels.sessions import People, recordings, sessions
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import json_option, seed_option
from backchannel.ops.paths import input_folder
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_WIDTH: Final = 130
_PEOPLE: Final = {
    "success is known": People(1.0, 0.0),
    "half of the successes are seen": People(0.5, 0.0),
    "half are seen, and some that are none": People(0.5, 0.025),
}


@click.command()
@click.argument("folder", type=input_folder)
@click.option(
    "--precision",
    "declared",
    type=FiniteRange(0.5, 0.999),
    multiple=True,
    default=(0.9, 0.95),
    show_default=True,
    help="Share of what is exported that is to be right.",
)
@click.option(
    "--labels",
    "sizes",
    type=click.IntRange(min=0),
    multiple=True,
    default=(0, 50, 200, 1_000),
    show_default=True,
    help="Labels, of other sentences, by which it is decided what is sure enough.",
)
@seed_option
@json_option
def labels(*, folder: Path, declared: tuple[float, ...], sizes: tuple[int, ...], seed: int, as_json: bool) -> None:
    """Simulate sessions of recordings in FOLDER, and export what rephrases say of those that were misunderstood.

    FOLDER holds `slurp_pipeline`: recordings of which a real recogniser and NLU got 45% wrong. People who are
    misunderstood say it again: another recording of the sentence. What `label export` copies back is compared with what
    was meant, and with copying the next query's interpretation always, or wherever a rephrase was detected. Sentences
    whose recordings are labelled, and those that the rephrase detector learned from, are not measured on; the two
    microphones of an utterance are not in one session. Intervals of 95% are over sentences.
    """
    reports = {}
    with Console(stderr=True).status("simulating"):
        found = [recordings(folder, held_out=side) for side in (True, False)]
        for name, people in _PEOPLE.items():
            rng = np.random.default_rng(seed)
            own, others = (sessions(some, people, rng) for some in found)
            reports[name] = evaluate(own, others, declared, sizes, rng)
    if as_json:
        print_json(reports)
        return
    console = Console(width=_WIDTH)
    one = next(iter(reports.values()))
    console.print(
        f"{one.recordings:,} recordings of {one.utterances:,} utterances of {one.sentences:,} sentences; the NLU got "
        f"{one.failing:,} wrong. {one.possible:,} of these are followed by the same sentence, understood. Simulated."
    )
    for name, report in reports.items():
        table = Table("copied", "labels", title=name, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("queries", "of which right", "repaired", "of those that can be"):
            table.add_column(heading, justify="right")
        table.add_row("always the next query's", "", *_cells(report.always))
        table.add_row("if it is a rephrase", "", *_cells(report.detected))
        for share, by_size in report.exported.items():
            for size, quality in by_size.items():
                table.add_row(f"at precision {share}", f"{min(size, report.labels):,}", *_cells(quality))
        console.print(table)


def _cells(one: Quality) -> tuple[str, ...]:
    precision = "-" if one.precision is None else _interval(one.precision)
    return f"{one.copied:,}", precision, _interval(one.repaired), _interval(one.repaired_possible)


def _interval(one: Estimate) -> str:
    return f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%})"
