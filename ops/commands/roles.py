"""PostgreSQL roles with the privileges that workers and readers need, and no more."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Table

from backchannel.agents.taught.rules import EVERYONE
from backchannel.streams.store import tables

READER = "backchannel_reader"
IMPERSONAL = "backchannel_impersonal_reader"
WORKER = "backchannel_worker"

_READ = (
    tables.schema_version,
    tables.head,
    tables.snapshot,
    tables.snapshot_row,
    tables.taught,
    tables.taught_head,
)


def grants(schema: str, sums: Sequence[str], personal: Sequence[str]) -> str:
    """Return SQL for psql that creates the roles and grants their privileges, or does nothing. It is idempotent.

    Args:
        schema: the PostgreSQL schema with Backchannel's tables.
        sums: the names of the learners' tables.
        personal: the sections of the policy whose keys are users.
    """
    change = [table.name for table in tables.metadata.sorted_tables if table is not tables.schema_version]
    lines = [
        "-- Roles with the privileges that Backchannel needs, and no more. Create login roles as members of them:",
        f"-- CREATE ROLE serving LOGIN PASSWORD '...' IN ROLE {READER};",
        "BEGIN;  -- psql goes on after an error: all of it, or nothing",
        "DO $$ BEGIN",
        *(
            f"  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role}; END IF;"
            for role in (READER, IMPERSONAL, WORKER)
        ),
        "END $$;",
        f"GRANT USAGE ON SCHEMA {schema} TO {READER}, {IMPERSONAL}, {WORKER};",
        "-- Read policies, but not the sums that they were computed from.",
        f"GRANT SELECT ON {_names(schema, _READ)} TO {READER}, {IMPERSONAL};",
        f"-- {IMPERSONAL} sees no rows about single users or groups. For all others nothing changes.",
        *_only(schema, tables.snapshot_row, f"section NOT IN ({', '.join(map(_literal, personal))})"),
        *_only(schema, tables.taught, f"owner = {_literal(EVERYONE)}"),
        "-- Learns and publishes; does not create tables.",
        f"GRANT SELECT ON {_names(schema, [tables.schema_version])} TO {WORKER};",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON",
        f"  {', '.join(f'{schema}.{name}' for name in (*change, *sums))}",
        f"  TO {WORKER};",
        *(
            f"GRANT USAGE ON SEQUENCE {schema}.{table.name}_id_seq TO {WORKER};"
            for table in (tables.change, tables.segment)
        ),
        "COMMIT;",
    ]
    return "\n".join(lines) + "\n"


def _only(schema: str, table: Table, rows: str) -> list[str]:
    """Return SQL by which the impersonal reader sees only some `rows` of a table."""
    return [
        f"ALTER TABLE {schema}.{table.name} ENABLE ROW LEVEL SECURITY;",
        f"DROP POLICY IF EXISTS everything ON {schema}.{table.name};",
        f"CREATE POLICY everything ON {schema}.{table.name} USING (true);",
        f"DROP POLICY IF EXISTS impersonal ON {schema}.{table.name};",
        f"CREATE POLICY impersonal ON {schema}.{table.name} AS RESTRICTIVE FOR SELECT TO {IMPERSONAL} USING ({rows});",
    ]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _names(schema: str, some: Iterable[Table]) -> str:
    return ", ".join(f"{schema}.{table.name}" for table in some)
