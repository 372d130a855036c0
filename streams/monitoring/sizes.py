"""The size of what a store has learned."""

from msgspec import Struct
from sqlalchemy import func, select

from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.engine import Store
from backchannel.streams.store.merging import merge_segments
from backchannel.streams.store.tables import snapshot_row


class SectionSize(Struct, frozen=True):
    """The size of a section in a reader: the number of rows, and the bytes of their values."""

    rows: int
    bytes: int


class Sizes(Struct, frozen=True):
    """The number of rows of each table of the ledger, and the size of each section of the newest version."""

    ledger: dict[str, int]
    policy: dict[str, SectionSize]


def sizes(url: str, config: Config) -> Sizes:
    """Return the sizes of a store.

    Raises:
        StoreError: the store cannot be used; see the message.
    """
    store = Store(url)
    try:
        with store.read() as connection:
            store.check(connection)
        store.create(Learning(config).tables)
        merge_segments(store)
        with store.read() as connection:
            counted = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in sorted(store.sum_tables.items())
            }
            row = snapshot_row
            held = select(row.c.section, func.count(), func.sum(func.length(row.c.value))).group_by(row.c.section)
            live = connection.execute(held.where(row.c.valid_to.is_(None))).all()
        return Sizes(counted, {section: SectionSize(rows, size) for section, rows, size in sorted(live)})
    finally:
        store.close()
