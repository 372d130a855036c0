"""`backchannel convert`: writes a log's events as JSON lines in time order, the input of `backchannel run`."""

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backchannel.ops.groups import Group
from backchannel.ops.lab.convert import ConversionError, dstc2, trec_session, ubi
from backchannel.ops.lab.convert.account import Account
from backchannel.ops.lab.convert.sessions import GAP_S
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.paths import input_file, input_folder
from backchannel.schemas.codec import EventDecoder, EventError, encode
from backchannel.schemas.events import Event, name_of

_output = click.option(
    "--output", type=click.File("wb"), default="-", metavar="FILE", help="Write to FILE instead of standard output."
)
_settings = click.option(
    "--settings",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a configuration that fits these events to FILE, for `backchannel run --config FILE`.",
)
_gap = click.option(
    "--gap",
    type=FiniteRange(min=0, min_open=True),
    default=GAP_S,
    show_default=True,
    metavar="SECONDS",
    help="Silence after which a user's next query begins a new session.",
)
_files = click.argument("files", nargs=-1, required=True, type=input_file)


@click.group(cls=Group)
def convert() -> None:
    """Convert a log to events: JSON lines in time order.

    What can be learned from the events, and what cannot, is written to standard error.

    \b
    backchannel convert ubi *.ndjson --settings fit.toml > events.jsonl
    backchannel run events.jsonl --config fit.toml
    """


@convert.command("trec-session")
@click.argument("file", type=input_file)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    default="2013-01-01",
    show_default=True,
    help="Start of the first session, in UTC.",
)
@_output
@_settings
def convert_trec_session(file: Path, start: datetime, output: BinaryIO, settings: Path | None) -> None:
    """Convert a TREC Session Track log.

    FILE is sessiontrack2013.xml, plain or gzipped. Its queries, its results with their ranks, and its clicks become
    events. The strategy of every result is "web", the log's only search engine.

    The log has no dates, only seconds from the start of each session. So the dates are made up, the same in every run:
    the first session starts at --start, each later one half an hour after the last event of the previous one.
    """
    with _read(file) as log:
        _write(trec_session.events(log, round(start.replace(tzinfo=UTC).timestamp() * 1000)), file, output, settings)


@convert.command("dstc2")
@click.argument("folder", type=input_folder)
@_output
@_settings
def convert_dstc2(folder: Path, output: BinaryIO, settings: Path | None) -> None:
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
        _write(dstc2.events(dialogs, turns), folder, output, settings)


@convert.command("ubi")
@_files
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="ACTION=KIND",
    help="Count the events with this action_name as clicks of this kind; repeatable, beside "
    f"{', '.join(f'{action}={kind}' for action, kind in ubi.KINDS.items())}.",
)
@_gap
@_output
@_settings
def convert_ubi(
    files: tuple[Path, ...], kinds: tuple[str, ...], gap: float, output: BinaryIO, settings: Path | None
) -> None:
    """Convert OpenSearch User Behavior Insights (UBI 1.x).

    FILES hold the documents of `ubi_queries` and `ubi_events` as NDJSON, plain or gzipped, in any order: exported
    (with `_source`), as a bulk request, or one document per line.

    Impressions are the events with action `impression`, by their `position.ordinal`; without any, a query's
    `query_response_hit_ids`. A client's queries are one session until there is a gap. Unusable documents are
    counted by reason.
    """
    account = Account.empty()
    with ExitStack() as stack:
        logs = [(stack.enter_context(_read(file)), str(file)) for file in files]
        documents = chain.from_iterable(ubi.documents(log, name) for log, name in logs)
        actions = {**ubi.KINDS, **_pairs(kinds, "--kind")}
        found = _made(lambda: ubi.events(documents, actions, account.dropped, gap), files[0])
    _write(found, files[0], output, settings, account)


@convert.command("table")
@_files
@click.option(
    "--map",
    "fields",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="A field's column; repeatable. Fields: query and time; shown and clicked (lists), or item, position and "
    "clicked (one row per item shown); click_time, kind, query_id, session, user, locale, strategies, "
    "context.NAME.",
)
@click.option(
    "--mapping",
    type=input_file,
    metavar="FILE",
    help='File with the mapping as TOML: a line `query = "search_term"` for each field.',
)
@click.option("--separator", default="|", show_default=True, help="Separator of list items in CSV.")
@_gap
@_output
@_settings
def convert_table(
    *,
    files: tuple[Path, ...],
    fields: tuple[str, ...],
    mapping: Path | None,
    separator: str,
    gap: float,
    output: BinaryIO,
    settings: Path | None,
) -> None:
    """Convert the click log of a warehouse: CSV or Parquet.

    A row is a search with lists of the results shown and clicked, or one item that was shown:

    \b
    backchannel convert table clicks.parquet --map query=term --map time=at --map user=uid \\
        --map shown=result_ids --map clicked=clicked_ids
    backchannel convert table shown.csv --map query=term --map time=at --map user=uid \\
        --map item=sku --map position=rank --map clicked=was_clicked

    Times are ISO texts (UTC unless they say otherwise), or seconds, ms or µs since 1970; rows whose time cannot
    be read are left out and counted. Missing ids are made up, the same in every run.
    """
    from backchannel.ops.lab.convert import table  # noqa: PLC0415 - an extra

    account = Account.empty()

    found = {**_of_file(mapping), **_pairs(fields, "--map")}
    try:
        table.check(found)
    except ConversionError as error:
        raise click.UsageError(f"--map {error}") from None

    def converted() -> list[Event]:
        rows = chain.from_iterable(table.rows(file, found) for file in files)
        return table.events(rows, separator, account.dropped, gap)

    _write(_made(converted, files[0]), files[0], output, settings, account)


def _made(make: Callable[[], list[Event]], source: Path) -> list[Event]:
    """Return the events that `make` returns, or exit with its error."""
    try:
        return make()
    except ConversionError as error:
        raise click.ClickException(str(error)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise click.ClickException(f"{source}: cannot be read ({error}): the file is damaged or incomplete") from None


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    for one in given:
        if not all(one.partition("=")):
            raise click.UsageError(f"{option} {one}: write it as NAME=VALUE")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def _of_file(mapping: Path | None) -> dict[str, str]:
    if mapping is None:
        return {}
    try:
        return msgspec.toml.decode(mapping.read_bytes(), type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise click.UsageError(f'--mapping {mapping}: {error}; a line is FIELD = "COLUMN"') from None


@contextmanager
def _read(path: Path) -> Iterator[BufferedIOBase]:
    """Open `path`, and decompress it if its first bytes are gzip's."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; --help names the files that are read") from None
    with file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped
        else:
            yield file


def _write(
    events: Iterable[Event], source: Path, output: BinaryIO, settings: Path | None, account: Account | None = None
) -> None:
    account = account or Account.empty()
    console = Console(stderr=True)
    written: Counter[str] = Counter()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,} events"),
        TimeElapsedColumn(),
        console=console,
        # On a terminal, do not mix the events with the report.
        disable=not console.is_terminal or output.isatty(),
        transient=True,
    ) as progress:
        for event, line in progress.track(_lines(account.watched(events), source)):
            output.write(line)
            written[name_of(type(event))] += 1
    click.echo(", ".join(f"{kind}: {count:,}" for kind, count in sorted(written.items())) or "no events", err=True)
    for said in account.says():
        click.echo(said, err=True)
    if settings is not None:
        settings.write_text(account.settings(), encoding="utf-8")


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
        raise click.ClickException(f"{source}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise click.ClickException(
            f"{source}: cannot be read ({error}): the file is damaged or incomplete, download it again"
        ) from None
