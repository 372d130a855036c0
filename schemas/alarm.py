"""What an operator is told of: that a rate has changed."""

from msgspec import Struct


class Alarm(Struct, frozen=True):
    """A change that was noticed in a rate.

    Attributes:
        measure: which rate: click_rate, defect_rate or reward, by event time; dead_letter_rate, by wall clock.
        strategy: of which strategy; empty: of all turns.
        noticed: the time (ms) of what it was noticed by.
        since: the time (ms) since when it is so.
        before: the rate until then.
        after: the rate from then on.
        raised: wall clock, ms since the Unix epoch.
    """

    measure: str
    strategy: str
    noticed: int
    since: int
    before: float
    after: float
    raised: int
