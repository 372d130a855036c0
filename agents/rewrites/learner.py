"""The rephrase graph: what a failing query should have been.

People who were misunderstood say it again. Pooled over everybody, their rephrases are an absorbing Markov chain
(Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents", AAAI 2020, arXiv 1911.02557).
Its transient states are the queries: interpretations where events carry them, else normalised texts. It is absorbed in
success (a click that a barge-in did not take back) or failure. Every closed turn adds a decayed mass of one to the row
of its state: its probability of being rephrased to the next state, the rest to success and failure.

A turn that was served a rewrite is not the users' own, and would teach the chain its own doing ("self-aware" chain,
arXiv 2205.00029). It goes into the record of that rewrite instead, which is compared with that of the sessions that are
held out: a rewrite that does harm is withdrawn.

A state is a source only if it is rephrased more often than it succeeds, and a target only if it succeeds more often
than it is rephrased. No state is both: so there are no chains and no loops of rewrites, whatever part of the graph was
solved when.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from math import sqrt
from typing import Annotated, Any, Final, Self, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct, structs
from numpy.typing import NDArray

from backchannel.agents.columns import MISSING
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.rewrites.chain import Admissible, Chain
from backchannel.agents.rewrites.rows import RewriteRow, Settings, is_held_out
from backchannel.agents.rewrites.serving import Rewriter
from backchannel.agents.sketches import BUCKETS, bucket, distinct
from backchannel.agents.sums import ALL, Booleans, Delta, Groups, Integers, Key, SumReader, Sums, SumTable
from backchannel.schemas.events import Query
from backchannel.schemas.text import normalize

HELD_OUT: Final = ""
"""Stands for the target in the record of those who were served no rewrite."""

Record: TypeAlias = tuple[float, ...]
"""Weights of success and of failure."""

SURE: Final = 1.2816
"""Standard deviations of the bounds of a success rate: each of the two holds with a probability of 90%."""

_HARMFUL: Final = 1.6449  # standard deviations: 95% sure that it does harm


class RephraseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a rewrite is published."""

    half_life_days: Annotated[float, Meta(ge=0.01, le=100_000, description="half-life of evidence, in days")] = 30.0
    min_support: Annotated[float, Meta(gt=0, le=1e6, description="turns (decayed) that both states must have")] = 3.0
    min_users: Annotated[
        float,
        Meta(
            ge=0,
            le=6,
            description="distinct people (decayed) who must have rephrased one query as the other. A session "
            "without a user counts as one",
        ),
    ] = 1.5
    margin: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="required distance from the upper bound of the source's success rate to the lower "
            "bound of the target's; each bound holds with 90% probability",
        ),
    ] = 0.1
    max_source_success: Annotated[
        float,
        Meta(
            ge=0, le=1, description="a query is rewritten only if the upper bound of its success rate is at most this"
        ),
    ] = 0.5
    depth: Annotated[int, Meta(ge=1, le=10, description="longest chain of rephrases followed from a state")] = 3
    max_states: Annotated[int, Meta(ge=2, le=2000, description="most states in one solved subgraph")] = 100
    held_out: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of sessions that are served no rewrites, to measure whether rewrites help",
        ),
    ] = 0.05
    personal: Annotated[
        int, Meta(ge=0, le=1000, description="most rewrites learned from a user's own rephrases, per user")
    ] = 20
    personal_support: Annotated[
        float, Meta(gt=0, le=1e6, description="rephrases of a query by one user that are enough for a personal rewrite")
    ] = 1.5


class RephraseGraph(Learner):
    """The learner of rewrites. Its section: state -> `RewriteRow`.

    A row is solved anew when its state is asked, or one that it leads to. So a rewrite does not lapse for growing old
    while nobody asks for it; when somebody does, the next version has looked at it.
    """

    name = Rewriter.name
    serving = Rewriter

    def __init__(self, config: RephraseConfig) -> None:
        self.config: Final = config
        half_life_ms = round(config.half_life_days * 86_400_000)
        self.transitions: Final = SumTable(
            name="transitions",
            key=(("state", str), ("following", str)),
            sums=BUCKETS,
            half_life_ms=half_life_ms,
            lookup="following",
        )
        self.absorptions: Final = SumTable(
            name="absorptions", key=(("state", str),), sums=("success", "failure"), half_life_ms=half_life_ms
        )
        self.trials: Final = SumTable(
            name="rewrite_trials",
            key=(("state", str), ("target", str)),
            sums=("success", "failure"),
            half_life_ms=half_life_ms,
        )
        self.rules: Final = SumTable(
            name="rewrite_rules", key=(("state", str), ("target", str)), sums=("pinned", "blocked")
        )
        self.tables = (self.transitions, self.absorptions, self.trials, self.rules)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.rephrases)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        landmark = self.absorptions.landmark(int(outcomes.times.max(initial=0)))
        weights = self.absorptions.weights(outcomes.times, landmark)
        served, recognised = outcomes.rewritten != MISSING, outcomes.named[outcomes.state]
        # Everybody's own turns go into the chain, and what was served into the record of the rewrite.
        own = np.flatnonzero(recognised & ~served)
        tried = np.flatnonzero(recognised & served & outcomes.named[outcomes.rewritten])
        held_out = own[self._held_out(outcomes, own)]
        steps = own[(outcomes.rephrased[own] > 0) & (outcomes.following[own] != MISSING)]
        states, targets = outcomes.state, ["", *outcomes.keys]
        delta: Delta = {}
        if len(steps):
            groups = Groups((states[steps], outcomes.keys), (outcomes.following[steps], outcomes.keys))
            masses = weights[steps] * outcomes.rephrased[steps]
            buckets = self._buckets(outcomes, steps)
            sketches = [np.where(buckets == one, masses, 0.0) for one in range(len(BUCKETS))]
            delta[self.transitions.name] = groups.sums(self.transitions, sketches, landmark)
        if len(own):
            kept = weights.copy()
            kept[steps] *= 1.0 - outcomes.rephrased[steps]
            success, kept = outcomes.unrephrased[own], kept[own]
            groups = Groups((states[own], outcomes.keys))
            delta[self.absorptions.name] = groups.sums(
                self.absorptions, (kept * success, kept * (1.0 - success)), landmark
            )
        if len(tried) or len(held_out):
            rows = np.concatenate((tried, held_out))
            target = np.concatenate((outcomes.rewritten[tried] + 1, np.zeros(len(held_out), dtype=np.int64)))
            success, weight = outcomes.success[rows], weights[rows]
            groups = Groups((states[rows], outcomes.keys), (target, targets))
            delta[self.trials.name] = groups.sums(self.trials, (weight * success, weight * (1.0 - success)), landmark)
        return delta

    def _held_out(self, outcomes: Outcomes, rows: Integers) -> Booleans:
        """Which of some turns are of sessions that are served no rewrites."""
        sessions, place = np.unique(outcomes.columns.turns.query.session[rows], return_inverse=True)
        people, share = outcomes.columns.pools.people, self.config.held_out
        return np.array([is_held_out(people[one], share) for one in sessions.tolist()], dtype=bool)[place]

    def _buckets(self, outcomes: Outcomes, rows: Integers) -> Integers:
        """The bucket of the sketch that who asked in some turns belongs to."""
        people, place = np.unique(outcomes.people[rows], return_inverse=True)
        return np.array([bucket(outcomes.columns.pools.people[one]) for one in people.tolist()], dtype=np.int64)[place]

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Solved anew are the changed states and those that lead to them within `depth`."""
        rules = Rules(sums.read(self.rules))
        affected = {state for states in changed.values() for state in states}
        if changed.get(self.rules.name):  # they are few, and bear on each other
            affected |= rules.states
        border: Collection[str] = affected
        for _ in range(self.config.depth):
            leading = sums.read(self.transitions, "following", border)
            border = {state for state, _ in leading.keys} - affected
            affected |= border
        found = Rewrites(self, sums, affected, rules, at).rows()
        section: dict[str, bytes | None] = dict.fromkeys(sorted(affected))
        section.update({state: msgspec.json.encode(row) for state, row in found.items()})
        section[ALL] = msgspec.json.encode(Settings(self.config.held_out))
        return section


class Rules:
    """What people have decreed.

    Args:
        sums: of the table of rules.

    Attributes:
        pins: state -> the target that it is to be rewritten to. Where that is pinned, too, it is what that leads to;
            what leads back to itself, or must not be rewritten at all, is not pinned.
        blocked: state -> the targets that it must not be rewritten to.
        states: all that were ever named.
    """

    def __init__(self, sums: Sums) -> None:
        self.pins: dict[str, str] = {}
        self.blocked: defaultdict[str, set[str]] = defaultdict(set)
        self.states: Final = {state for key in sums.keys for state in key if state}
        for (state, target), (pinned, blocked) in zip(sums.keys, sums.values.tolist(), strict=True):
            if blocked > 0:
                self.blocked[state].add(target)
            elif pinned > 0:
                self.pins[state] = max(target, self.pins.get(state, ""))  # of several any, but always the same
        for state in [state for state in self.pins if ALL in self.blocked.get(state, ())]:
            del self.pins[state]
        for state in list(self.pins):
            passed = {state}
            while (target := self.pins[state]) in self.pins and target not in passed:
                passed.add(target)
                self.pins[state] = self.pins[target]
        for state in [state for state, target in self.pins.items() if target in self.pins]:
            del self.pins[state]
        self._aims: Final = set(self.pins.values())

    def __bool__(self) -> bool:
        return bool(self.pins or self.blocked)

    def allow_source(self, state: str) -> bool:
        """Whether the graph may rewrite `state`."""
        return state not in self.pins and state not in self._aims and ALL not in self.blocked.get(state, ())

    def allow(self, state: str, target: str) -> bool:
        """Whether the graph may rewrite `state` to `target`."""
        return target not in self.pins and target not in self.blocked.get(state, ())


class Rewrites:
    """The rewrites of some states, as of one time.

    Args:
        learner: whose tables to read.
        sums: where to read them.
        states: to solve.
        rules: to keep to.
        at: event time, ms.

    Attributes:
        chain: what can be reached from those of `states` that may be rewritten.
    """

    def __init__(self, learner: RephraseGraph, sums: SumReader, states: Collection[str], rules: Rules, at: int) -> None:
        self._learner: Final = learner
        self._config: Final = learner.config
        self._sums: Final = sums
        self._rules: Final = rules
        self._at: Final = at
        self._states: Final = sorted(states)
        known, steps, absorbed = set(states), [self._read_steps(states)], [self._read_absorbed(states)]
        chain = self._chain(steps, absorbed)
        visited = border = {chain.states[number] for number in self._sources(chain).tolist()}
        for _ in range(learner.config.depth):
            reached = chain.following(chain.numbers(border))
            border = {chain.states[number] for number in reached.tolist()} - visited
            visited = visited | border
            if border - known:
                steps.append(self._read_steps(border - known))
                absorbed.append(self._read_absorbed(border - known))
                known |= border
                chain = self._chain(steps, absorbed)
        self.chain: Final = chain

    def rows(self) -> dict[str, RewriteRow]:
        """Return the rows of those of the states that have one."""
        chain, rules = self.chain, self._rules
        rows = {
            state: RewriteRow(blocked=tuple(sorted(rules.blocked[state])))
            for state in self._states
            if state in rules.blocked
        }
        sources = self._sources(chain, self._states)
        solution = chain.solve(sources, self._admissible(sources), self._config.depth, self._config.max_states)
        # Where few who ask this go on to the target, they do not mean it, however well it does for those who ask it.
        good = (solution.targets >= 0) & (solution.probabilities > chain.rate[sources])
        chosen = [chain.states[number] for number in sources[good].tolist()]
        records = self._records(chosen)
        for state, source, target, probability in zip(
            chosen,
            sources[good].tolist(),
            solution.targets[good].tolist(),
            solution.probabilities[good].tolist(),
            strict=True,
        ):
            aim = chain.states[target]
            rows[state] = structs.replace(
                rows.get(state, RewriteRow()),
                target=aim,
                probability=probability,
                support=float(chain.support[source]),
                withdrawn=harm(records.get((state, aim)), records.get((state, HELD_OUT))),
            )
        for state in self._states:
            if state in rules.pins:
                rows[state] = structs.replace(
                    rows.get(state, RewriteRow()), target=rules.pins[state], probability=1.0, pinned=True
                )
        return rows

    def _sources(self, chain: Chain[str], states: Collection[str] | None = None) -> Integers:
        """Those of `states` (None: of all) that may be rewritten, in ascending order."""
        config = self._config
        _, upper = chain.bounds(SURE)
        failing = (
            chain.branches
            & (chain.support >= config.min_support)
            & (chain.rephrased > chain.success)
            & (upper <= config.max_source_success)
        )
        if states is not None:
            asked = np.zeros(len(failing), np.bool_)
            asked[chain.numbers(states)] = True
            failing &= asked
        numbers = np.flatnonzero(failing).tolist()
        return np.array([number for number in numbers if self._rules.allow_source(chain.states[number])], np.int64)

    def _admissible(self, sources: Integers) -> Admissible:
        """Which targets the sources may have."""
        chain, config, rules = self.chain, self._config, self._rules
        lower, upper = chain.bounds(SURE)
        good = (chain.support >= config.min_support) & (chain.success > chain.rephrased)
        wanted = upper[sources] + config.margin

        def admissible(places: Integers, states: Integers) -> NDArray[np.bool_]:
            may: NDArray[np.bool_] = good[states] & (lower[states] >= wanted[places])
            for one in np.flatnonzero(may).tolist() if rules else ():
                may[one] = rules.allow(chain.states[sources[places[one]]], chain.states[states[one]])
            return may

        return admissible

    def _chain(self, steps: Sequence[Sums], absorbed: Sequence[Sums]) -> Chain[str]:
        keys = [key for sums in steps for key in sums.keys]
        people = np.concatenate([sums.at(self._at) for sums in steps])
        weights = people.sum(axis=1)
        names = {state for sums in absorbed for (state,) in sums.keys}
        names.update(state for key in keys for state in key)
        states = sorted(names)
        place = {state: number for number, state in enumerate(states)}
        numbers = np.array([(place[state], place[following]) for state, following in keys], np.int64).reshape(-1, 2)
        left = weights > 0  # not faded to nothing
        ends = np.zeros((len(states), 2))
        for sums in absorbed:
            ends[[place[state] for (state,) in sums.keys]] = sums.at(self._at)
        trusted = distinct(people[left]) >= self._config.min_users
        return Chain(states, numbers[left], weights[left], trusted, ends, max_steps=self._config.max_states)

    def _read_steps(self, states: Collection[str]) -> Sums:
        return self._sums.read(self._learner.transitions, "state", states)

    def _read_absorbed(self, states: Collection[str]) -> Sums:
        return self._sums.read(self._learner.absorptions, "state", states)

    def _records(self, states: Collection[str]) -> dict[Key, Record]:
        trials = self._sums.read(self._learner.trials, "state", states)
        return dict(zip(trials.keys, map(tuple, trials.at(self._at).tolist()), strict=True))


def state_of(query: Query) -> str:
    """The chain's state of a query; empty if nothing was recognised."""
    return query.interpretation or normalize(query.text)


def harm(served: Record | None, held_out: Record | None) -> str:
    """Return why a rewrite is to be withdrawn; nothing if there is no reason.

    It does harm if, by 95%, turns with it succeed less often than those of the sessions that are held out, by the
    adjusted interval for a difference of rates (Agresti & Caffo, The American Statistician 2000).

    Args:
        served: weights of success and failure with the rewrite.
        held_out: the same without it.
    """
    if served is None or held_out is None:
        return ""
    turns, others = sum(served), sum(held_out)
    rate, other = (served[0] + 1) / (turns + 2), (held_out[0] + 1) / (others + 2)
    error = sqrt(rate * (1 - rate) / (turns + 2) + other * (1 - other) / (others + 2))
    if other - rate <= _HARMFUL * error:
        return ""
    return (
        f"{served[0] / turns:.0%} of {turns:.1f} turns succeeded with it, "
        f"{held_out[0] / others:.0%} of {others:.1f} held out without it"
    )


def _add(row: list[float], success: float, failure: float) -> None:
    row[0] += success
    row[1] += failure
