"""`backchannel bench`: what it costs, as ratios measured side by side in one run.

Machines differ and are noisy, so a rate by itself says little. Each comparison alternates its two sides and takes the
median of each.
"""

import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.status import Status
from rich.table import Table

from backchannel.ops.bench.measure import Load, Measure
from backchannel.ops.run import relax_collector

PARTS: Final = {
    "rates": "backchannel.ops.bench.file:rates",
    "memory": "backchannel.ops.bench.file:memory",
    "kafka": "backchannel.ops.bench.kafka:kafka",
    "bandit": "backchannel.ops.bench.bandit:bandit",
    "store": "backchannel.ops.bench.store:store",
    "memory-index": "backchannel.ops.bench.memory_index:memory_index",
    "rephrases": "backchannel.ops.bench.rephrases:rephrases",
    "ope": "backchannel.ops.bench.ope:ope",
    "gate": "backchannel.ops.bench.gate:gate",
}
_NAMED: Final = (
    *("backchannel", "numpy", "msgspec", "sqlalchemy", "psycopg", "faust-streaming", "aiokafka", "river"),
    *("quixstreams", "bytewax", "mabwiser", "vowpalwabbit"),
)


@click.command("bench")
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--events", type=click.IntRange(10_000), default=500_000, show_default=True, help="For the rates.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Alternated; medians are shown.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--markdown", is_flag=True, help="Print as a document, with the machine and the versions.")
def bench(*, parts: tuple[str, ...], events: int, rounds: int, as_json: bool, markdown: bool) -> None:
    """Measure what it costs, side by side with peers.

    \b
    rates         events from a file to a committed ledger
    memory        of 200,000 and of 2,000,000 events
    kafka         the worker, with a broker that is started for it: needs Java and Maven
    bandit        learning and deciding
    store         publishing a large policy of which little changed; on PostgreSQL, too, where it is installed
    memory-index  recall from a million queries, starting, refreshing and publishing
    rephrases     telling them, solving a graph of 1,000,000 edges, looking rewrites up
    ope           off-policy evaluation of a million turns
    gate          how often it is right, in 100 simulated logs for each of the rounds: takes minutes

    Without a PART, all of them. `make rivals` installs the peers that are not there otherwise; those that are not
    installed are left out.
    """
    relax_collector()
    started = datetime.now(UTC)
    measured: dict[str, list[Measure]] = {}
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        for part in parts or PARTS:
            status.update(part)
            load = Load(Path(folder), events, rounds, partial(_say, status, part))
            module, _, function = PARTS[part].partition(":")
            measured[part] = list(getattr(importlib.import_module(module), function)(load))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(measured)))
    elif markdown:
        click.echo(document(measured, started, sys.argv[1:]), nl=False)
    else:
        Console().print(_table(measured))


def _say(status: Status, part: str, what: str) -> None:
    status.update(f"{part}: {what}")


def _table(measured: Mapping[str, Iterable[Measure]]) -> Table:
    table = Table("", "what", "figure", "ratio", "to", box=None, pad_edge=False)
    table.columns[1].no_wrap = table.columns[2].no_wrap = True
    table.columns[2].justify = table.columns[3].justify = "right"
    for part, measures in measured.items():
        for one in measures:
            table.add_row(part, one.name, *_cells(one))
    return table


def _cells(one: Measure) -> tuple[str, str, str]:
    ratio = "" if one.ratio is None else f"{one.ratio:.3g}"
    return f"{one.value:,.{0 if one.value >= 10 else 2}f} {one.unit}", ratio, one.peer


def document(measured: Mapping[str, Iterable[Measure]], at: datetime, arguments: Sequence[str]) -> str:
    """Return what was measured as a Markdown document."""
    lines = [
        "# Performance",
        "",
        f"Written by `backchannel {' '.join(arguments)}` on {at:%Y-%m-%d}: {platform.machine()}, {os.cpu_count()} "
        f"cores, Python {platform.python_version()}. Peers and we are measured side by side in one run, and medians "
        "are given. Machines differ and are noisy: compare ratios.",
        "",
        f"Versions: {', '.join(_versions())}.",
    ]
    for part, measures in measured.items():
        lines += ["", f"## {part}", "", "| what | figure | ratio | to |", "|---|---:|---:|---|"]
        lines += [f"| {' | '.join((one.name, *_cells(one)))} |" for one in measures]
    return "\n".join(lines) + "\n"


def _versions() -> Iterator[str]:
    for name in _NAMED:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"
