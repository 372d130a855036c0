"""`backchannel label`: which turns people should label next, and labels to train others."""

import sys
from contextlib import closing, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import numpy as np

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.evidence import evidence, is_told, vectors
from backchannel.agents.failures.learner import FailurePoints
from backchannel.agents.failures.selection import next_to_label
from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.groups import Group
from backchannel.ops.labels.export import Export
from backchannel.ops.labels.facts import Observer
from backchannel.ops.labels.precision import Cut, Precision
from backchannel.ops.labels.privacy import Ids, Shared
from backchannel.ops.labels.reading import Losses, closed_turns
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import config_option, opened_store, seed_option, store_option
from backchannel.ops.paths import input_file
from backchannel.ops.progress import progress_bar
from backchannel.ops.terminal import require_writable
from backchannel.schemas.events import Label, name_of
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store import ledger

_SHORTEST_KEY: Final = 16


@click.group(cls=Group)
def label() -> None:
    """Choose turns for people to label, and export labels to train others."""


@label.command("next")
@click.argument("log", type=input_file)
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Number of turns.")
@seed_option
@store_option
@config_option
def next_turns(*, log: Path, count: int, seed: int, store: str, config: Config) -> None:
    """Print those turns of LOG whose labels would teach most, as JSON lines.

    Turns whose failure point is labelled, and turns whose events do not say how they went, are left out. A line is a
    `label` event without its own fields and `event_id`, with what the policy in the store says of the turn. As long as
    that knows nothing, turns are drawn at random.
    """
    closed = chain.from_iterable(closed_turns([str(log)], config, Losses()))
    turns = [turn for turn in closed if not any(one.failure_point for one in turn.all(Label))]
    turns = [turns[row] for row in is_told(columns_of(turns)).tolist()]
    with closing(PolicyReader(store)) as reader:
        policy = reader.policy
    known = policy.diagnoser.known
    found = vectors((one.values() for one in evidence(columns_of(turns))), len(turns))
    chosen = next_to_label(known and known[1], found, count, np.random.default_rng(seed))
    if not len(chosen):
        click.echo("no turn to label: none tells how it went, or all are labelled", err=True)
    for row in chosen.tolist():
        click.echo(msgspec.json.encode(_line(turns[row], policy)))


@label.command("export")
@click.argument("events", metavar="EVENTS...", nargs=-1, required=True, type=input_file)
@click.option(
    "--precision",
    type=FiniteRange(0.5, 0.999),
    default=0.9,
    show_default=True,
    help="Share of what is exported that is to be right.",
)
@click.option(
    "--min-users",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Leave out texts, interpretations and entities of fewer users; queries without user_id do not count.",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Hash ids with the key in FILE, and cut times to the day.  [default: ids as they are]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write to.  [default: standard output]",
)
@store_option
@config_option
def export(
    *,
    events: tuple[Path, ...],
    precision: float,
    min_users: int,
    key_file: Path | None,
    output: Path | None,
    store: str,
    config: Config,
) -> None:
    """Write turns of EVENTS with what was learned of them, as JSON lines, to train an NLU, a recogniser or a ranker.

    If somebody was misunderstood, said it again and got it, the interpretation of the rephrase (slots included) and the
    entity that was chosen are copied back to the text that was misunderstood. A line has text and ids, the
    interpretation as `logged`, and, if sure enough, `interpretation`, `entity`, `failure_point`, `goal` (the first
    query of the turn's goal) and `reached`; each with `value`, `confidence` and `provenance`. What people said in
    `label` events comes first.

    Sure enough is what was right as often as --precision among held-out labels: EVENTS with `label` events are told
    without their labels, and compared. Where there are too few (25 right ones for .9, 52 for .95), the model's own
    confidence is believed instead: then there is no `precision` in the line, and the report says "unchecked".

    EVENTS are files in time order, plain or compressed; several are merged by time, such as a log and its labels. They
    are read twice, and may be larger than memory. What models know comes from the store that `backchannel run` filled.

    \b
    To train on what you may share: backchannel label export events.jsonl --min-users 5 --key secret.key
    Exit code: 0 written; 3 written, but some events are invalid, late or without a query; 1 an error; 2 the command is
    wrong.
    """
    for file in events:
        if not file.is_file():
            raise click.UsageError(f"{file} is a pipe, which cannot be read twice: write it to a file first")
    ids = None if key_file is None else Ids(_key(key_file))
    if min_users > 1 and ids is None:
        raise click.UsageError("--min-users leaves out what few said, but ids would tell who said the rest: add --key")
    if output is not None:
        require_writable(output)
    failures, measured = FailurePoints(config.failures), Precision(precision)
    with opened_store(store) as opened:
        opened.create(failures.tables)
        with opened.read() as connection:
            _, newest = ledger.watermarks(ledger.positions(connection))
            sums = ledger.LedgerSums(opened, connection)
            observer = Observer(sums, max(newest, 0), failures, config.rewards)
    found = Export(list(map(str, events)), config, observer, measured)
    with (
        nullcontext(click.get_binary_stream("stdout")) if output is None else output.open("wb") as written,
        progress_bar(disabled=written.isatty()) as progress,
    ):
        lines = found.lines(Shared(min_users), ids, progress)
        written.writelines(msgspec.json.encode(one) + b"\n" for one in lines)
    _report(found, measured)
    sys.exit(INCOMPLETE if found.losses.count else 0)


def _line(turn: Turn, policy: Policy) -> dict[str, Any]:
    query = turn.query
    return {
        "type": name_of(Label),
        "ts": query.ts,
        "session_id": query.session_id,
        "query_id": query.query_id,
        "text": query.text,
        "interpretation": query.interpretation,
        "outcomes": [one.outcome for one in turn.impressions],
        "next": turn.next and turn.next.text,
        "diagnosis": policy.diagnose(turn),
    }


def _key(file: Path) -> bytes:
    key = file.read_bytes().strip()
    if len(key) < _SHORTEST_KEY:
        raise click.UsageError(
            f"--key: {file} has {len(key)} bytes, and needs {_SHORTEST_KEY}: `openssl rand -hex 32 > {file}`"
        )
    return key


def _report(found: Export, measured: Precision) -> None:
    click.echo(f"{found.written:,} of {found.turns:,} turns written", err=True)
    if found.rare:
        click.echo(f"{found.rare:,} turns left out: too few users asked the same", err=True)
    for field, provenance, cut in measured.cuts():
        if provenance != "label":
            said = _said(cut, measured.declared)
            click.echo(f"{field} by {provenance}: {found.told[field, provenance]:,} written; {said}", err=True)
    if found.losses.count:
        click.echo(
            f"{found.losses.count:,} events are invalid, late or without a query: `backchannel run` says which",
            err=True,
        )


def _said(cut: Cut, declared: float) -> str:
    if cut.confidence is None:
        return f"no confidence is enough for {declared:.0%}, by {cut.labels:,} held-out labels"
    if cut.precision is None:
        return f"unchecked: too few held-out labels, so a confidence of {cut.confidence:.2f} is believed"
    return (
        f"{cut.precision:.1%} of {cut.labels:,} held-out labels with a confidence of at least {cut.confidence:.2f} are "
        "right"
    )
