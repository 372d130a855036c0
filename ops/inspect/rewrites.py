"""`backchannel rewrites`: inspects the rewrites, and blocks or pins some."""

import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.rules import Rules
from backchannel.agents.sums import ALL
from backchannel.ops.groups import Group
from backchannel.ops.inspect.explanation import Explanation, explain
from backchannel.ops.options import config_option, json_option, opened_store, store_option
from backchannel.ops.paths import input_file
from backchannel.ops.terminal import console, print_json
from backchannel.schemas.text import normalize, spelled
from backchannel.streams.config import Config
from backchannel.streams.pipeline.corrections import set_sums
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.store import ledger
from backchannel.streams.store.ledger import FencedError, Ledger, LedgerSums

_SOURCE: Final = "rewrite rules"
"""The source under which the ledger counts manual rules, as if they were a stream."""
_WIDTH: Final = 160

_interpretation = click.option(
    "--interpretation", is_flag=True, help="SOURCE and TARGET are interpretations, used verbatim, not texts."
)
_file = click.option(
    "--file",
    type=input_file,
    metavar="FILE",
    help="Read rewrites from FILE instead, one per line: SOURCE, a tab, TARGET.",
)


@click.group(cls=Group)
def rewrites() -> None:
    """Inspect the learned rewrites, and block or pin some."""


@rewrites.command("list")
@store_option
@json_option
def list_rewrites(store: str, as_json: bool) -> None:
    """List the rewrites of the newest policy, in descending order of turns."""
    with closing(PolicyReader(store)) as reader:
        found = reader.policy.rewrites()
    ordered = dict(sorted(found.items(), key=lambda item: (-item[1].support, item[0])))
    if as_json:
        print_json(ordered)
        return
    if not ordered:
        click.echo("no rewrite is known yet")
        return
    table = Table("query", "to", "layer", "probability", "turns", "withdrawn", box=SIMPLE_HEAD, pad_edge=False)
    for source, one in ordered.items():
        table.add_row(source, one.target, one.layer, f"{one.probability:.0%}", f"{one.support:.1f}", one.withdrawn)
    console(_WIDTH).print(table)


@rewrites.command("show")
@click.argument("source")
@store_option
@config_option
@_interpretation
@json_option
def show(source: str, store: str, config: Config, interpretation: bool, as_json: bool) -> None:
    """Explain why SOURCE is rewritten or not, with counts and the path, from the current sums."""
    graph = RephraseGraph(config.rephrases)
    state = source if interpretation else _key(source, config)
    with opened_store(store) as opened:
        opened.create(graph.tables)
        with opened.read() as connection:
            _, newest = ledger.watermarks(ledger.positions(connection))
            explanation = explain(graph, LedgerSums(opened, connection), state, max(newest, 0))
    if as_json:
        print_json(explanation)
    else:
        _print(explanation)
        if not (interpretation or explanation.source.turns):
            click.echo("Queries that have an interpretation are known by it: give it as SOURCE, with --interpretation.")


@rewrites.command("block")
@click.argument("source", required=False)
@click.argument("target", required=False)
@_file
@store_option
@config_option
@_interpretation
@click.option("--undo", is_flag=True, help="Unblock.")
def block(
    *,
    source: str | None,
    target: str | None,
    file: Path | None,
    store: str,
    config: Config,
    interpretation: bool,
    undo: bool,
) -> None:
    """Forbid rewriting SOURCE to TARGET; without TARGET, rewriting it at all, including for single users.

    This takes effect with the next version of the policy.
    """
    pairs = _pairs(source, target or ALL, file, None if interpretation else config)
    _refuse_interpretation(store, source, interpretation)
    _set_rules(store, pairs, "blocked", not undo)


@rewrites.command("pin")
@click.argument("source", required=False)
@click.argument("target", required=False)
@_file
@store_option
@config_option
@_interpretation
@click.option("--undo", is_flag=True, help="Unpin.")
def pin(
    *,
    source: str | None,
    target: str | None,
    file: Path | None,
    store: str,
    config: Config,
    interpretation: bool,
    undo: bool,
) -> None:
    """Rewrite SOURCE to TARGET for everybody, whatever is learned. A block of the same rewrite takes precedence.

    This takes effect with the next version of the policy.
    """
    pairs = _pairs(source, target or "", file, None if interpretation else config)
    _refuse_interpretation(store, source, interpretation)
    for one, aim in pairs:
        if not aim or aim == one:
            raise click.UsageError(f"pin {one!r}: needs a TARGET that is a different query")
    blocked = _set_rules(store, pairs, "pinned", not undo).blocked
    blocks = [(one, ALL if ALL in blocked[one] else aim) for one, aim in pairs if blocked[one] & {aim, ALL}]
    if blocks and not undo:
        named = [*filter(None, blocks[0]), *(("--interpretation",) if interpretation else ())]
        click.echo(
            f"{len(blocks):,} stay blocked, so nothing comes of pinning them; to unblock the first: "
            f"`backchannel rewrites block --undo {shlex.join(named)}`",
            err=True,
        )


def _key(text: str, config: Config) -> str:
    return normalize(spelled(text, None, config.turns.fold))


def _pairs(source: str | None, target: str, file: Path | None, config: Config | None) -> list[tuple[str, str]]:
    """Return the rewrites named by the arguments, or by the lines of `file`: without a `config`, as they are."""
    if (source is None) == (file is None):
        raise click.UsageError("give a SOURCE, or a --file with one per line")
    pairs = [(source or "", target)]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise click.ClickException(f"{file}: {error}; save it as UTF-8") from None
        pairs = [(one, aim) for one, _, aim in (line.partition("\t") for line in lines) if one]
    keys = pairs if config is None else [(_key(one, config), _key(aim, config)) for one, aim in pairs]
    for (one, aim), (key, aim_key) in zip(pairs, keys, strict=True):
        if not key or bool(aim) != bool(aim_key):  # no target stands for all of them
            raise click.UsageError(f"{aim if key else one!r} has no words")
    return keys


def _refuse_interpretation(url: str, source: str | None, interpretation: bool) -> None:
    """Refuse a source that is rewritten as an interpretation, as `list` shows it, without --interpretation.

    Read as a text it would be another query, and its rewrite would stay as it is.
    """
    if interpretation or source is None or source == normalize(source):
        return
    with suppress(NoPolicyError), closing(PolicyReader(url)) as reader:
        if source in reader.policy.rewrites():
            raise click.UsageError(f"{source!r} is an interpretation: give --interpretation")


def _set_rules(url: str, pairs: Sequence[tuple[str, str]], column: str, value: bool) -> Rules:
    """Set `column` of the rules for `pairs` to `value`, and return all rules."""
    table = RephraseGraph(RephraseConfig()).rules
    wanted = dict.fromkeys(pairs, float(value))
    with opened_store(url) as store:
        store.create([table])
        try:
            changed = set_sums(store, Ledger(store, [table]), table, column, wanted, source=_SOURCE)
        except FencedError:
            raise click.ClickException("somebody else is changing the rules: nothing was changed, try again") from None
        with store.read() as connection:
            rules = Rules(LedgerSums(store, connection).read(table))
    done = column if value else f"no longer {column}"
    click.echo(f"{changed:,} {done}, {len(wanted) - changed:,} unchanged. This takes effect with the next version.")
    return rules


def _print(explanation: Explanation) -> None:
    out = console(_WIDTH)
    source, target = explanation.source, explanation.target
    aim = f" -> {target.query!r}" if target else ""
    out.print(f"{source.query!r}{aim}: {explanation.verdict}")
    if explanation.probability is not None:
        out.print(f"{explanation.probability:.0%} of those who start with it pass through the target and succeed")
    table = Table("query", "turns", "succeeded", "90% interval", "rephrased", box=SIMPLE_HEAD, pad_edge=False)
    for state in filter(None, (source, target)):
        bounds = f"{state.lower:.0%} to {state.upper:.0%}"
        table.add_row(state.query, f"{state.turns:.1f}", f"{state.success:.0%}", bounds, f"{state.rephrased:.0%}")
    out.print(table)
    for title, steps in (("most likely path", explanation.path), ("rephrased to", explanation.steps[:10])):
        if steps:
            rephrases = Table(title, "", "turns", "share", "people, at least", box=SIMPLE_HEAD, pad_edge=False)
            for step in steps:
                cells = f"{step.turns:.1f}", f"{step.share:.0%}", f"{step.people:.1f}"
                rephrases.add_row(step.source, step.target, *cells)
            out.print(rephrases)
    for who, record in (("served the rewrite", explanation.served), ("held out", explanation.held_out)):
        if record:
            out.print(f"{who}: {record.success:.0%} of {record.turns:.1f} turns succeeded")
