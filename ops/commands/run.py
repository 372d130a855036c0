"""`backchannel run`: learn from an event file or a pipe."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from backchannel.ops.commands.dead_letter_file import DeadLetterFile
from backchannel.ops.commands.summary import Summary, summarize
from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.options import config_option, json_option, opened_store, store_option
from backchannel.ops.terminal import console, print_json, require_writable
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.publisher import version_status
from backchannel.streams.pipeline.sources import Sources
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import file_positions
from backchannel.streams.turns.accounts import Account
from backchannel.streams.turns.identity import SourceError
from backchannel.streams.turns.partition import Partition
from backchannel.streams.worker.remote import tune_memory

DISORDER: Final = 10
"""Number of late events up to which a file does not count as disordered."""

_WIDTH: Final = 100


class DisorderError(BackchannelError, RuntimeError):
    """Events are not in time order; the message says how to sort them."""


@click.command("run")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@store_option
@config_option
@click.option("--sort", is_flag=True, help="Sort each SOURCE by time first; it may be larger than memory.")
@click.option(
    "--complete",
    is_flag=True,
    help="Treat a last line without a line break as complete, even if it is not valid JSON: the file will not grow.",
)
@click.option(
    "--dead-letters",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for invalid lines and their reasons.  [default: SOURCE.dead-letters.jsonl]",
)
@json_option
def run(
    *,
    sources: tuple[str, ...],
    store: str,
    config: Config,
    sort: bool,
    complete: bool,
    dead_letters: Path | None,
    as_json: bool,
) -> None:
    """Learn from SOURCE, publish the policy, and print what was learned.

    SOURCE is a file of events in time order, one JSON object per line; --sort takes one in any order. It may be
    compressed with gzip or Zstandard, or be a pipe or a FIFO; "-" reads standard input. Several sources are merged by
    time. Each line names its event type in the field `type`; `backchannel schemas` writes the schema of each type.

    The store keeps track of how far SOURCE was read. Run again after Ctrl-C, after a crash, or after the file has
    grown, the command continues where it stopped and counts nothing twice. At the end of SOURCE all turns close. If its
    last line has no line break and is not valid JSON, it may be half written: it is left for the next run, and so are
    the turns that are still open.

    \b
    Exit code: 0 everything was learned; 3 some lines are invalid and in the dead-letter file, or more than health.lost
    of the records were late, without a turn, or invalid; 1 an error; 2 the command or the configuration is wrong; 130
    or 143 stopped by a signal, after a commit.
    """
    if dead_letters is not None:
        require_writable(dead_letters)
    tune_memory()
    with Sources(sources, EventDecoder(config=config.events), in_disorder=sort, complete=complete) as opened:
        first = "pipe" if opened.size is None else sources[0]
        letters = DeadLetterFile(dead_letters or Path(f"{first}.dead-letters.jsonl"))
        with closing(letters):
            summary, stopped_by = _learn(opened, store, config, letters)
        unfinished = [] if stopped_by is not None else opened.unfinished
    if as_json:
        print_json(summary)
    else:
        summary.show(console(_WIDTH))
    for path, number in unfinished:
        click.echo(
            f"{path}: line {number + 1} has no line break and is not complete. It is left for the next run, and so are "
            "the turns that are still open; --complete reads it anyway",
            err=True,
        )
    if letters.count:
        click.echo(f"{letters.count:,} invalid lines: see {letters.path}", err=True)
    if stopped_by is not None:
        sys.exit(128 + stopped_by)
    sys.exit(INCOMPLETE if letters.count or summary.lost > config.health.lost[0] else 0)


def _learn(sources: Sources, store: str, config: Config, letters: DeadLetterFile) -> tuple[Summary, int | None]:
    """Read `sources` to their ends, or until a signal. Return what was learned, and the signal."""
    started = time.monotonic()
    with opened_store(store, create=True) as before, before.read() as connection:
        sources.resume(file_positions(connection))
    with (
        LocalPipeline(store, config, sources.name, sources.topics, events=config.events) as pipeline,
        _until_signalled() as stopped_by,
    ):
        _warn_if_served_differs(pipeline.store, config)
        counted = pipeline.ledger.counts()
        _read(sources, pipeline, config, letters, stopped_by)
        counts = pipeline.ledger.counts()
        new = {name: count - counted.get(name, 0) for name, count in counts.items()}
        lateness_s = config.turns.lateness_s + pipeline.partition.behind / 1000
        summary = summarize(
            store,
            pipeline.store,
            new,
            examples=pipeline.partition.examples,
            taken=not config.bandit.strategies,
            lateness_s=lateness_s,
            seconds=time.monotonic() - started,
        )
        return summary, stopped_by()


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
    sources: Sources,
    pipeline: LocalPipeline,
    config: Config,
    letters: DeadLetterFile,
    stopped_by: Callable[[], int | None],
) -> None:
    """Feed `sources` to their ends, or until a signal, committing and publishing on the way."""
    partition = pipeline.partition

    def commit() -> None:
        _refuse_disorder(partition, config)
        letters.flush()
        pipeline.commit()

    next_publish = time.monotonic() + config.commits.publish_s
    chunks = sources.read(partition.claim.position.topics, partition.newest, lambda: stopped_by() is not None)
    try:
        with _progress(sources) as report:
            for topic, chunk in chunks:
                if chunk is not None:
                    letters.write(pipeline.feed_chunk(topic, chunk, sources.ended), chunk, sources.path_of(topic))
                    report(len(chunk.lines), partition.open)
                due = time.monotonic() >= next_publish
                if due or partition.uncommitted >= config.commits.events:
                    commit()
                if due:
                    pipeline.publish()
                    next_publish = time.monotonic() + config.commits.publish_s
    except SourceError:  # everything read before is valid
        commit()
        pipeline.publish()
        raise
    if stopped_by() is None:
        if partition.rebuilding:
            raise SourceError("the source is shorter than when it was last read: restore it, or use a new store")
        if not sources.unfinished:  # otherwise the file is still being written: its turns may continue
            pipeline.finish()
    commit()
    pipeline.publish()


def _refuse_disorder(partition: Partition, config: Config) -> None:
    """Check that the first events are not disordered, before learning from them. Later, late events are only counted.

    Raises:
        DisorderError: so many events are late that learning from the rest would be misleading.
    """
    if any(topic.read for topic in partition.claim.position.topics.values()):
        return
    account = Account.of(partition.counts)
    if account.late >= DISORDER and account.late > config.health.lost[1] * account.received:
        raise DisorderError(
            f"{account.late:,} of {account.received:,} events came after their turns had closed, by up to "
            f"{partition.behind / 1000:,.0f} s: they are not in time order. Nothing was learned from them. Sort them: "
            "`backchannel run --sort`. If they are only late, raise turns.lateness_s (or, to lose them, health.lost)"
        )


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
def _progress(sources: Sources) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar, on a terminal only."""
    shown = Console(stderr=True)
    columns: list[Any] = [
        SpinnerColumn(),
        *([BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn()] if sources.size else []),
        TextColumn("{task.fields[events]:,} events  {task.fields[rate]:,.0f}/s  {task.fields[open]:,} turns open"),
    ]
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=sources.size, events=0, rate=0.0, open=0)
        events, started = 0, time.monotonic()

        def report(more: int, open_turns: int) -> None:
            nonlocal events
            events += more
            rate = events / max(time.monotonic() - started, 1e-3)
            progress.update(task, completed=sources.consumed, events=events, rate=rate, open=open_turns)

        yield report
