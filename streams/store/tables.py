"""The tables of the store, and their schema version. Learners declare those of their sums."""

from typing import Any, Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
)

from backchannel.agents.sums import SumTable

SCHEMA_VERSION: Final = "0004"
"""The newest migration; the migrations create the tables as declared here."""

MINUTE_MS: Final = 60_000
"""Length of a minute in `tally`, ms."""

metadata = MetaData()
_ID = BigInteger().with_variant(Integer(), "sqlite")  # SQLite autoincrements only INTEGER keys

schema_version = Table("schema_version", metadata, Column("version_num", String(32), primary_key=True))

partition = Table(
    "partition",
    metadata,
    Column("source", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("watermark", BigInteger, nullable=False),
    Column("topics", LargeBinary, nullable=False),  # topic -> TopicPosition
)
counter = Table(
    "counter", metadata, Column("name", Text, primary_key=True), Column("value", BigInteger, nullable=False)
)
landmark = Table(
    "landmark",
    metadata,
    Column("table_name", Text, primary_key=True),
    Column("half_life_ms", BigInteger, nullable=False),
    Column("landmark", BigInteger, nullable=False),
)
segment = Table(
    "segment",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("counts", Text, nullable=False),  # JSON: name -> count
    Column("size", BigInteger, nullable=False),  # of the sums before compression, bytes
    Column("value", LargeBinary, nullable=False),  # segments.encode, compressed
    sqlite_autoincrement=True,
)
# It is compressed already.
event.listen(
    segment,
    "after_create",
    DDL("ALTER TABLE segment ALTER COLUMN value SET STORAGE EXTERNAL").execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
)
change = Table(
    "change",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("table_name", Text, nullable=False),
    Column("value", Text, nullable=False),
    sqlite_autoincrement=True,
)
decision = Table(
    "decision",
    metadata,
    Column("rank", Double, primary_key=True, autoincrement=False),  # see agents.decisions
    Column("value", LargeBinary, nullable=False),  # agents.decisions.LoggedDecision
)
snapshot = Table(
    "snapshot",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("created", BigInteger, nullable=False),
    Column("header", Text, nullable=False),  # JSON: schemas.snapshot.Snapshot
    Column("signature", Text),  # of the header; NULL: not signed
    Column("pinned", Boolean, nullable=False),
)
head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row: 1
    Column("version", BigInteger),  # what readers serve; NULL before the first
    Column("hold", Text),  # why later versions do not become the head; NULL if they do
)
snapshot_row = Table(
    "snapshot_row",
    metadata,
    Column("section", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("valid_from", BigInteger, primary_key=True),
    Column("valid_to", BigInteger),  # the first version without it; NULL while it is live
    Column("value", LargeBinary, nullable=False),
    Index("snapshot_row_from", "valid_from"),
)
# Most rows are live, and no query looks up their end.
_ENDED: Final = snapshot_row.c.valid_to.is_not(None)
Index("snapshot_row_to", snapshot_row.c.valid_to, sqlite_where=_ENDED, postgresql_where=_ENDED)

# What people taught: see `taught`.
taught = Table(
    "taught",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("changed", BigInteger, nullable=False),  # the change that wrote it
    Column("value", LargeBinary, nullable=False),  # agents.taught.rules.packed
    Column("signature", Text),  # of owner and value; NULL: not signed
    Index("taught_changed", "changed"),
)
taught_head = Table(
    "taught_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row: 1
    Column("changed", BigInteger, nullable=False),  # the number of the last change
    Column("erased", BigInteger, nullable=False),  # the last one that deleted rows
)

# For monitoring: see heartbeat and drift_monitor. Times are wall clock, ms since the Unix epoch, unless said otherwise.
worker = Table(
    "worker",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("committed", BigInteger),  # when the last commit was made
    Column("rate", Double, nullable=False),  # events per second
    Column("partitions", Text, nullable=False),  # JSON: list of numbers
)
tally = Table(
    "tally",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
watch = Table(
    "watch",
    metadata,
    Column("measure", Text, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),  # event time of the last change
    Column("judged", BigInteger, nullable=False),  # event time up to which changes were searched for
)
alarm = Table(
    "alarm",
    metadata,
    Column("measure", Text, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("noticed", BigInteger, primary_key=True, autoincrement=False),  # event time
    Column("since", BigInteger, nullable=False),  # event time of the change
    Column("before", Double, nullable=False),
    Column("after", Double, nullable=False),
    Column("raised", BigInteger, nullable=False),
)


def sum_table(own: MetaData, table: SumTable) -> Table:
    """Return the SQL table that holds the rows of `table`, declared in `own`."""
    keys = [
        Column(name, Text if kind is str else BigInteger, primary_key=True, autoincrement=False)
        for name, kind in table.key
    ]
    sums: list[Column[Any]] = [Column(name, Double, nullable=False) for name in table.sums]
    packed = [] if sums else [Column("packed", LargeBinary, nullable=False)]
    lookup = [Index(f"{table.name}_{table.lookup}", table.lookup)] if table.lookup else []
    return Table(table.name, own, *keys, *sums, *packed, *lookup, sqlite_with_rowid=False)
