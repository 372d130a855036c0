"""Tastes, learning: which attribute values one user chooses, such as the cuisine of restaurants.

For each value v of the configured categorical features, the row of a user sums over the lists that the user was shown,
with forward decay, the sums of the ranking's least squares (see `sums`) for the indicator of v alone. With P_v and C_v
the examination and the gains of the results that have v, and P and C those of all results of the list:

    lift   += C_v - C P_v / P        what v was chosen more often than the list's average
    spread += P_v (1 - P_v / P)      how far the list let v be chosen or not

A list in which all results have v, or none, adds nothing. A row of all users together says what their usual choice is,
and a user's taste is the difference from it (see `tastes`): so whatever else makes a value popular, such as its place
in the order, is nobody's taste. What a list adds is bounded and rounded to the grid.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, Codes
from backchannel.agents.learner import TOGETHER, Changed, Learner, portions_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.ranking.learner import ResultRanking, chosen_results, gains_of
from backchannel.agents.ranking.tastes import Everybody, Tastes, UserRow
from backchannel.agents.sums import ALL, GRID, USER, Delta, Floats, Groups, Integers, Key, SumReader, SumTable


class PersonalRanking(Learner):
    """The learner of users' tastes. Its section: ALL -> `tastes.Everybody`; user id -> `tastes.UserRow`.

    Args:
        ranking: the ranking of all users, whose configuration and examination curves are used here too.
    """

    name = Tastes.name
    serving = Tastes

    def __init__(self, ranking: ResultRanking) -> None:
        self._ranking: Final = ranking
        config = ranking.config
        self._features: Final = [
            one for one in config.features if isinstance(one, Categorical) and one.name in config.personal
        ]
        self._columns: Final = [(one.name, value) for one in self._features for value in one.values]
        self._names: Final = sorted({name for name, _ in self._columns})
        self._values: Final = sorted({value for _, value in self._columns})
        self.table: Final = SumTable(
            name="tastes",
            key=((USER, str), ("feature", str), ("value", str)),
            sums=("lift", "spread"),
            half_life_ms=round(config.personal_half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        self.bound = (self.table, len(self._columns))

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(ResultRanking(config.ranking))

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if `ranking.personal` names a feature."""
        return bool(config.ranking.personal)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. Turns without a `user_id` are left out."""
        columns, impressions = outcomes.columns, outcomes.columns.turns.impressions
        shown, rows = impressions.rows, impressions.rows.results.rows
        chosen, parents = chosen_results(shown.results)
        known = outcomes.users[impressions.parents[parents]] != MISSING
        chosen, parents = chosen[known], parents[known]
        if not len(chosen) or not self._columns:
            return {}
        lists, place = np.unique(parents, return_inverse=True)
        examined = self._ranking.examined(columns, shown.examined[parents], rows.position[chosen])
        lift, spread = self._sums(
            place, examined, gains_of(outcomes.gains, chosen), self._held(columns, rows.features[chosen])
        )
        some, column = np.nonzero(spread)
        if not len(some):
            return {}
        turns = impressions.parents[lists[some]]
        landmark = self.table.landmark(int(outcomes.times.max()))
        weights = self.table.weights(outcomes.times[turns], landmark)
        # Each list counts for its user and for all users.
        users = np.concatenate((np.zeros(len(turns), dtype=np.int64), outcomes.users[turns] + 1))
        names = np.array([self._names.index(name) for name, _ in self._columns])[column]
        values = np.array([self._values.index(value) for _, value in self._columns])[column]
        groups = Groups(
            (users, [ALL, *columns.pools.people]), (np.tile(names, 2), self._names), (np.tile(values, 2), self._values)
        )
        sums = [np.tile(weights * one[some, column], 2) for one in (lift, spread)]
        return {self.table.name: groups.sums(self.table, sums, landmark)}

    def _sums(self, place: Integers, examined: Floats, gains: Floats, held: Integers) -> tuple[Floats, Floats]:
        """Return lift and spread of each list and column, both (lists, columns).

        Args:
            place: each result's list, (results,), rising from 0.
            examined: the probability that each result was examined, (results,).
            gains: each result's gain, (results,).
            held: the columns that each result has, (results, features); MISSING if it has none of a feature's.
        """
        shape = int(place[-1]) + 1, len(self._columns)
        of_value, gained = np.zeros(shape[0] * shape[1]), np.zeros(shape[0] * shape[1])
        for column in held.T:
            has = np.flatnonzero(column != MISSING)
            cells = place[has] * shape[1] + column[has]
            of_value += np.bincount(cells, examined[has], len(of_value))
            gained += np.bincount(cells, gains[has], len(gained))
        share = of_value.reshape(shape) / np.bincount(place, examined)[:, np.newaxis]
        lift = gained.reshape(shape) - share * np.bincount(place, gains)[:, np.newaxis]
        spread = of_value.reshape(shape) * (1.0 - share)
        return np.rint(lift * GRID) / GRID, np.rint(spread * GRID) / GRID

    def _held(self, columns: Columns, codes: Codes) -> Integers:
        """Return the columns that each result has, (results, features); MISSING if it has none of a feature's."""
        used, place = np.unique(codes, return_inverse=True)
        found = np.full((len(used), len(self._features)), MISSING, dtype=np.int64)
        begins = np.cumsum([0, *(len(one.values) for one in self._features)]).tolist()
        for row, code in enumerate(used.tolist()):
            context = msgspec.msgpack.decode(columns.pools.contexts[code]) if code != MISSING else {}
            for number, feature in enumerate(self._features):
                value = feature.encode(context.get(feature.name))
                if value is not None:
                    found[row, number] = begins[number] + value
        return found[place]

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:
        """See `Learner.portions`."""
        return (
            portions_of(self.table, changed[self.table.name], together)
            if self.table.name in changed
            else iter([changed])
        )

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        if self.table.name not in changed:
            return {}
        section: dict[str, bytes | None] = dict.fromkeys(sorted(changed[self.table.name]))
        rows = sums.read(self.table, "user", {*section, ALL})
        known: defaultdict[str, dict[str, dict[str, tuple[float, float]]]] = defaultdict(dict)
        for key, lift, spread in sorted(
            (key, *row) for key, row in zip(rows.keys, rows.at(at).round(6).tolist(), strict=True)
        ):
            user, feature, value = key
            if spread and (feature, value) in self._columns:
                known[user].setdefault(feature, {})[value] = lift, spread
        means = {
            feature: {value: round(lift / spread, 6) for value, (lift, spread) in values.items()}
            for feature, values in known.pop(ALL, {}).items()
        }
        section |= {user: msgspec.json.encode(UserRow(at, values)) for user, values in known.items()}
        everybody = Everybody(self.table.half_life_ms or 0, self._ranking.config.personal_ridge, means)
        return section | {ALL: msgspec.json.encode(everybody)}

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002 - Learner's
        """See `Learner.excess`. Values that are no longer configured make room."""
        keys = sums.read(self.table, "user", crowded).keys
        return [key for key in keys if key[1:] not in self._columns]
