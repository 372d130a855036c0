"""`backchannel memory`: the size of the memory index, and the entities that it recalls."""

from contextlib import closing
from typing import Final

import click
from rich.table import Table

from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, guess_option, json_option, store_option
from backchannel.ops.terminal import console, print_json
from backchannel.streams.config import Config
from backchannel.streams.monitoring.sizes import sizes
from backchannel.streams.serving.reader import PolicyReader

_EVIDENCE: Final = {
    "evaluate": "backchannel.ops.lab.memory.command:evaluate_",
    "guesses": "backchannel.ops.lab.memory.command:guesses_",
    "converge": "backchannel.ops.lab.memory.command:converge_",
}
"""Commands of the laboratory, imported only when used, so that this package does not depend on the laboratory."""
_WIDTH: Final = 130


@click.group("memory", cls=Group, later=_EVIDENCE)
def memory() -> None:
    """Inspect the memory index."""


@memory.command("size")
@store_option
@config_option
@json_option
def size(store: str, config: Config, as_json: bool) -> None:
    """Show the size of the memory index in the ledger and in the newest policy."""
    found = sizes(store, config)
    if as_json:
        print_json(found)
        return
    ledger = Table("ledger", "rows", box=None, pad_edge=False)
    for name, rows in found.ledger.items():
        ledger.add_row(name, f"{rows:,}")
    policy = Table("newest policy", "rows", "MiB", box=None, pad_edge=False)
    for name, section in found.policy.items():
        policy.add_row(name, f"{section.rows:,}", f"{section.bytes / 2**20:,.2f}")
    console(_WIDTH).print(ledger, "", policy, sep="\n")


@memory.command("recall")
@click.argument("query")
@click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Maximum number of entities.")
@click.option("--user", help="A user_id, whose own evidence counts more.")
@click.option("--locale", help="The query's locale, such as tr-TR.")
@guess_option
@store_option
@json_option
def recall(
    *,
    query: str,
    count: int,
    user: str | None,
    locale: str | None,
    guess_from: float | None,
    store: str,
    as_json: bool,
) -> None:
    """Show the entities that the newest policy recalls for QUERY."""
    with closing(PolicyReader(store, guess_from=guess_from)) as reader:
        found = reader.policy.recall(query, count, user, locale=locale)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("no entity is known to work for this query")
        return
    out = console(_WIDTH)
    if guess := found[0].guess:
        out.print(f"The query is unknown. A guess from {guess.query!r}, which is {guess.similarity:.0%} similar:")
    table = Table("entity", "score", "at least", "exposures", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.entity_id, f"{one.score:.3f}", f"{one.lower:.3f}", f"{one.evidence:.1f}")
    out.print(table)
