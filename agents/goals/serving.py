"""The serving half of goals: how many were reached, as people judge it, and which successes reach them."""

from collections.abc import Mapping
from typing import ClassVar, Final, Self

import msgspec
from msgspec import Struct

from backchannel.agents.labelled.kinds import by_kind
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Estimate, Snapshot


class GoalRate(Struct, frozen=True):
    """How the goals in a set of turns went, told from labels; with intervals of 95%.

    Attributes:
        turns: number of turns (decayed).
        goals: number of goals per turn.
        reached: the share of the goals that were reached. The others ended in a defect: people call them missed.
    """

    turns: float
    goals: Estimate
    reached: Estimate

    def __str__(self) -> str:
        one = self.reached
        return (
            f"of {self.turns * self.goals.value:,.0f} goals {one.value:.1%} were reached "
            f"({one.low:.1%} to {one.high:.1%}), as people label them"
        )


class GoalRates:
    """What labels say of goals, if there are enough.

    Args:
        section: the rows of the section.
    """

    name: ClassVar[str] = "goals"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        self._rows: Final = section

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - a Serving
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}))

    def rates(self) -> dict[str, dict[str, GoalRate]]:
        """Return the rates by kind (`all`, `day`, `device`, `intent`, `locale`) and value."""
        return by_kind(self._rows, GoalRate)

    @property
    def rate(self) -> GoalRate | None:
        """The rate of all turns; None if there are not enough labels."""
        return self.rates().get("all", {}).get("")


class GoalCredit(Struct, frozen=True):
    """What a strategy's successes lead to.

    Attributes:
        successes: the success that it was credited with (decayed).
        reached: the share of it with which a goal was reached, drawn to that of all strategies if there is little.
    """

    successes: float
    reached: float


class GoalCredits:
    """What successes lead to; nothing if that is not learned.

    Args:
        section: the rows of the section.

    Attributes:
        strategies: by strategy.
    """

    name: ClassVar[str] = "goal_credits"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        row = section.get(ALL)
        self.strategies: Final = {} if row is None else msgspec.json.decode(row, type=dict[str, GoalCredit])

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - a Serving
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}))
