"""Maintenance of the ledger: old time buckets are merged, crowded keys pruned, and decayed sums removed."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

from sqlalchemy import Connection

from backchannel.agents.learner import Learner
from backchannel.agents.sums import SumTable
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store import ledger, merging
from backchannel.streams.store.dialects import batches
from backchannel.streams.store.engine import Store

FORGETS_PER_HALF_LIFE: Final = 8
"""Number of removals of decayed rows per half-life; each reads the whole table."""

DROPS_MS: Final = 86_400_000
"""How often rows are dropped for their age, in event time; each time reads the whole table."""

BOUNDED_TOGETHER: Final = 20
"""Maximum number of crowded keys to prune in one transaction."""


class Maintenance:
    """Keeps the ledger small, in separate transactions after each publication."""

    def __init__(self, store: Store, learning: Learning) -> None:
        self._store: Final = store
        self._learning: Final = learning

    def run(self, changed: Mapping[str, Collection[str]], made: Snapshot | None) -> None:
        """Maintain the tables that may need it: compact, prune and forget.

        Args:
            changed: the changes since the last version: table name -> values of the first key column.
            made: the header of the version just published, if readers serve it; None otherwise.
        """
        if any(table.name in changed and not table.sums for table in self._learning.tables):
            self._store.transact(self._compact)
        for learner in self._learning.learners:
            if learner.bound is not None and changed.get(learner.bound[0].name):
                self._bound(learner, *learner.bound, changed)
        if made is not None and made.parent is not None:
            self._forget(made)

    def _compact(self, connection: Connection) -> None:
        """Merge old time buckets."""
        _, newest = ledger.watermarks(ledger.positions(connection))
        for learner in self._learning.learners:
            for table in learner.tables:
                if not table.sums:
                    merging.lock(connection, table)
                    sums = ledger.RowSums(self._store, connection)
                    moved = learner.compact(table, sums.keys(table), sums, max(newest, 0))
                    ledger.move_rows(connection, self._store.sum_tables[table.name], moved)

    def _bound(self, learner: Learner, table: SumTable, most: int, changed: Mapping[str, Collection[str]]) -> None:
        """Drop excess rows of the changed keys of a table.

        Nobody else writes sums meanwhile, so nothing changes between choosing rows and dropping them. To keep that
        short, only a few keys are pruned per transaction.
        """
        stored = self._store.sum_tables[table.name]
        with self._store.read() as connection:
            portions = batches(changed.get(table.name, ()))
            found = [value for some in portions for value in ledger.crowded(connection, stored, some, most)]
            _, newest = ledger.watermarks(ledger.positions(connection))

        def drop(some: Collection[str], connection: Connection) -> None:
            merging.lock(connection, table)
            excess = learner.excess(ledger.RowSums(self._store, connection), some, max(newest, 0))
            ledger.drop_rows(connection, stored, excess)

        for first in range(0, len(found), BOUNDED_TOGETHER):
            self._store.transact(partial(drop, found[first : first + BOUNDED_TOGETHER]))

    def _forget(self, made: Snapshot) -> None:
        """Remove decayed and old rows, only occasionally, because that reads whole tables. The next version sees
        decayed ones as changes.
        """
        try:
            with self._store.read() as connection:
                parent = snapshots.header(connection, made.parent or 0)
        except snapshots.CorruptPolicyError:
            parent = None
        before = parent.watermark if parent else 0
        for table in self._learning.tables:
            period = (table.half_life_ms or 0) // FORGETS_PER_HALF_LIFE
            if period and before // period < made.watermark // period:
                self._store.transact(partial(ledger.forget, self._store, table, made.watermark))
        for table, column, keep_ms in (one.keep for one in self._learning.learners if one.keep is not None):
            if before // DROPS_MS < made.watermark // DROPS_MS:
                oldest = made.watermark - keep_ms
                self._store.transact(partial(ledger.drop_old, self._store, table, column, oldest))
