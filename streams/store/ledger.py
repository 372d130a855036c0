"""The ledger: the sums and each partition's position in the stream, which move together or not at all."""

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf, ldexp
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, case, delete, func, select, tuple_, update

from backchannel.agents.ope.decisions import TurnSample
from backchannel.agents.sums import Delta, Floats, Key, Keys, Sums, SumTable, merge
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Reached
from backchannel.streams.store import decisions, tables
from backchannel.streams.store.dialects import among, batches, insert_rows
from backchannel.streams.store.engine import Store, StoreError
from backchannel.streams.turns.position import BEGINNING, Claim, Position, TopicPosition

MAX_AHEAD: Final = 500
"""Half-lives that weights may run ahead of a table's landmark before it moves. A double holds 1023 doublings."""


_decode_topics = msgspec.json.Decoder(dict[str, TopicPosition]).decode

FADED: Final = 2.0**-10
"""Sums below this are treated as zero: the remainder of 1 after ten half-lives."""

MAX_KEY_BYTES: Final = 1000
"""Maximum length of a text in a row's key. PostgreSQL cannot index much more than twice that, and keys this long are
not recurring queries."""


class Contribution(Struct, frozen=True):
    """A partition's part of a commit: a delta, counts and decisions, and the partition's position after them."""

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
        StoreError: the sums in the store have another half-life than the learners.
    """

    def __init__(self, store: Store, learned: Sequence[SumTable]) -> None:
        self._store: Final = store
        self._declared: Final = {table.name: table for table in learned}
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

        1. Fence: move each position if its partition's epoch is still that of the claim. Contributions may be committed
           again if the first attempt got no answer; they are added only once.
        2. Merge the deltas, so that each row is touched once. Rows with oversized keys are left out, and counted.
        3. Lock the tables, and convert tables and deltas to common landmarks.
        4. Add the rows in the order of their keys, so that workers cannot deadlock. Packed sums, for which workers wait
           for each other, come last.
        5. Log the changed keys for the publisher.
        6. Add the counts.
        7. Add the logged decisions that belong to the sample.

        Returns:
            The claims for the next commit.

        Raises:
            FencedError: another process has claimed a partition. Nothing is committed.
        """
        return self._store.transact(lambda connection: self._commit(connection, contributions))

    def _commit(self, connection: Connection, contributions: Sequence[Contribution]) -> list[Claim]:
        claims = [
            structs.replace(contribution.claim, commits=contribution.claim.commits + 1, position=contribution.position)
            for contribution in contributions
        ]
        # 1. Fence.
        fenced = [claim for claim, was in zip(claims, contributions, strict=True) if not self._move(connection, was)]
        if fenced and fenced == claims == [self._find(connection, claim.source, claim.number) for claim in claims]:
            return claims
        if fenced:
            raise FencedError(
                f"partition {fenced[0].number} of {fenced[0].source} was claimed by another process after epoch "
                f"{fenced[0].epoch}: let only one process read it. The other one learns what was not committed"
            )
        # 2. Merge.
        delta = merge(contribution.delta for contribution in contributions)
        all_sums = [fitting for sums in delta.values() if len(sums.keys) and (fitting := _fitting(sums)).keys]
        all_sums.sort(key=lambda sums: (not sums.table.sums, sums.table.name))
        # 3. Landmarks.
        all_values = [sums.rescaled(self._landmark(connection, sums)) for sums in all_sums]
        for sums, values in zip(all_sums, all_values, strict=True):
            # 4. Add.
            name = sums.table.name
            assert isinstance(sums.keys, Keys)
            add = _add if sums.table.sums else _add_packed
            add(connection, self._store.sum_tables[name], sums.keys, values)
            # 5. Log.
            changed = list(dict.fromkeys(sums.keys.columns[0]))
            insert_rows(connection, tables.change, {"table_name": [name] * len(changed), "value": changed})
        # 6. Count.
        counts: Counter[str] = Counter()
        for contribution in contributions:
            counts.update(contribution.counts)
        counts["oversized"] += sum(len(sums.keys) for sums in delta.values()) - sum(len(sums.keys) for sums in all_sums)
        names = sorted(name for name, count in counts.items() if count)
        insert_rows(
            connection, tables.counter, {"name": names, "value": [counts[name] for name in names]}, add=["value"]
        )
        # 7. Sample.
        for contribution in contributions:
            if contribution.sample is not None:
                decisions.add(connection, contribution.sample)
        return claims

    def counts(self) -> dict[str, int]:
        """Return the total counts by name."""
        with self._store.read() as connection:
            return dict(connection.execute(select(tables.counter)).all())

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

    def _landmark(self, connection: Connection, sums: Sums) -> int:
        """Lock the table, move its landmark if `sums` run too far ahead of it, and return the landmark."""
        table = sums.table
        stored = lock(connection, table, sums.landmark)
        if sums.landmark <= stored + MAX_AHEAD:
            return stored
        target, row = self._store.sum_tables[table.name], tables.landmark
        # In two steps, because the factor may be too small for a double.
        shift = stored - sums.landmark
        first, second = ldexp(1.0, shift // 2), ldexp(1.0, shift - shift // 2)
        # In PostgreSQL, a product too small for a double is an error.
        tiny = sys.float_info.min / first / second if first else inf
        faded = {
            name: case((func.abs(target.c[name]) < tiny, 0.0), else_=target.c[name] * first * second)
            for name in table.sums
        }
        connection.execute(update(target).values(faded))
        connection.execute(update(row).where(row.c.table_name == table.name).values(landmark=sums.landmark))
        return sums.landmark


def lock(connection: Connection, table: SumTable, landmark: int = 0, *, alone: bool = False) -> int:
    """Lock a table of sums until the transaction ends, and return its landmark; initially, this is `landmark`.

    Transactions that add to plain sums share the lock; those that move the landmark, or want the table `alone`, exclude
    all others. Packed sums are read, added to and written back, by one transaction at a time.
    """
    row = tables.landmark
    shared = bool(table.sums) and not alone
    query = select(row.c.landmark).where(row.c.table_name == table.name).with_for_update(read=shared)
    stored = connection.execute(query).scalar()
    if stored is None:
        first = (table.name, table.half_life_ms or 0, landmark)
        mine = dict(zip(row.columns.keys(), [[value] for value in first], strict=True))
        insert_rows(connection, row, mine, replace=["table_name"])  # unless another transaction was faster
        stored = connection.execute(query).scalar_one()
    return int(stored)


class LedgerSums:
    """A `SumReader` within a transaction."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store: Final = store
        self._connection: Final = connection
        self._landmarks: Final = dict(
            connection.execute(select(tables.landmark.c.table_name, tables.landmark.c.landmark)).all()
        )

    def read(self, table: SumTable, column: str | None = None, values: Collection[Any] = ()) -> Sums:
        """See `SumReader.read`."""
        stored = self._store.sum_tables[table.name]
        query = select(stored)
        if column is not None:
            query = query.where(among(self._connection, stored.c[column], values))
        # All rows at once, by column, at half the cost of row by row.
        columns = list(zip(*self._connection.execute(query).all(), strict=True))
        width = len(table.key)
        if not columns:
            return Sums(table)
        keys, sums = list(zip(*columns[:width], strict=True)), columns[width:]
        read = np.array(sums).T if table.sums else _unpacked(table, sums[0])
        return Sums(table, keys, read, self._landmarks.get(table.name, 0))


def _unpacked(table: SumTable, packed: Sequence[bytes]) -> Floats:
    """Return packed rows of sums, (rows, numbers).

    Raises:
        StoreError: they differ in length.
    """
    lengths = {len(row) // np.dtype(float).itemsize for row in packed}
    if len(lengths) > 1:
        raise StoreError(
            f"table {table.name}: its rows have {' or '.join(map(str, sorted(lengths)))} numbers: two versions of "
            "Backchannel added them up, and they cannot be combined. Learn anew from the log into a new store: "
            "`backchannel run LOG --store URL`, or a worker whose --store is new"
        )
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

    A source is complete up to the watermark of its slowest partition, of those that ever held an event. The source that
    is furthest ahead counts, as the others may have ended long ago. Both times are BEGINNING if the ledger is empty.
    """
    sources = [
        [one.watermark for one in partitions.values() if one.watermark > BEGINNING] for partitions in reached.values()
    ]
    complete = max(map(min, filter(None, sources)), default=BEGINNING)
    return complete, max(map(max, filter(None, sources)), default=BEGINNING)


def take_changes(connection: Connection) -> dict[str, set[str]]:
    """Return and clear the log of changes: table -> values of its first key column.

    Changes that other transactions have not committed yet stay in the log for the next call.
    """
    changed: dict[str, set[str]] = {}
    log = tables.change
    for table, value in connection.execute(delete(log).returning(log.c.table_name, log.c.value)):
        changed.setdefault(table, set()).add(value)
    return changed


def forget(store: Store, table: SumTable, at: int, connection: Connection) -> int:
    """Remove the rows whose sums have all decayed below `FADED` by the time `at` (ms), and log them as changed.

    Returns:
        the number of rows removed.
    """
    stored = store.sum_tables[table.name]
    fading = table.decay(at, lock(connection, table))
    bound = FADED / fading if fading else inf  # in PostgreSQL, a product that is too small is an error
    faded = [func.abs(stored.c[name]) < bound for name in table.sums]
    gone = connection.execute(delete(stored).where(*faded).returning(stored.c[table.key[0][0]])).all()
    values = sorted({value for (value,) in gone})
    if values:
        insert_rows(connection, tables.change, {"table_name": [table.name] * len(values), "value": values})
    return len(gone)


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
    _add_packed(connection, table, Keys(*columns), [sums[key] for key in ordered])


def crowded(connection: Connection, table: Table, values: Iterable[str], most: int) -> list[str]:
    """Return those of `values` of the first key column that have more than `most` rows."""
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
    kinds = [kind for _, kind in sums.table.key]
    texts = [column for column, kind in zip(keys.columns, kinds, strict=True) if kind is str]
    if all(max(map(len, column)) <= MAX_KEY_BYTES // 4 for column in texts):  # a character takes four bytes at most
        return Sums(sums.table, keys, values, sums.landmark)
    long = {row for column in texts for row, text in enumerate(column) if len(text.encode()) > MAX_KEY_BYTES}
    kept = [row for row in range(len(keys)) if row not in long]
    columns = [[column[row] for row in kept] for column in keys.columns]
    return Sums(sums.table, Keys(*columns), values[kept], sums.landmark)


def _add(connection: Connection, table: Table, keys: Keys, values: NDArray[Any]) -> None:
    """Add to rows of plain sums; those that are not there begin at zero."""
    columns = dict(zip(table.columns.keys(), [*keys.columns, *values.T.tolist()], strict=True))
    insert_rows(connection, table, columns, add=[column.name for column in table.columns if not column.primary_key])


def _add_packed(connection: Connection, table: Table, keys: Keys, values: Iterable[Floats]) -> None:
    """Add to rows of packed sums. SQL cannot, so they are read and written: they are few, and their table is locked."""
    if not len(keys):
        return
    key_columns = list(table.primary_key)
    stored: dict[Key, Floats] = {}
    for some in batches(keys):
        rows = connection.execute(select(table).where(tuple_(*key_columns).in_(some)))
        stored.update({tuple(row[:-1]): np.frombuffer(row[-1]) for row in rows})
    packed = [(row + stored.get(key, 0.0)).tobytes() for key, row in zip(keys, values, strict=True)]
    columns = dict(zip(table.columns.keys(), [*keys.columns, packed], strict=True))
    insert_rows(connection, table, columns, replace=["packed"])
