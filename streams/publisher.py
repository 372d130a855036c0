"""The publisher: reads the sums that changed, solves, and writes the next policy version."""

from typing import Final

from backchannel.schemas.snapshot import Snapshot
from backchannel.streams import ledger, snapshots
from backchannel.streams.learning import Learning
from backchannel.streams.store import Store


class Publisher:
    """Publishes what is in the ledger. At any time one process should do so; two are safe, only wasteful."""

    def __init__(self, store: Store, learning: Learning, fingerprint: str) -> None:
        self._store: Final = store
        self._learning: Final = learning
        self._fingerprint: Final = fingerprint

    def publish(self) -> Snapshot | None:
        """Publish the next version, if anything changed. All in one transaction:

        1. Take the log of changes. For the first version, which readers may get before anything was learned, solve
           even what has none.
        2. Let every learner solve what its changes affect.
        3. Write the version.
        4. Let old time buckets run together, as far as the learners say.

        Returns:
            the header of the new version; None if the newest one still stands.
        """
        with self._store.write() as connection:
            # 1. Changes.
            changed = ledger.take_changes(connection)
            if snapshots.head(connection) is None:
                changed = {table.name: changed.get(table.name, set()) for table in self._learning.tables}
            if not changed:
                return None
            # 2. Solve.
            complete, newest = ledger.watermarks(connection)
            at = max(newest, 0)
            sums = ledger.LedgerSums(self._store, connection)
            solved = {}
            for learner in self._learning.learners:
                own = {table.name: changed[table.name] for table in learner.tables if table.name in changed}
                solved[learner.name] = learner.solve(sums, own, at)
            # 3. Write.
            snapshot = snapshots.publish(connection, solved, max(complete, 0), self._fingerprint)
            # 4. Compact.
            for learner in self._learning.learners:
                for table in learner.tables:
                    if not table.sums and table.name in changed:
                        moved = learner.compact(sums.read(table), at)
                        ledger.move_rows(connection, self._store.sum_tables[table.name], moved)
            return snapshot

    def newest(self) -> Snapshot | None:
        """Return the header of the newest version, whoever published it."""
        with self._store.read() as connection:
            return snapshots.head(connection)
