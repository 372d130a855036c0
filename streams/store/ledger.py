"""The ledger: the sums and each partition's position in the stream, which move together or not at all.

A commit moves positions and inserts a segment (see `segments`); `merge` adds what segments hold to the rows of sums.
One transaction at a time writes those rows, to merge, compact, prune or erase. Readers add the segments that
have not been merged yet, so they see everything that was committed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct, structs
from sqlalchemy import Connection, Table, delete, func, select, tuple_, update

from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.sums import Delta, Floats, Key, Keys, MemorySums, Sums, SumTable, WidthError, merge
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Reached
from backchannel.streams.store import decisions, segments, tables
from backchannel.streams.store.dialects import among, batches, insert_rows
from backchannel.streams.store.engine import Store, StoreBusyError, StoreError
from backchannel.streams.store.merging import add_packed, first_landmark, lock, log_changes, merge_segments
from backchannel.streams.turns.position import BEGINNING, Claim, Position, TopicPosition

MAX_WAITING: Final = 1 << 28
"""Bytes of waiting segments, before compression, from which commits merge them: some millions of events."""

_TOGETHER: Final = 500
"""Rows that are read together: few, so that they are in an array before they leave the processor's cache."""

_decode_topics = msgspec.json.Decoder(dict[str, TopicPosition]).decode

FADED: Final = 2.0**-10
"""Sums below this are treated as zero; 1 decays to it in ten half-lives."""

MAX_KEY_BYTES: Final = 1000
"""Maximum length of a text in a row's key. PostgreSQL cannot index much more than twice that, and keys this long are
not recurring queries."""


class Contribution(Struct, frozen=True):
    """A partition's part of a commit: a delta, counts, a sample of decisions, and the partition's position after
    them.
    """

    claim: Claim
    position: Position
    delta: Delta
    counts: Mapping[str, int]
    sample: TurnSample | None = None


class FencedError(BackchannelError, RuntimeError):
    """Another process has claimed the partition; whatever this one learned from it since its last commit is dropped."""


class Ledger:
    """The sums and positions in a store.

    Raises:
        StoreError: the sums in the store have a different half-life from the learners'.
    """

    def __init__(self, store: Store, learned: Sequence[SumTable]) -> None:
        self._store: Final = store
        self._declared: Final = {table.name: table for table in learned}
        self._landmarked: Final[set[str]] = set()  # tables that have a landmark in the store
        with store.read() as connection:
            for name, half_life, _ in connection.execute(select(tables.landmark)):
                declared = self._declared.get(name)
                if declared is not None and (declared.half_life_ms or 0) != half_life:
                    raise StoreError(
                        f"table {name} was learned with a half-life of {half_life / 86_400_000:g} days, the "
                        f"configuration says {(declared.half_life_ms or 0) / 86_400_000:g}. Decayed sums cannot be "
                        "converted: restore the old value, or begin a new store"
                    )

    def claim(self, source: str, number: int) -> Claim:
        """Claim a partition, so that earlier claimants can no longer commit for it."""
        start, row = Position(), tables.partition

        def claim(connection: Connection) -> Claim:
            insert_rows(
                connection,
                row,
                {
                    "source": [source],
                    "number": [number],
                    "epoch": [1],
                    "commits": [0],
                    "watermark": [start.watermark],
                    "topics": [msgspec.json.encode(start.topics)],
                },
                add=["epoch"],
            )
            return self._find(connection, source, number)

        return self._store.transact(claim)

    def commit(self, contributions: Sequence[Contribution]) -> list[Claim]:
        """Add the contributions' deltas and move their partitions' positions, in one transaction.

        Before the first sums of a table its landmark is committed on its own: committers that begin together would wait
        for one another.

        1. Fence: move each position if its partition's epoch is still the claim's. Contributions may be committed
           again if the first attempt got no answer; they are added once.
        2. Merge the deltas, so that each row occurs once. Rows with oversized keys are left out and counted.
        3. Insert the sums and the counts as a segment. No other commit waits for that.
        4. Add the logged decisions that belong to the sample.

        If more than `MAX_WAITING` bytes of segments wait, because nobody publishes, they are merged, here or by another
        committer. This slows commits down, and bounds the segments.

        Returns:
            The claims for the next commit.

        Raises:
            FencedError: another process has claimed a partition. Nothing is committed.
        """
        self._declare(sums for one in contributions for sums in one.delta.values() if len(sums.keys))
        claims, waiting = self._store.transact(lambda connection: self._commit(connection, contributions))
        while waiting > MAX_WAITING:
            with suppress(StoreBusyError):  # another process merges them
                self.merge()
            with self._store.read() as connection:
                waiting = segments.waiting(connection)
        return claims

    def merge(self) -> None:
        """Merge the waiting segments into the rows of sums; see `merge_segments`."""
        merge_segments(self._store)

    def _commit(self, connection: Connection, contributions: Sequence[Contribution]) -> tuple[list[Claim], int]:
        claims = [
            structs.replace(contribution.claim, commits=contribution.claim.commits + 1, position=contribution.position)
            for contribution in contributions
        ]
        # 1. Fence.
        fenced = [claim for claim, was in zip(claims, contributions, strict=True) if not self._move(connection, was)]
        if fenced and fenced == claims == [self._find(connection, claim.source, claim.number) for claim in claims]:
            return claims, segments.waiting(connection)
        if fenced:
            raise FencedError(
                f"partition {fenced[0].number} of {fenced[0].source} was claimed by another process after epoch "
                f"{fenced[0].epoch}: let only one process read it. The other one learns what was not committed"
            )
        # 2. Merge.
        delta = merge(contribution.delta for contribution in contributions)
        all_sums = [fitting for sums in delta.values() if len(sums.keys) and (fitting := _fitting(sums)).keys]
        counts: Counter[str] = Counter()
        for contribution in contributions:
            counts.update(contribution.counts)
        counts["oversized"] += sum(len(sums.keys) for sums in delta.values()) - sum(len(sums.keys) for sums in all_sums)
        # 3. Insert.
        counted = {name: count for name, count in counts.items() if count}
        if all_sums or counted:
            segments.put(connection, all_sums, counted)
        # 4. Sample.
        for contribution in contributions:
            if contribution.sample is not None:
                decisions.add(connection, contribution.sample)
        return claims, segments.waiting(connection)

    def counts(self) -> dict[str, int]:
        """Return the total counts by name."""
        with self._store.read() as connection:
            counts: Counter[str] = Counter(dict(connection.execute(select(tables.counter)).all()))
            for of_one in segments.counted(connection):
                counts.update(of_one)
        return dict(counts)

    def _find(self, connection: Connection, source: str, number: int) -> Claim:
        """Return the current claim, by any process."""
        row = tables.partition
        mine = (row.c.source == source, row.c.number == number)
        found = connection.execute(select(row).where(*mine)).one()
        position = Position(found.watermark, _decode_topics(found.topics))
        return Claim(source, number, found.epoch, found.commits, position)

    def _move(self, connection: Connection, contribution: Contribution) -> bool:
        """Move the position, and return whether the claim still holds."""
        claim, position, row = contribution.claim, contribution.position, tables.partition
        moved = connection.execute(
            update(row)
            .where(
                row.c.source == claim.source,
                row.c.number == claim.number,
                row.c.epoch == claim.epoch,
                row.c.commits == claim.commits,
            )
            .values(
                commits=claim.commits + 1, watermark=position.watermark, topics=msgspec.json.encode(position.topics)
            )
        )
        return moved.rowcount == 1

    def _declare(self, all_sums: Iterable[Sums]) -> None:
        """Give the tables landmarks, which record their half-lives, once."""
        missing = {sums.table.name: sums for sums in all_sums if sums.table.name not in self._landmarked}
        if not missing:
            return

        def declare(connection: Connection) -> None:
            there = set(connection.execute(select(tables.landmark.c.table_name)).scalars())
            for name in sorted(missing.keys() - there):
                first_landmark(connection, missing[name].table, missing[name].landmark)

        self._store.transact(declare)
        self._landmarked.update(missing)


class RowSums:
    """A `SumReader` of the merged sums, within a transaction.

    Args:
        store: the store.
        connection: a connection within a transaction.
        builds: whether the next version builds on the newest one.
    """

    def __init__(self, store: Store, connection: Connection, *, builds: bool = False) -> None:
        self._store: Final = store
        self._connection: Final = connection
        self._builds: Final = builds
        self._landmarks: Final = dict(
            connection.execute(select(tables.landmark.c.table_name, tables.landmark.c.landmark)).all()
        )

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """See `SumReader.read`."""
        stored = self._store.sum_tables[table.name]
        query = select(stored)
        if column is not None:
            query = query.where(among(self._connection, stored.c[column], values))
        keys: list[Key] = []
        packed: list[bytes] = []
        plain: list[Floats] = []
        # By column, which costs half as much as by row; in parts, as the numbers are large until they are in an array.
        # From the driver itself: a row of SQLAlchemy's for each of them takes a third of the time.
        cursor: Any = self._connection.execute(query).cursor
        while rows := cursor.fetchmany(_TOGETHER):
            columns = list(zip(*rows, strict=True))
            keys += zip(*columns[: len(table.key)], strict=True)
            if table.sums:
                plain.append(np.array(columns[len(table.key) :]).T)
            else:
                packed += columns[-1]
        if not keys:
            return Sums(table)
        read = np.concatenate(plain) if table.sums else _unpacked(table, packed)
        return Sums(table, keys, read, self._landmarks.get(table.name, 0))

    def keys(self, table: SumTable) -> list[Key]:
        """Return the keys of all rows of `table`."""
        return [tuple(row) for row in self._connection.execute(select(*self._store.sum_tables[table.name].primary_key))]

    def published(self, section: str, key: str) -> bytes | None:
        """See `SumReader.published`."""
        if not self._builds:
            return None
        row = tables.snapshot_row
        live = (row.c.section == section, row.c.key == key, row.c.valid_to.is_(None))
        found: bytes | None = self._connection.execute(select(row.c.value).where(*live)).scalar()
        return found


class LedgerSums(RowSums):
    """A `SumReader` of everything committed, within a transaction that sees one state."""

    def __init__(self, store: Store, connection: Connection) -> None:
        super().__init__(store, connection)
        self._unmerged: Final = segments.unmerged(connection)

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """See `SumReader.read`."""
        found = super().read(table, column, values)
        for sums in self._unmerged:
            if sums.table.name == table.name:
                found = found.merge(MemorySums({table.name: sums}).read(table, column, values))
        return found


def _unpacked(table: SumTable, packed: Sequence[bytes]) -> Floats:
    """Return packed rows of sums as an array, (rows, numbers per row).

    Raises:
        WidthError: they differ in length.
    """
    widths = {len(row) // np.dtype(float).itemsize for row in packed}
    if len(widths) > 1:
        raise WidthError(table.name, widths)
    return np.array([np.frombuffer(row) for row in packed])


def positions(connection: Connection) -> dict[str, dict[int, Reached]]:
    """Return how far each partition was read: source -> number -> position."""
    row = tables.partition
    reached: dict[str, dict[int, Reached]] = {}
    for source, number, watermark, topics in connection.execute(
        select(row.c.source, row.c.number, row.c.watermark, row.c.topics).order_by(row.c.source, row.c.number)
    ):
        read = {name: topic.read for name, topic in _decode_topics(topics).items()}
        reached.setdefault(source, {})[number] = Reached(watermark, read)
    return reached


def file_positions(connection: Connection) -> dict[str, dict[str, TopicPosition]]:
    """Return the positions of streams of one partition, such as event files: stream -> topic -> position."""
    row = tables.partition
    found = connection.execute(select(row.c.source, row.c.topics).where(row.c.number == 0))
    return {source: _decode_topics(topics) for source, topics in found}


def watermarks(reached: Mapping[str, Mapping[int, Reached]]) -> tuple[int, int]:
    """Return the event time (ms) up to which the ledger is complete, and the newest event time in it.

    A source is complete up to the watermark of its slowest partition, among those that ever held an event. The source
    that is furthest ahead counts, because others may have ended long ago. Both times are BEGINNING if the ledger is
    empty.
    """
    sources = [
        [one.watermark for one in partitions.values() if one.watermark > BEGINNING] for partitions in reached.values()
    ]
    complete = max(map(min, filter(None, sources)), default=BEGINNING)
    return complete, max(map(max, filter(None, sources)), default=BEGINNING)


def take_changes(connection: Connection, most: int | None = None) -> dict[str, set[str]]:
    """Return changes, and remove them from the log: table -> values of its first key column.

    Changes that other transactions have not committed yet stay in the log for the next call.

    Args:
        connection: a connection within a transaction.
        most: maximum number of entries of the log to take, the oldest first; None for all.
    """
    changed: dict[str, set[str]] = {}
    log = tables.change
    taken = delete(log).returning(log.c.table_name, log.c.value)
    if most is not None:
        oldest = select(log.c.id).order_by(log.c.id).limit(most).subquery()
        taken = taken.where(log.c.id <= select(func.max(oldest.c.id)).scalar_subquery())
    for table, value in connection.execute(taken):
        changed.setdefault(table, set()).add(value)
    return changed


def has_changes(connection: Connection) -> bool:
    """Return whether anything is in the log of changes."""
    return connection.execute(select(tables.change.c.id).limit(1)).first() is not None


def forget(store: Store, table: SumTable, at: int, connection: Connection) -> int:
    """Remove the rows whose sums have all decayed below `FADED` by the time `at` (ms), and log them as changed.

    Returns:
        the number of rows removed.
    """
    stored = store.sum_tables[table.name]
    fading = table.decay(at, lock(connection, table))
    bound = FADED / fading if fading else inf  # PostgreSQL raises an error if a product underflows
    if not table.sums:
        packed = connection.execute(select(stored)).all()
        keys = [tuple(row[:-1]) for row in packed if np.abs(np.frombuffer(row[-1])).max(initial=0.0) < bound]
        drop_rows(connection, stored, keys)
        log_changes(connection, {table.name: {key[0] for key in keys}})
        return len(keys)
    faded = [func.abs(stored.c[name]) < bound for name in table.sums]
    gone = connection.execute(delete(stored).where(*faded).returning(stored.c[table.key[0][0]])).all()
    log_changes(connection, {table.name: {value for (value,) in gone}})
    return len(gone)


def drop_old(store: Store, table: SumTable, column: str, before: int, connection: Connection) -> int:
    """Remove the rows whose key `column`, a time, is before the time `before` (ms); return the number of rows removed.

    They affect nothing, so they are not logged as changed.
    """
    lock(connection, table)
    stored = store.sum_tables[table.name]
    return connection.execute(delete(stored).where(stored.c[column] < before)).rowcount


def all_keys(connection: Connection, store: Store, learned: Sequence[SumTable]) -> dict[str, set[str]]:
    """Return all keys in the form of `take_changes`, including empty tables."""
    first = {table.name: store.sum_tables[table.name].c[table.key[0][0]] for table in learned}
    return {name: set(connection.execute(select(column).distinct()).scalars()) for name, column in first.items()}


def move_rows(connection: Connection, table: Table, moved: Mapping[Key, Key | None]) -> None:
    """Merge rows of packed sums into others (old key -> new key) or drop them (None). The table must be locked."""
    key_columns = list(table.primary_key)
    sums: dict[Key, Floats] = {}
    for some in batches(moved):
        for row in connection.execute(select(table).where(tuple_(*key_columns).in_(some))):
            target = moved[tuple(row[:-1])]
            if target is not None:
                sums[target] = sums.get(target, 0.0) + np.frombuffer(row[-1])
    drop_rows(connection, table, moved)
    ordered = sorted(sums)
    columns = ([key[place] for key in ordered] for place in range(len(key_columns)))
    add_packed(connection, table, Keys(*columns), [sums[key] for key in ordered])


def crowded(connection: Connection, table: Table, values: Iterable[str], most: int) -> list[str]:
    """Return the `values` of the first key column that have more than `most` rows."""
    first = next(iter(table.primary_key))
    counted = select(first).where(among(connection, first, values)).group_by(first)
    return list(connection.execute(counted.having(func.count() > most)).scalars())


def drop_rows(connection: Connection, table: Table, keys: Iterable[Key]) -> None:
    """Remove the rows with these keys."""
    for some in batches(keys):
        connection.execute(delete(table).where(tuple_(*table.primary_key).in_(some)))


def _fitting(sums: Sums) -> Sums:
    """Leave out the rows whose keys are too long, and put the others in the order of their keys."""
    keys, values = sums.ordered()
    coded = keys.coded()
    kinds = [kind for _, kind in sums.table.key]
    distinct = [own for (_, own), kind in zip(coded.parts, kinds, strict=True) if kind is str]
    if all(max(map(len, own)) <= MAX_KEY_BYTES // 4 for own in distinct):  # a character takes at most four bytes
        return Sums(sums.table, coded, values, sums.landmark)
    texts = [column for column, kind in zip(keys.columns, kinds, strict=True) if kind is str]
    long = {row for column in texts for row, text in enumerate(column) if len(text.encode()) > MAX_KEY_BYTES}
    kept = [row for row in range(len(keys)) if row not in long]
    columns = [[column[row] for row in kept] for column in keys.columns]
    return Sums(sums.table, Keys(*columns), values[kept], sums.landmark)
