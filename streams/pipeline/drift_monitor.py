"""Drift alarms: detects changes in the rates that the ledger keeps, and records each change once.

Only the publisher looks, because a rate is taken over all partitions: a single one holds too little of it.
It looks only at complete buckets, so when and how often it looks, and which worker publishes, makes no difference.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, Double, Select, case, delete, func, insert, select

from backchannel.agents.goals.learner import Goals
from backchannel.agents.outcomes.outcomes import MAX_STRATEGIES
from backchannel.agents.quality.drift import Bucket, Change, new_changes
from backchannel.agents.quality.learner import RATES, AnswerQuality
from backchannel.agents.sums import ALL
from backchannel.schemas.alarm import Alarm
from backchannel.schemas.events import EVENT_TYPES
from backchannel.streams.config import Config
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import positions, watermarks
from backchannel.streams.store.merging import merge_segments
from backchannel.streams.store.tables import MINUTE_MS
from backchannel.streams.turns.position import BEGINNING

DEAD_LETTER_RATE: Final = "dead_letter_rate"
GOAL_DEFECT_RATE: Final = "goal_defect_rate"

SPAN: Final = 500
"""Number of buckets in a span: a rate is compared with its last one to two spans."""


class _Rate(Struct, frozen=True):
    """A rate: a query for (start, number of observations, sum of their values) of buckets of equal length."""

    measure: str
    strategy: str
    buckets: Select[int, float, float]
    bucket_ms: int
    complete: int
    """The time (ms) up to which the buckets are complete."""


_Judgement: TypeAlias = tuple[_Rate, int, int, list[Change]]
"""A rate, the time from which it was judged, the start of its newest regime, and the changes found."""


class DriftMonitor:
    """Detects changes in the rates in a store.

    Args:
        store: a store with the tables of the learners.
        config: what is learned, and how it is monitored.
    """

    def __init__(self, store: Store, config: Config) -> None:
        self._store: Final = store
        self._config: Final = config.quality
        self._strategies: Final = config.bandit.strategies
        self._bucket_ms: Final = round(1000 * config.quality.bucket_s)
        self._window_ms: Final = round(1000 * config.turns.window_s)

    def look(self, now: int) -> list[Alarm]:
        """Judge the buckets completed since the last call; record and return alarms for the changes.

        Args:
            now: wall clock, ms since the Unix epoch.
        """
        watch, confidence = tables.watch, self._config.drift_confidence
        judgements: list[_Judgement] = []
        with self._store.read() as connection:
            complete, _ = watermarks(positions(connection))
        merge_segments(self._store)  # at least those committed up to there
        with self._store.read() as connection:
            before = {(row.measure, row.strategy): row for row in connection.execute(select(watch))}
            for rate in self._rates(self._named(connection), complete, now):
                row = before.get((rate.measure, rate.strategy))
                since, judged = (row.since, row.judged) if row else (BEGINNING, BEGINNING)
                if rate.complete <= judged:
                    continue
                span_ms = SPAN * rate.bucket_ms
                begin = max(since, judged - 2 * span_ms)
                start = rate.buckets.selected_columns[0]
                rows = connection.execute(rate.buckets.where(start >= begin, start < rate.complete).order_by(start))
                buckets = [Bucket(*row) for row in rows if row[1]]
                changes, since = new_changes(buckets, since, judged, span_ms=span_ms, confidence=confidence)
                judgements.append((rate, judged, since, changes))
        return self._store.transact(lambda connection: self._write(connection, judgements, now)) if judgements else []

    def _write(self, connection: Connection, judgements: list[_Judgement], now: int) -> list[Alarm]:
        alarms: list[Alarm] = []
        watch = tables.watch
        for rate, judged, since, changes in judgements:
            mine = watch.c.measure == rate.measure, watch.c.strategy == rate.strategy
            found = connection.execute(select(watch.c.judged).where(*mine).with_for_update()).scalar()
            if (BEGINNING if found is None else found) != judged:
                continue  # another publisher has judged the same buckets meanwhile
            connection.execute(delete(watch).where(*mine))
            connection.execute(
                insert(watch).values(measure=rate.measure, strategy=rate.strategy, since=since, judged=rate.complete)
            )
            alarms += [
                Alarm(rate.measure, rate.strategy, one.noticed, one.since, one.before, one.after, now)
                for one in changes
                if self._is_notable(one)
            ]
        if alarms:
            connection.execute(insert(tables.alarm), [asdict(alarm) for alarm in alarms])
        self._forget(connection)
        return alarms

    def _named(self, connection: Connection) -> Sequence[str]:
        """Return the strategies that are configured, or else those that turns asked."""
        asked = self._store.sum_tables[AnswerQuality.name].c.strategy
        query = select(asked).where(asked != ALL).distinct().order_by(asked).limit(MAX_STRATEGIES)
        return self._strategies or connection.execute(query).scalars().all()

    def _rates(self, strategies: Sequence[str], complete: int, now: int) -> Iterator[_Rate]:
        tally, quality = tables.tally, self._store.sum_tables[AnswerQuality.name]
        dead = case((tally.c.name == "dead_letter", tally.c.value), else_=0)
        records = select(tally.c.minute, func.sum(tally.c.value.cast(Double)), func.sum(dead.cast(Double)))
        records = records.where(tally.c.name.in_([*EVENT_TYPES, "dead_letter"])).group_by(tally.c.minute)
        # Workers write their counts late, but rarely by more than a minute.
        minute = (now // MINUTE_MS - 1) * MINUTE_MS
        yield _Rate(DEAD_LETTER_RATE, ALL, records, MINUTE_MS, minute)
        if complete == BEGINNING:
            return
        # A turn is counted once its window has passed.
        whole = (complete - self._window_ms) // self._bucket_ms * self._bucket_ms
        rates = [(measure, ALL, column) for measure, column in RATES.items()]
        for measure, strategy, column in rates + [("reward", strategy, "reward") for strategy in strategies]:
            sums = select(quality.c.bucket, quality.c.turns, quality.c[column]).where(quality.c.strategy == strategy)
            yield _Rate(measure, strategy, sums, self._bucket_ms, whole)
        goals = self._store.sum_tables[Goals.name]
        ended = select(goals.c.bucket, goals.c.goals, goals.c.defects).where(goals.c.strategy == ALL)
        yield _Rate(GOAL_DEFECT_RATE, ALL, ended, self._bucket_ms, whole)

    def _is_notable(self, change: Change) -> bool:
        return abs(change.after - change.before) >= self._config.drift_change * change.before

    def _forget(self, connection: Connection) -> None:
        quality = self._store.sum_tables[AnswerQuality.name]
        newest = connection.execute(select(func.max(quality.c.bucket))).scalar()
        if newest is not None:
            oldest = newest - round(86_400_000 * self._config.keep_days)
            for name in (AnswerQuality.name, Goals.name):
                table = self._store.sum_tables[name]
                connection.execute(delete(table).where(table.c.bucket < oldest))
