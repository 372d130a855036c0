"""The rest of a session: what its later turns bring after a strategy was asked, as sums.

The return to go of a turn t is the discounted success of the session's later turns,

    G_t = sum_{u > t} g^(u - t) r_u.

Like the visits of `learner`, turns are not paired when they are learned, since later ones may be learned by another
worker, in any order. They add up by person, session and time, and are paired when the policy is published. A session
ends where nothing is asked for GAP_MS; until that has passed, what its turns lead to is unknown, and left out. So the
sums are exact in any order, on any number of workers and after a restart.

What a strategy leads to is the mean of G_t over the turns that asked it, less what a ridge regression on what was there
before the decision expects, V(x): the turn's place in the session, and how the last turn went. So strategies that are
asked at other places of sessions can be compared, and less of the variance is left. V is solved from sums, of x x' and
x G. Intervals are over people, and take V as known.

Assumptions, as `docs/design.md` asks of every learner:

- One person's mass: a person weighs at most as much as `visits.MOST` turns.
- A strategy's turns are those in which it was asked, whole, whoever else was. That it causes what follows is not known:
  figures compare strategies as they were used, without propensities.
- Overlap, depth and position do not enter: later turns say nothing about an item.
- Strategies that few people met have no figures rather than low ones.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.horizon.keys import differs, lines_of, panel_of, sessions_of, sets_of
from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.horizon.serving import Rest, Rests
from backchannel.agents.horizon.surrogate import PEOPLE
from backchannel.agents.horizon.visits import KEPT, MOST
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import (
    ALL,
    GRID,
    USER,
    Booleans,
    Delta,
    Floats,
    Groups,
    Integers,
    Keys,
    SumReader,
    Sums,
    SumTable,
    taken,
)
from backchannel.schemas.snapshot import Estimate

GAP_MS: Final = 1_800_000
"""The time without a query after which a session has ended."""
RIDGE: Final = 1.0
"""Prior strength of V, in turns."""
PLACES: Final = 8
"""Places in a session from which on V does not tell them apart."""
SOONER: Final = 10
"""The half-life of visits, in those of turns: a session shows sooner than returns do what it led to."""
_DAY_MS: Final = 86_400_000
_Z: Final = 1.96


class RestOfSession(Learner):
    """The learner of returns to go. Its section: ALL -> strategy -> `serving.Rest`.

    Its table holds, by person (a user, or a session without one), session, time (ms) and set of strategies asked
    (see `keys`): the number of turns, and the sum of their success. Turns at the same time count as one, of their mean.

    Args:
        config: see `HorizonConfig`.
        strategies: names of the strategies that are learned; without any, those that turns name.
    """

    name = Rests.name
    serving = Rests

    def __init__(self, config: HorizonConfig, strategies: Sequence[str] = ()) -> None:
        self.config: Final = config
        self.salt = config.salt
        key = ((USER, str), ("session", int), ("ts", int), ("strategies", str))
        self.table: Final = SumTable(name="session_turns", key=key, sums=("turns", "success"))
        self.tables = (self.table,)
        self._half_life_ms: Final = round(config.half_life_days / SOONER * _DAY_MS)
        self._keep_ms: Final = KEPT * self._half_life_ms
        self.keep = (self.table, "ts", self._keep_ms)
        self._strategies: Final = tuple(strategies)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.horizon, config.bandit.strategies)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if there is a discount."""
        return bool(config.horizon.discount)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        person, known = panel_of(outcomes, self.config.salt, self.config.share)
        rows = np.flatnonzero(person != MISSING)
        if not len(rows):
            return {}
        asked, sets = sets_of(outcomes, self._strategies)
        session, sessions = sessions_of(outcomes)
        times, time = np.unique(outcomes.times, return_inverse=True)
        parts = ((person, known), (session, sessions), (time, times.tolist()), (asked, sets))
        groups = Groups(*((one[rows], values) for one, values in parts))
        success = np.rint(outcomes.success * GRID) / GRID
        return {self.table.name: groups.sums(self.table, [np.ones(len(rows)), success[rows]])}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 - a Learner
        """See `Learner.solve`. All is solved, whatever changed: sessions end, too, as time passes."""
        walks = walks_of(sums.read(self.table), at, at - self._keep_ms)
        known = summarize(walks, self.config.discount, self._half_life_ms, at)
        return {ALL: msgspec.json.encode(known) if known else None}


class Walks(NamedTuple):
    """Turns in the order of people, sessions and time, and their lines: one for each turn, set asked, and strategy.

    Attributes:
        keys: the person, session and time (ms) of each turn, (turns,).
        people: the code of each turn's person, (turns,), rising.
        times: event times, ms, (turns,).
        place: the place in the session, from 0, (turns,).
        left: the number of turns of the session after it, (turns,).
        ended: whether the session has ended, (turns,).
        success: (turns,).
        strategies: names, sorted.
        turn: the index of each line's turn, (lines,), rising.
        strategy: the index of each line's strategy, (lines,).
        shares: the share of the turns at that time that asked the set, (lines,).
        own: the success of these, (lines,).
    """

    keys: Keys
    people: Integers
    times: Integers
    place: Integers
    left: Integers
    ended: Booleans
    success: Floats
    strategies: list[str]
    turn: Integers
    strategy: Integers
    shares: Floats
    own: Floats

    def later(self, discount: float) -> Floats:
        """Return G, (turns,)."""
        later = np.zeros(len(self.success))
        order = np.argsort(self.left, kind="stable")
        bounds = np.searchsorted(self.left[order], np.arange(int(self.left.max(initial=0)) + 2))
        for first, last in zip(bounds[1:-1].tolist(), bounds[2:].tolist(), strict=True):
            rows = order[first:last]
            later[rows] = discount * (self.success[rows + 1] + later[rows + 1])
        return later

    def capped(self, weights: Floats) -> Floats:
        """Return weights of turns, (turns,), with no person's above MOST."""
        of_person = np.bincount(self.people, weights) if len(weights) else np.zeros(0)
        return np.asarray(weights * np.minimum(1.0, MOST / np.maximum(of_person, MOST))[self.people])


def walks_of(sums: Sums, at: int, since: int) -> Walks:
    """Return the turns from event time `since` on (ms), as they are known at `at`."""
    keys, values = sums.ordered()
    time = np.array(keys.columns[2], dtype=np.int64)
    kept = np.flatnonzero(time >= since)
    time, values = time[kept], values[kept]
    users = np.array(keys.columns[0], dtype=object)[kept]
    sessions = np.array(keys.columns[1], dtype=np.int64)[kept]
    lines = lines_of(taken(keys.columns[3], kept))
    new_person = differs(users)
    new_session = new_person | differs(sessions)
    begins = new_session | differs(time)  # turns of any strategies at the same time are one
    rows = np.flatnonzero(begins)
    total = np.add.reduceat(values, rows) if len(rows) else values
    turn = (begins.cumsum() - 1)[lines.rows]
    time = time[rows]
    starts = new_session[rows] | np.append(True, np.diff(time) > GAP_MS)[: len(time)]
    first = np.flatnonzero(starts)
    counts = np.diff(np.append(first, len(time)))
    place = np.arange(len(time)) - np.repeat(first, counts)
    left = np.repeat(counts, counts) - place - 1
    return Walks(
        keys=Keys(users[rows].tolist(), sessions[rows].tolist(), time.tolist()),
        people=(new_person.cumsum() - 1)[rows],
        times=time,
        place=place,
        left=left,
        ended=(time[np.arange(len(time)) + left] + GAP_MS < at) if len(time) else np.zeros(0, dtype=bool),
        success=total[:, 1] / total[:, 0],
        strategies=lines.strategies,
        turn=turn,
        strategy=lines.codes,
        shares=values[lines.rows, 0] / total[turn, 0],
        own=values[lines.rows, 1] / values[lines.rows, 0],
    )


def summarize(walks: Walks, discount: float, half_life_ms: int, at: int) -> dict[str, Rest]:
    """Return what is known about each strategy at event time `at` (ms)."""
    weights = walks.capped(np.exp2(np.minimum(walks.times - at, 0) / half_life_ms)) * walks.ended
    later, known = walks.later(discount), weights > 0
    usually = expected(walks, later, weights)
    usual = float(weights @ later / weights.sum()) if known.any() else 0.0
    found = {}
    for code, name in enumerate(walks.strategies):
        lines = np.flatnonzero((walks.strategy == code) & known[walks.turn])
        turn, mass = walks.turn[lines], walks.shares[lines] * weights[walks.turn[lines]]
        people = walks.people[turn]
        count, value = len(np.unique(people)), None
        if count >= PEOPLE:
            value = _estimate(later[turn] - usually[turn] + usual, mass, people)
        success = round(float(mass @ walks.own[lines] / mass.sum()), 6) if len(lines) else 0.0
        found[name] = Rest(round(float(walks.shares[lines].sum()), 3), count, success, value)
    return found


def expected(walks: Walks, values: Floats, weights: Floats) -> Floats:
    """Return what is expected, before each decision, of what turns lead to, (turns,).

    Args:
        walks: the turns.
        values: what the turns led to, such as the rest of their sessions, (turns,).
        weights: weights of the turns, (turns,).
    """
    before = np.append(0.0, walks.success[:-1])[: len(values)] * (walks.place > 0)
    x = np.column_stack((np.ones(len(values)), walks.place > 0, np.minimum(walks.place, PLACES) / PLACES, before))
    weighted = x.T * weights
    prior = RIDGE * np.diag([1e-9, 1.0, 1.0, 1.0])
    return np.asarray(x @ np.linalg.solve(weighted @ x + prior, weighted @ values))


def _estimate(values: Floats, mass: Floats, people: Integers) -> Estimate:
    """Return the mean of values, (lines,), with an interval of 95% over people."""
    total = mass.sum()
    mean = float(mass @ values / total)
    spread = _Z * float(np.linalg.norm(np.bincount(people, mass * (values - mean)))) / float(total)
    return Estimate(round(mean, 6), round(mean - spread, 6), round(mean + spread, 6))
