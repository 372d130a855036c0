"""`backchannel store`: the SQL store's schema, and who may do what in it."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection

from backchannel.ops.commands.config import config_option
from backchannel.ops.commands.roles import grants
from backchannel.ops.options import opened_store, store_option
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store import tables
from backchannel.streams.store.tables import SCHEMA_VERSION

MIGRATIONS = Path(tables.__file__).parent / "migrations"


@click.group("store")
def store() -> None:
    """Create, check and migrate the SQL store."""


@store.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def check(store: str, *, as_json: bool) -> None:
    """Say whether this Backchannel can work with the store.

    Exit code: 0 it can; 1 it cannot, or not before `backchannel store upgrade`.
    """
    with opened_store(store, check=False) as opened, opened.read() as connection:
        found = opened.version(connection)
    fits = found == SCHEMA_VERSION
    if as_json:
        facts: dict[str, Any] = {"found": found, "needed": SCHEMA_VERSION, "fits": fits}
        click.echo(msgspec.json.format(msgspec.json.encode(facts)))
    elif fits:
        click.echo(f"The store has schema version {found}, as this Backchannel needs.")
    else:
        has = "no tables yet" if found is None else f"schema version {found}"
        click.echo(f"The store has {has}, this Backchannel needs schema version {SCHEMA_VERSION}.")
    sys.exit(0 if fits else 1)


@store.command()
@store_option
@config_option
def upgrade(store: str, config: Config) -> None:
    """Make the tables, or bring those of an older Backchannel to this one's schema; all of it or nothing.

    Stop the workers first: those of the older Backchannel cannot work with the new schema. Readers go on serving
    what they have. Make a backup before.
    """
    with opened_store(store, check=False) as opened:
        with opened.write(new=True) as connection:
            before = opened.version(connection)
            try:
                migrate(connection)
            except CommandError as error:
                raise click.ClickException(f"{error}: was the store written by a newer Backchannel?") from None
        opened.create(Learning(config).tables)
    if before == SCHEMA_VERSION:
        click.echo(f"The store has schema version {SCHEMA_VERSION} already.")
    else:
        click.echo(f"The store now has schema version {SCHEMA_VERSION}; it had {before or 'no tables'}.")


@store.command()
@click.option("--schema", default="public", show_default=True, help="The schema that has the tables.")
@config_option
def roles(schema: str, config: Config) -> None:
    """Print the SQL that makes two roles in PostgreSQL with no more rights than they need.

    Run it as the owner of the tables after `backchannel store upgrade`, and again after each upgrade: workers that
    connect as backchannel_worker learn and publish, and make no tables; readers that connect as backchannel_reader
    read policies, and nothing that was learned.

    \b
    backchannel store roles | psql DATABASE
    """
    click.echo(grants(schema, [table.name for table in Learning(config).tables]), nl=False)


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to `revision`, within the connection's transaction."""
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS))
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)
