"""A worker's metrics for Prometheus.

Counters start at zero in each worker; Prometheus adds them up. Times are exported as Unix times rather than ages, so
that an age keeps growing while a worker hangs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Final, get_args

from faust.types import TP
from msgspec import Struct, structs
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from backchannel.agents.goals.learner import SUMS as GOAL_SUMS
from backchannel.agents.outcomes.outcomes import MAX_STRATEGIES
from backchannel.agents.quality.learner import RATES
from backchannel.agents.satisfaction.asking import Kind
from backchannel.agents.sums import ALL
from backchannel.schemas.alarm import Alarm
from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.snapshot import Estimate, Evidence, Reached, Snapshot, Verdict
from backchannel.streams.monitoring.observer import Observer
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.pipeline.drift_monitor import DEAD_LETTER_RATE, GOAL_DEFECT_RATE
from backchannel.streams.pipeline.publisher import VersionStatus
from backchannel.streams.turns.accounts import ANSWERED, FIELD_DROPPED, counted_by_name
from backchannel.streams.turns.partition import PartitionState
from backchannel.streams.turns.position import BEGINNING

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bucket bounds of the histograms: from a small commit to a store outage."""

OUTCOMES: Final = ("clicked", "barged_in", "rephrased")
GOAL_OUTCOMES: Final = GOAL_SUMS[1:]

FIELDS: Final = frozenset(name for event in EVENT_TYPES.values() for name in event.__struct_fields__) | {"record"}
"""The fields that a dead letter may name as labels. A producer's own keys must not become labels."""

MOST_WAITING: Final = 1000
"""Maximum commits to track. If readers receive none of them for long, the first ones tell how long."""


class _Waiting(Struct, frozen=True):
    """Committed turns that have not reached readers yet.

    Attributes:
        closed: when the first of them closed, seconds since the Unix epoch.
        reached: (source, number) of each of their partitions -> its watermark after the commit.
    """

    closed: float
    reached: dict[tuple[str, int], int]

    def is_in(self, version: Snapshot) -> bool:
        """Return whether a version has learned from all of them."""
        nowhere = Reached(BEGINNING, {})
        return all(
            version.positions.get(source, {}).get(number, nowhere).watermark >= watermark
            for (source, number), watermark in self.reached.items()
        )


class Metrics(Observer):
    """A worker's activity as metrics.

    Args:
        strategies: the configured strategies.
        clock: a clock that returns seconds since the Unix epoch.

    Attributes:
        registry: the registry of the metrics.
    """

    def __init__(self, strategies: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's
        registry = self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"backchannel_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"backchannel_{name}", what, labels, registry=registry)

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(f"backchannel_{name}_seconds", what, buckets=SECONDS, registry=registry)

        ProcessCollector(registry=registry)
        Info("backchannel_build", "What is running.", registry=registry).info({"version": version("backchannel")})
        # Events.
        self._events: Final = counter("events", "Events committed, by type.", "type")
        self._duplicates: Final = counter("duplicate_events", "Events that were received before.")
        self._late: Final = counter("late_events", "Events that arrived after all turns that could take them closed.")
        self._orphans: Final = gauge("orphan_events", "Events without a turn since the worker started.")
        self._dropped: Final = counter("fields_dropped", "Optional values that could not be used, by field.", "field")
        self._failures: Final = counter("decode_failures", "Records that are not valid events, by field.", "reason")
        self._answers: Final = counter("answers", "Answers to questions that people were asked, by kind.", "kind")
        # Turns.
        self._open: Final = gauge("open_turns", "Turns open and events waiting, by partition.", "partition")
        self._turns: Final = counter("turns", "Turns closed and learned from.")
        self._outcomes: Final = counter(
            "turn_outcomes",
            "Turns that were clicked, barged_in or rephrased; a turn may count under several.",
            "outcome",
        )
        self._successes: Final = counter("turn_rewards", "Sum of the success of turns, each from 0 to 1.")
        self._goals: Final = counter("goals", "Goals: turns in a row that serve one task.")
        self._ends: Final = counter(
            "goal_outcomes", "Goals that were reached, or ended in a defect; the others are unknown.", "outcome"
        )
        self._asked: Final = counter("strategy_turns", "Turns that asked a strategy.", "strategy")
        self._candidates: Final = counter("strategy_candidates", "Candidates drawn from a strategy.", "strategy")
        self._rewards: Final = counter("strategy_rewards", "Sum of a strategy's rewards, each from 0 to 1.", "strategy")
        # Progress.
        self._lag: Final = gauge("lag_records", "Records not read yet, by topic and partition.", "topic", "partition")
        self._watermark: Final = gauge(
            "watermark_timestamp_seconds", "Event time up to which a partition is complete.", "partition"
        )
        self._commits: Final = seconds("commit_duration", "Learning from closed turns and committing them.")
        self._committed: Final = gauge("commit_timestamp_seconds", "When the last commit was made.")
        self._conflicts: Final = counter(
            "epoch_conflicts", "Commits refused because another process claimed a partition."
        )
        # Policy.
        self._publishes: Final = seconds("publish_duration", "Making and writing a version of the policy.")
        self._freshness: Final = seconds(
            "freshness",
            "Time from a turn's close until readers have it: the maximum over this worker's turns in a version.",
        )
        self._version: Final = gauge("snapshot_version", "The version that readers serve.")
        self._published: Final = gauge("snapshot_timestamp_seconds", "When the version that readers serve was made.")
        self._learned: Final = gauge(
            "snapshot_watermark_timestamp_seconds", "Event time up to which the version that readers serve has learned."
        )
        self._rows: Final = gauge("snapshot_rows", "Rows of the version that readers serve, by section.", "section")
        self._withheld: Final = gauge(
            "snapshot_withheld_timestamp_seconds",
            "Since when readers have lacked something that was learned; 0 if they lack nothing.",
        )
        # The gate's findings on the newest version; unknown values are not exported.
        self._verdict: Final = gauge("gate_verdict", "1 for the verdict of the newest version.", "verdict")
        self._effective: Final = gauge("ope_effective_turns", "Effective sample size behind the gate's verdict.")
        self._value: Final = gauge(
            "ope_reward", "Expected reward of a turn under the newest version: estimate and bounds.", "bound"
        )
        self._gains: Final = gauge(
            "ope_gain",
            "Gain in expected reward over another policy, live or uniform: estimate and bounds.",
            "policy",
            "bound",
        )
        self._share: Final = gauge("canary_share", "Share of the decisions made by the policy on trial.")
        self._tried: Final = gauge("canary_turns", "Turns in the trial so far.")
        self._gain: Final = gauge(
            "canary_gain",
            "Relative gain of the policy on trial over the served one: estimate and bounds.",
            "bound",
        )
        # Drift.
        self._alarms: Final = counter("drift_alarms", "Changes detected in a rate.", "measure", "strategy")
        self._waiting: list[_Waiting] = []
        # Prometheus notices the first increment of a counter only if it has seen it at zero.
        for one, values in (
            (self._events, EVENT_TYPES),
            (self._failures, FIELDS | {"other"}),
            (self._outcomes, OUTCOMES),
            (self._ends, GOAL_OUTCOMES),
            (self._answers, get_args(Kind)),
        ):
            for value in values:
                one.labels(value)
        self._strategies: Final = set(strategies)
        for strategy in strategies:
            for metric in (self._asked, self._candidates, self._rewards):
                metric.labels(strategy)
            self._alarms.labels("reward", strategy)
        for measure in (*RATES, GOAL_DEFECT_RATE, DEAD_LETTER_RATE):
            self._alarms.labels(measure, ALL)

    def on_assigned(self, partitions: Mapping[int, PartitionState]) -> None:  # noqa: ARG002 -- Observer's
        """See `Observer`."""
        for gauge in (self._open, self._lag, self._watermark):
            gauge.clear()
        self._waiting.clear()

    def on_tick(self, partitions: Mapping[int, PartitionState], lag: Mapping[TP, int]) -> None:
        """See `Observer`."""
        for number, partition in partitions.items():
            self._open.labels(number).set(partition.open)
            if partition.watermark > BEGINNING:
                self._watermark.labels(number).set(partition.watermark / 1000)
        for (topic, number), records in lag.items():
            self._lag.labels(topic, number).set(records)

    def on_dead_letters(self, reasons: Sequence[str]) -> None:
        """See `Observer`."""
        for reason in reasons:
            self._failures.labels(field_of(reason)).inc()

    def on_commit(self, commit: Commit, seconds: float, closed: int | None) -> None:
        """See `Observer`."""
        now = self._clock()
        self._commits.observe(seconds)
        self._committed.set(now)
        if closed is not None and len(self._waiting) < MOST_WAITING:
            reached = {(claim.source, claim.number): claim.position.watermark for claim in commit.claims}
            self._waiting.append(_Waiting(closed / 1000, reached))
        for event_type in EVENT_TYPES:
            self._events.labels(event_type).inc(commit.counts.get(event_type, 0))
        self._duplicates.inc(commit.counts.get("duplicate", 0))
        self._late.inc(commit.counts.get("late", 0))
        self._orphans.inc(commit.counts.get("orphan", 0))  # negative if queries of earlier orphans arrived
        for prefix, metric in ((FIELD_DROPPED, self._dropped), (ANSWERED, self._answers)):
            for value, count in counted_by_name(commit.counts, prefix).items():
                metric.labels(value).inc(count)
        quality = commit.quality
        if quality is not None:
            for (strategy, _), row in zip(quality.keys, quality.values.tolist(), strict=True):
                self._add(strategy, dict(zip(quality.table.sums, row, strict=True)))
        if commit.goals is not None:
            for (strategy, _), (goals, *ends) in zip(commit.goals.keys, commit.goals.values.tolist(), strict=True):
                if strategy == ALL:
                    self._goals.inc(goals)
                    for end, count in zip(GOAL_OUTCOMES, ends, strict=True):
                        self._ends.labels(end).inc(count)

    def _add(self, strategy: str, sums: Mapping[str, float]) -> None:
        if strategy != ALL:
            if strategy not in self._strategies and len(self._strategies) >= MAX_STRATEGIES:
                strategy = "other"  # producers choose the names
            self._strategies.add(strategy)
            self._asked.labels(strategy).inc(sums["turns"])
            self._candidates.labels(strategy).inc(sums["candidates"])
            self._rewards.labels(strategy).inc(sums["reward"])
            return
        self._turns.inc(sums["turns"])
        self._successes.inc(sums["reward"])
        for outcome in OUTCOMES:
            self._outcomes.labels(outcome).inc(sums[outcome])

    def on_fenced(self) -> None:
        """See `Observer`."""
        self._conflicts.inc()

    def on_publish(self, snapshot: Snapshot, started: int) -> None:  # noqa: ARG002 -- Observer's
        """See `Observer`."""
        self._publishes.observe(self._clock() - started / 1000)

    def on_versions(self, status: VersionStatus) -> None:
        """See `Observer`."""
        served, newest = status.served, status.newest
        if served is None or newest is None:
            return
        self._version.set(served.version)
        self._published.set(served.created / 1000)
        self._learned.set(served.watermark / 1000)
        for section, rows in served.rows.items():
            self._rows.labels(section).set(rows)
        self._withheld.set((status.withheld or 0) / 1000)
        had = [one.closed for one in self._waiting if one.is_in(served)]
        if had:
            self._freshness.observe(self._clock() - min(had))
            self._waiting = [one for one in self._waiting if not one.is_in(served)]
        self._judged(newest)

    def _judged(self, newest: Snapshot) -> None:
        for verdict in get_args(Verdict):
            self._verdict.labels(verdict).set(verdict == newest.verdict)
        evidence = newest.evidence or Evidence()
        self._effective.set(evidence.effective)
        self._value.clear()
        self._gains.clear()
        if evidence.value is not None:
            _show(evidence.value, self._value)
        for policy, gain in evidence.gains.items():
            _show(gain, self._gains, policy)
        trial = newest.trial
        self._share.set(trial.share if trial else 0.0)
        self._tried.set(trial.turns if trial else 0.0)
        self._gain.clear()
        if trial and trial.gain:
            _show(trial.gain, self._gain)

    def on_alarms(self, alarms: Sequence[Alarm]) -> None:
        """See `Observer`."""
        for alarm in alarms:
            self._alarms.labels(alarm.measure, alarm.strategy).inc()


def _show(estimate: Estimate, gauge: Gauge, *labels: str) -> None:
    for bound, value in zip(("estimate", "low", "high"), structs.astuple(estimate), strict=True):
        gauge.labels(*labels, bound).set(value)


def field_of(reason: str) -> str:
    """Return the field with which a dead letter's reason begins, or `other`."""
    name = reason.partition(":")[0].partition(".")[0].partition("[")[0].partition(" ")[0]
    return name if name in FIELDS else "other"
