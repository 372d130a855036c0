"""The history of users: how much each has asked, and how well that went.

For every user, and for all together, it sums with forward decay the turns, their success and their defects. The policy
makes features of them: see `users`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np

from backchannel.agents.bandit.users import USER_FEATURES, Everybody, UserRow, Users
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import ALL, USER, Delta, Key, SumReader, Sums, SumTable


class UserHistory(Learner):
    """The learner of users' turns. Its section: ALL -> `users.Everybody`; user id -> `users.UserRow`.

    A turn's defect is the probability that its query was rephrased, and 1 if its answer was barged in on.

    Args:
        half_life_days: after which a turn counts half.
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

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`. Turns of nobody in particular are left out."""
        table = self.table
        landmark = table.landmark(max((outcome.turn.query.ts for outcome in outcomes), default=0))
        rows: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for outcome in outcomes:
            query = outcome.turn.query
            if not query.user_id:
                continue
            weight = table.weight(query.ts, landmark)
            for who in (ALL, query.user_id):
                row = rows[(who,)]
                row[0] += weight
                row[1] += weight * outcome.success
                row[2] += weight * (1.0 if outcome.turn.barge_ins else outcome.rephrased)
        return {table.name: Sums(table, list(rows), np.array(list(rows.values())), landmark)} if rows else {}

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
