"""The personal layer of rewrites: the queries that a user's own failing queries should have been.

A user who says "call mum" and then "call Mary Smith" means something that others do not. So each user's turns that were
rephrased or succeeded form an absorbing chain of their own, like that of all users in `learner`. It needs less
evidence, because nobody else is harmed; but a rewrite never changes a number or means the opposite (see `meanings`).
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.rewrites.chain import Chain
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.records import harm
from backchannel.agents.rewrites.rows import PersonalRow
from backchannel.agents.rewrites.serving import Rewriter
from backchannel.agents.sums import ALL, USER, Delta, Groups, Integers, Key, SumReader, Sums, SumTable

_DEPTH, _MAX_STATES = 2, 20
_KEPT: Final = 16  # rows kept per published rewrite: its states, and what may become one


class PersonalRewrites(Learner):
    """The learner of users' own rewrites. Its section: user -> `PersonalRow`."""

    name = Rewriter.personal
    serving = Rewriter

    def __init__(self, config: RephraseConfig) -> None:
        self.config: Final = config
        # The row of a state and the next state has the rephrases, and the record of that rewrite where it was served.
        # The row of a state and ALL has its success and failure, in turns with some success.
        self.table: Final = SumTable(
            name="personal_rephrases",
            key=((USER, str), ("state", str), ("following", str)),
            sums=("rephrased", "success", "failure"),
            half_life_ms=round(config.half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        self.bound = (self.table, _KEPT * config.personal) if config.personal else None

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.rephrases)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. Turns without a user are left out, and turns without rephrase or success."""
        if not self.config.personal:
            return {}
        landmark = self.table.landmark(int(outcomes.times.max(initial=0)))
        weights = self.table.weights(outcomes.times, landmark)
        known = (outcomes.users != MISSING) & outcomes.named[outcomes.state]
        served, rephrased = outcomes.rewritten != MISSING, outcomes.rephrased
        tried = np.flatnonzero(known & served & outcomes.named[outcomes.rewritten])
        steps = np.flatnonzero(known & ~served & (rephrased > 0) & (outcomes.following != MISSING))
        absorbed = np.flatnonzero(known & ~served & (outcomes.unrephrased > 0) & (rephrased < 1.0))
        rows = np.concatenate((tried, steps, absorbed))
        if not len(rows):
            return {}
        nothing = np.zeros(len(absorbed), dtype=np.int64)
        following = np.concatenate((outcomes.rewritten[tried] + 1, outcomes.following[steps] + 1, nothing))
        success = np.concatenate((outcomes.success[tried], np.zeros(len(steps)), outcomes.unrephrased[absorbed]))
        masses = [np.zeros(len(tried)), weights[steps] * rephrased[steps], np.zeros(len(absorbed))]
        weights[steps] *= 1.0 - rephrased[steps]
        recorded = np.concatenate((weights[tried], np.zeros(len(steps)), weights[absorbed]))
        groups = Groups(
            (outcomes.users[rows], outcomes.columns.pools.people),
            (outcomes.state[rows], outcomes.keys),
            (following, [ALL, *outcomes.keys]),
        )
        sums = (np.concatenate(masses), recorded * success, recorded * (1.0 - success))
        return {self.table.name: groups.sums(self.table, sums, landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        users = changed.get(self.table.name, ())
        section: dict[str, bytes | None] = dict.fromkeys(users)
        rows = sums.read(self.table, "user", users)
        if rows.keys:
            for user, row in self._rewrites(rows, at).items():
                section[user] = orjson.dumps(row)
        return section

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`: a user's rows with the smallest sums."""
        rows = sums.read(self.table, "user", crowded)
        masses: defaultdict[str, list[tuple[float, Key]]] = defaultdict(list)
        for key, mass in zip(rows.keys, rows.at(at).sum(axis=1).round(6).tolist(), strict=True):
            masses[key[0]].append((-mass, key))
        return [key for own in masses.values() for _, key in sorted(own)[_KEPT * self.config.personal :]]

    def _rewrites(self, rows: Sums, at: int) -> dict[str, PersonalRow]:
        config = self.config
        values = rows.at(at)
        states = sorted({(user, state) for user, first, second in rows.keys for state in (first, second) if state})
        number = {state: place for place, state in enumerate(states)}
        absorbed = np.zeros((len(states), 2))
        steps, weights = [], []
        tried: dict[tuple[int, int], tuple[float, ...]] = {}
        for (user, state, following), (rephrased, *record) in zip(rows.keys, values.tolist(), strict=True):
            source = number[user, state]
            if following == ALL:
                absorbed[source] = record
                continue
            target = number[user, following]
            tried[source, target] = tuple(record)
            if rephrased:
                steps.append((source, target))
                weights.append(rephrased)
        chain = Chain(
            states,
            np.array(steps, np.int64).reshape(-1, 2),
            np.array(weights),
            np.ones(len(steps), np.bool_),
            absorbed,
            max_steps=_MAX_STATES,
        )
        sources = np.flatnonzero((chain.rephrased > chain.success) & (chain.rephrased >= config.personal_support))
        good = (chain.success > chain.rephrased) & (chain.success >= 0.5)

        def admissible(_places: Integers, targets: Integers) -> NDArray[np.bool_]:
            return good[targets]

        solution = chain.solve(sources, admissible, _DEPTH, _MAX_STATES)
        found: defaultdict[str, list[tuple[float, str, str, float]]] = defaultdict(list)
        for source, target, probability in zip(
            sources.tolist(), solution.targets.tolist(), solution.probabilities.tolist(), strict=True
        ):
            if target >= 0 and probability > chain.rate[source]:
                if change(states[source][1], states[target][1]) == Change.OPPOSITE:
                    continue
                own = float(chain.success[source]), float(chain.support[source] - chain.success[source])
                if not harm(tried.get((source, target)), own):
                    user, state = states[source]
                    found[user].append((-float(chain.support[source]), state, states[target][1], probability))
        return {
            user: {state: (target, probability) for _, state, target, probability in sorted(some)[: config.personal]}
            for user, some in found.items()
        }
