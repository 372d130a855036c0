"""Visits, paired with the returns that followed them; see `learner`."""

from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

from backchannel.agents.horizon.keys import differs, lines_of
from backchannel.agents.sums import Booleans, Floats, Integers, Sums, taken

HOUR_MS: Final = 3_600_000
"""The length of a visit, ms. Times between visits are exact to it."""
MOST: Final = 30.0
"""The most visits (decayed) that one person weighs."""
KEPT: Final = 5
"""Half-lives after which mature visits are dropped."""


class Times(Struct, frozen=True):
    """When a visit counts as a return, and how much it weighs; all in ms.

    Attributes:
        least_ms: the shortest time to a return.
        most_ms: the longest time to a return.
        half_life_ms: the half-life of a visit's weight.
    """

    least_ms: int
    most_ms: int
    half_life_ms: int

    @property
    def keep_ms(self) -> int:
        """The age at which a visit is dropped."""
        return self.most_ms + 2 * HOUR_MS + KEPT * self.half_life_ms


class People(NamedTuple):
    """Who visited when, and the sums of whole visits.

    Attributes:
        people: the code of each visit's person, (visits,), rising.
        hours: when the visits began, rounded down to an hour, ms, (visits,), rising for each person.
        total: the number of turns, and the sums of their signals, (visits, 1 + signals).
    """

    people: Integers
    hours: Integers
    total: Floats


class Visits(Struct, frozen=True):
    """Visits by person and hour, and their lines: one for each visit, set of strategies asked in it, and strategy.

    Attributes:
        people: the code of each visit's person, (visits,).
        hours: when the visits began, rounded down to an hour, ms, (visits,).
        signals: 1 and the mean signals of the visit's turns, (visits, 1 + signals).
        returned: 1 if a return followed, else 0, (visits,); it means nothing where the visit is not mature.
        mature: whether it is known if a return followed, (visits,).
        weights: the weights of the visits, (visits,).
        strategies: names, sorted.
        visit: the index of each line's visit, (lines,).
        strategy: the index of each line's strategy, (lines,).
        shares: the share of the visit's turns that asked the set, (lines,).
        own: 1 and the mean signals of these turns, (lines, 1 + signals).
    """

    people: Integers
    hours: Integers
    signals: Floats
    returned: Floats
    mature: Booleans
    weights: Floats
    strategies: list[str]
    visit: Integers
    strategy: Integers
    shares: Floats
    own: Floats


def visits_of(sums: Sums, times: Times, at: int) -> Visits:
    """Return the visits that have not been dropped at event time `at` (ms), in the order of people and hours.

    Args:
        sums: rows by person, hour and set of strategies; see `learner`.
        times: see `Times`.
        at: the event time (ms) up to which everything is known.
    """
    keys, values = sums.ordered()
    hours = np.array(keys.columns[1], dtype=np.int64)
    kept = np.flatnonzero(hours >= at - times.keep_ms)
    hours, values, users = hours[kept], values[kept], np.array(keys.columns[0], dtype=object)[kept]
    lines = lines_of(taken(keys.columns[2], kept))
    new = differs(users)
    begins = new | differs(hours)
    first = np.flatnonzero(begins)
    person = new.cumsum() - 1
    total = np.add.reduceat(values, first) if len(first) else values
    return paired(
        People(person[first], hours[first], total),
        lines.strategies,
        visit=(begins.cumsum() - 1)[lines.rows],
        strategy=lines.codes,
        own=values[lines.rows],
        times=times,
        at=at,
    )


def paired(
    visits: People,
    strategies: list[str],
    *,
    visit: Integers,
    strategy: Integers,
    own: Floats,
    times: Times,
    at: int,
) -> Visits:
    """Pair visits with the returns that followed them; see `Visits` for the arguments.

    Args:
        visits: the sums of whole visits.
        strategies: see `Visits`.
        visit: see `Visits`.
        strategy: see `Visits`.
        own: the sums of each line: its turns and their signals, (lines, 1 + signals).
        times: see `Times`.
        at: the event time (ms) up to which everything is known.
    """
    people, hours, total = visits
    weights = np.exp2(np.minimum(hours - at, 0) / times.half_life_ms)
    of_person = np.bincount(people, weights)
    weights *= np.minimum(1.0, MOST / np.maximum(of_person, MOST))[people]
    return Visits(
        people=people,
        hours=hours,
        signals=_means(total),
        returned=_returned(people, hours, times).astype(float),
        mature=hours + times.most_ms + 2 * HOUR_MS <= at,  # both visits have ended
        weights=weights,
        strategies=strategies,
        visit=visit,
        strategy=strategy,
        shares=own[:, 0] / total[visit, 0],
        own=_means(own),
    )


def _means(sums: Floats) -> Floats:
    """Return 1 and the mean signals of rows of turns and signals, (rows, 1 + signals)."""
    return np.asarray(sums / sums[:, :1])


def _returned(people: Integers, hours: Integers, times: Times) -> Booleans:
    """Return whether the same person has another visit within the time to return, (visits,).

    Args:
        people: the code of each visit's person, (visits,), rising.
        hours: when the visits began, ms, (visits,), rising for each person.
        times: see `Times`.
    """
    if not len(hours):
        return np.zeros(0, dtype=bool)
    least, most = -(-times.least_ms // HOUR_MS), times.most_ms // HOUR_MS
    hour = (hours - hours.min()) // HOUR_MS
    span = int(hour.max()) + most + 1
    line = people * span + hour
    after = np.searchsorted(line, line + max(least, 1))
    there = after < len(line)
    there[there] = line[after[there]] <= (line + most)[there]
    return np.asarray(there)
