"""`backchannel memory evaluate|guesses|converge`: experiments that show how good the memory index is."""

from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.memory.convergence import VARIANTS, Convergence, converge
from backchannel.ops.lab.memory.guesses import Guesses, heard, searched
from backchannel.ops.lab.memory.relevance import RankingQuality, Relevance, evaluate, read
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import json_option
from backchannel.ops.paths import input_file, input_folder
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate

_file = input_file


@click.command("evaluate")
@click.argument("log", type=_file)
@click.argument("judgements", type=_file)
@click.option("--folds", type=click.IntRange(2), default=20, show_default=True, help="Number of folds of sessions.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of folds and intervals.")
@json_option
def evaluate_(log: Path, judgements: Path, folds: int, seed: int, as_json: bool) -> None:
    """Rank the shown results by learned scores, and compare with graded judgements.

    LOG is the TREC Session Track's sessiontrack2013.xml, JUDGEMENTS its qrels.txt; plain or gzipped. Results of a
    session are ranked by scores learned from the other folds. Intervals are 95% bootstrap intervals over sessions;
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
        print_json(document)
        return
    console = _console()
    for one in found:
        _show(one, console)
    console.print(_guesses("queries that no other session asked", guessed, "right: same topic"))


@click.command("guesses")
@click.argument("data", type=input_folder)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the choice of known sentences."
)
@json_option
def guesses_(data: Path, seed: int, as_json: bool) -> None:
    """Guess sentences from a speech recogniser's output, and measure how often the guess is right.

    DATA is the folder that contains slurp_asr: sentences, and a speech recogniser's hypotheses for each. Half of the
    sentences are known queries. The guess is the known sentence most similar to the hypothesis; it is right if its
    annotated meaning is that of the spoken sentence. `evaluate` does the same for typed queries. Intervals are 95%
    intervals.
    """
    found = heard(data, np.random.default_rng(seed))
    if as_json:
        print_json(found)
        return
    _console().print(_guesses("hypotheses that are not known queries", found, "right: same meaning"))


def _guesses(what: str, found: Guesses, right: str) -> Table:
    table = Table(f"{found.unseen} {what}: similarity from", "guesses", right, box=None, pad_edge=False)
    for band in found.bands:
        share = f"{band.right / band.guesses:.3f} [{band.low:.3f}, {band.high:.3f}]" if band.guesses else ""
        table.add_row(f"{band.similarity:.2f}", f"{band.guesses}", share)
    return table


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=130)


def _show(found: Relevance, console: Console) -> None:
    console.print(
        f"[bold]Queries identified by {found.known_by}[/bold]: {found.impressions} impressions with a relevant "
        f"document, in {found.sessions} sessions"
    )
    console.print(
        f"Examination probabilities of positions 1 to 10: {', '.join(f'{one:.2f}' for one in found.examined)}"
    )
    console.print(_table("all impressions", found.everywhere))
    console.print(_table(f"the {found.informed:.0%} with a result clicked in another session", found.where_informed))
    console.print()


def _table(title: str, results: list[RankingQuality]) -> Table:
    table = Table(title, "nDCG@10", "AUC", "nDCG gain", "AUC gain", box=None, pad_edge=False)
    for one in results:
        cells = map(_interval, (one.ndcg, one.auc, one.ndcg_gain, one.auc_gain))
        table.add_row(one.ranking, *cells)
    return table


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


@click.command("converge")
@click.option("--turns", type=click.IntRange(100), default=10_000, show_default=True, help="Number of turns.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Number of worlds.")
@click.option(
    "--decay",
    type=FiniteRange(0, 4),
    default=0.7,
    show_default=True,
    help="Decay of the configured curve; the world's is 0.8.",
)
@json_option
def converge_(turns: int, seeds: int, decay: float, as_json: bool) -> None:
    """Simulate how fast scores approach the truth, with and without position bias and predictions.

    The error is the mean absolute error of scores, with pairs weighted by how often they were shown. The first place is
    the attractiveness of the entity ranked first for a query, as a share of that of the query's most attractive entity.
    """
    checkpoints = [round(turns * 0.5**power) for power in (6, 4, 3, 2, 1, 0)]
    found: list[Convergence] = []
    with Console(stderr=True).status("") as status:
        for seed in range(seeds):
            status.update(f"world {seed + 1} of {seeds}")
            found += converge(seed, checkpoints, decay)
    if as_json:
        print_json(found)
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
