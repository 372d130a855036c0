"""`backchannel lab search`: close the loop on a corpus, and report what was learned beside every baseline."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
from msgspec import structs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.ops.lab.search import figures
from backchannel.ops.lab.search.build import build, engine, popularity
from backchannel.ops.lab.search.corpus import Corpus, CorpusError
from backchannel.ops.lab.search.costs import Costs, measure
from backchannel.ops.lab.search.encoders import find_encoder
from backchannel.ops.lab.search.findings import FIXED_RANKED, LEARNED, RANKED, RERANKED, Findings, findings
from backchannel.ops.lab.search.generated import generated_corpus
from backchannel.ops.lab.search.loop import Settings, run
from backchannel.ops.lab.search.options import dense_option, simulate_option
from backchannel.ops.lab.search.people import ClickModel
from backchannel.ops.lab.search.readers import read
from backchannel.ops.lab.search.seeds import OverSeeds, over_seeds
from backchannel.ops.lab.search.simulator import simulate
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import seed_option
from backchannel.ops.progress import Progress, progress_bar
from backchannel.ops.reporting import page
from backchannel.ops.terminal import print_json, require_writable
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.extras import install

if TYPE_CHECKING:
    from backchannel.ops.lab.search.generators.encoder import SentenceEncoder

GENERATED = "generated"
LEAST_QUERIES = 20


def open_catalogue(name: str, seed: int, encoder: "SentenceEncoder | None") -> Corpus:
    """Return the corpus in the folder `name`, or the generated one if `name` is GENERATED.

    Raises:
        ClickException: the corpus cannot be used; see the message.
    """
    try:
        if name == GENERATED:
            return generated_corpus(seed, encode=encoder.encode_cached if encoder else None)
        return read(Path(name))
    except CorpusError as error:
        raise click.ClickException(str(error)) from None
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{name}: reading it needs {error.name}: {install('parquet')}") from None


def open_corpus(name: str, simulated: int | None, seed: int, encoder: "SentenceEncoder | None") -> Corpus:
    """Return a corpus with enough queries to learn from.

    Args:
        name: the corpus's folder, or GENERATED.
        simulated: number of queries to simulate on it; None to use its own.
        seed: the seed of simulated queries.
        encoder: the encoder for paraphrases; None for no paraphrases.

    Raises:
        ClickException: the corpus cannot be used; see the message.
    """
    corpus = open_catalogue(name, seed, encoder)
    if simulated:
        return simulate(corpus, simulated, seed, encoder.encode_cached if encoder else None)
    if len(corpus.queries) < LEAST_QUERIES:
        raise click.ClickException(
            f"{name}: {len(corpus.queries)} queries with relevant documents are too few: try --simulate 3000"
        )
    return corpus


@click.command()
@click.argument("corpus")
@simulate_option
@click.option("--turns", type=click.IntRange(min=100), default=8_000, show_default=True, help="Turns to learn from.")
@click.option("--budget", type=click.IntRange(1, 100), default=20, show_default=True, help="Candidates per query.")
@click.option("--distinct", is_flag=True, help="The budget is of distinct candidates; duplicates are refilled.")
@click.option(
    "--clicks",
    "model",
    type=click.Choice(get_args(ClickModel)),
    default="position",
    show_default=True,
    help="Click model.",
)
@click.option("--zipf", type=FiniteRange(0, 3), default=0.8, show_default=True, help="Zipf exponent of queries.")
@click.option("--memory", is_flag=True, help="Use the memory index as a strategy, too.")
@click.option("--ranked", is_flag=True, help="Let the policy learn to order the results, too.")
@click.option("--drift", is_flag=True, help="At half-time, swap the results of the best and the worst strategy.")
@click.option(
    "--new",
    "new_share",
    type=FiniteRange(0, 0.9),
    default=0.0,
    show_default=True,
    help="Share of documents that appear during the run.",
)
@seed_option
@click.option(
    "--seeds",
    type=click.IntRange(1, 50),
    default=1,
    show_default=True,
    help="Number of runs, with consecutive seeds from --seed; the report shows the first.",
)
@dense_option
@click.option("--costs", is_flag=True, help="Also measure what every generator costs.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("out/search.html"),
    show_default=True,
    help="Where to write the report.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def search(
    *,
    corpus: str,
    simulated: int | None,
    turns: int,
    budget: int,
    distinct: bool,
    model: ClickModel,
    zipf: float,
    memory: bool,
    ranked: bool,
    drift: bool,
    new_share: float,
    seed: int,
    seeds: int,
    dense: bool,
    costs: bool,
    report: Path,
    as_json: bool,
) -> None:
    """Close the loop on CORPUS: a folder with documents and judgements, or `generated`.

    People are simulated and click according to the judgements. The policy learns from their clicks, and is
    measured on held-out queries beside each generator alone, rank fusion, the even split, the fixed
    allocation that is best on training queries, the one that earns the most clicks, and the best
    allocation per query.
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    require_writable(report)
    console = Console(stderr=True)
    encoder = find_encoder(console.print) if dense else None
    settings = Settings(turns, budget, distinct, model, zipf, memory, ranked, drift, new_share, seed=seed)
    runs = []
    for number in range(seed, seed + seeds):
        seconds: dict[str, float] = {}
        began = time.perf_counter()
        opened = open_corpus(corpus, simulated, number, encoder)
        seconds["corpus"] = time.perf_counter() - began
        if number == seed:
            for line in opened.faults.lines():
                console.print(f"not used: {line}", style="yellow", markup=False)
        with progress_bar() as tell:
            own = structs.replace(settings, seed=number)
            runs.append(_run(opened, own, encoder, seconds, tell, costs=costs and number == seed))
    (first, *others) = runs
    report.write_text(page.render("search.html.j2", findings=first, figures=figures.draw(first)), encoding="utf-8")
    together = over_seeds(runs) if others else []
    if as_json:
        print_json({"runs": runs, "over_seeds": together} if others else first)
        return
    _print(first)
    if others:
        _print_seeds(together, seeds)
    click.echo(f"Report: {report}")


def _run(
    corpus: Corpus,
    settings: Settings,
    encoder: "SentenceEncoder | None",
    seconds: dict[str, float],
    tell: Progress,
    *,
    costs: bool,
) -> Findings:
    measured = None
    if costs:
        asked = [query.text for query in corpus.queries]
        measured = measure(engine(corpus, popularity(corpus, []), encoder, tell), asked, settings.budget)
    began = time.perf_counter()
    harness = build(corpus, settings.seed, encoder, progress=tell)
    seconds["lists"] = time.perf_counter() - began
    began = time.perf_counter()
    done = run(
        harness,
        settings,
        progress=lambda turn, clicks: tell(f"learning, {clicks:.2f} clicks a turn", turn / settings.turns),
    )
    seconds["loop"] = time.perf_counter() - began
    tell("measuring", 0.0)
    return findings(done, seconds, measured)


def _print(found: Findings) -> None:
    console = Console()
    console.print(
        f"[bold]{found.corpus}[/]: {found.origin}; people are simulated. {found.documents:,} documents, "
        f"{found.train:,} training queries, {found.held_out:,} held out; {found.turns_per_second:,.0f} turns/s"
    )
    budget = found.settings["budget"]
    ordered = sorted(found.methods, key=lambda one: -one.drawn.value)
    recall = _table(
        "Recall on held-out queries", f"{budget} drawn", f"{budget} distinct", "less best fixed", "different"
    )
    order = _table(f"nDCG@{RANKED}", "raw", "condensed", "condensed less BM25's", "judged")
    for method in ordered:
        style = "bold" if method.name in (LEARNED, RERANKED) else None
        if method.name not in (RERANKED, FIXED_RANKED):
            numbers = f"{method.drawn.value:.3f}", f"{method.distinct.value:.3f}"
            recall.add_row(
                method.name, *numbers, _interval(method.against_fixed), f"{method.different:.1f}", style=style
            )
        numbers = f"{method.raw:.3f}", f"{method.condensed:.3f}"
        order.add_row(method.name, *numbers, _interval(method.condensed_less_bm25), f"{method.judged:.3f}", style=style)
    console.print(recall, order)
    points = _table("Policy after turns", "recall", "less best fixed")
    for point in found.points:
        points.add_row(f"{point.turns:,}", _interval(point.recall), _interval(point.against_fixed))
    console.print(points)
    clicks = _table(
        "Clicks per turn while learning", "all turns", "last quarter", "less best fixed", "less most clicked"
    )
    for one in found.clicks:
        rivals = (_interval(rival) for rival in (one.against_fixed, one.against_clicked))
        clicks.add_row(one.server, f"{one.all:.3f}", f"{one.late:.3f}", *rivals)
    console.print(clicks)
    console.print(f"Drawn {found.drawn:.1f} a turn, {found.different:.1f} of them different.")
    if found.repeated:
        repeated = _table(f"On {found.repeated_queries} queries asked {found.often} times or more", "recall")
        for row in found.repeated:
            repeated.add_row(row.name, _interval(row.recall))
        console.print(repeated)
    if found.costs is not None:
        _print_costs(found.costs)


def _print_seeds(together: Sequence[OverSeeds], seeds: int) -> None:
    recall = _table(f"Recall over {seeds} seeds", "", "less best fixed")
    order = _table(f"nDCG@{RANKED} over BM25's, %", "raw", "condensed")
    for one in together:
        gains = (
            f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            for gain in (one.raw_gain, one.condensed_gain)
        )
        if one.method not in (RERANKED, FIXED_RANKED):
            recall.add_row(one.method, _interval(one.recall), _interval(one.against_fixed))
        order.add_row(one.method, *gains)
    Console().print(recall, order)


def _print_costs(costs: Costs) -> None:
    console = Console()
    built = _table(f"To index {costs.documents:,} documents", "processor seconds")
    for name, took in costs.index_s.items():
        built.add_row(name, f"{took:.1f}")
    asked = _table(f"Per query, of {costs.queries}", "p50 ms", "p99 ms", "processor ms")
    for name, cost in (*costs.generators.items(), ("all, features and union", costs.server)):
        asked.add_row(name, f"{cost.p50_ms:.2f}", f"{cost.p99_ms:.2f}", f"{cost.cpu_ms:.2f}")
    console.print(built, asked)


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for header in others:
        table.add_column(header, justify="right")
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"
