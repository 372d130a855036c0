"""The personal layer: what has worked for one user, beside what works for everybody.

It sums the same gains and exposures as the memory index, by user. Whoever recalls adds a user's own evidence to that of
everybody, of which no more is counted than some exposures, so that the own one can tell: see `recall`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.memory import MemoryIndex, Shown
from backchannel.agents.outcomes import Outcome
from backchannel.agents.recall import Evidence, OwnRow
from backchannel.agents.sums import Delta, SumReader, SumTable


class PersonalMemory(Learner):
    """The learner of what users prefer. Its section: user id -> the pairs that most is known of, see `recall`.

    Args:
        index: of everybody, with whose configuration and curve this one goes.
    """

    name = "personal"

    def __init__(self, index: MemoryIndex) -> None:
        self._index: Final = index
        self.table: Final = SumTable(
            name="personal",
            key=(("user", str), ("query", str), ("entity", str)),
            sums=index.table.sums,
            half_life_ms=index.table.half_life_ms,
        )
        self.tables = (self.table,)

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`."""
        shown = Shown(self.table, outcomes, _owner)
        return {self.table.name: shown.sums(self._index.examination)} if shown.keys else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Of a user the pairs with most evidence are published."""
        users = changed.get(self.table.name, ())
        if not users:
            return {}
        rows = sums.read(self.table, "user", users)
        values = rows.at(at)
        exposures = values[:, 1:] @ self._index.examination.curve(sums)
        known: defaultdict[str, list[tuple[float, str, Evidence]]] = defaultdict(list)
        numbers = zip(values[:, 0].round(6).tolist(), exposures.round(6).tolist(), strict=True)
        for (user, query, entity), (gain, exposure) in zip(rows.keys, numbers, strict=True):
            known[user].append((-gain - exposure, query, Evidence(entity, gain, exposure)))
        section: dict[str, bytes | None] = dict.fromkeys(sorted(users))
        for user, pairs in known.items():
            of_query: defaultdict[str, list[Evidence]] = defaultdict(list)
            best = sorted(pairs, key=lambda pair: (pair[0], pair[1], pair[2].entity_id))
            for _, query, evidence in best[: self._index.config.personal]:
                of_query[query].append(evidence)
            if of_query:
                section[user] = msgspec.json.encode(OwnRow(at, of_query))
        return section


def _owner(outcome: Outcome) -> tuple[str, ...] | None:
    user = outcome.turn.query.user_id
    return (user, outcome.query) if user and outcome.query else None
