"""Judging: which parts of a newly learned bandit a version serves, and which are on trial.

The section `bandit` of a version has the rows of the served policy. While another policy is on trial, or after it lost
its trial, its rows are in the section `canary`; see `agents.ope.gate`.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct, structs
from sqlalchemy import Connection, delete, func, select

from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.section import with_worth
from backchannel.agents.bandit.serving import Allocator, EncodingError
from backchannel.agents.goals.serving import GoalCredits
from backchannel.agents.horizon.serving import Horizon, LongTerm, Rests
from backchannel.agents.horizon.worth import worths
from backchannel.agents.ope.canary import SECTION
from backchannel.agents.ope.followed import Followed
from backchannel.agents.ope.gate import Case, Judgement, Tried, judge
from backchannel.agents.ope.later import Later, reviewed
from backchannel.agents.ope.sequences import UNKNOWN
from backchannel.agents.ope.trials import Trials
from backchannel.agents.quality.learner import AnswerQuality
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Section, Snapshot, Trial
from backchannel.streams.config import Config
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.versions import Solved
from backchannel.streams.store import decisions, ledger
from backchannel.streams.store.engine import Store

BANDIT: Final = StrategyBandit.name
LATER: Final = (Horizon.name, Rests.name, GoalCredits.name)
"""The sections that say what a success of the bandit is worth."""
_UNREADABLE: Final = (EncodingError, KeyError, ValueError, msgspec.MsgspecError)


class Ruling(Struct, frozen=True):
    """What the next version serves of the bandit.

    Attributes:
        portion: the rows to write.
        judgement: the judgement for the header; None if the gate was not asked.
        held: since when the newly learned policy has made no decisions, ms; None if it makes some.
    """

    portion: Solved
    judgement: Judgement | None = None
    held: int | None = None


class Gatekeeper:
    """Asks the gate, and keeps the rows of both policies."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store: Final = store
        self._config: Final = config.gate
        self._long_term: Final = config.bandit.long_term
        self._goal: Final = config.bandit.goal
        self._discount: Final = config.horizon.discount
        self._trials: Final = Trials()
        self._followed: Final = Followed(config.horizon) if config.horizon.salt else None

    def rule(self, connection: Connection, previous: Snapshot | None, changes: Solved, at: int, now: int) -> Ruling:
        """Decide what the next version serves of the bandit.

        Args:
            connection: a connection within the transaction that publishes; the head is locked.
            previous: the version that the next one builds on; None if it is computed from scratch.
            changes: the rows of the bandit and of the sections LATER that may have changed; None for a removed row.
            at: event time (ms) up to which the ledger was learned from.
            now: wall clock, ms since the Unix epoch.
        """
        report = Horizon(self._now(connection, previous, changes, Horizon.name)).report
        returns = {} if report is None else report.strategies
        rest = Rests(self._now(connection, previous, changes, Rests.name)).strategies
        credited = GoalCredits(self._now(connection, previous, changes, GoalCredits.name)).strategies
        goals = {name: (one.successes, one.reached) for name, one in credited.items()}
        solved = with_worth(changes[BANDIT], worths(returns, self._long_term, rest, goals, self._goal))
        before = {} if previous is None else snapshots.section(connection, previous.version, BANDIT)
        trial = None if previous is None else previous.trial
        tried = snapshots.section(connection, previous.version, SECTION) if previous is not None and trial else {}
        learned = live_rows({**(tried or before), **solved})
        if not self._config.turns or not learned:
            return Ruling({BANDIT: _replacing(before, learned), SECTION: dict.fromkeys(tried)})
        if previous is not None and not solved:  # the last judgement still holds
            judgement = Judgement(previous.verdict or "publish", previous.reason or "", trial, previous.evidence)
            return Ruling({}, judgement, previous.held)
        served = self._served(connection)
        # After a rollback, readers serve another version than the one on trial.
        on = trial if previous is not None and snapshots.current(connection).version == previous.version else None
        judgement = self._judge(connection, _Policies(learned, served, tried, on), returns, at)
        if judgement.verdict in ("publish", "warn"):
            return Ruling({BANDIT: _replacing(before, learned), SECTION: dict.fromkeys(tried)}, judgement)
        aside = _replacing(tried, learned) if judgement.trial else dict.fromkeys(tried)
        held = None
        if judgement.verdict == "hold":
            held = now if previous is None or previous.held is None else previous.held
        stays = tried if judgement.succeeds else served
        return Ruling({BANDIT: _replacing(before, stays), SECTION: aside}, judgement, held)

    def forget(self, connection: Connection, made: Snapshot) -> None:
        """Forget the results of all trials but the newest version's."""
        number = str(made.trial.number) if made.trial else ""
        followed = () if self._followed is None else self._followed.tables
        for table in (*self._trials.tables, *followed):
            stored = self._store.sum_tables.get(table.name)
            if stored is not None:
                connection.execute(delete(stored).where(stored.c.trial != number))

    def _now(self, connection: Connection, previous: Snapshot | None, changes: Solved, name: str) -> Section:
        """Return the rows of another section as the next version will have them."""
        before = {} if previous is None else snapshots.section(connection, previous.version, name)
        return live_rows({**before, **changes.get(name, {})})

    def _judge(
        self, connection: Connection, policies: "_Policies", returns: Mapping[str, LongTerm], at: int
    ) -> Judgement:
        learned, served, tried, trial = structs.astuple(policies)
        try:
            candidate = Allocator(learned)
        except _UNREADABLE as error:
            return Judgement("hold", f"the learned policy cannot be read: {error}")
        try:
            live = Allocator(served) if served else None
        except _UNREADABLE as error:
            return Judgement("warn", f"not judged, because the served policy cannot be read: {error}")
        sums = ledger.RowSums(self._store, connection)
        so_far, sessions, later = None, UNKNOWN if self._discount else None, Later(returns, self._long_term)
        if trial is not None and tried:
            so_far = Tried(trial, Allocator(tried), self._trials.contrast(sums, trial.number))
            later = structs.replace(later, goals=self._trials.reached(sums, trial.number))
            if self._followed is not None:
                known = sums, trial, at, self._config.confidence
                later = structs.replace(later, followed=self._followed.returns(*known))
                if self._discount:
                    sessions, of_goals = self._followed.sessions(*known)
                    later = structs.replace(later, sessions_goals=of_goals)
        case = Case(
            candidate=candidate,
            served=live,
            tried=so_far,
            decisions=decisions.read(connection, self._config.turns),
            sessions=sessions,
            rewards=self._rewards(connection, candidate.changed or 0),
            version=(snapshots.last(connection) or 0) + 1,
            at=at,
        )
        return reviewed(judge(case, self._config), case, later, self._config)

    def _rewards(self, connection: Connection, since: int) -> float:
        """Return the total reward of the turns since an event time (ms) that are still kept."""
        kept = self._store.sum_tables[AnswerQuality.name].c
        total = select(func.sum(kept.reward)).where(kept.strategy == ALL, kept.bucket >= since)
        return float(connection.execute(total).scalar() or 0.0)

    def _served(self, connection: Connection) -> Section:
        """The rows of the served policy; empty before the first version."""
        version = snapshots.current(connection).version
        return {} if version is None else snapshots.section(connection, version, BANDIT)


class _Policies(Struct, frozen=True):
    """The rows of the served, learned and tried policies, and the trial in progress."""

    learned: Section
    served: Section
    tried: Section
    trial: Trial | None


def _replacing(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes | None]:
    return {**dict.fromkeys(before), **after}
