"""`backchannel run`: learn from an event file or a pipe."""

import base64
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, TypeAlias

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from backchannel.ops.commands.summary import Summary, summarize
from backchannel.ops.options import config_option, json_option, store_option
from backchannel.ops.terminal import print_json, require_writable
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import TOPIC, LocalPipeline
from backchannel.streams.pipeline.publisher import version_status
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import Store
from backchannel.streams.turns.event_file import EventFile, SourceError
from backchannel.streams.turns.partition import DeadLetter
from backchannel.streams.worker.remote import relax_collector

EXIT_DEAD_LETTERS: Final = 3

Chunk: TypeAlias = tuple[Sequence[int], Sequence[bytes]]


@click.command("run")
@click.argument("source", metavar="SOURCE")
@store_option
@config_option
@click.option(
    "--dead-letters",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for invalid lines and their reasons.  [default: SOURCE.dead-letters.jsonl]",
)
@json_option
def run(source: str, store: str, config: Config, dead_letters: Path | None, as_json: bool) -> None:
    """Learn from SOURCE, publish the policy, and print what was learned.

    SOURCE is a file of events in time order, one JSON object per line. It may be compressed with gzip or Zstandard;
    "-" reads standard input. Each line names its event type in the field `type`; `backchannel schemas` writes the
    schema of each type.

    The store keeps track of how far SOURCE was read. Run again after Ctrl-C, after a crash, or after the file has
    grown, the command continues where it stopped and counts nothing twice. At the end of SOURCE all turns close.

    \b
    Exit code: 0 everything was learned; 3 everything but some invalid lines, which are in the dead-letter file;
    1 an error; 2 the command or the configuration is wrong; 130 or 143 stopped by a signal, after a commit.
    """
    if dead_letters is not None:
        require_writable(dead_letters)
    relax_collector()
    letters = _DeadLetters(dead_letters or Path(f"{'pipe' if source == '-' else source}.dead-letters.jsonl"))
    with closing(letters):
        summary, stopped_by = _learn(source, store, config, letters)
    if as_json:
        print_json(summary)
    else:
        summary.show(Console())
    if letters.count:
        click.echo(f"{letters.count:,} invalid lines: see {letters.path}", err=True)
    if stopped_by is not None:
        sys.exit(128 + stopped_by)
    sys.exit(EXIT_DEAD_LETTERS if letters.count else 0)


def _learn(source: str, store: str, config: Config, letters: "_DeadLetters") -> tuple[Summary, int | None]:
    """Read `source` to its end, or until a signal. Return what was learned, and the signal."""
    started = time.monotonic()
    with EventFile(source) as file:
        if file.name is None:
            raise SourceError(f"{source} is empty: there is nothing to learn from")
        with LocalPipeline(store, config, file.name) as pipeline, _until_signalled() as stopped_by:
            _warn_if_served_differs(pipeline.store, config)
            before = pipeline.ledger.counts()
            _read(file, pipeline, config, letters, stopped_by)
            counts = pipeline.ledger.counts()
            new = {name: count - before.get(name, 0) for name, count in counts.items()}
            return summarize(store, pipeline.store, new, time.monotonic() - started), stopped_by()


def _warn_if_served_differs(store: Store, config: Config) -> None:
    """Warn if the served version was made with another configuration, because the next one will not be."""
    served = None
    with suppress(CorruptPolicyError):  # the publisher reports a damaged version, and replaces it
        served = version_status(store).served
    if served is not None and served.fingerprint != config.fingerprint:
        click.echo(
            f"note: version {served.version}, which readers serve, was made with another configuration. If this is "
            f"not intended, run `backchannel snapshots rollback --to {served.version}` and pass its --config",
            err=True,
        )


def _read(
    file: EventFile,
    pipeline: LocalPipeline,
    config: Config,
    letters: "_DeadLetters",
    stopped_by: Callable[[], int | None],
) -> None:
    """Feed `file` to its end, or until a signal, committing and publishing on the way."""
    partition = pipeline.partition
    chunks = file.chunks(partition.claim.position.topic(TOPIC).resume)
    next_publish = time.monotonic() + config.commits.publish_s
    with _progress(file) as report:
        for chunk in _ahead(chunks, lambda: stopped_by() is not None):
            if chunk is not None:
                letters.write(pipeline.feed_records(*chunk))
                report(len(chunk[1]), partition.open)
            due = time.monotonic() >= next_publish
            if due or partition.uncommitted >= config.commits.events:
                letters.flush()
                pipeline.commit()
            if due:
                pipeline.publish()
                next_publish = time.monotonic() + config.commits.publish_s
    if stopped_by() is None:
        if partition.rebuilding:
            raise SourceError("the source is shorter than when it was last read: restore it, or use a new store")
        pipeline.finish()
    letters.flush()
    pipeline.commit()
    pipeline.publish()


def _ahead(chunks: Iterator[Chunk], stopped: Callable[[], bool]) -> Iterator[Chunk | None]:
    """Read `chunks` in a thread, so that commits go on while a pipe is silent.

    Yields:
        The next chunk; None if there was none for a moment.
    """
    ready: queue.Queue[Chunk | BaseException | None] = queue.Queue(maxsize=4)

    def read() -> None:
        try:
            for chunk in chunks:
                ready.put(chunk)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=read, name="backchannel-read", daemon=True).start()
    while not stopped():
        try:
            chunk = ready.get(timeout=0.2)
        except queue.Empty:
            yield None
            continue
        if isinstance(chunk, BaseException):
            raise chunk
        if chunk is None:
            return
        yield chunk


@contextmanager
def _until_signalled() -> Iterator[Callable[[], int | None]]:
    """Record SIGINT and SIGTERM instead of ending; yields a function that returns the first of them, or None."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _progress(file: EventFile) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar, on a terminal only."""
    console = Console(stderr=True)
    columns: list[Any] = [
        SpinnerColumn(),
        *([BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn()] if file.size else []),
        TextColumn("{task.fields[events]:,} events  {task.fields[rate]:,.0f}/s  {task.fields[open]:,} turns open"),
    ]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=file.size, events=0, rate=0.0, open=0)
        events, started = 0, time.monotonic()

        def report(more: int, open_turns: int) -> None:
            nonlocal events
            events += more
            rate = events / max(time.monotonic() - started, 1e-3)
            progress.update(task, completed=file.consumed, events=events, rate=rate, open=open_turns)

        yield report


class _DeadLetters:
    """The dead-letter file: created with the first letter, and appended to."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.count = 0
        self._file: IO[bytes] | None = None

    def write(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self._file = self._file or self.path.open("ab")
            line: dict[str, str | int] = {"line": letter.offset + 1, "reason": letter.reason}
            try:
                line["record"] = letter.record.decode()
            except UnicodeDecodeError:
                line["record_base64"] = base64.b64encode(letter.record).decode()
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self.count += len(letters)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def flush(self) -> None:
        """Flush, before a commit: after a crash a letter may be written twice, but is never lost."""
        if self._file is not None:
            self._file.flush()
