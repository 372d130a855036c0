"""`backchannel memory`: how large the memory index is, and whether it can be trusted, with the evidence."""

from contextlib import closing
from pathlib import Path

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from backchannel.ops.commands.config import config_option
from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.memory.convergence import VARIANTS, Convergence, converge
from backchannel.ops.lab.memory.guesses import Guesses, heard, searched
from backchannel.ops.lab.memory.relevance import Interval, Relevance, Result, evaluate, read
from backchannel.ops.options import guess_option, store_option
from backchannel.streams.config import Config
from backchannel.streams.monitoring.sizes import sizes
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.store.engine import StoreError

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("memory")
def memory() -> None:
    """Examine the memory index."""


@memory.command("size")
@store_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def size(store: str, config: Config, as_json: bool) -> None:
    """Say how much the ledger holds, and how much of it readers do."""
    try:
        found = sizes(store, config)
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    console = _console()
    ledger = Table("ledger", "rows", box=None, pad_edge=False)
    for name, rows in found.ledger.items():
        ledger.add_row(name, f"{rows:,}")
    policy = Table("newest policy", "rows", "MiB", box=None, pad_edge=False)
    for name, section in found.policy.items():
        policy.add_row(name, f"{section.rows:,}", f"{section.bytes / 2**20:,.2f}")
    console.print(ledger)
    console.print()
    console.print(policy)


@memory.command("recall")
@click.argument("query")
@click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Entities at most.")
@click.option("--user", help="Whose own evidence is to count more: a user_id.")
@guess_option
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def recall(*, query: str, count: int, user: str | None, guess_from: float | None, store: str, as_json: bool) -> None:
    """Say which entities the newest policy recalls for QUERY."""
    try:
        with closing(PolicyReader(store, guess_from=guess_from)) as reader:
            found = reader.policy.recall(query, count, user)
    except (NoPolicyError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    if not found:
        click.echo("nothing is known to work for it")
        return
    console = _console()
    if guess := found[0].guess:
        console.print(
            f"Nothing is known of it. A guess, from {guess.query!r}, which is {guess.similarity:.0%} like it:"
        )
    table = Table("entity", "score", "at least", "exposures", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.entity_id, f"{one.score:.3f}", f"{one.lower:.3f}", f"{one.evidence:.1f}")
    console.print(table)


@memory.command("evaluate")
@click.argument("log", type=_file)
@click.argument("judgements", type=_file)
@click.option("--folds", type=click.IntRange(2), default=20, show_default=True, help="Of sessions.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of folds and intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def evaluate_(log: Path, judgements: Path, folds: int, seed: int, as_json: bool) -> None:
    """Rank what people were shown by learned scores, and compare with graded judgements.

    LOG is the TREC Session Track's sessiontrack2013.xml, JUDGEMENTS its qrels.txt; plain or gzipped. Sessions are
    ranked by what was learned from those in the other folds. Intervals are of 95%, by bootstrap over sessions; the
    gains over the order shown are paired.
    """
    try:
        judged = read(log, judgements)
    except (ConversionError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    with Console(stderr=True).status("learning, fold by fold"):
        found = [evaluate(judged, known_by, folds, np.random.default_rng(seed)) for known_by in ("text", "topic")]
    guessed = searched(judged)
    if as_json:
        document = {"rankings": found, "guesses": guessed}
        click.echo(msgspec.json.format(msgspec.json.encode(document)))
        return
    console = _console()
    for one in found:
        _show(one, console)
    console.print(_guesses("a query that no other session asked", guessed, "right: on its topic"))


@memory.command("guesses")
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Of which half is known.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def guesses_(data: Path, seed: int, as_json: bool) -> None:
    """Guess what people said from what was heard, and see how often that is right.

    DATA is the folder that has slurp_asr: sentences, half of which are known queries, and what a speech recogniser made
    of all of them. What was heard is taken for the known sentence that it is most like. A guess is right if that means
    the same as what was said, as annotated. `evaluate` does the like for typed queries. Intervals are of 95%.
    """
    found = heard(data, np.random.default_rng(seed))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    _console().print(_guesses("something heard that is no known query", found, "right: means the same"))


def _guesses(what: str, found: Guesses, right: str) -> Table:
    table = Table(f"{found.unseen} times {what}: similarity from", "guesses", right, box=None, pad_edge=False)
    for band in found.bands:
        share = f"{band.right / band.guesses:.3f} [{band.low:.3f}, {band.high:.3f}]" if band.guesses else ""
        table.add_row(f"{band.similarity:.2f}", f"{band.guesses}", share)
    return table


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=130)


def _show(found: Relevance, console: Console) -> None:
    console.print(
        f"[bold]Queries known by their {found.known_by}[/bold]: {found.impressions} impressions with a relevant "
        f"document, in {found.sessions} sessions"
    )
    console.print(f"Positions 1 to 10 are examined: {', '.join(f'{one:.2f}' for one in found.examined)}")
    console.print(_table("all impressions", found.everywhere))
    console.print(_table(f"the {found.informed:.0%} where another session clicked one of them", found.where_informed))
    console.print()


def _table(title: str, results: list[Result]) -> Table:
    table = Table(title, "nDCG@10", "AUC", "nDCG gain", "AUC gain", box=None, pad_edge=False)
    for one in results:
        cells = map(_interval, (one.ndcg, one.auc, one.ndcg_gain, one.auc_gain))
        table.add_row(one.ranking, *cells)
    return table


def _interval(one: Interval) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


@memory.command("converge")
@click.option("--turns", type=click.IntRange(100), default=10_000, show_default=True, help="In the end.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Worlds.")
@click.option(
    "--decay",
    type=click.FloatRange(0, 4),
    default=0.7,
    show_default=True,
    help="Of the configured curve; theirs is 0.8.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def converge_(turns: int, seeds: int, decay: float, as_json: bool) -> None:
    """Simulate how fast scores approach the truth, with and without position bias and predictions.

    The error is the mean absolute error of scores, of pairs as often as they were shown. The first place is the
    attractiveness of what is put first for a query, as a share of that of the query's most attractive entity.
    """
    checkpoints = [round(turns * 0.5**power) for power in (6, 4, 3, 2, 1, 0)]
    found: list[Convergence] = []
    with Console(stderr=True).status("") as status:
        for seed in range(seeds):
            status.update(f"world {seed + 1} of {seeds}")
            found += converge(seed, checkpoints, decay)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    console = _console()
    for title, measure in (("error", "error"), ("first place", "ranked")):
        table = Table(
            f"{title}, {seeds} simulated worlds, after turns", *map(str, checkpoints), box=None, pad_edge=False
        )
        for variant in VARIANTS:
            means = [
                np.mean([getattr(one, measure) for one in found if one.variant == variant and one.turns == count])
                for count in sorted({one.turns for one in found if one.variant == variant})
            ]
            table.add_row(variant, *(f"{mean:.3f}" for mean in means))
        console.print(table)
