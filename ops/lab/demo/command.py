"""`backchannel demo`: learns in a closed loop with a simulated world, and reports the results."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from backchannel.ops.lab.demo.closed_loop import CONFIG, close_the_loop
from backchannel.ops.lab.demo.findings import SERVERS, Findings, Scoreboard
from backchannel.ops.lab.demo.report import render
from backchannel.ops.lab.worlds.people import QUERY_KINDS, SearchWorld
from backchannel.ops.lab.worlds.servers import STRATEGIES
from backchannel.ops.options import seed_option
from backchannel.ops.terminal import print_json, require_writable
from backchannel.schemas.codec import encode
from backchannel.schemas.events import Event
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store.engine import StoreError


@click.command()
@click.option("--turns", type=click.IntRange(min=500), default=30_000, show_default=True, help="Turns to learn from.")
@seed_option
@click.option("--store", metavar="URL", help="URL (SQLAlchemy) of an empty store for what is learned.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("out/demo.html"),
    show_default=True,
    help="File to write the report to.",
)
@click.option(
    "--events",
    type=click.File("wb"),
    metavar="FILE",
    help="Write the events of the people served by the learned policy to FILE, to try `run` and `evaluate` on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def demo(*, turns: int, seed: int, store: str | None, report: Path, events: BinaryIO | None, as_json: bool) -> None:
    """Learn in a closed loop with a simulated world, and report the results.

    Simulated people search a made-up catalogue, click, barge in and rephrase. Each person is served by the policy
    learned from earlier people and, for comparison, by a uniform policy and by the best possible one.
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    require_writable(report)
    began = time.perf_counter()
    world = SearchWorld(seed, turns)
    try:
        with ExitStack() as stack:
            url = store or f"sqlite:///{stack.enter_context(TemporaryDirectory())}/demo.db"
            driver = stack.enter_context(_Recorder(url, events) if events else LocalPipeline(url, CONFIG, "demo"))
            reader = PolicyReader(driver.store)
            if reader.refresh():
                raise click.UsageError(f"--store: {url} already holds a policy; give the demo an empty store")
            board = close_the_loop(
                world, driver, reader, turns=turns, seed=seed, progress=stack.enter_context(_progress(turns, began))
            )
            findings = board.findings(reader.policy, seed, time.perf_counter() - began)
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    report.write_text(render(findings), encoding="utf-8")
    if as_json:
        print_json(findings)
    else:
        Console().print(*_tables(findings), sep="\n")
        click.echo(f"Report: {report}")  # not wrapped, so that it can be copied


class _Recorder(LocalPipeline):
    """The demo's pipeline, which writes every event that it is fed to a file."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        super().__init__(url, CONFIG, "demo")
        self._file = file

    def feed(self, events: Sequence[Event]) -> None:
        """See `LocalPipeline.feed`."""
        self._file.writelines(encode(event) + b"\n" for event in events)
        super().feed(events)


@contextmanager
def _progress(turns: int, began: float) -> Iterator[Callable[[Scoreboard], None]]:
    """Show progress on standard error; yield a function that updates it."""
    columns = (
        BarColumn(bar_width=8),
        TextColumn("{task.completed:,.0f} turns"),
        TextColumn("{task.fields[speed]:,.0f}/s"),
        TextColumn("policy {task.fields[version]}"),
        TextColumn("clicks [bold]{task.fields[rates][learned]:.0%} learned[/]"),
        TextColumn("{task.fields[rates][uniform]:.0%} uniform"),
        TextColumn("{task.fields[rates][best]:.0%} best"),
    )
    console = Console(stderr=True)
    console.print("Everything here is simulated: the people, what they look for, and what they click.")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=turns, speed=0.0, version=0, rates=dict.fromkeys(SERVERS, 0.0))

        def show(board: Scoreboard) -> None:
            progress.update(
                task,
                completed=board.turns,
                speed=board.turns / (time.perf_counter() - began),
                version=board.policy_version,
                rates={server: board.click_rate(server) for server in SERVERS},
            )

        yield show


def _tables(findings: Findings) -> Iterator[RenderableType]:
    yield (
        f"[bold]Simulated:[/] {findings.turns:,} turns in {findings.sessions:,} sessions; {findings.events:,} events; "
        f"{findings.seconds:.1f} s"
    )
    late = findings.late
    rates = _table("In the last quarter", "learned (95%)", "uniform", "best")
    for name, attribute in (("click rate", "click_rate"), ("defect rate", "defect_rate")):
        learned, uniform, best = (getattr(late[server], attribute) for server in SERVERS)
        rates.add_row(name, _interval(learned), f"{uniform.value:.1%}", f"{best.value:.1%}")
    for kind in QUERY_KINDS:
        rates.add_row(f"click rate, {kind}", *(f"{late[server].click_rate_by_kind[kind]:.1%}" for server in SERVERS))
    rates.add_row("gap between uniform and best closed", _interval(findings.gap_closed))
    yield rates

    shares = _table("Candidates in %, early → late", *STRATEGIES)
    for kind in QUERY_KINDS:
        early, late_shares = findings.shares["early"][kind], findings.shares["late"][kind]
        shares.add_row(kind, *(f"{100 * early[name]:.0f} → {100 * late_shares[name]:.0f}" for name in STRATEGIES))
    yield shares

    learned_rewrites = findings.rewrites.learned
    right = sum(rewrite.right for rewrite in learned_rewrites)
    rewrites = _table(f"Rewrites ({right} of {len(learned_rewrites)} right)", "to", "asked", "probability", "")
    for rewrite in learned_rewrites[:8]:
        verdict = "right" if rewrite.right else "wrong"
        rewrites.add_row(rewrite.source, rewrite.target, str(rewrite.asked), f"{rewrite.probability:.0%}", verdict)
    yield rewrites

    memory = _table("Memory index", "recalled first", "asked", "score", "truth")
    for first in [remembered for remembered in findings.memory if remembered.rank == 1][:8]:
        memory.add_row(first.query, first.title, str(first.asked), f"{first.score:.2f}", f"{first.attractiveness:.2f}")
    yield memory


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, min_width=26)
    for header in others:
        table.add_column(header, justify="left" if header in ("to", "recalled first", "") else "right")
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
