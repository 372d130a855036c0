"""`backchannel diagnose`: which component fails how often, and whose repair would save most."""

from contextlib import closing
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backchannel.agents.labelled.kinds import KINDS
from backchannel.ops.commands import challenger as challengers
from backchannel.ops.options import config_option, json_option, store_option
from backchannel.ops.terminal import console, print_json, require_writable
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.config import Config
from backchannel.streams.serving.reader import PolicyReader

_WIDTH: Final = 130
_ADVICE: Final = "; send `label` events, at least failures.min_labels for each of two failure points"


@click.command()
@click.option(
    "--by",
    type=click.Choice(KINDS),
    multiple=True,
    metavar="KIND",
    help=f"Only by KIND: {', '.join(KINDS)}; may be given several times.  [default: every kind]",
)
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rows to print.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write all rows to this file, as HTML."
)
@click.option(
    "--challenger",
    is_flag=True,
    help="Also train gradient boosting on the labelled turns that the store keeps, and compare it with what is served.",
)
@store_option
@config_option
@json_option
def diagnose(
    *,
    by: tuple[str, ...],
    top: int,
    report: Path | None,
    challenger: bool,
    store: str,
    config: Config,
    as_json: bool,
) -> None:
    """Rank components by what their repair would save, from the newest policy.

    A row is a component in the turns of an intent, a device, a locale, a day, or all turns: the share of turns in which
    it failed first, times their number, times how much more often such turns are defects than correct ones are. Shares
    are estimates with intervals of 95%; a failure point with too few labels has none. As long as there are no labels,
    rules tell, which is said.

    --challenger answers whether a learner that is no sum would tell failure points better. It and the learner whose
    weights are served are trained and tested on the same labelled turns, with people and sessions apart; the challenger
    is never served. It needs LightGBM, an extra, and the configuration that the store was filled with.
    """
    if report is not None:
        require_writable(report)
    with closing(PolicyReader(store)) as reader:
        policy = reader.policy
    diagnoser = policy.diagnoser
    known = diagnoser.known and diagnoser.known[0]
    if known is None and not diagnoser.shares():
        raise click.ClickException("no failure point is known: send `asr`, `nlu` or an `outcome` with turns" + _ADVICE)
    comparison = challengers.compared(store, config) if challenger else None
    ranked = [one for one in diagnoser.repairs() if not by or one.kind in by]
    repairs = ranked[:top]
    labels = dict(zip(known.points, known.labels, strict=True)) if known else {}
    if report is not None:
        from backchannel.ops.reporting.page import render  # noqa: PLC0415 - Jinja is an extra

        compared = comparison and challengers.shown(comparison)
        page = render("diagnosis.html.j2", repairs=ranked, labels=labels, version=policy.version, compared=compared)
        report.write_text(page, encoding="utf-8")
    if as_json:
        print_json({"labels": labels, "weak": known is None, "repairs": repairs, "comparison": comparison})
        return
    table = Table("failed first", "in", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("turns (decayed)", "share", "of which a repair recovers", "defects saved"):
        table.add_column(name, justify="right")
    for one in repairs:
        table.add_row(
            one.failure_point,
            f"{one.kind} {one.value}".rstrip(),
            f"{one.turns:,.0f}",
            _percent(one.share),
            f"{one.recovers:.0%}",
            f"{one.saved.value:,.1f} ({one.saved.low:,.1f} to {one.saved.high:,.1f})",
        )
    out = console(_WIDTH)
    out.print(table)
    if known is None:
        out.print(
            "Weak: told by rules, which are as good as `docs/failures.md` says on one log of calls, and may be "
            f"worse here. What a repair recovers is unknown, so the last column is an upper bound{_ADVICE}",
            style="yellow",
        )
    else:
        out.print("Labels (decayed): " + ", ".join(f"{count:,.0f} {point}" for point, count in labels.items()))
    if comparison is not None:
        challengers.show(comparison, out)


def _percent(one: Estimate) -> str:
    return f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%})"
