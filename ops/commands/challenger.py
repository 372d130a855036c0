"""The challenger of `backchannel diagnose`: trained when asked for, shown beside what is served, and never served."""

from collections.abc import Sequence
from typing import NamedTuple

import click
from msgspec.structs import astuple
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.agents.failures.challenger import is_there
from backchannel.agents.failures.comparison import Comparison, compare
from backchannel.agents.failures.learner import FailurePoints
from backchannel.agents.failures.quality import MEASURES
from backchannel.agents.failures.sample import LabelSample
from backchannel.ops.options import opened_store
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.config import Config
from backchannel.streams.extras import install
from backchannel.streams.store import ledger


def compared(store: str, config: Config) -> Comparison:
    """Compare the two learners on the labelled turns in the store.

    Raises:
        click.ClickException: LightGBM is not installed, or the store keeps no labelled turns.
        FewLabelsError: it keeps too few.
        StoreError: the store cannot be used.
    """
    if not is_there():
        raise click.ClickException(f"--challenger needs LightGBM: {install('challenger')}")
    sample = LabelSample(config.failures)
    with opened_store(store) as opened:
        opened.create(sample.tables)
        with opened.read() as connection:
            _, newest = ledger.watermarks(ledger.positions(connection))
            turns = sample.turns(ledger.LedgerSums(opened, connection), max(newest, 0))
    if not len(turns.labels):
        raise click.ClickException(
            "the store keeps no labelled turns: send `label` events, with failures.sampled above 0. A store that "
            "learned its labels before there was a challenger kept none: learn log and labels anew into a new store"
        )
    with Console(stderr=True).status("learning"):
        return compare(turns, FailurePoints(config.failures))


class Shown(NamedTuple):
    """A comparison as a table, a row for each of MEASURES, and what it means."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    meaning: str


def shown(comparison: Comparison) -> Shown:
    """Return a comparison as it is shown."""
    compared = zip(*map(astuple, (comparison.ridge, comparison.challenger, comparison.gain)), strict=True)
    rows = [
        (name, _interval(ridge), _interval(challenger), _interval(gain, "+"))
        for name, (ridge, challenger, gain) in zip(MEASURES, compared, strict=True)
    ]
    meaning = (
        f"{comparison.verdict}. It is not served. Both learned from {comparison.turns:,} labelled turns of "
        f"{comparison.people:,} people, and each turn was told by what was learned from other people."
    )
    if comparison.unknown:
        meaning += f" Too few labels, so unknown: {', '.join(comparison.unknown)}."
    return Shown(("", "ridge, served", "gradient boosting", "difference"), rows, meaning)


def show(comparison: Comparison, out: Console) -> None:
    """Print a comparison."""
    head, rows, meaning = shown(comparison)
    table = Table(*head, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    out.print(table)
    out.print(meaning)


def _interval(one: Estimate, sign: str = "") -> str:
    return f"{one.value:{sign}.3f} ({one.low:{sign}.3f} to {one.high:{sign}.3f})"
