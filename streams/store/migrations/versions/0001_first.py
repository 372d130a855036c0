"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables except those of the learners' sums, which learners declare themselves."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "partition",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("commits", sa.BigInteger, nullable=False),
        sa.Column("watermark", sa.BigInteger, nullable=False),
        sa.Column("topics", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "counter", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger, nullable=False)
    )
    op.create_table(
        "landmark",
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("half_life_ms", sa.BigInteger, nullable=False),
        sa.Column("landmark", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "change",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "decision",
        sa.Column("rank", sa.Double, primary_key=True, autoincrement=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "snapshot",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("header", sa.Text, nullable=False),
        sa.Column("signature", sa.Text),
        sa.Column("pinned", sa.Boolean, nullable=False),
    )
    head = op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger),
        sa.Column("hold", sa.Text),
    )
    op.bulk_insert(head, [{"id": 1}])
    op.create_table(
        "snapshot_row",
        sa.Column("section", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("valid_from", sa.BigInteger, primary_key=True),
        sa.Column("valid_to", sa.BigInteger),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("snapshot_row_from", "snapshot_row", ["valid_from"])
    ended = sa.text("valid_to IS NOT NULL")
    op.create_index("snapshot_row_to", "snapshot_row", ["valid_to"], sqlite_where=ended, postgresql_where=ended)
    op.create_table(
        "worker",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("committed", sa.BigInteger),
        sa.Column("rate", sa.Double, nullable=False),
        sa.Column("partitions", sa.Text, nullable=False),
    )
    op.create_table(
        "tally",
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "watch",
        sa.Column("measure", sa.Text, primary_key=True),
        sa.Column("strategy", sa.Text, primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("judged", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "alarm",
        sa.Column("measure", sa.Text, primary_key=True),
        sa.Column("strategy", sa.Text, primary_key=True),
        sa.Column("noticed", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("before", sa.Double, nullable=False),
        sa.Column("after", sa.Double, nullable=False),
        sa.Column("raised", sa.BigInteger, nullable=False),
    )
