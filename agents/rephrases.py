"""The rephrase graph: what a failing query should have been.

People who were misunderstood say it again. Pooled over everybody, their rephrases are an absorbing Markov chain
(Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents", AAAI 2020, arXiv 1911.02557).
Its transient states are the queries: interpretations where events carry them, else normalised texts. It is absorbed in
success (a click that nothing took back) or failure. Every closed turn adds a decayed mass of one to the row of its
state: its probability of being rephrased to the next state, the rest to success and failure.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Annotated, Final

import numpy as np
import orjson
from msgspec import Meta, Struct

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, Key, Matrix, SumReader, Sums, SumTable
from backchannel.schemas.events import Query
from backchannel.schemas.text import normalize


class RephraseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a rewrite is published."""

    half_life_days: Annotated[float, Meta(ge=0.01, le=100_000, description="after which evidence counts half")] = 30.0
    min_support: Annotated[
        float, Meta(gt=0, le=1e6, description="turns, as far as not faded, that both states must have")
    ] = 3.0
    margin: Annotated[
        float, Meta(gt=0, le=1, description="by how much the target's success rate must exceed that of its source")
    ] = 0.3
    max_source_success: Annotated[
        float, Meta(ge=0, le=1, description="a query that succeeds more often than this is never rewritten")
    ] = 0.3
    depth: Annotated[int, Meta(ge=1, le=10, description="rephrases that are followed from a state")] = 3
    max_states: Annotated[int, Meta(ge=2, le=2000, description="states that are solved together at most")] = 100


class RephraseGraph(Learner):
    """The learner of rewrites. Its section: state -> {"to": state, "probability": p, "support": n}."""

    name = "rewrites"

    def __init__(self, config: RephraseConfig) -> None:
        self.config: Final = config
        half_life_ms = round(config.half_life_days * 86_400_000)
        self.transitions: Final = SumTable(
            name="transitions",
            key=(("state", str), ("following", str)),
            sums=("weight",),
            half_life_ms=half_life_ms,
            lookup="following",
        )
        self.absorptions: Final = SumTable(
            name="absorptions", key=(("state", str),), sums=("success", "failure"), half_life_ms=half_life_ms
        )
        self.tables = (self.transitions, self.absorptions)

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`. Turns that were served a rewrite are not the users' own, and are left out."""
        transitions: defaultdict[Key, float] = defaultdict(float)
        success: defaultdict[Key, float] = defaultdict(float)
        failure: defaultdict[Key, float] = defaultdict(float)  # not as what success leaves: that would cancel digits
        landmark = self.absorptions.landmark(max((outcome.turn.query.ts for outcome in outcomes), default=0))
        for outcome in outcomes:
            turn = outcome.turn
            state = state_of(turn.query)
            if outcome.rewritten or not state:
                continue
            weight = self.absorptions.weight(turn.query.ts, landmark)
            if outcome.rephrased and turn.next is not None:
                transitions[state, state_of(turn.next)] += weight * outcome.rephrased
                weight *= 1.0 - outcome.rephrased
            failure[state,] += weight * (1.0 - outcome.success)
            if outcome.success:
                success[state,] += weight * outcome.success
        if not failure:
            return {}
        absorbed = np.empty((len(failure), 2))
        absorbed[:, 0] = [success.get(state, 0.0) for state in failure]
        absorbed[:, 1] = list(failure.values())
        delta = {self.absorptions.name: Sums(self.absorptions, list(failure), absorbed, landmark)}
        if transitions:
            weights = np.fromiter(transitions.values(), float)[:, np.newaxis]
            delta[self.transitions.name] = Sums(self.transitions, list(transitions), weights, landmark)
        return delta

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Solved anew are the changed states and those that lead to them within `depth`."""
        affected: set[str] = {state for states in changed.values() for state in states}
        border: Collection[str] = affected
        for _ in range(self.config.depth):
            leading = sums.read(self.transitions, "following", border)
            border = {state for state, _ in leading.keys} - affected
            affected |= border
        graph = _Graph(self, sums, affected, at)
        return {state: graph.rewrite(state) for state in sorted(affected)}


def state_of(query: Query) -> str:
    """The chain's state of a query; empty if nothing was recognised."""
    return query.interpretation or normalize(query.text)


class _Graph:
    """The part of the chain that can be reached from some states, as of one time."""

    def __init__(self, learner: RephraseGraph, sums: SumReader, states: Collection[str], at: int) -> None:
        self._config = learner.config
        following: dict[str, dict[str, float]] = {}
        known: set[str] = set()
        border = set(states)
        for _ in range(self._config.depth + 1):  # the support of the farthest states lies in their rows, too
            known |= border
            rows = sums.read(learner.transitions, "state", border)
            for (state, target), (weight,) in zip(rows.keys, rows.at(at).tolist(), strict=True):
                if weight:  # not faded to nothing
                    following.setdefault(state, {})[target] = weight
            border = {target for _, target in rows.keys} - known
        absorbed = sums.read(learner.absorptions, "state", known)
        self._success_rate: dict[str, float] = {}  # of the turns in a state, with one failure added to them
        self._support: dict[str, float] = {}
        for (state,), (success, failure) in zip(absorbed.keys, absorbed.at(at).tolist(), strict=True):
            self._support[state] = success + failure + sum(following.get(state, {}).values())
            self._success_rate[state] = success / (self._support[state] + 1.0)
        # Likeliest first, and no more of them than will ever be solved together.
        self._following = {
            state: dict(sorted(targets.items(), key=lambda step: (-step[1], step[0]))[: self._config.max_states])
            for state, targets in following.items()
        }

    def rewrite(self, source: str) -> bytes | None:
        """The best target for `source` that passes the checks, as a row of the section."""
        config = self._config
        support = self._support.get(source, 0.0)
        if support < config.min_support or source not in self._following:
            return None
        own_rate = self._success_rate[source]
        if own_rate > config.max_source_success:
            return None
        states, followed = self._reachable(source)
        wanted = own_rate + config.margin
        targets = [state for state in states[1:] if self._is_good(state, wanted)]
        if not targets:
            return None
        passing = dict(zip(states, self._passing(states, followed), strict=True))
        probability, target = max((passing[state] * self._success_rate[state], state) for state in targets)
        # Where few who ask this go on to the target, they do not mean it, however well it does for those who ask it.
        if probability <= own_rate:
            return None
        return orjson.dumps({"to": target, "probability": probability, "support": support})

    def _is_good(self, target: str, wanted: float) -> bool:
        return (
            self._support.get(target, 0.0) >= self._config.min_support and self._success_rate.get(target, 0.0) >= wanted
        )

    def _reachable(self, source: str) -> tuple[list[str], int]:
        """`source` and what it leads to, nearest and likeliest first, within `depth` and `max_states`.

        Also, how many of them are followed: all but those that are `depth` rephrases away.
        """
        found = {source: None}
        border = [source]
        for _ in range(self._config.depth):
            steps = [step for state in border for step in self._following.get(state, {}).items()]
            border = []
            for following, _ in sorted(steps, key=lambda step: (-step[1], step[0])):
                if following not in found and len(found) < self._config.max_states:
                    found[following] = None
                    border.append(following)
        return list(found), len(found) - len(border)

    def _passing(self, states: Sequence[str], followed: int) -> list[float]:
        """The probability of ever passing through each of `states`, of which some are followed, from the first.

        With the fundamental matrix N = (I - Q)^-1 it is N[0, j] / N[j, j] (Kemeny & Snell 1960, theorem 3.2.4).
        """
        index = {state: row for row, state in enumerate(states)}
        transient: Matrix = np.zeros((len(states), len(states)))
        for row, state in enumerate(states[:followed]):
            for following, weight in self._following.get(state, {}).items():
                if following in index:
                    transient[row, index[following]] = weight / self._support[state]
        # A chain that is never left would be singular; no chain of people is.
        fundamental = np.linalg.inv(np.eye(len(states)) - transient * (1 - 1e-9))
        passing: list[float] = (fundamental[0] / fundamental.diagonal()).tolist()
        return passing
