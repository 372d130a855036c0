"""What people taught."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table of rules, and that of the number of its last change."""
    op.create_table(
        "taught",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.Text),
    )
    op.create_index("taught_changed", "taught", ["changed"])
    head = op.create_table(
        "taught_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("erased", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "changed": 0, "erased": 0}])
