"""`backchannel capacity`: the resources that a load needs, computed from measured costs."""

from math import ceil
from typing import Final

import click
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import json_option
from backchannel.ops.terminal import print_json

DAY_S: Final = 86_400
EVENTS_PER_TURN: Final = 2.5
"""1 query : 1 impression : 0.4 clicks : 0.1 barge-ins, as in the bench."""
HEADROOM: Final = 0.5
"""Share of each part's capacity to plan with; the rest is for catching up after a stop."""


class Costs(Struct, frozen=True):
    """Measured rates per second; docs/scale.md says how each was measured.

    Attributes:
        worker_rate: events that a worker on two cores handles.
        row_rate: rows that the store adds.
        solve_rate: changed queries that the publisher solves.
    """

    worker_rate: float
    row_rate: float
    solve_rate: float


class Need(Struct, frozen=True):
    """The resources that a load needs at its peak.

    Attributes:
        load: the load in words.
        events: events per second.
        workers: number of workers, of two cores each.
        partitions: number of partitions of each topic.
        rows: rows of sums added per second, after each commit's rows are merged.
        stores: number of stores to spread the rows over.
        publish_s: shortest interval between versions that one publisher can sustain, s.
    """

    load: str
    events: float
    workers: int
    partitions: int
    rows: float
    stores: int
    publish_s: float


def need(load: str, events: float, costs: Costs, results: int, distinct: float) -> Need:
    """Return the resources that `events` events per second need.

    Args:
        load: the load in words.
        events: events per second at the peak.
        costs: measured costs.
        results: results per impression.
        distinct: share of query-entity pairs, and of queries, that occur only once in a commit or version, 0 to 1.
    """
    turns = events / EVENTS_PER_TURN
    workers = ceil(events / (HEADROOM * costs.worker_rate))
    rows = turns * results * distinct
    return Need(
        load=load,
        events=events,
        workers=workers,
        partitions=max(4, 2 * workers),  # enough partitions for twice as many workers
        rows=rows,
        stores=ceil(rows / (HEADROOM * costs.row_rate)),
        publish_s=max(1.0, turns * distinct / (HEADROOM * costs.solve_rate)),
    )


@click.command("capacity")
@click.option(
    "--events-per-day",
    "days",
    type=FiniteRange(1),
    multiple=True,
    help="A load to plan for; repeatable.  [default: a billion]",
)
@click.option(
    "--peak",
    type=FiniteRange(1),
    default=3.0,
    show_default=True,
    help="Peak of a day's load, relative to its mean.",
)
@click.option("--results", type=click.IntRange(1), default=10, show_default=True, help="Results per impression.")
@click.option(
    "--distinct",
    type=FiniteRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Share of query-entity pairs that occur only once between two commits; higher with a longer tail.",
)
@click.option(
    "--worker-rate",
    type=FiniteRange(0, min_open=True),
    default=60_000.0,
    show_default=True,
    help="Events per second of a worker on two cores.",
)
@click.option(
    "--row-rate",
    type=FiniteRange(0, min_open=True),
    default=84_000.0,
    show_default=True,
    help="Rows per second that the store adds.",
)
@click.option(
    "--solve-rate",
    type=FiniteRange(0, min_open=True),
    default=10_000.0,
    show_default=True,
    help="Changed queries per second of the publisher.",
)
@json_option
def capacity(
    *, days: tuple[float, ...], peak: float, results: int, distinct: float, as_json: bool, **costs: float
) -> None:
    """Estimate the workers, partitions and stores that a load needs, and how often one publisher can publish.

    Covers 1, 10 and 100 busy workers and the given loads. The default rates are those of the project's machine: measure
    yours with `backchannel bench`.
    """
    measured = Costs(**costs)
    loads = [(f"{workers} busy workers", workers * HEADROOM * measured.worker_rate) for workers in (1, 10, 100)] + [
        (f"{day:,.0f} events a day", peak * day / DAY_S) for day in days or (1e9,)
    ]
    needs = [need(load, events, measured, results, distinct) for load, events in loads]
    if as_json:
        print_json(needs)
        return
    table = Table("load", "events/s", "workers", "partitions", "rows/s", "stores", "a version every", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for one in needs:
        table.add_row(
            one.load,
            f"{one.events:,.0f}",
            f"{one.workers:,}",
            f"{one.partitions:,}",
            f"{one.rows:,.0f}",
            f"{one.stores:,}",
            f"{one.publish_s:,.0f} s",
        )
    Console(width=100).print(table)
