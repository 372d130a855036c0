"""The personal layer: which entities have worked for one user.

It sums the same gains and exposures as the memory index, by user. Serving adds a user's evidence to everybody's, whose
weight is limited (`personal_kappa`) so that the user's own evidence can matter: see `serving`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import TOGETHER, Changed, Learner, portions_of
from backchannel.agents.memory.learner import MemoryIndex, Shown
from backchannel.agents.memory.serving import Memory, OwnRow, PairEvidence
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import USER, Delta, Key, SumReader, SumTable

_KEPT: Final = 2  # pairs kept per published pair, to replace those that decay


class PersonalMemory(Learner):
    """The learner of users' preferences. Its section: user id -> `serving.OwnRow`, the pairs with the most evidence.

    Args:
        index: the memory index of everybody, whose configuration and examination curve are used here too.
    """

    name = Memory.personal
    serving = Memory

    def __init__(self, index: MemoryIndex) -> None:
        self._index: Final = index
        self.table: Final = SumTable(
            name="personal",
            key=((USER, str), ("query", str), ("entity", str)),
            sums=index.table.sums,
            half_life_ms=index.table.half_life_ms,
        )
        self.tables = (self.table,)
        self._most: Final = _KEPT * index.config.personal
        self.bound = (self.table, self._most)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(MemoryIndex(config.memory))

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if `memory.personal` is above 0."""
        return bool(config.memory.personal)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        rows = np.flatnonzero((outcomes.users != MISSING) & outcomes.named[outcomes.query])
        owners = (outcomes.users, outcomes.columns.pools.people), (outcomes.query, outcomes.keys)
        shown = Shown(self.table, outcomes, rows, *owners)
        return {self.table.name: shown.sums(self._index.examination)} if shown.groups.keys else {}

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:
        """See `Learner.portions`."""
        return portions_of(self.table, changed.get(self.table.name, ()), together)

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. The pairs with the most evidence are published."""
        users = changed.get(self.table.name, ())
        if not users:
            return {}
        section: dict[str, bytes | None] = dict.fromkeys(sorted(users))
        for user, pairs in self._known(sums, users, at).items():
            of_query: defaultdict[str, list[PairEvidence]] = defaultdict(list)
            for _, query, entity, gain, exposure in pairs[: self._index.config.personal]:
                of_query[query].append(PairEvidence(entity, gain, exposure))
            if of_query:
                section[user] = msgspec.json.encode(OwnRow(at, of_query))
        return section

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`."""
        known = self._known(sums, crowded, at)
        return [(user, *pair[1:3]) for user, pairs in known.items() for pair in pairs[self._most :]]

    def _known(
        self, sums: SumReader, users: Collection[str], at: int
    ) -> dict[str, list[tuple[float, str, str, float, float]]]:
        """Return user -> (-evidence, query, entity, gain, exposure) per pair, the most evidence first."""
        rows = sums.read(self.table, "user", users)
        values = rows.at(at)
        gains, exposures = self._index.examination.curve(sums).evidence(values[:, 0], values[:, 1:])
        known: defaultdict[str, list[tuple[float, str, str, float, float]]] = defaultdict(list)
        numbers = zip(gains.round(6).tolist(), exposures.round(6).tolist(), strict=True)
        for (user, query, entity), (gain, exposure) in zip(rows.keys, numbers, strict=True):
            known[user].append((-gain - exposure, query, entity, gain, exposure))
        return {user: sorted(pairs) for user, pairs in known.items()}
