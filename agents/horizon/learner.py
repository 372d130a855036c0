"""Who comes back, as sums: what each person did in each hour, by the strategies asked.

A *visit* is what one person does in one hour. It is followed by a *return* if the person visits again between
`least_days` and `days` later. Neither of the two turns knows of the other, and they may be learned by different workers
in any order. So nothing is paired when turns are learned: they add up by person and hour, and a person was there in an
hour if their sum of turns is above 0. `visits` pairs visits with returns when the policy is published. So the sums are
exact in any order, on any number of workers and after a restart.

A visit is *mature* when its time to return has passed. Whether a return follows one that is not mature is unknown, not
"no", even if the person has come back already: otherwise recent visits would be those of people who come back fast.

Assumptions, as `docs/design.md` asks of every learner:

- One person's mass: a person weighs at most as much as `visits.MOST` visits, and intervals are over people. What is
  told about a strategy is told by visits, not turns: who asks twice as often in an hour counts once.
- A strategy's visits are those in which it was asked, by the share of the turns that asked it. That people come back
  after them is not caused by it alone: figures compare strategies as they were used, without propensities.
- Overlap, depth and position do not enter: a return says nothing about an item.
- Strategies that few people met have no figures rather than low ones.
- Turns without a `user_id` are left out.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.horizon.keys import panel_of, sets_of
from backchannel.agents.horizon.serving import Horizon
from backchannel.agents.horizon.surrogate import summarize
from backchannel.agents.horizon.visits import HOUR_MS, Times, visits_of
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import ALL, GRID, USER, Delta, Floats, Groups, SumReader, SumTable

SIGNALS: Final = ("success", "clicked", "barged_in", "rephrased")
"""The short-term signals of a turn, each in [0, 1]; see `agents.outcomes`."""
LEAST_SALT: Final = 16
_DAY_MS: Final = 86_400_000


class HorizonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether people come back, and which strategies they come back after."""

    salt: Annotated[
        str,
        Meta(
            description=f"text to hash user ids with, at least {LEAST_SALT} characters that nobody else knows; "
            "empty: who comes back is not learned. If it changes, `forget-user` does not find earlier visits"
        ),
    ] = ""
    least_days: Annotated[
        float, Meta(ge=0, le=365, description="days after which a visit counts as a return, not as a retry")
    ] = 1.0
    days: Annotated[
        float, Meta(gt=0, le=365, description="days within which people must come back; only then is it known")
    ] = 7.0
    half_life_days: Annotated[float, Meta(ge=0.1, le=3650, description="half-life of visits, in days")] = 30.0
    discount: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="what a success is worth one turn later in the session, to the bandit and the gate, too; 0: "
            "later turns are not learned. Needs a salt",
        ),
    ] = 0.0
    share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="share of the people that is learned from, chosen by hash. Each version reads all their "
            "visits: lower it if there are millions",
        ),
    ] = 1.0

    def __post_init__(self) -> None:
        if 0 < len(self.salt) < LEAST_SALT:
            raise ValueError(
                f"salt: has {len(self.salt)} characters, and needs at least {LEAST_SALT}: take random ones, such as "
                "from `openssl rand -hex 16`"
            )
        if self.discount and not self.salt:
            raise ValueError(f"discount: {self.discount:g}, but sessions are hashed with a salt: set salt, too")
        if self.days - self.least_days < HOUR_MS / _DAY_MS:
            raise ValueError(f"days: {self.days:g} must be above least_days, {self.least_days:g}, by an hour or more")


class Returns(Learner):
    """The learner of returns. Its section: ALL -> `serving.Known`.

    Its table holds, by person, hour (its start, ms) and set of strategies asked (see `keys`): the number of turns, and
    the sums of their `SIGNALS`. They do not decay; `visits` weighs them by age.

    Args:
        config: see `HorizonConfig`.
        strategies: names of the strategies that are learned; without any, those that turns name.
    """

    name = Horizon.name
    serving = Horizon

    def __init__(self, config: HorizonConfig, strategies: Sequence[str] = ()) -> None:
        self.config: Final = config
        self.salt = config.salt
        self.table: Final = SumTable(
            name="visits", key=((USER, str), ("hour", int), ("strategies", str)), sums=("turns", *SIGNALS)
        )
        self.tables = (self.table,)
        self.times: Final = Times(
            round(config.least_days * _DAY_MS), round(config.days * _DAY_MS), round(config.half_life_days * _DAY_MS)
        )
        self.keep = (self.table, "hour", self.times.keep_ms)
        self._strategies: Final = tuple(strategies)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.horizon, config.bandit.strategies)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if there is a salt."""
        return bool(config.horizon.salt)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        if (outcomes.users == MISSING).all():
            return {}
        person, known = panel_of(outcomes, self.config.salt, self.config.share)
        rows = np.flatnonzero((person != MISSING) & (outcomes.users != MISSING))
        if not len(rows):
            return {}
        asked, sets = sets_of(outcomes, self._strategies)
        hours, hour = np.unique(outcomes.times // HOUR_MS * HOUR_MS, return_inverse=True)
        groups = Groups((person[rows], known), (hour[rows], hours.tolist()), (asked[rows], sets))
        values = [np.ones(len(rows)), *(one[rows] for one in _signals(outcomes))]
        return {self.table.name: groups.sums(self.table, values)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 - a Learner
        """See `Learner.solve`. All is solved, whatever changed: visits mature, too, as time passes."""
        visits = visits_of(sums.read(self.table), self.times, at)
        return {ALL: msgspec.json.encode(summarize(visits, SIGNALS, self.times))}


def _signals(outcomes: Outcomes) -> list[Floats]:
    """Return the `SIGNALS` of turns on the grid, (turns,) each."""
    clicked = outcomes.columns.turns.clicks.counts > 0
    found = outcomes.success, clicked.astype(float), outcomes.barged_in.astype(float), outcomes.rephrased
    return [np.rint(one * GRID) / GRID for one in found]
