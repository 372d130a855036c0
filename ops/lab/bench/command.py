"""`backchannel bench`: costs, as ratios measured side by side in one run.

Machines differ and are noisy, so a rate by itself says little. Each comparison alternates between its sides and takes
the median of each.
"""

import importlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.lab.bench.measure import Load, Measure
from backchannel.ops.lab.bench.record import BenchRun, Part, cells, document, machine, together, versions
from backchannel.ops.paths import input_file
from backchannel.ops.terminal import print_json
from backchannel.streams.extras import remedy
from backchannel.streams.worker.remote import tune_memory

PARTS: Final = {
    "rates": "backchannel.ops.lab.bench.file:rates",
    "memory": "backchannel.ops.lab.bench.file:memory",
    "kafka": "backchannel.ops.lab.bench.kafka:kafka",
    "bandit": "backchannel.ops.lab.bench.bandit:bandit",
    "ranking": "backchannel.ops.lab.bench.ranking:ranking",
    "store": "backchannel.ops.lab.bench.store:store",
    "committers": "backchannel.ops.lab.bench.committers:committers",
    "memory-index": "backchannel.ops.lab.bench.memory_index:memory_index",
    "rephrases": "backchannel.ops.lab.bench.rephrases:rephrases",
    "online": "backchannel.ops.lab.bench.online:online",
    "horizon": "backchannel.ops.lab.bench.horizon:horizon",
    "ope": "backchannel.ops.lab.bench.ope:ope",
    "coverage": "backchannel.ops.lab.bench.coverage:coverage",
    "sessions": "backchannel.ops.lab.bench.sessions:sessions",
    "serve": "backchannel.ops.lab.bench.serve:serve",
    "accept": "backchannel.ops.lab.bench.accept:accept",
    "taught": "backchannel.ops.lab.bench.taught:taught",
    "kills": "backchannel.ops.lab.bench.kills:kills",
    "gate": "backchannel.ops.lab.bench.gate:gate",
    "trials": "backchannel.ops.lab.bench.trials:trials",
}


@click.command("bench")
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option(
    "--events", type=click.IntRange(10_000), default=200_000, show_default=True, help="Number of events for the rates."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="Alternating rounds; medians are shown."
)
@click.option(
    "--of",
    "files",
    type=input_file,
    multiple=True,
    help="Show the --json output of an earlier run instead of measuring; repeatable: later files take precedence.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, including the machine and library versions.")
@click.option("--markdown", is_flag=True, help="Print as a Markdown document.")
def bench(
    *, parts: tuple[str, ...], events: int, rounds: int, files: tuple[Path, ...], as_json: bool, markdown: bool
) -> None:
    """Measure costs side by side with peers.

    \b
    rates         events from a file to a committed ledger
    memory        peak memory for 200,000 and for 2,000,000 events
    kafka         the worker, with a broker started for it (needs Java and Maven)
    bandit        learning and deciding
    ranking       learning a turn's results, and ranking a list
    store         publishing a large policy that hardly changed, on SQLite and, if installed, PostgreSQL
    committers    1 to 8 processes that commit the same queries to PostgreSQL
    memory-index  recall, start, refresh and publishing with a million queries
    rephrases     detecting rephrases, solving a graph of 1,000,000 edges, looking up rewrites
    online        online rewrites with a million queries
    horizon       one more reward of the long horizon: returns, the rest of a session, goals
    ope           off-policy evaluation of a million turns
    coverage      how often intervals hold the truth on pages that strategies share, in 100 simulated logs per round
    sessions      how often intervals hold the truth of whole sessions, in 500 simulated logs per round
    serve         decisions over HTTP, beside a constant answer and beside the call in the process
    accept        events accepted over HTTP, into the journal and into Kafka, beside a constant answer
    taught        from teaching to serving, over Kafka and by the service alone, while others teach 1,000 rules a second
    kills         30 SIGKILLs of the service under load, with the journal and with Kafka: what is lost or learned twice
    gate          how often the gate is right, in 30 simulated logs per round
    trials        when whole sessions decide a trial, and how often wrongly, in 60 simulated trials per round

    Without a PART, all parts run, which takes half an hour on an idle machine with two cores. Peers that are
    not installed are left out; `make rivals` installs them.

    Exit code: 3 if a part failed; everything measured is still shown.
    """
    if files and parts:
        raise click.UsageError("--of shows earlier results: leave out the parts")
    records = [record for file in files for record in _read(file)]
    if not records:
        records = [_measure(parts or tuple(PARTS), events, rounds)]
    if as_json:
        print_json(records)
    elif markdown:
        click.echo(document(records), nl=False)
    else:
        Console().print(_table(together(records)))
    faults = {name: part.fault for name, part in together(records).items() if part.fault}
    for name, fault in faults.items():
        click.echo(f"{name} failed: {fault}", err=True)
    sys.exit(INCOMPLETE if faults else 0)


def _read(file: Path) -> list[BenchRun]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[BenchRun])
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"{file}: not the output of `backchannel bench --json`: {error}") from None


def _measure(parts: Sequence[str], events: int, rounds: int) -> BenchRun:
    """Run each part in a process of its own, so that parts cannot affect each other."""
    began, measured = datetime.now(UTC), dict[str, Part]()
    for part in parts:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            measured[part] = pool.submit(_measure_part, part, events, rounds).result()
    named = "" if set(parts) == PARTS.keys() else f" {' '.join(parts)}"
    command = f"backchannel bench{named} --events {events} --rounds {rounds}"
    return BenchRun(command, began, machine(), list(versions()), measured)


def _measure_part(part: str, events: int, rounds: int) -> Part:
    tune_memory()
    started, measures, fault = time.monotonic(), list[Measure](), ""
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status(part) as status:
        load = Load(Path(folder), events, rounds, lambda what: status.update(f"{part}: {what}"))
        module, _, function = PARTS[part].partition(":")
        try:
            measures.extend(getattr(importlib.import_module(module), function)(load))
        except Exception as error:  # one part's failure must not discard the other parts' results
            install = remedy(error) if isinstance(error, ModuleNotFoundError) else None
            fault = f"it needs more packages: {install}" if install else f"{type(error).__name__}: {error}"
    return Part(time.monotonic() - started, measures, fault)


def _table(parts: Mapping[str, Part]) -> Table:
    table = Table("", "what", "figure", "ratio", "to", box=None, pad_edge=False)
    table.columns[1].no_wrap = table.columns[2].no_wrap = True
    table.columns[2].justify = table.columns[3].justify = "right"
    for name, part in parts.items():
        for one in part.measures:
            table.add_row(name, one.name, *cells(one))
    return table
