"""`backchannel lab rank`: the quality of learned orders of results, by five folds over a corpus's queries."""

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.lab.search.build import build
from backchannel.ops.lab.search.command import open_corpus
from backchannel.ops.lab.search.encoders import find_encoder
from backchannel.ops.lab.search.findings import ORIGINS
from backchannel.ops.lab.search.options import dense_option, simulate_option
from backchannel.ops.lab.search.orders import TURNS, Order, orders
from backchannel.ops.options import json_option, seed_option
from backchannel.ops.progress import progress_bar
from backchannel.ops.terminal import print_json
from backchannel.schemas.snapshot import Estimate


@click.command()
@click.argument("corpus")
@simulate_option
@click.option(
    "--turns",
    type=click.IntRange(min=100),
    multiple=True,
    default=TURNS,
    show_default=True,
    help="Turns of clicks to learn from; repeatable.",
)
@click.option("--k", type=click.IntRange(1, 100), default=10, show_default=True, help="Cut-off of nDCG.")
@seed_option
@dense_option
@json_option
def rank(
    *, corpus: str, simulated: int | None, turns: tuple[int, ...], k: int, seed: int, dense: bool, as_json: bool
) -> None:
    """Learn to order results on CORPUS, a folder with documents and judgements, or `generated`.

    Five folds over queries: from grades, which is the ceiling, and from simulated clicks; beside each strategy's own
    order, rank fusion, clicks without a correction for position and clicks divided by examination, and, if LightGBM is
    installed, LambdaMART.
    """
    encoder = find_encoder(Console(stderr=True).print) if dense else None
    opened = open_corpus(corpus, simulated, seed, encoder)
    with progress_bar() as progress:
        found = list(orders(build(opened, seed, encoder, progress=progress), seed, turns, k, progress=progress))
    if as_json:
        print_json(found)
        return
    Console().print(f"[bold]{opened.name}[/]: {ORIGINS[opened.origin]}; {len(opened.queries):,} queries, five folds")
    Console().print(_table(found, k))


def _table(found: list[Order], k: int) -> Table:
    table = Table(f"nDCG@{k}, condensed", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("turns", "nDCG", "less BM25", "less the caller's"):
        table.add_column(head, justify="right")
    for one in found:
        turns = f"{one.turns:,}" if one.turns else ""
        table.add_row(one.name, turns, f"{one.ndcg.value:.3f}", _interval(one.less_bm25), _interval(one.less_caller))
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"
