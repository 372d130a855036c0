"""Run by Alembic: the migrations, on the connection passed in its attributes."""

from alembic import context

from backchannel.streams.store.tables import metadata, schema_version

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=schema_version.name,
    render_as_batch=True,  # SQLite can change little of a table in place
)
with context.begin_transaction():
    context.run_migrations()
