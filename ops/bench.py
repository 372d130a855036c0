"""`backchannel bench`: what it costs, as ratios measured side by side in one run.

Machines differ and are noisy, so a rate by itself says little. Each comparison alternates its two sides and takes the
median of each.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from backchannel.ops.bench_bandit import bandit_measures
from backchannel.ops.load import mixed_stream
from backchannel.ops.measure import Measure
from backchannel.ops.run import relax_collector
from backchannel.schemas.events import EventDecoder, encode
from backchannel.streams.config import Config
from backchannel.streams.embedded import Embedded
from backchannel.streams.source import EventFile


@click.command("bench")
@click.option("--events", type=click.IntRange(10_000), default=500_000, show_default=True, help="For the rates.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Alternated; medians are shown.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Compare 200,000 with 2,000,000 events.")
@click.option("--kafka", is_flag=True, help="Measure the worker instead, with a broker that is started for it.")
@click.option("--bandit", is_flag=True, help="Measure the bandit instead, and, where installed, others.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def bench(*, events: int, rounds: int, memory: bool, kafka: bool, bandit: bool, as_json: bool) -> None:
    """Measure rates and memory on made-up events: 1 query : 1 impression of ten : 0.4 clicks : 0.1 barge-ins."""
    relax_collector()
    console = Console(stderr=True)
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder, console.status("") as status:
        if kafka:
            from backchannel.ops.bench_kafka import kafka_measures  # noqa: PLC0415 -- needs the extra

            measures += kafka_measures(Path(folder), events, rounds, status.update)
        elif bandit:
            status.update("the bandit: learning and deciding")
            measures += bandit_measures(rounds)
        else:
            status.update("rates: events from a file to a committed ledger")
            measures += _rates(Path(folder), events, rounds)
            if memory:
                status.update("memory: 200,000 and 2,000,000 events")
                measures += _memory(Path(folder))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(measures)))
        return
    table = Table("what", "figure", "ratio", "to", box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[1].justify = table.columns[2].justify = "right"
    for one in measures:
        ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
        table.add_row(one.name, f"{one.value:,.{0 if one.value >= 10 else 2}f} {one.unit}", ratio, one.peer)
    Console().print(table)


def _rates(folder: Path, events: int, rounds: int) -> Iterable[Measure]:
    path = folder / "events.jsonl"
    written = _write(path, events)

    def decode() -> None:
        decoder = EventDecoder()
        with EventFile(str(path)) as file:
            for _, records in file.chunks(0):
                decoder.decode_many(records)

    def learn() -> None:
        store = folder / "rates.db"
        for left in folder.glob("rates.db*"):
            left.unlink()
        config = Config()
        with EventFile(str(path)) as file, Embedded(f"sqlite:///{store}", config, "bench") as embedded:
            for chunk in file.chunks(0):
                embedded.feed_records(*chunk)
                if embedded.partition.uncommitted >= config.commits.events:
                    embedded.commit()
            embedded.finish()
            embedded.commit()

    decoding, learning = _alternated([decode, learn], rounds)
    yield Measure("decode alone", written / decoding, "events/s")
    yield Measure(
        "decode, assemble, learn, commit to SQLite", written / learning, "events/s", decoding / learning, "decode alone"
    )


def _memory(folder: Path) -> Iterable[Measure]:
    few, many = (_peak(folder, events) for events in (200_000, 2_000_000))
    yield Measure("peak memory, 200,000 events", few, "MiB")
    yield Measure("peak memory, 2,000,000 events", many, "MiB", many / few, "200,000 events")


def _peak(folder: Path, events: int) -> float:
    """The peak resident memory, in MiB, of `backchannel run` over a pipe of so many events."""
    store = f"sqlite:///{folder / f'memory-{events}.db'}"
    program = (
        "import resource, sys; from backchannel.ops.cli import main; "
        f"main(['run', '-', '--store', {store!r}, '--json'], standalone_mode=False)"
    )
    measured = f"try:\n  {program}\nexcept SystemExit: pass\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    with subprocess.Popen([sys.executable, "-c", measured], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # Few queries, so that all of them and their entities have come up among the first 200,000 events.
        for event in mixed_stream(events * 2 // 5, np.random.default_rng(0), queries=1_000):
            process.stdin.write(encode(event) + b"\n")
        process.stdin.close()
        output = process.stdout.read()
    return float(output.splitlines()[-1]) / 1024


def _write(path: Path, events: int) -> int:
    written = 0
    with path.open("wb") as file:
        for event in mixed_stream(events * 2 // 5, np.random.default_rng(0)):
            file.write(encode(event) + b"\n")
            written += 1
    return written


def _alternated(actions: Iterable[Callable[[], None]], rounds: int) -> list[float]:
    """The median seconds of each of `actions`, run in turn."""
    actions = list(actions)
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, seconds in zip(actions, taken, strict=True):
            started = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - started)
    return [median(seconds) for seconds in taken]
