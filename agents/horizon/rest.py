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

from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.horizon.serving import Rest, Rests
from backchannel.agents.horizon.surrogate import PEOPLE
from backchannel.agents.horizon.visits import KEPT, MOST
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.sums import (
    ALL,
    GRID,
    USER,
    Booleans,
    Delta,
    Floats,
    Groups,
    Integers,
    SumReader,
    Sums,
    SumTable,
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

    Its table holds, by person (a user, or a session without one), session, time (ms) and strategy: the number of turns,
    and the sum of their success. Rows of `ALL` are over all turns. Turns at the same time count as one, of their mean.

    Args:
        config: see `HorizonConfig`.
        strategies: names of the strategies that are learned; without any, those that turns name.
    """

    name = Rests.name
    serving = Rests

    def __init__(self, config: HorizonConfig, strategies: Sequence[str] = ()) -> None:
        self.config: Final = config
        self.salt = config.salt
        key = ((USER, str), ("session", str), ("ts", int), ("strategy", str))
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
        people, person = self._hashed(outcomes, outcomes.people)
        sessions, session = self._hashed(outcomes, outcomes.columns.turns.query.session.astype(np.int64))
        panel = np.array([*map(self.config.holds, people)], dtype=bool)
        rows = np.flatnonzero(panel[person])
        if not len(rows):
            return {}
        # First a line per turn for all strategies together, then one per strategy asked.
        strategies = sorted(outcomes.strategies_of(self._strategies))
        asked = outcomes.asked_of(strategies)
        own = panel[person[asked.rows]]
        lines = np.concatenate((rows, asked.rows[own]))
        codes = np.concatenate((np.zeros(len(rows), dtype=np.int64), asked.codes[own] + 1))
        times, time = np.unique(outcomes.times, return_inverse=True)
        groups = Groups(
            (person[lines], people),
            (session[lines], sessions),
            (time[lines], times.tolist()),
            (codes, [ALL, *strategies]),
        )
        success = np.rint(outcomes.success * GRID) / GRID
        return {self.table.name: groups.sums(self.table, [np.ones(len(lines)), success[lines]])}

    def _hashed(self, outcomes: Outcomes, codes: Integers) -> tuple[list[str], Integers]:
        """Return the hashes of people or sessions, sorted, and the index of each turn's among them, (turns,)."""
        names = outcomes.columns.pools.people
        distinct, place = np.unique(codes, return_inverse=True)
        hashed = [self.key_of(names[code]) for code in distinct.tolist()]
        order = sorted(range(len(hashed)), key=hashed.__getitem__)
        index = np.empty(len(hashed), dtype=np.int64)
        index[order] = np.arange(len(hashed))
        return [hashed[one] for one in order], index[place]

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 - a Learner
        """See `Learner.solve`. All is solved, whatever changed: sessions end, too, as time passes."""
        walks = walks_of(sums.read(self.table), at, at - self._keep_ms)
        known = summarize(walks, self.config.discount, self._half_life_ms, at)
        return {ALL: msgspec.json.encode(known) if known else None}


class Walks(NamedTuple):
    """Turns in the order of people, sessions and time, and their lines: one for each turn and strategy asked in it.

    Attributes:
        people: the code of each turn's person, (turns,), rising.
        times: event times, ms, (turns,).
        place: the place in the session, from 0, (turns,).
        left: the number of turns of the session after it, (turns,).
        ended: whether the session has ended, (turns,).
        success: (turns,).
        strategies: names, sorted.
        turn: the index of each line's turn, (lines,), rising.
        strategy: the index of each line's strategy, (lines,).
        shares: the share of the turns at that time that asked it, (lines,).
        own: the success of these, (lines,).
    """

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


def walks_of(sums: Sums, at: int, since: int) -> Walks:
    """Return the turns from event time `since` on (ms), as they are known at `at`."""
    keys, values = sums.ordered()
    times = np.array(keys.columns[2], dtype=np.int64)
    kept = times >= since
    times, values = times[kept], values[kept]
    users, sessions, names = (np.array(keys.columns[place], dtype=object)[kept] for place in (0, 1, 3))
    whole = names == ALL
    own = ~whole
    strategies = sorted(set(names[own].tolist()))
    index = {name: place for place, name in enumerate(strategies)}
    turn = np.cumsum(whole)[own] - 1  # ALL comes first
    time, turns = times[whole], values[whole, 0]
    new_person = _differs(users[whole])
    starts = new_person | _differs(sessions[whole]) | np.append(True, np.diff(time) > GAP_MS)[: len(time)]
    first = np.flatnonzero(starts)
    counts = np.diff(np.append(first, len(time)))
    place = np.arange(len(time)) - np.repeat(first, counts)
    left = np.repeat(counts, counts) - place - 1
    return Walks(
        people=np.cumsum(new_person) - 1,
        times=time,
        place=place,
        left=left,
        ended=(time[np.arange(len(time)) + left] + GAP_MS < at) if len(time) else np.zeros(0, dtype=bool),
        success=values[whole, 1] / turns,
        strategies=strategies,
        turn=turn,
        strategy=np.array([index[name] for name in names[own].tolist()], dtype=np.int64),
        shares=values[own, 0] / turns[turn],
        own=values[own, 1] / values[own, 0],
    )


def summarize(walks: Walks, discount: float, half_life_ms: int, at: int) -> dict[str, Rest]:
    """Return what is known about each strategy at event time `at` (ms)."""
    weights = np.exp2(np.minimum(walks.times - at, 0) / half_life_ms)
    of_person = np.bincount(walks.people, weights) if len(weights) else np.zeros(0)
    weights *= np.minimum(1.0, MOST / np.maximum(of_person, MOST))[walks.people]
    weights[~walks.ended] = 0.0
    later, known = walks.later(discount), weights > 0
    expected = _expected(walks, later, weights)
    usual = float(weights @ later / weights.sum()) if known.any() else 0.0
    found = {}
    for code, name in enumerate(walks.strategies):
        lines = np.flatnonzero((walks.strategy == code) & known[walks.turn])
        turn, mass = walks.turn[lines], walks.shares[lines] * weights[walks.turn[lines]]
        people = walks.people[turn]
        count, value = len(np.unique(people)), None
        if count >= PEOPLE:
            value = _estimate(later[turn] - expected[turn] + usual, mass, people)
        success = round(float(mass @ walks.own[lines] / mass.sum()), 6) if len(lines) else 0.0
        found[name] = Rest(round(float(walks.shares[lines].sum()), 3), count, success, value)
    return found


def _expected(walks: Walks, later: Floats, weights: Floats) -> Floats:
    """Return V, what is expected of the rest of the session before the decision, (turns,)."""
    before = np.append(0.0, walks.success[:-1])[: len(later)] * (walks.place > 0)
    x = np.column_stack((np.ones(len(later)), walks.place > 0, np.minimum(walks.place, PLACES) / PLACES, before))
    weighted = x.T * weights
    prior = RIDGE * np.diag([1e-9, 1.0, 1.0, 1.0])
    return np.asarray(x @ np.linalg.solve(weighted @ x + prior, weighted @ later))


def _estimate(values: Floats, mass: Floats, people: Integers) -> Estimate:
    """Return the mean of values, (lines,), with an interval of 95% over people."""
    total = mass.sum()
    mean = float(mass @ values / total)
    spread = _Z * float(np.linalg.norm(np.bincount(people, mass * (values - mean)))) / float(total)
    return Estimate(round(mean, 6), round(mean - spread, 6), round(mean + spread, 6))


def _differs(values: Any) -> Booleans:
    """Return whether each value differs from the one before it, (n,)."""
    return np.append(True, values[1:] != values[:-1])[: len(values)].astype(bool)
