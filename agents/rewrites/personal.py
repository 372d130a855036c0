"""The personal layer of rewrites: what a user's own failing queries should have been.

Who says "call mum" and then "call Mary Smith" means something that others do not. So each user's turns that were
rephrased or that succeeded are an absorbing chain of their own, much like that of everybody in `rephrases`, with less
to be sure of and nobody else to be harmed.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.rewrites.chain import Chain
from backchannel.agents.rewrites.learner import RephraseConfig, harm, state_of
from backchannel.agents.rewrites.rows import PersonalRow
from backchannel.agents.rewrites.serving import Rewriter
from backchannel.agents.sums import ALL, USER, Delta, Integers, Key, SumReader, Sums, SumTable

_DEPTH, _MAX_STATES = 2, 20


class PersonalRewrites(Learner):
    """The learner of users' own rewrites. Its section: user -> `PersonalRow`."""

    name = Rewriter.personal
    serving = Rewriter

    def __init__(self, config: RephraseConfig) -> None:
        self.config: Final = config
        # A row of a state and the one that followed: rephrases, and the record of that rewrite where it was served.
        # A row of a state and nothing: how often it succeeded or not, in turns that somewhat succeeded.
        self.table: Final = SumTable(
            name="personal_rephrases",
            key=((USER, str), ("state", str), ("following", str)),
            sums=("rephrased", "success", "failure"),
            half_life_ms=round(config.half_life_days * 86_400_000),
        )
        self.tables = (self.table,)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.rephrases)

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`. Turns of nobody in particular are left out, and those of which nothing came."""
        rows: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        landmark = self.table.landmark(max((outcome.turn.query.ts for outcome in outcomes), default=0))
        for outcome in outcomes:
            query, following = outcome.turn.query, outcome.turn.next
            user, state = query.user_id, state_of(query)
            if not user or not state or not self.config.personal:
                continue
            weight = self.table.weight(query.ts, landmark)
            if outcome.rewritten is not None:
                if outcome.rewritten:
                    row = rows[user, state, outcome.rewritten]
                    row[1] += weight * outcome.success
                    row[2] += weight * (1.0 - outcome.success)
                continue
            if outcome.rephrased and following is not None:
                rows[user, state, state_of(following)][0] += weight * outcome.rephrased
                weight *= 1.0 - outcome.rephrased
            if outcome.unrephrased and outcome.rephrased < 1.0:
                row = rows[user, state, ALL]
                row[1] += weight * outcome.unrephrased
                row[2] += weight * (1.0 - outcome.unrephrased)
        if not rows:
            return {}
        return {self.table.name: Sums(self.table, list(rows), np.array(list(rows.values())), landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`."""
        users = changed.get(self.table.name, ())
        section: dict[str, bytes | None] = dict.fromkeys(users)
        rows = sums.read(self.table, "user", users)
        if rows.keys:
            for user, row in self._rewrites(rows, at).items():
                section[user] = orjson.dumps(row)
        return section

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
                own = float(chain.success[source]), float(chain.support[source] - chain.success[source])
                if not harm(tried.get((source, target)), own):
                    user, state = states[source]
                    found[user].append((-float(chain.support[source]), state, states[target][1], probability))
        return {
            user: {state: (target, probability) for _, state, target, probability in sorted(some)[: config.personal]}
            for user, some in found.items()
        }
