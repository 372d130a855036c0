"""How long a fit to a sample is kept.

To fit takes a tenth of a second to most of one, in the publisher's transaction. So a fit is kept until a twentieth of
what it was made from is gone or of what is there is new. What it was made from is in the section beside it, so whoever
publishes next decides alike.
"""

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
from msgspec import Struct

_KEPT: Final = 0.95  # share of the evidence of a fit that must still be there, and be all but the rest
_MARKS: Final = np.arange(95, 101) / 100
_ONE_ROW: Final = 10.0  # turns of a row that count


class Fitted(Struct, frozen=True):
    """What was fitted to: a sample of the rows that come first in an order.

    Attributes:
        at: the event time that the evidence was decayed to, ms.
        turns: the turns in the sample (decayed), at most `_ONE_ROW` for each of its rows.
        reach: the place up to which there are no other rows than those of the sample, 0 to 1.
        marks: the places up to which 95, 96, ..., 100% of the turns are, 0 to 1; none without rows, or if they are not
            known.
    """

    at: int
    turns: float
    reach: float
    marks: tuple[float, ...] = ()

    @classmethod
    def to(cls, places: Sequence[float], turns: Sequence[float], at: int, *, full: bool) -> Self:
        """Return what is fitted to a sample.

        Args:
            places: the place of each row in the order, ascending, 0 to 1.
            turns: the turns of each row, decayed to `at`.
            at: the event time, ms.
            full: whether there may be more rows than those of the sample.
        """
        held = np.minimum(turns, _ONE_ROW).cumsum()
        if not len(held):
            return cls(at, 0.0, 1.0)
        marks = [places[row] for row in held.searchsorted(held[-1] * _MARKS).tolist()]
        return cls(at, float(held[-1]), places[-1] if full else 1.0, tuple(marks))

    def is_kept(self, now: Self, half_life_ms: float) -> bool:
        """Return whether the turns in this sample and in that of `now` are nearly all that is in either.

        Turns leave the sample as they decay, and as rows that come earlier displace others.
        """
        decayed = self.turns * float(np.exp2((self.at - now.at) / half_life_ms))
        displaced = (len(_MARKS) - sum(mark <= now.reach for mark in self.marks)) / 100  # rounded up
        return decayed * (1.0 - displaced) / max(self.turns, now.turns, 1e-300) >= _KEPT
