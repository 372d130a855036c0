"""Alarms for operators: a rate has changed."""

from msgspec import Struct


class Alarm(Struct, frozen=True):
    """A change in a rate.

    Attributes:
        measure: name of the rate: click_rate, defect_rate, goal_defect_rate or reward, by event time; dead_letter_rate,
            by wall clock.
        strategy: the strategy whose rate changed; empty: all turns.
        noticed: time of the data in which the change was noticed, ms since the Unix epoch.
        since: estimated time of the change, ms since the Unix epoch.
        before: the rate before the change.
        after: the rate after the change.
        raised: when the alarm was raised, wall clock, ms since the Unix epoch.
    """

    measure: str
    strategy: str
    noticed: int
    since: int
    before: float
    after: float
    raised: int
