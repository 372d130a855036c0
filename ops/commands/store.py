"""`backchannel store`: the SQL store's schema and privileges."""

import inspect
import sys
from pathlib import Path
from typing import Any

import click
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from backchannel.agents import registry
from backchannel.agents.sums import SumTable
from backchannel.ops.commands.roles import grants
from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, json_option, opened_store, store_option
from backchannel.ops.terminal import print_json
from backchannel.streams.config import Config
from backchannel.streams.store import tables
from backchannel.streams.store.engine import unfit
from backchannel.streams.store.tables import SCHEMA_VERSION

MIGRATIONS = Path(tables.__file__).parent / "migrations"


@click.group("store", cls=Group)
def store() -> None:
    """Create, check and migrate the SQL store."""


@store.command()
@store_option
@json_option
def check(store: str, *, as_json: bool) -> None:
    """Check whether this version of Backchannel can use the store.

    Exit code: 0 it can; 1 it cannot, or only after `backchannel store upgrade`.
    """
    with opened_store(store, check=False) as opened, opened.read() as connection:
        found = opened.version(connection)
    fits = found == SCHEMA_VERSION
    if as_json:
        facts: dict[str, Any] = {"found": found, "needed": SCHEMA_VERSION, "fits": fits}
        print_json(facts)
    elif fits:
        click.echo(f"The store has schema version {found}, which this version of Backchannel needs.")
    else:
        has = "no tables yet: `backchannel store upgrade` creates them" if found is None else unfit(found)
        click.echo(f"The store has {has}.")
    sys.exit(0 if fits else 1)


@store.command()
@store_option
@config_option
def upgrade(store: str, config: Config) -> None:
    """Create the tables, or migrate those of an older version, in one transaction.

    Make a backup and stop the workers first: workers of the older version cannot use the new schema. Readers continue
    to serve the policy that they have.
    """
    before: str | None = None

    def migrate_older(connection: Connection) -> None:
        nonlocal before
        before = opened.version(connection)
        if before is not None and before > SCHEMA_VERSION:
            raise click.ClickException(f"the store has {unfit(before)}")
        migrate(connection)

    with opened_store(store, check=False) as opened:
        opened.create(_sums(config), migrate_older)
    if before == SCHEMA_VERSION:
        click.echo(f"The store has schema version {SCHEMA_VERSION} already.")
    else:
        click.echo(f"The store now has schema version {SCHEMA_VERSION}; it had {before or 'no tables'}.")
        for said in changes(before) if before else ():
            click.echo(said)


@store.command()
@click.option("--schema", default="public", show_default=True, help="PostgreSQL schema with the tables.")
@config_option
def roles(schema: str, config: Config) -> None:
    """Print the SQL that creates three PostgreSQL roles with no more privileges than they need.

    Run it as the owner of the tables after each `backchannel store upgrade`, which creates those of all learners: a
    worker only creates those of the learners that are on. It does all or nothing. A worker that connects as
    backchannel_worker can learn and publish, but not create tables. A reader that connects as backchannel_reader can
    read policies, but not the sums that they were computed from. One that connects as backchannel_impersonal_reader
    sees nothing about single users or groups either; it needs serve.personal = false, or PolicyReader(personal=False).

    \b
    backchannel store roles | psql DATABASE
    """
    sums = [table.name for table in _sums(config)]
    click.echo(grants(schema, sums, registry.personal(registry.registered(config))), nl=False)


def _sums(config: Config) -> list[SumTable]:
    """Return the tables of all learners, so that switching one on, and `forget-user`, need no owner of the tables."""
    return [table for learner in registry.registered(config) for table in learner.tables]


def changes(before: str) -> list[str]:
    """Return what the migrations from the schema version `before` on say of themselves, oldest first."""
    scripts = ScriptDirectory(str(MIGRATIONS)).iterate_revisions("head", before)
    return [f"{one.revision}: {inspect.getdoc(one.module)}" for one in scripts][::-1]


def migrate(connection: Connection, revision: str = "head") -> None:
    """Migrate the tables to `revision`, within the connection's transaction."""
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS))
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)
