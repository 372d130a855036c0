"""`backchannel prime`: predicted scores for pairs that nobody clicked yet."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backchannel.agents.memory.proposals import Entity, Predictor
from backchannel.ops.commands.config import config_option
from backchannel.ops.commands.predictions import BadLine, PredictionFile
from backchannel.ops.options import store_option
from backchannel.schemas.text import normalize
from backchannel.streams.config import Config
from backchannel.streams.pipeline.priming import Primer

EXIT_BAD_LINES: Final = 3
BATCH: Final = 50_000
"""Predictions per transaction."""
_SHOWN: Final = 20


class Primed(Struct, frozen=True):
    """What a file came to.

    Attributes:
        predictions: lines with one.
        entities: lines with one.
        proposals: queries that were proposed for the entities.
        duplicates: predictions of a pair that came up before: the last one counts.
        changed: pairs whose predicted score is another one now.
        unknown: columns that were ignored.
        bad: lines that could not be used.
        version: of the policy that was published; None if nothing in it changed, or readers do not get it.
    """

    predictions: int
    entities: int
    proposals: int
    duplicates: int
    changed: int
    unknown: list[str]
    bad: list[BadLine]
    version: int | None


@click.command("prime")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@store_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print what was loaded, and all bad lines, as JSON.")
def prime(file: Path, store: str, config: Config, as_json: bool) -> None:
    """Load predicted scores from FILE into the memory index, and publish them.

    FILE has one prediction a line, from whatever model you have, as JSON lines, CSV with a header (.csv) or Parquet
    (.parquet; needs pip install 'backchannel[parquet]'):

    \b
    {"query": "hey jude", "entity_id": "song/42", "score": 0.4}

    A score is the probability that the entity is clicked for the query, where it is looked at. It counts like
    `memory.kappa` exposures; as people are shown the entity, what they do takes over.

    Lines of type "entity" describe a new entity; queries for it are proposed from the words of its title, aliases and
    attributes that people's queries use. In CSV, "|" separates aliases, and every further column is an attribute.

    \b
    {"type": "entity", "entity_id": "song/43", "title": "Velvet Night", "aliases": [], "attributes": {"mood": "mellow"}}

    Workers may go on meanwhile. Loading a file again changes nothing, another one replaces the scores of the pairs it
    names; a score of 0 takes one back. A score outside 0 to 1, a missing field or an empty query makes a bad line: it
    is reported, the others are loaded. Unknown columns are ignored and named. Of a pair that comes twice, the last line
    counts; a prediction goes before a proposal.

    \b
    Exit code: 0 all was loaded; 3 all but some lines; 1 it could not go on; 2 the command is wrong.
    """
    primed = _prime(file, store, config)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(primed)))
    else:
        click.echo(_summary(primed))
    for bad in primed.bad[:_SHOWN]:
        click.echo(f"{file}:{bad.line}: {bad.reason}", err=True)
    if len(primed.bad) > _SHOWN:
        click.echo(f"... and {len(primed.bad) - _SHOWN:,} more bad lines; --json names all", err=True)
    sys.exit(EXIT_BAD_LINES if primed.bad else 0)


def _summary(primed: Primed) -> str:
    said = [f"{primed.predictions:,} predictions"]
    if primed.entities:
        said.append(f"{primed.entities:,} entities with {primed.proposals:,} proposed queries")
    if primed.duplicates:
        said.append(f"{primed.duplicates:,} duplicates")
    said.append(f"{primed.changed:,} pairs changed")
    if primed.bad:
        said.append(f"{len(primed.bad):,} bad lines")
    if primed.unknown:
        said.append(f"ignored columns: {', '.join(primed.unknown)}")
    said.append("nothing new to publish" if primed.version is None else f"policy version {primed.version}")
    return "; ".join(said)


def _prime(file: Path, store: str, config: Config) -> Primed:
    lines = PredictionFile(file)
    scores: dict[tuple[str, str], float] = {}
    entities: list[Entity] = []
    bad: list[BadLine] = []
    predictions = 0
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        for line in progress.track(lines.lines(), description="lines"):
            match line:
                case BadLine():
                    bad.append(line)
                case Entity():
                    entities.append(line)
                case _:
                    predictions += 1
                    scores[normalize(line.query), line.entity_id] = line.score
        duplicates = predictions - len(scores)
        with Primer(store, config) as primer:
            proposed = {}
            if entities:
                predictor = Predictor(entities, primer.queries())
                proposed = {(query, entity): score for query, entity, score in predictor.proposals()}
            pairs = sorted((proposed | scores).items())
            batches: Iterable[int] = range(0, len(pairs), BATCH)
            changed = sum(
                primer.put(dict(pairs[start : start + BATCH]))
                for start in progress.track(batches, description="batches")
            )
            progress.add_task("publishing", total=None)
            made = primer.publish()
    version = made.version if made else None
    return Primed(predictions, len(entities), len(proposed), duplicates, changed, list(lines.unknown), bad, version)
