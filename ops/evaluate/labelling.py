"""`backchannel label`: which turns people should label next."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from backchannel.agents.failures.evidence import evidence, is_told, vectors
from backchannel.agents.failures.selection import next_to_label
from backchannel.agents.interning import columns_of
from backchannel.ops.evaluate.event_log import turns_of
from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, seed_option, store_option
from backchannel.ops.paths import input_file
from backchannel.schemas.events import Label, name_of
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader


@click.group(cls=Group)
def label() -> None:
    """Choose turns for people to label."""


@label.command("next")
@click.argument("log", type=input_file)
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Number of turns.")
@seed_option
@store_option
@config_option
def next_turns(*, log: Path, count: int, seed: int, store: str, config: Config) -> None:
    """Print those turns of LOG whose labels would teach most, as JSON lines.

    Turns with labels, and turns whose events do not say how they went, are left out. A line is a `label` event
    without its own fields and `event_id`, with what the policy in the store says of the turn. As long as that knows
    nothing, turns are drawn at random.
    """
    turns = [turn for turn in turns_of(str(log), config, lambda _: None) if not turn.all(Label)]
    turns = [turns[row] for row in is_told(columns_of(turns)).tolist()]
    with closing(PolicyReader(store)) as reader:
        policy = reader.policy
    known = policy.diagnoser.known
    found = vectors((one.values() for one in evidence(columns_of(turns))), len(turns))
    chosen = next_to_label(known and known[1], found, count, np.random.default_rng(seed))
    for row in chosen.tolist():
        click.echo(msgspec.json.encode(_line(turns[row], policy)))


def _line(turn: Turn, policy: Policy) -> dict[str, Any]:
    query = turn.query
    return {
        "type": name_of(Label),
        "ts": query.ts,
        "session_id": query.session_id,
        "query_id": query.query_id,
        "text": query.text,
        "interpretation": query.interpretation,
        "outcomes": [one.outcome for one in turn.impressions],
        "next": turn.next and turn.next.text,
        "diagnosis": policy.diagnose(turn),
    }
