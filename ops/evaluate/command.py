"""`backchannel evaluate`: estimates what other policies would have earned, from a log of one policy's decisions."""

import sys
from pathlib import Path
from typing import Final, get_args

import click
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.intervals import Method
from backchannel.ops.evaluate import event_log, open_bandit
from backchannel.ops.evaluate.report import render
from backchannel.ops.evaluate.result import Evaluation, Horizon, Options, PolicyValue, Reward
from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import config_option, json_option, seed_option
from backchannel.ops.progress import progress_bar
from backchannel.ops.terminal import console, print_json, require_writable
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.config import Config
from backchannel.streams.serving.reader import PolicyReader

_WIDTH: Final = 100


@click.command("evaluate")
@click.argument("log", metavar="LOG")
@config_option
@click.option("--store", metavar="URL", help="Evaluate the policy in this store. For event files only.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME=FILE",
    help="Evaluate this policy: a CSV with item_id, position and probability, or another log. For the Open Bandit "
    "Dataset only; repeatable.",
)
@click.option(
    "--interval",
    "method",
    type=click.Choice(get_args(Method)),
    default="bootstrap",
    show_default=True,
    help="Method for intervals. Bernstein intervals hold for any number of turns, but are wide; those of a sequence "
    "hold however often one looks at a growing log.",
)
@click.option(
    "--confidence",
    type=FiniteRange(0.5, 0.999),
    default=0.95,
    show_default=True,
    help="Confidence level of intervals.",
)
@click.option(
    "--minimum",
    type=FiniteRange(1),
    default=100.0,
    show_default=True,
    help="Effective sample size below which a log is unusable for a policy.",
)
@click.option(
    "--horizon",
    type=click.Choice(get_args(Horizon)),
    default="turn",
    show_default=True,
    help="What a policy's value is over: a turn, a whole session, or all turns of a user. For event files only.",
)
@click.option(
    "--discount",
    type=FiniteRange(0, 1),
    default=1.0,
    show_default=True,
    help="What a success is worth one turn later, with --horizon.",
)
@click.option(
    "--reward",
    type=click.Choice(get_args(Reward)),
    default="success",
    show_default=True,
    help="What a turn earns, with --horizon: its success, or the goals that it ends and that were reached.",
)
@seed_option
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML report with plots to this file."
)
@json_option
def evaluate(
    *,
    log: str,
    config: Config,
    store: str | None,
    policies: tuple[str, ...],
    method: Method,
    confidence: float,
    minimum: float,
    horizon: Horizon,
    discount: float,
    reward: Reward,
    seed: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Estimate from LOG what other policies would have earned.

    LOG is an event file whose impressions contain the propensities with which strategies were asked, or a log of the
    Open Bandit Dataset (CSV, plain or gzipped). On an event file, the bandit learns from the first half and is
    evaluated on the second; with --store, that store's policy is evaluated on the whole file.

    Several estimators are used for every policy. The weights show how far to trust them: if few turns carry most of the
    weight, the log says little about the policy, even if the intervals are narrow.

    Strategies that share a page take clicks from each other. Where they do, rely on whole allocations and, where these
    cannot tell, on clicked items whose ranks in every strategy were looked up (`looked_up` of impressions). Estimates
    by strategy mostly overstate a change; they are shown for comparison.

    A policy may win clicks now and lose people for it. With --horizon session or user, what is estimated, and relied
    upon, is the success of all turns of a session or of a user, by the weighted doubly robust estimate (WDR), with each
    decision's effect on later turns. That needs more data: where policies differ much in many turns, the log cannot
    tell.

    \b
    backchannel evaluate events.jsonl --report out/evaluation.html
    backchannel evaluate random_all.csv.gz --policy bts=bts_all.csv.gz

    \b
    Exit code: 0 if the log is usable for every policy; 3 if it is unusable for some, see the warnings; 1 if it cannot
    be used at all; 2 if the command or the configuration is wrong.
    """
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        require_writable(report)
    if reward != "success" and horizon == "turn":
        raise click.UsageError(f"--reward {reward}: only with --horizon session or user")
    options = Options(method, confidence, minimum, seed, horizon, discount, reward)
    if log != "-" and open_bandit.is_open_bandit(Path(log)):
        if store is not None:
            raise click.UsageError("--store: a store's policy chooses strategies, but this log has items; use --policy")
        if horizon != "turn":
            raise click.UsageError(f"--horizon {horizon}: the Open Bandit Dataset has neither sessions nor users")
        with progress_bar() as progress:
            found = open_bandit.evaluate(Path(log), _files(policies), options, progress)
    else:
        if policies:
            raise click.UsageError("--policy: only for logs of the Open Bandit Dataset; use --store")
        with progress_bar() as progress:
            found = event_log.evaluate(log, config, _stored(store), options, progress)
    if report is not None:
        report.write_text(render(found), encoding="utf-8")
    if as_json:
        print_json(found)
    else:
        console(_WIDTH).print(*_lines(found), sep="\n")
        if report is not None:
            click.echo(f"Report: {report}")
    sys.exit(0 if found.usable else INCOMPLETE)


def _files(policies: tuple[str, ...]) -> dict[str, Path]:
    named = {}
    for one in policies:
        name, equals, file = one.partition("=")
        if not (name and equals and file):
            raise click.UsageError(f"--policy: {one!r} is not NAME=FILE")
        named[name] = Path(file)
    return named


def _stored(url: str | None) -> dict[str, Allocator]:
    if url is None:
        return {}
    with PolicyReader(url) as reader:
        policy = reader.policy
        return {f"version {policy.version}": policy.allocator}


def _lines(found: Evaluation) -> list[RenderableType]:
    lines: list[RenderableType] = [
        Text.assemble(
            (found.log, "bold"),
            f": {found.turns:,} turns, {found.strategies} choices; the logged policy earned {_interval(found.logged)} "
            "per turn",
        )
    ]
    if found.left_out:
        lacking = "propensities or no user" if found.options.horizon == "user" else "propensities"
        lines.append(f"{found.left_out:,} turns are left out because their decisions have no {lacking}")
    if found.pages is not None:
        lines.append(f"{found.pages}")
    for policy in found.policies:
        warnings = (Text.assemble(("Warning:", "bold"), f" {policy.name}: {one}") for one in policy.faults)
        lines += [_table(policy, found), *warnings]
    return [*lines, "", *(f"Note: {note}" for note in found.notes)]


def _table(policy: PolicyValue, found: Evaluation) -> Table:
    diagnosis = policy.relied
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.caption = (
        f"effective sample size {diagnosis.effective:,.0f}, largest weight {diagnosis.largest:,.1f}, "
        f"mean {diagnosis.mean:.2f}"
    )
    for header in (policy.name, "value", f"{found.options.confidence:.0%} from", "to"):
        table.add_column(header, justify="left" if header == policy.name else "right", min_width=12)
    over = f"per {found.options.horizon}: "
    for prefix, label, page in (
        (over, f"{over}WDR", policy.sessions),
        ("", "clicked items", policy.union),
        ("", "SNIPS", policy.whole),
    ):
        if page is None:
            continue
        for name, estimate in page.estimates.items():
            row = f"{prefix}{name}"
            table.add_row(row, *(f"{number:.5f}" for number in (estimate.value, estimate.low, estimate.high)))
        numbers = page.lift.value, page.lift.low, page.lift.high
        table.add_row(
            f"{label} minus logged {found.options.reward}", *(f"{number:+.5f}" for number in numbers), end_section=True
        )
    for name, estimate in policy.estimates.items():
        label = f"{name}, {policy.kept:,} turns kept" if name == "replay" and policy.kept is not None else name
        table.add_row(label, *(f"{number:.5f}" for number in (estimate.value, estimate.low, estimate.high)))
    lift = policy.lift
    table.add_row("DR minus logged", *(f"{number:+.5f}" for number in (lift.value, lift.low, lift.high)))
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.5f} ({estimate.low:.5f} to {estimate.high:.5f})"
