"""Results of the bench, with the machine, the versions and the date; and the document made from them."""

import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from msgspec import Struct, structs

from backchannel.ops.lab.bench.measure import Measure

_NAMED: Final = (
    *("backchannel", "numpy", "msgspec", "sqlalchemy", "psycopg", "faust-streaming", "aiokafka", "river"),
    *("quixstreams", "bytewax", "mabwiser", "vowpalwabbit"),
)


class Part(Struct, frozen=True):
    """Results of one part of the bench.

    Attributes:
        seconds: how long the part took.
        measures: the figures.
        fault: the error that ended the part early; empty if there was none.
    """

    seconds: float
    measures: list[Measure]
    fault: str = ""


class BenchRun(Struct, frozen=True):
    """Results of one run.

    Attributes:
        command: the command line.
        at: when the run began.
        machine: a description of the machine.
        versions: names and versions of the relevant libraries.
        parts: the parts by name.
    """

    command: str
    at: datetime
    machine: str
    versions: list[str]
    parts: dict[str, Part]


def machine() -> str:
    """Return a description of this machine: architecture, cores and Python version."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def versions() -> Iterator[str]:
    """Yield the names and versions of the relevant libraries that are installed."""
    for name in _NAMED:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def together(records: Iterable[BenchRun]) -> dict[str, Part]:
    """Return the parts of all records by name; the last one wins if a part was measured more than once."""
    return {name: part for record in records for name, part in record.parts.items()}


def cells(one: Measure) -> tuple[str, str, str]:
    """Return a measure's figure, ratio and peer as text."""
    ratio = "" if one.ratio is None else f"{one.ratio:.3g}"
    return f"{one.value:,.{0 if one.value >= 10 or one.value == 0 else 2}f} {one.unit}", ratio, one.peer


WHAT_MATTERS: Final[Mapping[str, Collection[str]]] = {
    "rates": ("decode, assemble, learn, commit to SQLite",),
    "memory": ("peak memory, 2,000,000 events",),
    "kafka": (
        "worker, from Kafka to a committed ledger",
        "two workers of a group",
        "turn's close to PolicyReader, 10,000 events/s, p99",
        "turn's close to PolicyReader, 40,000 events/s, p99",
        "SIGKILL to caught up",
    ),
    "committers": ("PostgreSQL: 1 committer", "PostgreSQL: 8 committers"),
    "bandit": ("allocate, p50", "allocate, p99"),
    "ranking": ("rank 100 candidates of 20 features, p50",),
    "memory-index": ("recall of 10, p50", "recall of 10, p99"),
    "rephrases": ("rewrite, global, p50",),
    "serve": ("decide over HTTP", "decide at 500/s, p99"),
    "kills": ("the journal: acknowledged and lost", "Kafka: acknowledged and lost"),
}
"""Part -> the measures that a document begins with."""


def document(records: Sequence[BenchRun]) -> str:
    """Return what was measured as a Markdown document."""
    lines = ["# Performance", "", "Written by `backchannel bench --markdown` from the results of", ""]
    for record in records:
        minutes = sum(part.seconds for part in record.parts.values()) / 60
        lines.append(f"- `{record.command}` on {record.at:%Y-%m-%d}, in {minutes:.0f} minutes: {record.machine}")
    lines += [
        "",
        "Backchannel and its peers are measured side by side in one run; figures are medians. Machines differ and are "
        "noisy: compare ratios.",
        "",
        f"Versions: {', '.join(dict.fromkeys(name for record in records for name in record.versions))}.",
    ]
    parts = together(records)
    first = [
        structs.replace(one, name=f"{name}: {one.name}")
        for name, part in parts.items()
        for one in part.measures
        if one.name in WHAT_MATTERS.get(name, ())
    ]
    if first:
        lines += ["", "## What matters", "", *_rows(first), "", "## Everything measured"]
    for name, part in parts.items():
        lines += ["", f'<details markdown="1"><summary>{name}</summary>', "", *_rows(part.measures)]
        if part.fault:
            lines += ["", f"The rest failed: {part.fault}."]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _rows(measures: Iterable[Measure]) -> list[str]:
    return [
        "| what | figure | ratio | to |",
        "|---|---:|---:|---|",
        *(f"| {' | '.join((one.name, *cells(one)))} |" for one in measures),
    ]
