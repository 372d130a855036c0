"""Results of the bench, with the machine, the versions and the date; and the document made from them."""

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from msgspec import Struct

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
    return f"{one.value:,.{0 if one.value >= 10 else 2}f} {one.unit}", ratio, one.peer


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
    for name, part in together(records).items():
        lines += ["", f"## {name}", "", "| what | figure | ratio | to |", "|---|---:|---:|---|"]
        lines += [f"| {' | '.join((one.name, *cells(one)))} |" for one in part.measures]
        if part.fault:
            lines += ["", f"The rest failed: {part.fault}."]
    return "\n".join(lines) + "\n"
