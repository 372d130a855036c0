"""The data of the page as one JSON object, and the policy's answer to a query."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.bandit.features import context_of
from backchannel.agents.failures.serving import Repair
from backchannel.agents.goals.serving import GoalCredit, GoalCredits
from backchannel.agents.horizon.serving import Report
from backchannel.agents.memory.serving import Recalled
from backchannel.agents.ranking.serving import Weight
from backchannel.agents.ranking.tastes import Tastes, Weights
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.serving import Rewriting
from backchannel.ops.commands.differences import differences
from backchannel.ops.dashboard.browse import Listings, read_listings
from backchannel.ops.health.check import Check, Status
from backchannel.ops.health.checks import judge, worst
from backchannel.ops.health.command import gather
from backchannel.ops.inspect.allocation import Choice, choices
from backchannel.ops.inspect.explanation import Explanation, explain
from backchannel.ops.inspect.taught import rule_words
from backchannel.schemas.alarm import Alarm
from backchannel.schemas.events import Context, Query
from backchannel.schemas.snapshot import Estimate
from backchannel.schemas.text import normalize, spelled
from backchannel.streams.config import Config
from backchannel.streams.kafka import dead_letters
from backchannel.streams.kafka.dead_letters import Letter
from backchannel.streams.monitoring.trends import Trends, read_trends
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store import ledger
from backchannel.streams.store.engine import Store, StoreError
from backchannel.streams.store.ledger import LedgerSums

FRESH_S: Final = 4.0
"""Seconds for which the state is cached for all clients."""

BUCKETS: Final = 300
MINUTES: Final = 240
VERSIONS: Final = 200
LAGS: Final = 900

RECALLED: Final = 20
MOST: Final = 10
"""Maximum number of failure points and of rules on the page, and of examples of a comparison."""
LETTERS: Final = 200
"""Number of dead letters of each partition to look at."""
LONGEST_VALUE: Final = 200
LISTED_S: Final = 60.0
"""Seconds for which lists are cached: they are read from whole tables."""


class SegmentView(Struct, frozen=True):
    """A strategy's results on one segment of the queries; see the segments of `Policy.summaries`."""

    strategy: str
    segment: str
    turns: float
    share: float
    reward: float
    deviation: float


class Lag(Struct, frozen=True):
    """Number of unread records at each observation (ms since the Unix epoch); None if unknown."""

    time: list[int]
    records: list[int | None]


class RankingView(Struct, frozen=True):
    """A summary of the order of results in the served version, in words, and the weights behind it."""

    verdict: str
    weights: tuple[Weight, ...]


class TastesView(Struct, frozen=True):
    """Of how many users choices are known, and the values of features that all together choose: feature -> value ->
    what it adds to a score."""

    people: int
    means: Weights


class RuleView(Struct, frozen=True):
    """A rule that holds for everyone, in words, the operator who taught it, and when (event time, ms)."""

    rule: str
    by: str
    since: int


class InvalidRecords(Struct, frozen=True):
    """Invalid records with one reason: how many of those looked at, and the newest.

    Attributes:
        reason: why they are not valid events.
        count: how many.
        written: when the newest was found, ms since the Unix epoch.
        place: its topic, partition and offset.
        value: its first characters.
    """

    reason: str
    count: int
    written: int
    place: str
    value: str


class DashboardState(Struct, frozen=True):
    """Everything on the page that is shown without being asked for; `satisfaction` is in words, and `invalid` a number
    of records. By strategy: `doubled` is what twice its candidates change, empty until that is learned (see
    `Policy.summaries`), and `goals` what its successes lead to, empty if a goal is worth nothing to the bandit."""

    now: int
    store: str
    status: Status
    checks: list[Check]
    served: int | None
    trends: Trends | None
    alarms: list[Alarm]
    lag: Lag
    invalid: int
    segments: list[SegmentView]
    doubled: dict[str, Estimate]
    goals: dict[str, GoalCredit]
    listings: Listings | None
    ranking: RankingView | None
    tastes: TastesView | None
    repairs: list[Repair]
    rules: list[RuleView]
    satisfaction: str | None
    horizon: Report | None


class QueryView(Struct, frozen=True):
    """The policy's answer to a query. The allocation is one draw: if the policy explores, the next draw may differ.

    The explanation of the rewrite comes from the current sums; it is None if the store does not allow reading them.
    """

    version: int
    query: str
    rewriting: Rewriting | None
    explanation: Explanation | None
    recalled: list[Recalled]
    choices: list[Choice]


class Observatory:
    """Observes the store and the brokers, at most once every `FRESH_S` seconds, and the policy.

    Args:
        store: the store; its owner closes it, after the observatory.
        config: the configuration, with complete Kafka settings.
        guess_from: minimum similarity of a guess, as in serving; see `PolicyReader`.
    """

    def __init__(self, store: Store, config: Config, guess_from: float | None = None) -> None:
        self._config: Final = config
        self._graph: Final = RephraseGraph(config.rephrases)
        self.store: Final = store
        self.store.declare(self._graph.tables)
        self.reader: Final = PolicyReader(self.store, guess_from=guess_from)
        self._lock: Final = threading.Lock()
        self._state: DashboardState | None = None
        self._looked = 0.0
        self._listings: Listings | None = None
        self._listed = -LISTED_S
        self._lags: Final[deque[tuple[int, int | None]]] = deque(maxlen=LAGS)

    def close(self) -> None:
        """Stop the reader."""
        self.reader.close()

    def state(self) -> DashboardState:
        """Return the state. It blocks for some seconds if the store or the brokers hang, and never raises."""
        with self._lock:
            if self._state is None or time.monotonic() - self._looked > FRESH_S:
                self._state = self._look()
                self._looked = time.monotonic()
            return self._state

    def query(self, text: str, context: Context, budget: int) -> QueryView:
        """Return the policy's answer to a query.

        Args:
            text: the query's text.
            context: the query's context.
            budget: the number of candidates to allocate.

        Raises:
            NoPolicyError: there is no policy yet.
            ValueError: the budget is less than the strategies' minima.
        """
        policy = self.reader.policy
        asked = Query(event_id="-", ts=0, session_id="-", query_id="-", text=text, context=context)
        rewriting = policy.rewrite(text)
        served = rewriting.target if rewriting else text
        key = normalize(spelled(text, None, policy.snapshot.fold))
        return QueryView(
            version=policy.version,
            query=key,
            rewriting=rewriting,
            explanation=self._explanation(key),
            recalled=policy.recall(served, RECALLED),
            choices=choices(policy, context_of(asked), policy.history(served), budget, np.random.default_rng()),
        )

    def compare(self, older: int, newer: int) -> list[str]:
        """Return what changed from one version to another, in sentences.

        Raises:
            LookupError: a version is not retained.
        """
        with self.store.read() as connection:
            headers = [snapshots.header(connection, version) for version in (older, newer)]
            if headers[0] is None or headers[1] is None:
                raise LookupError(f"version {older if headers[0] is None else newer} is not retained any more")
            return list(differences(connection, headers[0], headers[1]).words(MOST))

    async def invalid_records(self) -> list[InvalidRecords]:
        """Return the reasons of the newest dead letters, the most frequent first.

        Raises:
            TopicError: their topic does not exist, or Kafka does not answer.
        """
        found: dict[str, list[Letter]] = {}
        async for letter in dead_letters.read(self._config.kafka, LETTERS):
            found.setdefault(letter.reason, []).append(letter)
        ordered = sorted(found.items(), key=lambda one: -len(one[1]))[:MOST]
        return [_invalid(reason, letters) for reason, letters in ordered]

    def _look(self) -> DashboardState:
        facts = gather(self.store, self._config)
        checks = judge(facts, self._config)
        vitals = None if isinstance(facts.store, str) else facts.store
        lag: dict[str, Any] = next(check.details for check in checks if check.name == "lag")
        self._lags.append((facts.now, lag.get("records")))
        policy = self._policy()  # one for all, and asked for once: without any, the store is asked each time
        summaries = policy.summaries() if policy else {}
        rate = policy.satisfaction.rate if policy else None
        return DashboardState(
            now=facts.now,
            store=self.store.name,
            status=worst(checks),
            checks=checks,
            served=vitals.head.version if vitals else None,
            trends=self._trends() if vitals else None,
            alarms=vitals.alarms if vitals else [],
            lag=Lag([time for time, _ in self._lags], [records for _, records in self._lags]),
            invalid=vitals.counted.get("dead_letter", 0) if vitals else 0,
            segments=[
                SegmentView(strategy, segment.name, *structs.astuple(segment)[1:])
                for strategy, summary in summaries.items()
                for segment in summary.segments
            ],
            doubled={name: one.doubled for name, one in summaries.items() if one.doubled.low < one.doubled.high},
            goals=policy.served(GoalCredits).strategies if policy else {},
            listings=self._list(policy) if vitals else None,
            ranking=_ranking(policy) if policy else None,
            tastes=_tastes(policy) if policy else None,
            repairs=policy.diagnoser.repairs()[:MOST] if policy else [],
            rules=_rules(policy) if policy else [],
            satisfaction=None if rate is None else str(rate),
            horizon=policy.horizon.report if policy else None,
        )

    def _list(self, policy: Policy | None) -> Listings | None:
        """Return the lists; the previous ones if the store cannot be read now, or its role may read policies only."""
        if policy and time.monotonic() - self._listed > LISTED_S:
            with suppress(StoreError), self.store.read() as connection:
                at = max(ledger.watermarks(ledger.positions(connection))[1], 0)
                self._listings = read_listings(self.store, connection, self._graph, policy.rewrites(), at)
            self._listed = time.monotonic()
        return self._listings

    def _trends(self) -> Trends | None:
        with suppress(StoreError), self.store.read() as connection:  # it answered a moment ago
            return read_trends(connection, BUCKETS, MINUTES, VERSIONS)
        return None

    def _explanation(self, state: str) -> Explanation | None:
        try:
            with self.store.read() as connection:
                _, newest = ledger.watermarks(ledger.positions(connection))
                return explain(self._graph, LedgerSums(self.store, connection), state, max(newest, 0))
        except StoreError:  # the store is unavailable, or the role may read policies only
            return None

    def _policy(self) -> Policy | None:
        try:
            return self.reader.policy
        except NoPolicyError:
            return None


def _ranking(policy: Policy) -> RankingView:
    summary = policy.ranking().summary()
    return RankingView(str(summary), summary.weights)


def _tastes(policy: Policy) -> TastesView | None:
    tastes = policy.served(Tastes)
    return TastesView(tastes.people, tastes.means) if tastes.people else None


def _rules(policy: Policy) -> list[RuleView]:
    return [RuleView(rule_words(one.rule), one.by, one.ts) for one in policy.taught()[:MOST]]


def _invalid(reason: str, letters: Sequence[Letter]) -> InvalidRecords:
    newest = max(reversed(letters), key=lambda one: one.written)
    place = f"{newest.topic}[{newest.partition}] offset {newest.offset}"
    value = (newest.value or b"").decode(errors="replace")
    shown = value[:LONGEST_VALUE] + "…" * (len(value) > LONGEST_VALUE)
    return InvalidRecords(reason, len(letters), newest.written, place, shown)
