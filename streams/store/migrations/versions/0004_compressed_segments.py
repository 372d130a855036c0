"""Segments are compressed by whoever commits them."""

import sqlalchemy as sa
from alembic import op
from zstandard import compress

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Compress the segments that wait."""
    op.add_column("segment", sa.Column("size", sa.BigInteger, nullable=False, server_default="0"))
    row, connection = sa.table("segment", sa.column("id"), sa.column("size"), sa.column("value")), op.get_bind()
    for number in connection.execute(sa.select(row.c.id)).scalars().all():
        mine = row.c.id == number
        block = connection.execute(sa.select(row.c.value).where(mine)).scalar_one()
        connection.execute(row.update().where(mine).values(size=len(block), value=compress(block, 1)))
    # A worker of an older version, which does not compress, must fail to commit rather than leave what nobody can read.
    with op.batch_alter_table("segment", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.alter_column("size", server_default=None)
