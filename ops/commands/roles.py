"""Rights in PostgreSQL: what workers and readers need, and no more."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Table

from backchannel.streams.store import tables

READER = "backchannel_reader"
WORKER = "backchannel_worker"

_READ = (tables.schema_version, tables.head, tables.snapshot, tables.snapshot_row)


def grants(schema: str, sums: Sequence[str]) -> str:
    """Return SQL, for psql, that makes the roles and grants them their rights. It may be run again."""
    change = [table.name for table in tables.metadata.sorted_tables if table is not tables.schema_version]
    lines = [
        "-- Roles with the rights that Backchannel needs, and no more. Let people and services log in as members:",
        f"-- CREATE ROLE serving LOGIN PASSWORD '...' IN ROLE {READER};",
        "DO $$ BEGIN",
        *(
            f"  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role}; END IF;"
            for role in (READER, WORKER)
        ),
        "END $$;",
        f"GRANT USAGE ON SCHEMA {schema} TO {READER}, {WORKER};",
        "-- Reads policies, and nothing that was learned.",
        f"GRANT SELECT ON {_names(schema, _READ)} TO {READER};",
        "-- Learns and publishes; makes no tables.",
        f"GRANT SELECT ON {_names(schema, [tables.schema_version])} TO {WORKER};",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON",
        f"  {', '.join(f'{schema}.{name}' for name in (*change, *sums))}",
        f"  TO {WORKER};",
        f"GRANT USAGE ON SEQUENCE {schema}.{tables.change.name}_id_seq TO {WORKER};",
    ]
    return "\n".join(lines) + "\n"


def _names(schema: str, some: Iterable[Table]) -> str:
    return ", ".join(f"{schema}.{table.name}" for table in some)
