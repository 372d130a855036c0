"""Segments: commits add a row each, which a publisher merges.

Learned anew: the bandit and the memory index, whose sums have another form, and everything about queries with symbols
or emoji, whose keys have other rules. So give `run` or the workers a new store, and let it catch up with the log.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table of segments."""
    op.create_table(
        "segment",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE segment ALTER COLUMN value SET STORAGE EXTERNAL")
