"""`backchannel prime`: predicted scores for pairs that nobody has clicked yet."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click
from msgspec import Struct, structs
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backchannel.agents.memory.proposals import Entity, Predictor
from backchannel.ops.commands.predictions import BadLine, PredictionFile
from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.options import config_option, json_option, store_option
from backchannel.ops.paths import input_file
from backchannel.ops.terminal import print_json
from backchannel.schemas.text import Fold, normalize, spelled
from backchannel.streams.config import Config
from backchannel.streams.pipeline.priming import Primer

BATCH: Final = 50_000
"""Predictions per transaction."""
_SHOWN: Final = 20


class Primed(Struct, frozen=True):
    """What a file contained, and what changed.

    Attributes:
        predictions: number of predictions.
        entities: number of entities.
        proposals: number of (query, entity) pairs proposed for the entities.
        duplicates: number of predictions for a pair that had come up before; the last one counts.
        changed: number of pairs whose predicted score changed.
        unknown: columns that were ignored.
        bad: invalid lines.
        version: version of the policy that was published; None if nothing changed, or a rollback withholds it.
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
@click.argument("file", type=input_file)
@store_option
@config_option
@json_option
def prime(file: Path, store: str, config: Config, as_json: bool) -> None:
    """Load predicted scores from FILE into the memory index, and publish them.

    FILE has one prediction per line, from any model, as JSON lines, CSV with a header (.csv) or Parquet (.parquet;
    needs the extra `parquet`):

    \b
    {"query": "hey jude", "entity_id": "song/42", "score": 0.4}

    A score is the probability that a user who looks at the entity clicks it for this query. It is worth
    `memory.kappa` exposures; as people are shown the entity, their clicks take over.

    A line of type "entity" describes a new entity. Queries for it are proposed from those words of its title, aliases
    and attributes that people use in queries. In CSV, "|" separates aliases, and every other column is an attribute.

    \b
    {"type": "entity", "entity_id": "song/43", "title": "Velvet Night", "aliases": [], "attributes": {"mood": "mellow"}}

    Workers may keep running. Loading a file again changes nothing; loading another one replaces the scores of the
    pairs that it names. A score of 0 removes a prediction. A line with a score outside 0 to 1, a missing field or an
    empty query is reported, and the others are loaded. Unknown columns are ignored and reported. If a pair occurs
    twice, the last line counts. A prediction overrides a proposal.

    \b
    Exit code: 0 everything was loaded; 3 everything but some invalid lines; 1 an error; 2 the command is wrong.
    """
    primed = _prime(file, store, config)
    if as_json:
        print_json(primed)
    else:
        click.echo(_summary(primed))
    for bad in primed.bad[:_SHOWN]:
        click.echo(f"{file}:{bad.line}: {bad.reason}", err=True)
    if len(primed.bad) > _SHOWN:
        click.echo(f"... and {len(primed.bad) - _SHOWN:,} more invalid lines; --json lists all", err=True)
    sys.exit(INCOMPLETE if primed.bad else 0)


def _summary(primed: Primed) -> str:
    said = [f"{primed.predictions:,} predictions"]
    if primed.entities:
        said.append(f"{primed.entities:,} entities with {primed.proposals:,} proposed queries")
    if primed.duplicates:
        said.append(f"{primed.duplicates:,} duplicates")
    said.append(f"{primed.changed:,} pairs changed")
    if primed.bad:
        said.append(f"{len(primed.bad):,} invalid lines")
    if primed.unknown:
        said.append(f"ignored columns: {', '.join(primed.unknown)}")
    said.append("nothing new to publish" if primed.version is None else f"policy version {primed.version}")
    return "; ".join(said)


def _spelled(entity: Entity, folds: tuple[Fold, ...]) -> Entity:
    """Return the entity with its texts as queries are read."""

    return structs.replace(
        entity,
        title=spelled(entity.title, None, folds),
        aliases=tuple(spelled(one, None, folds) for one in entity.aliases),
        attributes={
            name: spelled(said, None, folds)
            if isinstance(said, str)
            else tuple(spelled(one, None, folds) for one in said)
            for name, said in entity.attributes.items()
        },
    )


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
                    entities.append(_spelled(line, config.turns.fold))
                case _:
                    predictions += 1
                    scores[normalize(spelled(line.query, None, config.turns.fold)), line.entity_id] = line.score
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
