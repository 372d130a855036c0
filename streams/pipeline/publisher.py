"""The publisher: reads the sums that changed, solves, and writes the next policy version."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection

from backchannel.agents import registry
from backchannel.agents.learner import Learner
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.judging import BANDIT, LATER, Gatekeeper, Ruling
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.maintenance import Maintenance
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import signing_key
from backchannel.streams.store import decisions, ledger, merging, segments
from backchannel.streams.store.engine import Store

CHANGES: Final = 100_000
"""Changed keys that one version takes from the log, to bound how long its transaction keeps others from writing. The
next version, at once, takes what is left."""

logger = logging.getLogger(__name__)


class VersionStatus(Struct, frozen=True):
    """The served and the newest version, whoever published them.

    Attributes:
        served: the header of the version that readers serve; None before the first.
        newest: the header of the newest version; None before the first.
        withheld: since when (ms) readers have lacked something that was learned; None if they lack nothing. See
            `snapshots.withheld`.
    """

    served: Snapshot | None
    newest: Snapshot | None
    withheld: int | None


def version_status(store: Store) -> VersionStatus:
    """Return the served and the newest version.

    Raises:
        CorruptPolicyError: a header is damaged.
    """
    with store.read() as connection:
        version = snapshots.current(connection).version
        return VersionStatus(
            None if version is None else snapshots.header(connection, version),
            snapshots.newest(connection),
            snapshots.withheld(connection),
        )


class Publisher:
    """Publishes policies from the ledger. One process at a time should do so; two are safe, but wasteful."""

    def __init__(self, store: Store, learning: Learning, config: Config) -> None:
        self._store: Final = store
        self._learning: Final = learning
        self._config: Final = config
        self._key: Final = signing_key(config.snapshots.signing_key)
        self._maintenance: Final = Maintenance(store, learning)
        self._gatekeeper: Final = Gatekeeper(store, config)
        self._personal: Final = registry.personal(learning.learners)
        self._checked = False

    def publish(self, now: int | None = None) -> Snapshot | None:
        """Publish the next version, or several if much has changed; then maintain the ledger, see `Maintenance`.

        Args:
            now: wall clock, ms since the Unix epoch; by default the current time.

        Returns:
            The header of the newest version made here that readers serve; None if they keep the version that they
            have, because nothing changed or because of a rollback.
        """
        created = time.time_ns() // 1_000_000 if now is None else now
        merging.merge_segments(self._store, leave=segments.PORTION)
        served: Snapshot | None = None
        more = True
        while more:
            changed, made, more = self._store.transact(partial(self._publish, now=created), stable=True)
            self._checked = True
            self._maintenance.run(changed, made)
            served = made or served
            if more:
                self._store.give_way()
        return served

    def _publish(self, connection: Connection, now: int) -> tuple[Mapping[str, Collection[str]], Snapshot | None, bool]:
        """Publish in one transaction, from one state of the ledger.

        1. Keep others from publishing and from writing sums. Merge all segments, so that the sums are those
           of all positions.
        2. Take the log of changes, or the first of them. If the new version cannot build on the newest one, everything
           counts as changed.
        3. Let the strategy bandit, and the learners of what comes later, solve what their changes affect; judge the
           bandit's policy; see `judging`.
        4. Let the other learners solve, in portions, to bound memory.
        5. Write the version, portion by portion.
        6. Forget old versions, decisions that left the sample, and trials that ended.

        Returns:
            what was taken, the header of the new version if readers serve it, and whether changes are left.
        """
        # 1. Lock and merge. The sums come first: their lock must precede the first read.
        merged = merging.merge_within(self._store, connection)
        snapshots.current(connection, lock=True)
        # 2. Changes.
        previous = self._previous(connection)
        first = snapshots.last(connection) is None
        changed = ledger.take_changes(connection, CHANGES if previous is not None or first else None)
        for name, values in merged.items():
            changed.setdefault(name, set()).update(values)
        if first:  # learners without sums have a section, too
            changed = {table.name: set[str]() for table in self._learning.tables} | changed
        elif previous is None:
            changed = ledger.all_keys(connection, self._store, self._learning.tables)
        if not changed:
            return changed, None, False
        more = ledger.has_changes(connection)
        # 3. Solve and judge.
        positions = ledger.positions(connection)
        complete, newest = ledger.watermarks(positions)
        at = max(newest, 0)
        sums = ledger.RowSums(self._store, connection, builds=previous is not None)

        def solve(learners: Iterable[Learner]) -> Iterator[snapshots.Solved]:
            for learner in learners:
                own = {table.name: changed[table.name] for table in learner.tables if table.name in changed}
                for portion in learner.portions(own):
                    yield {learner.name: learner.solve(sums, portion, at)}

        judged = [one for one in self._learning.learners if one.name in (BANDIT, *LATER)]
        solved: dict[str, dict[str, bytes | None]] = {one.name: {} for one in judged}
        for portion in solve(judged):
            for name, rows in portion.items():
                solved[name] |= rows
        ruling = self._gatekeeper.rule(connection, previous, solved, at, now) if BANDIT in solved else Ruling({})
        judgement = ruling.judgement
        # 4. Solve the rest lazily, while writing.
        others = solve(one for one in self._learning.learners if one not in judged)
        # 5. Write.
        provenance = snapshots.Provenance(
            created=now,
            watermark=max(complete, 0),
            positions=positions,
            fingerprint=self._config.fingerprint,
            verdict=judgement.verdict if judgement else None,
            reason=judgement.reason if judgement else None,
            evidence=judgement.evidence if judgement else None,
            trial=judgement.trial if judgement else None,
            held=ruling.held,
            fold=self._config.turns.fold,
            personal=self._personal,
        )
        later = {name: rows for name, rows in solved.items() if name in LATER and rows}
        portions = chain([ruling.portion, later], others)
        made = snapshots.publish(connection, portions, provenance, whole=previous is None, key=self._key)
        if made is None:
            return changed, None, more
        if made.held is not None and (previous is None or previous.held is None):
            logger.warning("version %d keeps the served bandit: %s", made.version, made.reason)
        # 6. Forget.
        decisions.prune(connection, max(self._config.gate.turns, 1))
        self._gatekeeper.forget(connection, made)
        retention = self._config.snapshots
        snapshots.prune(connection, retention.keep, round(retention.keep_days * 86_400_000), now)
        return changed, made if snapshots.current(connection).version == made.version else None, more

    def _previous(self, connection: Connection) -> Snapshot | None:
        """Return the newest version if the next one can build on it.

        It cannot if the newest one was imported, was made with another configuration or key, or is damaged.
        """
        try:
            made = snapshots.newest(connection, self._key)
            if made is None or made.imported or made.fingerprint != self._config.fingerprint:
                return None
            if made.personal != self._personal:  # made by an older version of Backchannel
                return None
            if self._checked or snapshots.intact(connection, made, self._key):
                return made
            fault = "its rows do not have the checksum of its header"
        except snapshots.CorruptPolicyError as error:
            fault = str(error)
        logger.error("the newest version is damaged, so the next one is computed from scratch: %s", fault)
        return None
