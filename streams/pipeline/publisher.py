"""The publisher: reads the sums that changed, solves, and writes the next policy version."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.serving import Allocator, EncodingError
from backchannel.agents.learner import Learner
from backchannel.agents.ope.gate import Judgement, judge
from backchannel.agents.serving import live_rows
from backchannel.schemas.snapshot import Evidence, Section, Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.maintenance import Maintenance
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import signing_key
from backchannel.streams.store import decisions, ledger
from backchannel.streams.store.engine import Store

logger = logging.getLogger(__name__)


class VersionStatus(Struct, frozen=True):
    """Which versions there are, whoever published them.

    Attributes:
        served: the header of the version that readers serve; None before the first.
        newest: likewise of the newest one.
        withheld: since when readers do not have all that was learned (ms); None if they have. See `snapshots.withheld`.
    """

    served: Snapshot | None
    newest: Snapshot | None
    withheld: int | None


def version_status(store: Store) -> VersionStatus:
    """Return which versions there are.

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
    """Publishes what is in the ledger. At any time one process should do so; two are safe, only wasteful."""

    def __init__(self, store: Store, learning: Learning, config: Config) -> None:
        self._store: Final = store
        self._learning: Final = learning
        self._config: Final = config
        self._key: Final = signing_key(config.snapshots.signing_key)
        self._maintenance: Final = Maintenance(store, learning)
        self._checked = False

    def publish(self, now: int | None = None) -> Snapshot | None:
        """Publish the next version, if anything changed; then maintain the ledger, see `Maintenance`.

        Args:
            now: ms since the Unix epoch; by default what the clock says.

        Returns:
            the header of the version that readers serve from now on; None if they go on with the one they have,
            because nothing changed, or because of a rollback.
        """
        created = time.time_ns() // 1_000_000 if now is None else now
        changed, made = self._store.transact(lambda connection: self._publish(connection, created), stable=True)
        self._checked = True
        self._maintenance.run(changed, made)
        return made

    def _publish(self, connection: Connection, now: int) -> tuple[Mapping[str, Collection[str]], Snapshot | None]:
        """All in one transaction, and of one state of the ledger:

        1. Let nobody else publish meanwhile.
        2. Take the log of changes. For a version that cannot go on from the newest one, everything counts as changed.
        3. Let the strategy bandit solve what its changes affect; judge its policy against the one that readers serve,
           which takes its place if it is held back.
        4. Let the other learners solve, in portions, so that not all rows are in memory at once.
        5. Write the version, portion by portion.
        6. Forget old versions, and decisions that have left the sample.
        """
        # 1. Lock.
        snapshots.current(connection, lock=True)
        # 2. Changes.
        changed = ledger.take_changes(connection)
        previous = self._previous(connection)
        if previous is None:
            changed = ledger.all_keys(connection, self._store, self._learning.tables)
        if not changed:
            return changed, None
        # 3. Solve and judge.
        positions = ledger.positions(connection)
        complete, newest = ledger.watermarks(positions)
        at = max(newest, 0)
        sums = ledger.LedgerSums(self._store, connection)

        def solve(learners: Iterable[Learner]) -> Iterator[snapshots.Solved]:
            for learner in learners:
                own = {table.name: changed[table.name] for table in learner.tables if table.name in changed}
                for portion in learner.portions(own):
                    yield {learner.name: learner.solve(sums, portion, at)}

        bandits = [one for one in self._learning.learners if one.name == StrategyBandit.name]
        solved = {key: row for portion in solve(bandits) for key, row in portion[StrategyBandit.name].items()}
        judgement, held = None, None
        if not solved and previous is not None and previous.held is not None:  # what was said of it still holds
            judgement = Judgement("hold", previous.reason or "", previous.evidence or Evidence())
            held = previous.held
        elif bandits and self._config.gate.turns:
            judgement = self._judge(connection, previous, solved)
            if judgement.verdict == "hold":
                held = now if previous is None or previous.held is None else previous.held
                solved = dict(_served(connection))
        if solved and previous is not None:  # which may have gone on with the strategies of another configuration
            had = snapshots.section(connection, previous.version, StrategyBandit.name)
            solved = {**dict.fromkeys(had), **solved}
        # 4. Solve the rest, as it is written.
        others = solve(one for one in self._learning.learners if one not in bandits)
        # 5. Write.
        provenance = snapshots.Provenance(
            created=now,
            watermark=max(complete, 0),
            positions=positions,
            fingerprint=self._config.fingerprint,
            verdict=judgement.verdict if judgement else None,
            reason=judgement.reason if judgement else None,
            evidence=judgement.evidence if judgement else None,
            held=held,
        )
        portions = chain([{StrategyBandit.name: solved}] if bandits else [], others)
        made = snapshots.publish(connection, portions, provenance, whole=previous is None, key=self._key)
        if made is None:
            return changed, None
        if made.held is not None and (previous is None or previous.held is None):
            logger.warning("version %d goes on with the bandit that is served: %s", made.version, made.reason)
        # 6. Forget.
        decisions.prune(connection, max(self._config.gate.turns, 1))
        retention = self._config.snapshots
        snapshots.prune(connection, retention.keep, round(retention.keep_days * 86_400_000), now)
        return changed, made if snapshots.current(connection).version == made.version else None

    def _previous(self, connection: Connection) -> Snapshot | None:
        """The newest version, if the next one can go on from it: if it is ours, and undamaged when we begin.

        It is not when it was imported, or made under another configuration or key.
        """
        try:
            made = snapshots.newest(connection, self._key)
            if made is None or made.imported or made.fingerprint != self._config.fingerprint:
                return None
            if self._checked or snapshots.intact(connection, made, self._key):
                return made
            fault = "its rows do not have the checksum of its header"
        except snapshots.CorruptPolicyError as error:
            fault = str(error)
        logger.error("the newest version is damaged, so the next one is made of all that was learned: %s", fault)
        return None

    def _judge(
        self, connection: Connection, previous: Snapshot | None, solved: Mapping[str, bytes | None]
    ) -> Judgement:
        """Judge the policy of the previous version with the rows in `solved` put in place."""
        rows = snapshots.section(connection, previous.version, StrategyBandit.name) if previous else {}
        candidate = live_rows({**rows, **solved})
        live = None
        if served := _served(connection):
            try:
                live = Allocator(served)
            except (EncodingError, KeyError, msgspec.MsgspecError) as error:
                return Judgement("warn", f"unjudged, as the policy that is served cannot be read: {error}")
        logged = decisions.read(connection, self._config.gate.turns)
        return judge(Allocator(candidate), live, logged, self._config.gate)


def _served(connection: Connection) -> Section:
    """The bandit's rows that are served; none before the first version."""
    served = snapshots.current(connection).version
    return {} if served is None else snapshots.section(connection, served, StrategyBandit.name)
