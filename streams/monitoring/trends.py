"""What was learned over time, as columns for charts."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from msgspec import Struct
from sqlalchemy import BigInteger, Connection, Double, RowMapping, Text, column, func, inspect, select, table

from backchannel.agents.goals.learner import SUMS as GOAL_SUMS
from backchannel.agents.goals.learner import Goals
from backchannel.agents.quality.learner import SUMS, AnswerQuality
from backchannel.agents.sums import ALL
from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.snapshot import Estimate, Snapshot, Verdict
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store import tables

_QUALITY: Final = table(
    AnswerQuality.name, column("strategy", Text), column("bucket", BigInteger), *(column(name, Double) for name in SUMS)
)
_GOALS: Final = table(
    Goals.name, column("strategy", Text), column("bucket", BigInteger), *(column(name, Double) for name in GOAL_SUMS)
)

Column = list[float | None]
"""One value per time; None if there is none."""


class StrategyTrend(Struct, frozen=True):
    """A strategy's mean reward in the turns that asked it, and its share of all candidates, 0 to 1."""

    reward: Column
    share: Column


class Answers(Struct, frozen=True):
    """The quality of answers, by event time.

    Attributes:
        time: starts of the buckets, ms.
        turns: number of turns.
        clicked: share of turns with a click.
        barged_in: share of turns with a barge-in.
        rephrased: share of turns that were rephrased.
        defects: share of turns that were defects; see `agents.outcomes.defects`.
        reward: mean success, 0 to 1.
        goals: number of goals that ended; see `agents.goals.learner`.
        goals_reached: share of these that were reached.
        goal_defects: share of these that ended in a defect.
        strategies: trends of the strategies by name.
    """

    time: list[int]
    turns: Column
    clicked: Column
    barged_in: Column
    rephrased: Column
    defects: Column
    reward: Column
    goals: Column
    goals_reached: Column
    goal_defects: Column
    strategies: dict[str, StrategyTrend]


class Rates(Struct, frozen=True):
    """The quality of answers in all time buckets that are kept.

    Attributes:
        turns: number of turns.
        defects: share of turns that were defects.
        goals, goals_reached, goal_defects: see `Answers`.
    """

    turns: float
    defects: float
    goals: float
    goals_reached: float
    goal_defects: float

    def __str__(self) -> str:
        return (
            f"{self.defects:.1%} of {self.turns:,.0f} turns were defects; of {self.goals:,.0f} goals "
            f"{self.goals_reached:.1%} were reached, and {self.goal_defects:.1%} ended in a defect"
        )


class Intake(Struct, frozen=True):
    """What workers read, by wall clock.

    Attributes:
        time: starts of the minutes, ms since the Unix epoch.
        events: events per second.
        late: late events per second.
        dead_letters: records per second that were not valid events.
    """

    time: list[int]
    events: Column
    late: Column
    dead_letters: Column


class Version(Struct, frozen=True):
    """A version of the policy as an entry of a list; see `Snapshot`.

    Attributes:
        canary: share of the decisions made by its policy on trial; None without one.
        gain: the relative gain of its policy over the one served before, with an interval, from its trial or from
            logged decisions; None if it was not judged.
    """

    version: int
    created: int
    watermark: int
    rows: int
    verdict: Verdict | None
    reason: str | None
    canary: float | None
    gain: Estimate | None


class Trends(Struct, frozen=True):
    """All data for charts.

    Attributes:
        answers: quality of answers, by event time.
        intake: what workers read, by wall clock.
        versions: versions of the policy, newest first.
    """

    answers: Answers
    intake: Intake
    versions: list[Version]


def read_trends(connection: Connection, buckets: int, minutes: int, versions: int) -> Trends:
    """Read the trends of at most the given numbers of newest time buckets, minutes and versions.

    Versions whose header is damaged are left out; see `vitals`.
    """
    headers = select(tables.snapshot.c.header).order_by(tables.snapshot.c.version.desc()).limit(versions)
    made = []
    for header in connection.execute(headers).scalars():
        with suppress(CorruptPolicyError):
            made.append(_version(snapshots.opened(header, None)))
    return Trends(_answers(connection, buckets), _intake(connection, minutes), made)


def read_rates(connection: Connection, until: int | None = None) -> Rates | None:
    """Return the rates in all time buckets that are kept; None without turns, or before `store upgrade`.

    Args:
        connection: a connection to the store.
        until: the time (ms) after which no bucket begins; None: all buckets.
    """
    if not all(inspect(connection).has_table(one.name) for one in (_QUALITY, _GOALS)):
        return None
    of_turns = select(func.sum(_QUALITY.c.turns), func.sum(_QUALITY.c.defects)).where(_QUALITY.c.strategy == ALL)
    of_goals = select(*(func.sum(_GOALS.c[name]) for name in GOAL_SUMS)).where(_GOALS.c.strategy == ALL)
    if until is not None:
        of_turns, of_goals = of_turns.where(_QUALITY.c.bucket <= until), of_goals.where(_GOALS.c.bucket <= until)
    turns, defects = connection.execute(of_turns).one()
    goals, reached, failed = tuple(connection.execute(of_goals).one())
    if not turns or not goals:
        return None
    return Rates(turns, defects / turns, goals, reached / goals, failed / goals)


def _version(made: Snapshot) -> Version:
    share = made.trial.share if made.trial else None
    rows = sum(made.rows.values())
    return Version(made.version, made.created, made.watermark, rows, made.verdict, made.reason, share, _gain(made))


def _gain(made: Snapshot) -> Estimate | None:
    if made.trial is not None:
        return made.trial.gain
    evidence = made.evidence
    gain = evidence.gains.get("live") if evidence else None
    if evidence is None or evidence.value is None or gain is None:
        return None
    served = evidence.value.value - gain.value
    return Estimate(gain.value / served, gain.low / served, gain.high / served) if served > 0.0 else None


def _answers(connection: Connection, buckets: int) -> Answers:
    rows: dict[tuple[str, int], RowMapping] = {}
    if inspect(connection).has_table(_QUALITY.name):
        newest = select(_QUALITY.c.bucket).where(_QUALITY.c.strategy == ALL)
        oldest = connection.execute(newest.order_by(_QUALITY.c.bucket.desc()).offset(buckets - 1).limit(1)).scalar()
        every = select(_QUALITY) if oldest is None else select(_QUALITY).where(_QUALITY.c.bucket >= oldest)
        rows = {(row["strategy"], row["bucket"]): row for row in connection.execute(every).mappings()}
    times = sorted({bucket for _, bucket in rows})
    goals: dict[int, RowMapping] = {}
    if times and inspect(connection).has_table(_GOALS.name):
        ended = select(_GOALS).where(_GOALS.c.strategy == ALL, _GOALS.c.bucket >= times[0])
        goals = {row["bucket"]: row for row in connection.execute(ended).mappings()}

    def of(strategy: str, value: str, per: str, among: str) -> Column:
        pairs = ((rows.get((strategy, time)), rows.get((among, time))) for time in times)
        return [one[value] / all_[per] if one and all_ and all_[per] else None for one, all_ in pairs]

    def share(value: str) -> Column:
        return of(ALL, value, "turns", ALL)

    def of_goals(value: str) -> Column:
        found = (goals.get(time) for time in times)
        return [one[value] / one["goals"] if one and one["goals"] else None for one in found]

    return Answers(
        time=times,
        turns=[rows[ALL, time]["turns"] if (ALL, time) in rows else None for time in times],
        clicked=share("clicked"),
        barged_in=share("barged_in"),
        rephrased=share("rephrased"),
        defects=share("defects"),
        reward=share("reward"),
        goals=[goals[time]["goals"] if time in goals else None for time in times],
        goals_reached=of_goals("reached"),
        goal_defects=of_goals("defects"),
        strategies={
            name: StrategyTrend(of(name, "reward", "turns", name), of(name, "candidates", "candidates", ALL))
            for name in sorted({strategy for strategy, _ in rows if strategy != ALL})
        },
    )


def _intake(connection: Connection, minutes: int) -> Intake:
    tally = tables.tally
    newest = connection.execute(select(func.max(tally.c.minute))).scalar()
    if newest is None:
        return Intake([], [], [], [])
    # The newest minute is incomplete.
    names = [*EVENT_TYPES, "late", "dead_letter"]
    within = (tally.c.minute >= newest - minutes * tables.MINUTE_MS, tally.c.minute < newest)
    counted = {
        (row.minute, row.name): row.value
        for row in connection.execute(select(tally).where(*within, tally.c.name.in_(names)))
    }
    times = sorted({minute for minute, _ in counted})
    times = list(range(times[0], newest, tables.MINUTE_MS)) if times else []

    def rate(names: Iterable[str]) -> Column:
        return [sum(counted.get((time, name), 0) for name in names) / 60 for time in times]

    return Intake(times, rate(EVENT_TYPES), rate(["late"]), rate(["dead_letter"]))
