"""Habitual usage: the queries that have succeeded for a user, which online rewrites try before those of everybody.

A user asks for much the same things again and again. How far that tells what was meant differs between systems and
their users, so it is learned, see `habit_ranking`. Turns that were served a rewrite are left out: what was served is no
habit yet.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Self, TypeAlias

import msgspec
import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import TOGETHER, Changed, Learner, portions_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.rows import Habit, HabitRow
from backchannel.agents.rewrites.serving import Rewriter
from backchannel.agents.sums import USER, Delta, Groups, Integers, Key, SumReader, SumTable

_KEPT: Final = 2  # queries kept per published query, to replace those that decay


Usage: TypeAlias = tuple[float, float, str, str]
"""What a user asked: the success, negative so that the most successful come first, the failure, text and state."""


class Habits(Learner):
    """The learner of habitual usage. Its section: user -> `HabitRow`, the texts that succeed most often."""

    name = Rewriter.habits
    serving = Rewriter

    def __init__(self, config: RephraseConfig) -> None:
        self.config: Final = config
        self.table: Final = SumTable(
            name="habitual_queries",
            key=((USER, str), ("text", str), ("state", str)),
            sums=("success", "failure"),
            half_life_ms=round(config.half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        self.bound = (self.table, _KEPT * config.habits)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.rephrases)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if there are online rewrites, and `rephrases.habits` is above 0."""
        return bool(config.rephrases.online_odds and config.rephrases.habits)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. Turns without a user are left out, and turns that were served a rewrite."""
        rows = own_turns(outcomes)
        if not len(rows):
            return {}
        landmark = self.table.landmark(int(outcomes.times.max(initial=0)))
        weights, success = self.table.weights(outcomes.times, landmark)[rows], outcomes.success[rows]
        groups = Groups(
            (outcomes.users[rows], outcomes.columns.pools.people),
            (outcomes.query[rows], outcomes.keys),
            (outcomes.state[rows], outcomes.keys),
        )
        return {self.table.name: groups.sums(self.table, (weights * success, weights * (1.0 - success)), landmark)}

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:
        """See `Learner.portions`."""
        return portions_of(self.table, changed.get(self.table.name, ()), together)

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        users = changed.get(self.table.name, ())
        section: dict[str, bytes | None] = dict.fromkeys(sorted(users))
        for user, queries in self._known(sums, users, at).items():
            row = habits_of(queries, self.config.habits)
            if row:
                section[user] = msgspec.json.encode(row)
        return section

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`."""
        most = _KEPT * self.config.habits
        known = self._known(sums, crowded, at)
        return [(user, text, state) for user, queries in known.items() for _, _, text, state in queries[most:]]

    def _known(self, sums: SumReader, users: Collection[str], at: int) -> dict[str, list[Usage]]:
        """Return the queries of each user, the most successful first."""
        known: defaultdict[str, list[Usage]] = defaultdict(list)
        rows = sums.read(self.table, "user", users)
        for (user, text, state), (success, failure) in zip(rows.keys, rows.at(at).round(6).tolist(), strict=True):
            known[user].append((-success, failure, text, state))
        return {user: sorted(queries) for user, queries in known.items()}


def own_turns(outcomes: Outcomes) -> Integers:
    """Return the turns of users who said something and were served no rewrite, (rows,)."""
    said = outcomes.named[outcomes.state] & outcomes.named[outcomes.query]
    return np.flatnonzero((outcomes.users != MISSING) & said & (outcomes.rewritten == MISSING))


def habits_of(queries: Iterable[Usage], most: int) -> HabitRow:
    """Return at most so many habits among a user's queries, the most successful of which come first."""
    found: HabitRow = {}
    for success, failure, text, state in queries:
        if -success > failure and text not in found and len(found) < most:
            found[text] = Habit(-success, failure, form_of(text, state))
    return found


def form_of(text: str, state: str) -> str:
    """Return the interpretation of a text with some state; empty without one."""
    return state if state != text else ""
