"""The history of users: how often each has asked, and how well that went.

It sums turns, their success and their defects (see `agents.outcomes.defects`) with forward decay, per user and for all
users together. Serving turns the sums into features: see `users`.
"""

from typing import Any, Final, Self

import msgspec
import numpy as np

from backchannel.agents.bandit.users import USER_FEATURES, Everybody, UserRow, Users
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import ALL, USER, Delta, Groups, SumReader, SumTable


class UserHistory(Learner):
    """The learner of users' turns. Its section: ALL -> `users.Everybody`; user id -> `users.UserRow`.

    Args:
        half_life_days: the half-life of a turn, in days.
    """

    name = Users.name
    serving = Users

    def __init__(self, half_life_days: float) -> None:
        self._half_life_ms: Final = round(half_life_days * 86_400_000)
        self.table: Final = SumTable(
            name="users", key=((USER, str),), sums=("turns", "reward", "defects"), half_life_ms=self._half_life_ms
        )
        self.tables = (self.table,)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.bandit.user_half_life_days)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if one of its features is configured."""
        return not USER_FEATURES.isdisjoint(feature.name for feature in config.bandit.features)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. Turns without a `user_id` are left out."""
        table, rows = self.table, np.flatnonzero(outcomes.users != MISSING)
        if not len(rows):
            return {}
        landmark = table.landmark(int(outcomes.times.max()))
        weights = table.weights(outcomes.times[rows], landmark)
        # Each turn counts for its user and for all users.
        users = np.concatenate((np.zeros(len(rows), dtype=np.int64), outcomes.users[rows] + 1))
        groups = Groups((users, [ALL, *outcomes.columns.pools.people]))
        sums = [
            np.tile(one, 2) for one in (weights, weights * outcomes.success[rows], weights * outcomes.defects[rows])
        ]
        return {table.name: groups.sums(table, sums, landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        users = changed.get(self.table.name, ())
        section: dict[str, bytes | None] = dict.fromkeys(sorted(users))
        rows = sums.read(self.table, "user", users)
        for (user,), (turns, reward, defects) in zip(rows.keys, rows.at(at).tolist(), strict=True):
            if turns:
                row: Everybody | UserRow = UserRow(at, turns, reward, defects)
                if user == ALL:
                    row = Everybody(reward / turns, defects / turns, self._half_life_ms)
                section[user] = msgspec.json.encode(row)
        return section
