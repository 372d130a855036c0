"""`backchannel memory`: the size of the memory index, and the entities that it recalls."""

import importlib
from contextlib import closing
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from backchannel.ops.commands.config import config_option
from backchannel.ops.options import guess_option, store_option
from backchannel.streams.config import Config
from backchannel.streams.monitoring.sizes import sizes
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.store.engine import StoreError

_EVIDENCE: Final = {
    "evaluate": "backchannel.ops.lab.memory.command:evaluate_",
    "guesses": "backchannel.ops.lab.memory.command:guesses_",
    "converge": "backchannel.ops.lab.memory.command:converge_",
}
"""Commands of the laboratory, imported only when used, so that this package does not depend on the laboratory."""


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_EVIDENCE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _EVIDENCE:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _EVIDENCE[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group("memory", cls=_Group)
def memory() -> None:
    """Inspect the memory index."""


@memory.command("size")
@store_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def size(store: str, config: Config, as_json: bool) -> None:
    """Show the size of the memory index in the ledger and in the newest policy."""
    try:
        found = sizes(store, config)
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    console = _console()
    ledger = Table("ledger", "rows", box=None, pad_edge=False)
    for name, rows in found.ledger.items():
        ledger.add_row(name, f"{rows:,}")
    policy = Table("newest policy", "rows", "MiB", box=None, pad_edge=False)
    for name, section in found.policy.items():
        policy.add_row(name, f"{section.rows:,}", f"{section.bytes / 2**20:,.2f}")
    console.print(ledger)
    console.print()
    console.print(policy)


@memory.command("recall")
@click.argument("query")
@click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Maximum number of entities.")
@click.option("--user", help="A user_id, whose own evidence counts more.")
@guess_option
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def recall(*, query: str, count: int, user: str | None, guess_from: float | None, store: str, as_json: bool) -> None:
    """Show the entities that the newest policy recalls for QUERY."""
    try:
        with closing(PolicyReader(store, guess_from=guess_from)) as reader:
            found = reader.policy.recall(query, count, user)
    except (NoPolicyError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    if not found:
        click.echo("no entity is known to work for this query")
        return
    console = _console()
    if guess := found[0].guess:
        console.print(f"The query is unknown. A guess from {guess.query!r}, which is {guess.similarity:.0%} similar:")
    table = Table("entity", "score", "at least", "exposures", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.entity_id, f"{one.score:.3f}", f"{one.lower:.3f}", f"{one.evidence:.1f}")
    console.print(table)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=130)
