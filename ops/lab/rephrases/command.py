"""`backchannel rephrases`: trains the rephrase detector, and evaluates it and the rewrites."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import numpy as np
from msgspec import structs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backchannel.agents.rephrases import weights as rephrase_weights
from backchannel.agents.rephrases.detector import RephraseDetector
from backchannel.agents.rewrites import likeness_weights
from backchannel.ops.groups import Group
from backchannel.ops.lab.rephrases.dialogues import replay
from backchannel.ops.lab.rephrases.habits import gather_habits, judge_callers, judge_habits
from backchannel.ops.lab.rephrases.hypotheses import judge_calls, trained_on
from backchannel.ops.lab.rephrases.loop import Loop, close
from backchannel.ops.lab.rephrases.online import FIXED, FOLDS, ODDS, Evidence, gather, judge
from backchannel.ops.lab.rephrases.pairs import Pair, labelled
from backchannel.ops.lab.rephrases.ranker import fit_hypotheses, joined, module, train_ranker
from backchannel.ops.lab.rephrases.recogniser import grow
from backchannel.ops.lab.rephrases.recordings import HABITUAL, calls, recordings
from backchannel.ops.lab.rephrases.training import Calibration, Quality, fit, measure
from backchannel.ops.lab.rephrases.verdicts import Verdicts
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import config_option, json_option, seed_option
from backchannel.ops.paths import input_folder
from backchannel.ops.terminal import print_json
from backchannel.streams.config import Config

_WIDTH: Final = 130

_data = click.option(
    "--data",
    type=input_folder,
    default=Path("../shared/data"),
    show_default=True,
    help="The folder with dstc2, trec_session_2013, slurp_asr and slurp_pipeline.",
)
_odds = click.option("--odds", type=FiniteRange(1), default=12.0, show_default=True, help="Wins per loss, at least.")


@click.group(cls=Group)
def rephrases() -> None:
    """Train and evaluate the rephrase detector, and evaluate rewrites."""


@rephrases.command("train")
@_data
@click.option(
    "--write", is_flag=True, help="Write the weights to agents/rephrases/weights.py, which the detector reads."
)
@json_option
def train(data: Path, write: bool, as_json: bool) -> None:
    """Fit the rephrase detector to public logs, and measure it on held-out people.

    The labels come from callers of DSTC2 who repeat what they meant, as annotated; searchers of the TREC Session Track,
    who explore rather than rephrase; and SLURP's recordings of the same sentence, as a recogniser misheard them, also
    with what an NLU made of them. Three tenths of the callers, sessions and sentences are held out for the measurement.
    """
    logs = _labelled(data)
    weights = fit(logs)
    detector = RephraseDetector(weights)
    found = [measure(log, pairs, detector) for log, pairs in logs.items()]
    if write:
        Path(rephrase_weights.__file__).write_text(_module(weights, found), encoding="utf-8")
    _show(found, as_json)


@rephrases.command("detector")
@_data
@json_option
def evaluate_detector(data: Path, as_json: bool) -> None:
    """Measure the current detector on held-out callers, sessions and sentences."""
    detector = RephraseDetector()
    _show([measure(log, pairs, detector) for log, pairs in _labelled(data).items()], as_json)


@rephrases.command("dialogues")
@_data
@config_option
@json_option
def evaluate_dialogues(data: Path, config: Config, as_json: bool) -> None:
    """Replay the calls of DSTC2 in time order; rewrite each tenth with what was learned from earlier ones.

    A win is a misunderstood utterance that is rewritten to what was meant, to part of the caller's task, or to
    something that the caller later got across. A loss is any other rewrite, unless it says what was meant.
    """
    found = replay(data / "dstc2", config.rephrases)
    if as_json:
        print_json(found)
        return
    table = _verdicts("states")
    for name, one in found.items():
        table.add_row(name, *_verdict_cells(one))
    Console(width=_WIDTH).print(table)


@rephrases.command("recogniser")
@_data
@config_option
@click.option(
    "--sessions", type=click.IntRange(1000), default=100_000, show_default=True, help="Sessions to learn from."
)
@click.option("--wants", type=click.IntRange(100), default=20_000, show_default=True, help="Wants to evaluate on.")
@seed_option
@json_option
def evaluate_recogniser(*, data: Path, config: Config, sessions: int, wants: int, seed: int, as_json: bool) -> None:
    """Rewrite the real errors of SLURP's recogniser in simulated sessions, as the traffic grows.

    A win is a wrong hypothesis that is rewritten to the sentence spoken, or to another sentence with the same intent
    and entities. A loss is a hypothesis that is rewritten to anything else.
    """
    sizes = [size for size in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000) if size < sessions] + [sessions]
    with Console(stderr=True).status("learning from simulated sessions"):
        found = list(grow(data, config.rephrases, sizes, wants, seed))
    if as_json:
        print_json(found)
        return
    table = _verdicts("simulated turns, recordings")
    for one in found:
        table.add_row(f"{one.turns:,}, heard", *_verdict_cells(one.heard))
        table.add_row(f"{one.turns:,}, kept apart", *_verdict_cells(one.unheard))
    console = Console(width=_WIDTH)
    console.print(table)
    last = found[-1]
    console.print(
        f"Of the {last.heard.rewrites:,} rewrites, {last.right:,} lead to the most frequent meaning of their source."
    )
    console.print(f"Of {last.valid} wrong hypotheses that are proper queries, {last.valid_broken} get another meaning.")


@rephrases.command("online")
@_data
@_odds
@click.option("--write", is_flag=True, help="Fit the ranker to all sentences, and write it where serving reads it.")
@json_option
def evaluate_online(*, data: Path, odds: float, write: bool, as_json: bool) -> None:
    """Rewrite the real errors of SLURP's recogniser to near queries that a real NLU understood.

    A win is a query that the NLU got wrong, rewritten to a text on which it gives the true meaning. A loss is one that
    it got right, rewritten to a text on which it gives another. Halves of the utterances are index and queries in turn;
    the ranker knows nothing of a query's sentence. "More" is the share of defects fixed, less that of RapidFuzz at a
    fixed threshold with vetoes, and its interval of 95% over sentences. "Withdrawn" are wins and losses if a rewrite is
    no longer served once it has failed more often than it succeeded.
    """
    with Console(stderr=True).status("comparing queries"):
        gathered = gather(list(recordings(data / "slurp_pipeline")))
        found = judge(gathered, odds)
    if write:
        called = gather(list(calls(data / "dstc2"))).pairs
        ranker = train_ranker(gathered.pairs, gathered.pairs.allowed)
        ranker = joined(ranker, fit_hypotheses(ranker, called, called.allowed))
        Path(likeness_weights.__file__).write_text(module(ranker), encoding="utf-8")
    if as_json:
        print_json(found)
        return
    _show_outcomes("everybody's queries", found)


@rephrases.command("habits")
@_data
@_odds
@click.option(
    "--habitual",
    type=FiniteRange(0, 1),
    default=HABITUAL,
    show_default=True,
    help="Share of queries that are habits of who asks.",
)
@seed_option
@json_option
def evaluate_habits(*, data: Path, odds: float, habitual: float, seed: int, as_json: bool) -> None:
    """Rewrite queries to habits of who asks, as other people's habits suggest.

    Wins, losses and columns are those of `online`; queries have the interpretations that the NLU gave them. SLURP's
    users are made up: a share of the queries are among the twenty habits of who asks. Half of these have the intent of
    the query; or all are any. Each kind of users is served by a ranker fitted to users of the same kind who said other
    sentences. The callers of DSTC2 are real; their habits are what succeeded in their earlier calls, and their ranker
    is trained on the calls of other callers, without labels, as it is when a version is published.
    """
    spoken = list(recordings(data / "slurp_pipeline"))
    with Console(stderr=True).status("comparing habits"):
        found = {
            name: judge_habits(*gather_habits(spoken, np.random.default_rng(seed), habitual, alike=alike), odds)
            for name, alike in (("alike", True), ("any", False))
        }
        called = judge_callers(data / "dstc2", odds)
    if as_json:
        print_json({**found, "callers": called})
        return
    _show_outcomes("made-up users, half of whose habits have the intent of the query", found["alike"])
    _show_outcomes("made-up users whose habits are any", found["any"])
    ways = [f"{won:,} : {lost:,}" for won, lost in (called.ranked, called.similar)]
    Console(width=_WIDTH).print(
        f"Of {called.queries:,} queries of DSTC2's callers with habits, {called.defects:,} are defects. Habits were "
        f"published in {called.learned} of {FOLDS} folds, and won and lost {ways[0]}; a RapidFuzz ratio of {FIXED:.0f} "
        f"{ways[1]}."
    )


def _show_outcomes(title: str, found: Evidence) -> None:
    table = Table("way", title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in (*(f"fixed, {one:g}:1" for one in ODDS), "wins", "losses", "withdrawn", "more"):
        table.add_column(name, justify="right")
    for one in found.outcomes:
        more = f"{one.more.value:+.1%} ({one.more.low:+.1%} to {one.more.high:+.1%})"
        shares = (f"{share:.1%}" for share in one.fixed)
        withdrawn = " : ".join(f"{count:,}" for count in one.withdrawn)
        table.add_row(one.name, *shares, f"{one.wins:,}", f"{one.losses:,}", withdrawn, more)
    console = Console(width=_WIDTH)
    console.print(table)
    console.print(
        f"Of {found.queries:,} queries, {found.defects:,} are defects; {found.ceiling:.1%} of these have their meaning "
        f"in the index, {found.reachable:.1%} among the candidates that no veto forbids."
    )


@rephrases.command("hypotheses")
@_data
@_odds
@json_option
def evaluate_hypotheses(data: Path, odds: float, as_json: bool) -> None:
    """Rewrite the real errors of DSTC2's recogniser, with and without its other hypotheses (n-best list).

    Wins and losses are those of `online`. Halves of the callers are index and queries in turn. The ranker was fitted to
    SLURP, and only its weights of hypotheses to other sentences of these calls; or trained on the other half's calls,
    without labels, as it is when a version is published.
    """
    spoken = list(calls(data / "dstc2"))
    gathered = gather(spoken)
    unheard = gather([structs.replace(one, hypotheses={}) for one in spoken])
    found = judge_calls(gathered, unheard, trained_on(data / "dstc2"), odds)
    if as_json:
        print_json(found)
        return
    table = Table("way", box=SIMPLE_HEAD, pad_edge=False)
    for name in (*(f"fixed, {one:g}:1" for one in ODDS), "wins", "losses"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(one.name, *(f"{share:.1%}" for share in one.fixed), f"{one.wins:,}", f"{one.losses:,}")
    console = Console(width=_WIDTH)
    console.print(table)
    console.print(f"Of {len(gathered.defects):,} queries, {gathered.defects.sum():,} are defects.")


@rephrases.command("world")
@click.option("--turns", type=click.IntRange(min=500), default=30_000, show_default=True, help="Turns of each run.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Number of worlds.")
@json_option
def evaluate_world(turns: int, seeds: int, as_json: bool) -> None:
    """Close the loop in the simulated world with rewriting on, off, and unaware of its own effect.

    If rewriting is unaware, rewrites are not logged and no session is held out. The same people are served in all three
    ways.
    """
    found: list[Loop] = []
    with Console(stderr=True).status("") as status:
        for seed in range(1, seeds + 1):
            found += close(turns, seed, status.update)
    if as_json:
        print_json(found)
        return
    table = Table("rewriting, simulated", "world", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("defects", "clicks", "clicks, garbled", "rewrites", "right"):
        table.add_column(name, justify="right")
    for one in sorted(found, key=lambda one: one.rewriting):
        rates = (f"{rate:.1%}" for rate in (one.defect_rate, one.click_rate, one.garbled_click_rate))
        table.add_row(one.rewriting, str(one.seed), *rates, str(one.rewrites), str(one.right))
    Console(width=_WIDTH).print(table)


def _verdicts(first: str) -> Table:
    table = Table(first, box=SIMPLE_HEAD, pad_edge=False)
    for name in (
        "queries",
        "misunderstood",
        "wins",
        "losses",
        "wins per loss (95%)",
        "won",
        "won of winnable",
        "rewrites",
    ):
        table.add_column(name, justify="right")
    return table


def _verdict_cells(one: Verdicts) -> list[str]:
    low, high = one.interval
    ratio = f"{one.wins / one.losses:.1f}" if one.losses else "no loss"
    return [
        *(f"{count:,}" for count in (one.queries, one.wrong, one.wins, one.losses)),
        f"{ratio} ({low:.1f} to {high:.1f})",
        f"{one.wins / max(one.wrong, 1):.1%}",
        "" if one.winnable is None else f"{one.wins / max(one.winnable, 1):.1%}",
        f"{one.rewrites:,}",
    ]


def _labelled(data: Path) -> dict[str, list[Pair]]:
    return labelled(data, np.random.default_rng(0))


def _show(found: Sequence[Quality], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in (
        "held-out pairs of",
        "pairs",
        "rephrases",
        "precision",
        "recall",
        "false alarms",
        "area",
        "Brier",
        "off",
    ):
        table.add_column(name, justify="left" if name == "held-out pairs of" else "right")
    for one in found:
        table.add_row(*_cells(one))
    console = Console(width=_WIDTH)
    console.print(table)
    curves = Table("probability", title="rephrases (of pairs)", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for one in found:
        curves.add_column(one.log, justify="right")
    for tenth in range(10):
        held = [next((some for some in one.calibration if _tenth(some) == tenth), None) for one in found]
        shares = ("" if some is None else f"{some.rephrased:.0%} ({some.pairs:,})" for some in held)
        curves.add_row(f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}", *shares)
    console.print(curves)


def _tenth(one: Calibration) -> int:
    return min(int(one.probability * 10), 9)


def _cells(one: Quality) -> list[str]:
    rates = (one.precision, one.recall, one.false_alarms, one.area, one.brier, one.calibration_error)
    return [
        one.log,
        f"{one.pairs:,}",
        f"{one.rephrased:,}",
        *("-" if rate is None else f"{rate:.3f}" for rate in rates),
    ]


def _module(weights: dict[str, float], found: Sequence[Quality]) -> str:
    rows = "\n".join(f"| {' | '.join(_cells(one))} |" for one in found)
    numbers = "\n".join(f'    "{name}": {value},' for name, value in weights.items())
    return f'''"""The numbers of the rephrase detector. `backchannel rephrases train --write` wrote them: do not edit.

Measured on held-out callers (dstc2), sessions (trec) and sentences (slurp); one half or more counts as a rephrase:

| held out of | pairs | rephrases | precision | recall | false alarms | area under ROC | Brier | calibration error |
|---|---|---|---|---|---|---|---|---|
{rows}

`ops.lab.rephrases.pairs` describes how pairs are labelled.
"""

from typing import Final

WEIGHTS: Final = {{
{numbers}
}}
"""Weights by name of the feature in `detector.features`."""
'''
