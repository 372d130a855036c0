"""The serving half of the long horizon: after which strategies people come back, and which signals predict it."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Final, Self

import msgspec
from msgspec import Struct

from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Estimate, Snapshot

NOTABLE: Final = 0.02
"""The smallest error of a predicted share that is worth a warning."""
SURE: Final = 3.0 / 1.96
"""How many times its interval of 95% an error must exceed to be worth a warning, as there are many of them."""


class Cohort(Struct, frozen=True):
    """The visits of some days in a row: what was predicted before any of them was mature, and what followed.

    Attributes:
        begins: when these days begin, ms.
        visits: the number of mature visits.
        predicted: the share of them that was predicted to be followed by a return.
        returned: the share that was followed by one.
        error: `returned` less `predicted`, with an interval of 95% over people.
    """

    begins: int
    visits: int
    predicted: float
    returned: float
    error: Estimate


class Surrogate(Struct, frozen=True, omit_defaults=True):
    """What is known about returns, and how a visit's signals predict one.

    Attributes:
        least_days, days: a return is another visit this many days later.
        people: the number of people with mature visits.
        visits: the number of visits.
        mature: the number of visits of which it is known whether a return followed.
        weights: what each mean signal of a visit adds to the probability of a return, and "" the rest; empty if there
            are too few people.
        cohorts: how well earlier weights have predicted what matured since, oldest first.
    """

    least_days: float
    days: float
    people: int
    visits: int
    mature: int
    weights: dict[str, float] = {}
    cohorts: tuple[Cohort, ...] = ()


class LongTerm(Struct, frozen=True, omit_defaults=True):
    """What a strategy's visits are worth in the long term; intervals are of 95%, over people.

    Attributes:
        visits: the number of visits in which it was asked, by the share of turns that asked it.
        mature: those of them of which it is known whether a return followed.
        people: the number of people with such visits.
        success: the mean success of the turns that asked it: the short-term reward. It lies in [0, 1].
        predicted: the share of all its visits that its turns' signals predict to be followed by a return; None if there
            are too few people.
        returned: the share of the mature visits that was followed by one; None if there are too few people.
        residual: by how much that exceeds what signals predict of the mature visits: what the strategy does to returns
            that signals do not show; None if there are too few people.
        value: the share of all its visits that is expected to be followed by a return: `predicted`, corrected by the
            `residual` as far as that is known; None if there are too few people.
    """

    visits: float
    mature: float
    people: int
    success: float
    predicted: float | None = None
    returned: Estimate | None = None
    residual: Estimate | None = None
    value: Estimate | None = None


class Known(Struct, frozen=True):
    """What is known about returns, as published: about all visits, and by strategy."""

    surrogate: Surrogate
    strategies: dict[str, LongTerm]


class Rest(Struct, frozen=True, omit_defaults=True):
    """What a strategy's turns lead to in the rest of their sessions.

    Attributes:
        turns: the number of turns in which it was asked, of sessions that have ended.
        people: the number of people with such turns.
        success: the mean success of these turns, in [0, 1].
        value: the discounted success of the session's later turns, compared at the same place of a session, with an
            interval of 95% over people; None if there are too few people.
    """

    turns: float
    people: int
    success: float
    value: Estimate | None = None


class Rests:
    """What is known about the rest of sessions; nothing if that is not learned.

    Args:
        section: the rows of the section.

    Attributes:
        strategies: by strategy.
    """

    name: ClassVar[str] = "rest"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        row = section.get(ALL)
        self.strategies: Final = {} if row is None else msgspec.json.decode(row, type=dict[str, Rest])

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - a Serving
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}))


class Report(Struct, frozen=True):
    """Everything that is known about returns, and about the rest of sessions.

    Attributes:
        surrogate: about all visits.
        strategies: by strategy.
        warnings: where signals have not predicted what matured, in words.
        rest: what is known about the rest of sessions, by strategy; empty if that is not learned.
    """

    surrogate: Surrogate
    strategies: dict[str, LongTerm]
    warnings: list[str]
    rest: dict[str, Rest] = {}


class Horizon:
    """What is known about returns; nothing if they are not learned.

    Args:
        section: the rows of the section.
        rest: what is known about the rest of sessions.
    """

    name: ClassVar[str] = "horizon"

    def __init__(self, section: Mapping[str, bytes], rest: Rests | None = None) -> None:
        self._rows: Final = section
        self._rest: Final = rest

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}), Rests.of(sections, header))

    @cached_property
    def report(self) -> Report | None:
        """What is known; None if returns are not learned."""
        row = self._rows.get(ALL)
        if row is None:
            return None
        known = msgspec.json.decode(row, type=Known)
        rest = {} if self._rest is None else self._rest.strategies
        return Report(known.surrogate, known.strategies, _warnings(known), rest)


def _warnings(known: Known) -> list[str]:
    found = [
        f"signals predicted that a return would follow {last.predicted:.1%} of the newest mature visits; one followed "
        f"{last.returned:.1%}"
        for last in known.surrogate.cohorts[-1:]
        if _is_notable(last.error)
    ]
    return found + [
        f"signals do not show what {name} does: {100 * abs(one.residual.value):.1f} points "
        f"{'more' if one.residual.value > 0 else 'fewer'} of its visits are followed by a return than they predict"
        for name, one in known.strategies.items()
        if one.residual is not None and _is_notable(one.residual)
    ]


def _is_notable(error: Estimate) -> bool:
    """Return whether an error is large, and not by chance."""
    spread = SURE * max(error.high - error.value, error.value - error.low)
    return abs(error.value) > max(spread, NOTABLE)
