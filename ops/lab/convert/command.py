"""`backchannel convert`: writes a public log's events as JSON lines in time order, the input of `backchannel run`."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backchannel.ops.lab.convert import ConversionError, dstc2, trec_session
from backchannel.schemas.events import Event, EventDecoder, EventError, encode, name_of

_output = click.option(
    "--output", type=click.File("wb"), default="-", metavar="FILE", help="Write to FILE instead of standard output."
)


class _BadSource(click.ClickException):
    exit_code = 2


@click.group()
def convert() -> None:
    """Convert a public log to events: JSON lines in time order."""


@convert.command("trec-session")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    default="2013-01-01",
    show_default=True,
    help="Start of the first session, in UTC.",
)
@_output
def convert_trec_session(file: Path, start: datetime, output: BinaryIO) -> None:
    """Convert a TREC Session Track log.

    FILE is sessiontrack2013.xml, plain or gzipped. Its queries, its results with their ranks, and its clicks become
    events. The strategy of every result is "web", the log's only search engine.

    The log has no dates, only seconds from the start of each session. So the dates are made up, the same in every run:
    the first session starts at --start, each later one half an hour after the last event of the previous one.
    """
    with _read(file) as log:
        _write(trec_session.events(log, round(start.replace(tzinfo=UTC).timestamp() * 1000)), file, output)


@convert.command("dstc2")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_output
def convert_dstc2(folder: Path, output: BinaryIO) -> None:
    """Convert the spoken dialogues of DSTC2.

    FOLDER holds dialogs.jsonl.gz and turns.jsonl.gz. The top recognition hypothesis becomes the query's text, the top
    semantic hypothesis its interpretation, an offered restaurant an impression, and an aborted prompt a barge-in. Times
    are assumed to be UTC.

    Nobody clicks in a phone call: a click here is a proxy, the caller's request for a detail (phone, address,
    postcode ...) of the offered restaurant. Its kind is "request_detail". Nor is a barge-in a rejection: it is a
    detector's decision, and depends mostly on the dialogue manager in use, which is in the query's context with the
    acoustic condition. The callers were paid and had set goals.
    """
    with _read(folder / dstc2.DIALOGS) as dialogs, _read(folder / dstc2.TURNS) as turns:
        _write(dstc2.events(dialogs, turns), folder, output)


@contextmanager
def _read(path: Path) -> Iterator[BufferedIOBase]:
    """Open `path`, and unzip it if its first bytes are those of gzip."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise _BadSource(f"{path}: {error.strerror}; --help names the files that are read") from None
    with file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped
        else:
            yield file


def _write(events: Iterable[Event], source: Path, output: BinaryIO) -> None:
    console = Console(stderr=True)
    written: Counter[str] = Counter()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,} events"),
        TimeElapsedColumn(),
        console=console,
        # Do not mix the events and their count on a terminal.
        disable=not console.is_terminal or output.isatty(),
        transient=True,
    ) as progress:
        for event, line in progress.track(_lines(events, source)):
            output.write(line)
            written[name_of(type(event))] += 1
    click.echo(", ".join(f"{kind}: {count:,}" for kind, count in sorted(written.items())) or "no events", err=True)


def _lines(events: Iterable[Event], source: Path) -> Iterator[tuple[Event, bytes]]:
    decoder = EventDecoder()
    try:
        for event in events:
            line = encode(event)
            try:
                decoder.decode(line)  # Bounds are checked by decoding, not by the structs.
            except EventError as error:
                raise ConversionError(f"{event.event_id}: {error}: fix or remove that line of the log") from None
            yield event, line + b"\n"
    except ConversionError as error:
        raise _BadSource(f"{source}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise _BadSource(
            f"{source}: cannot be read ({error}): the file is damaged or incomplete, download it again"
        ) from None
