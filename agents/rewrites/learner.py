"""The rephrase graph: the queries that failing queries should have been.

People who were misunderstood say it again. Pooled over all users, their rephrases are an absorbing Markov chain
(Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents", AAAI 2020, arXiv 1911.02557).
Its transient states are the queries: interpretations where events have them, else normalised texts. It is absorbed in
success (a click that a barge-in did not take back) or failure. Every closed turn adds a decayed mass of one to its
state: its probability of being rephrased to the next state, and the rest to success and failure.

A turn that was served a rewrite would feed the chain's own output back to it ("self-aware" chain, arXiv 2205.00029). It
is added to the record of the rewrite instead, which is compared with the turns of held-out sessions: a rewrite that
does harm is withdrawn.

A state is a source only if it is rephrased more often than it succeeds, and a target only if it succeeds more often
than it is rephrased. No state is both, so rewrites form no chains and no loops, in whatever order states were solved.

What one person adds is bounded: masses are kept by bucket of people (see `sketches`), and all masses of a state that
fall into one bucket are scaled down, when they are read, to `ONE_PERSON` turns or to twice the state's median bucket,
whichever is more. However many turns one person adds, they move a state's masses by at most that. The records of
rewrites are bounded in the same way, so no single person can have a rewrite withdrawn.

Likeness is no evidence of meaning: the more a rewrite changes (see `meanings`), the larger the share of a query's
askers that must go on to it; and a query of two meanings that are about equally
likely is left alone. An opposite is published only from what people did after the recogniser had heard both (see
`opposites`).
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.rewrites.chain import Admissible, Chain, Solution
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.keeping import Fitted
from backchannel.agents.rewrites.likeness_weights import EVERYBODY
from backchannel.agents.rewrites.meanings import Change, change, same_meaning
from backchannel.agents.rewrites.opposites import TIMES, BothHeard, are_meant
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.records import Record, harm, with_records
from backchannel.agents.rewrites.rows import RewriteRow, Settings, held_out
from backchannel.agents.rewrites.rules import Rules
from backchannel.agents.rewrites.sample import SIZE, Sample
from backchannel.agents.rewrites.serving import Rewriter
from backchannel.agents.rewrites.training import evidence_of, trained
from backchannel.agents.sketches import BUCKETS, bounded_shares, distinct
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import (
    ALL,
    Booleans,
    Delta,
    Floats,
    Groups,
    Integers,
    Key,
    SumReader,
    Sums,
    SumTable,
    unique_inverse,
)
from backchannel.schemas.events import Query
from backchannel.schemas.text import normalize

SURE: Final = 1.2816
"""Standard deviations to the bounds of a rate, each of which holds with a probability of 90%."""
ONE_PERSON: Final = 3.0
"""Turns (decayed) of one person that always count in full at a state."""

_NEEDED: Final = {
    Change.WORDING: (0.0, 1.0),
    Change.SPELLING: (0.5, 1.0),
    Change.WORD: (0.5, 2.0),
    Change.OPPOSITE: (0.5, TIMES),
}
"""Evidence that a change of meaning needs: the minimum share, by its lower bound, of those who went on to the target
among all who did that or succeeded with the query; and the support, in `min_support`s. That is not enough for an
opposite: if everybody who says "turn on" says "turn off" next, that is usage, not an error. See `opposites`."""
_ENDS: Final = tuple(f"{end}_{people}" for end in ("success", "failure") for people in BUCKETS)


class RephraseGraph(Learner):
    """The learner of rewrites. Its section: state -> `RewriteRow`.

    A row is recomputed when its state is asked, or a state that it leads to. So a rewrite does not lapse with age while
    nobody asks its query.
    """

    name = Rewriter.name
    serving = Rewriter

    def __init__(self, config: RephraseConfig) -> None:
        self.config: Final = config
        half_life_ms = round(config.half_life_days * 86_400_000)
        self._half_life_ms: Final = half_life_ms
        self.transitions: Final = SumTable(
            name="transitions",
            key=(("state", str), ("following", str)),
            sums=BUCKETS,
            half_life_ms=half_life_ms,
            lookup="following",
        )
        self.absorptions: Final = SumTable(
            name="absorptions", key=(("state", str),), sums=_ENDS, half_life_ms=half_life_ms
        )
        self.trials: Final = SumTable(
            name="rewrite_trials",
            key=(("state", str), ("target", str)),
            sums=_ENDS,
            half_life_ms=half_life_ms,
        )
        self.rules: Final = SumTable(
            name="rewrite_rules", key=(("state", str), ("target", str)), sums=("pinned", "blocked")
        )
        self.both: Final = BothHeard(_ENDS, half_life_ms)
        self.sample: Final = Sample(half_life_ms)
        self.tables = (
            *(self.transitions, self.absorptions, self.trials, self.rules),
            *(self.both.table, self.sample.table),
        )
        self.bound = (self.sample.table, SIZE)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.rephrases)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        landmark = self.absorptions.landmark(int(outcomes.times.max(initial=0)))
        weights = self.absorptions.weights(outcomes.times, landmark)
        served, recognised = outcomes.rewritten != MISSING, outcomes.named[outcomes.state]
        # Turns without a rewrite are added to the chain, turns with one to its record.
        own = np.flatnonzero(recognised & ~served)
        tried = np.flatnonzero(recognised & served & outcomes.named[outcomes.rewritten])
        apart = own[self._held_out(outcomes, own)]
        steps = own[(outcomes.rephrased[own] > 0) & (outcomes.following[own] != MISSING)]
        states, targets = outcomes.state, [ALL, *outcomes.keys]  # ALL: the record of the state without a rewrite
        delta = self.both.learn(outcomes, own, weights, landmark, self._sketches)
        if self.config.online_odds:
            delta |= self.sample.learn(outcomes, own, weights, landmark)
        if len(steps):
            groups = Groups((states[steps], outcomes.keys), (outcomes.following[steps], outcomes.keys))
            masses = weights[steps] * outcomes.rephrased[steps]
            sketches = self._sketches(outcomes, steps, masses)
            delta[self.transitions.name] = groups.sums(self.transitions, sketches, landmark)
        if len(own):
            went = np.zeros(len(outcomes))
            went[steps] = outcomes.rephrased[steps]
            # Who rephrased it in another language gave it up.
            success = (outcomes.unrephrased * (1.0 - (outcomes.rephrased - went)))[own]
            kept = (weights * (1.0 - went))[own]
            groups = Groups((states[own], outcomes.keys))
            sketches = self._sketches(outcomes, own, kept * success, kept * (1.0 - success))
            delta[self.absorptions.name] = groups.sums(self.absorptions, sketches, landmark)
        if len(tried) or len(apart):
            rows = np.concatenate((tried, apart))
            target = np.concatenate((outcomes.rewritten[tried] + 1, np.zeros(len(apart), dtype=np.int64)))
            success, weight = outcomes.success[rows], weights[rows]
            groups = Groups((states[rows], outcomes.keys), (target, targets))
            sketches = self._sketches(outcomes, rows, weight * success, weight * (1.0 - success))
            delta[self.trials.name] = groups.sums(self.trials, sketches, landmark)
        return delta

    def _held_out(self, outcomes: Outcomes, rows: Integers) -> Booleans:
        """Return whether each turn, (rows,), is of a session that is served no rewrites, (rows,)."""
        sessions, place = unique_inverse(outcomes.columns.turns.query.session[rows])
        people, share = outcomes.columns.pools.people, self.config.held_out
        return held_out(map(people.__getitem__, sessions.tolist()), share)[place]

    def _sketches(self, outcomes: Outcomes, rows: Integers, *masses: Floats) -> list[Floats]:
        """Return each of `masses`, (rows,) turns, as the columns of a sketch of the people who asked, (rows,) each."""
        buckets = outcomes.buckets[rows]
        return [np.where(buckets == one, mass, 0.0) for mass in masses for one in range(len(BUCKETS))]

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. The changed states are solved, and those that lead to them within `depth` rephrases."""
        rules = Rules(sums.read(self.rules))
        affected = {state for states in changed.values() for state in states}
        if changed.get(self.rules.name):  # rules are few, and depend on each other
            affected |= rules.states
        border: Collection[str] = affected
        for _ in range(self.config.depth):
            leading = sums.read(self.transitions, "following", border)
            border = {state for state, _ in leading.keys} - affected
            affected |= border
        found = Rewrites(self, sums, affected, rules, at).rows()
        section: dict[str, bytes | None] = dict.fromkeys(sorted(affected))
        section.update({state: msgspec.json.encode(row) for state, row in found.items()})
        settings = Settings(self.config.held_out)
        if self.config.online_odds:
            ranker, fitted = self._ranker(sums, at)
            settings = structs.replace(
                settings,
                odds=self.config.online_odds,
                first=self.config.online_first,
                ranker=ranker,
                fitted=fitted,
            )
        section[ALL] = msgspec.json.encode(settings)
        return section

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002
        """See `Learner.excess`: the queries with the highest blocks."""
        return self.sample.excess(sums, crowded)

    def _ranker(self, sums: SumReader, at: int) -> tuple[Ranker | None, Fitted]:
        """Return the ranker trained on the sampled queries, None if there is no evidence; and what it was fitted to."""
        blocks, now = self.sample.sampled(sums, at)
        before = msgspec.json.decode(sums.published(self.name, ALL) or b"{}", type=Settings)
        if before.fitted and before.fitted.is_kept(now, self._half_life_ms):
            return before.ranker, before.fitted
        states = {state for block in blocks for state in block}
        steps = sums.read(self.transitions, "state", states)
        ends = sums.read(self.absorptions, "state", states | {following for _, following in steps.keys})
        evidence = evidence_of(blocks, steps, ends, at, ONE_PERSON)
        return trained(EVERYBODY, evidence) if len(evidence.wins) else None, now


def records_of(trials: Sums, at: int) -> dict[Key, Record]:
    """Return the records in sums of `RephraseGraph.trials` or `RephraseGraph.both` at a time (ms), with one person's
    mass bounded.
    """
    ends = trials.at(at).reshape(-1, 2, len(BUCKETS))
    bounded = (ends * bounded_shares(ends.sum(axis=1), ONE_PERSON)[:, np.newaxis]).sum(axis=2)
    return dict(zip(trials.keys, map(tuple, bounded.tolist()), strict=True))


class Rewrites:
    """The rewrites of some states at one time.

    Args:
        learner: the graph, with its tables and configuration.
        sums: the sums of all turns so far.
        states: the states to solve.
        rules: the operators' decrees.
        at: the event time that sums are decayed to, ms.

    Attributes:
        chain: the part of the chain that can be reached from those states that may be rewritten.
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
        """Return the rows of those states that have one."""
        chain, rules = self.chain, self._rules
        rows = {
            state: RewriteRow(blocked=tuple(sorted(rules.blocked[state])))
            for state in self._states
            if state in rules.blocked
        }
        sources = self._sources(chain, self._states)
        solution = chain.solve(sources, self._admissible(sources), self._config.depth, self._config.max_states)
        good = self._are_meant(sources, solution)
        chosen = [chain.states[number] for number in sources[good].tolist()]
        records = self.records(chosen)
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
                withdrawn=harm(records.get((state, aim)), records.get((state, ALL))),
                heard=change(state, aim) == Change.OPPOSITE,
            )
        for state in self._states:
            if state in rules.pins:
                rows[state] = structs.replace(
                    rows.get(state, RewriteRow()), target=rules.pins[state], probability=1.0, pinned=True
                )
        return with_records(rows, chain, self._states, self.records(self._states)) if self._config.online_odds else rows

    def records(self, states: Collection[str]) -> dict[Key, Record]:
        """Return the records of the states' rewrites, and for the target `ALL` those of their held-out sessions."""
        return records_of(self._sums.read(self._learner.trials, "state", states), self._at)

    def counted(self, state: str) -> Floats:
        """Return the share of each bucket's mass that counts at a state of the chain, (buckets,), 0 to 1."""
        (number,) = self.chain.numbers([state]).tolist()
        shares: Floats = self._kept[number]
        return shares

    def _sources(self, chain: Chain[str], states: Collection[str] | None = None) -> Integers:
        """Return the numbers of those `states`, or of all states, that may be rewritten; ascending, (n,)."""
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
        """Return a predicate: which targets the sources, (sources,), may have."""
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

    def _are_meant(self, sources: Integers, solution: Solution) -> Booleans:
        """Return whether enough of those who ask each source mean its target, (sources,)."""
        chain, targets, probabilities = self.chain, solution.targets, solution.probabilities
        # If few who ask this go on to the target, they do not mean it, however well it does for those who ask it.
        meant = (targets >= 0) & (probabilities > chain.rate[sources])
        support = chain.support[sources]
        shares = np.minimum(probabilities / np.where(targets >= 0, chain.rate[targets], 1.0), 1.0)
        # Those who gave up have not said what they meant.
        surely, _ = wilson(shares * support, shares * support + chain.success[sources], SURE)
        states = chain.states
        for one in np.flatnonzero(meant).tolist():
            state, target = states[sources[one]], states[targets[one]]
            what = change(state, target)
            share, times = _NEEDED[what]
            enough = support[one] >= times * self._config.min_support
            meant[one] = enough and shares[one] >= self._config.min_share and surely[one] > share
            if meant[one] and what == Change.OPPOSITE:
                both = records_of(self._sums.read(self._learner.both.table, "state", [state]), self._at)
                meant[one] = are_meant(both.get((state, target)), self._config.min_support, SURE)
        # The likeliest target of another meaning: a query with two meanings needs more than a rewrite to one of them.
        places = np.flatnonzero(meant)
        rivals = chain.solve(
            sources[places],
            self._of_another_meaning(sources[places], targets[places]),
            self._config.depth,
            self._config.max_states,
        ).probabilities
        first = probabilities[places] * support[places]
        sure, _ = wilson(first, first + rivals * support[places], SURE)
        meant[places[(rivals > 0) & (sure <= 0.5)]] = False
        return meant

    def _of_another_meaning(self, sources: Integers, targets: Integers) -> Admissible:
        """Return a predicate: which targets of the sources, (sources,), mean something else than `targets`,
        (sources,).
        """
        admissible, names = self._admissible(sources), self.chain.states

        def other(places: Integers, states: Integers) -> Booleans:
            may = admissible(places, states)
            for one in np.flatnonzero(may).tolist():
                target, state = targets[places[one]], states[one]
                may[one] = state != target and not same_meaning(names[target], names[state])
            return may

        return other

    def _chain(self, steps: Sequence[Sums], absorbed: Sequence[Sums]) -> Chain[str]:
        keys = [key for sums in steps for key in sums.keys]
        people = np.concatenate([sums.at(self._at) for sums in steps])
        names = {state for sums in absorbed for (state,) in sums.keys}
        names.update(state for key in keys for state in key)
        states = sorted(names)
        place = {state: number for number, state in enumerate(states)}
        numbers = np.array([(place[state], place[following]) for state, following in keys], np.int64).reshape(-1, 2)
        order = np.lexsort((numbers[:, 1], numbers[:, 0]))  # sums of scaled masses are rounded, so order matters
        numbers, people = numbers[order], people[order]
        ends = np.zeros((len(states), 2, len(BUCKETS)))
        for sums in absorbed:
            ends[[place[state] for (state,) in sums.keys]] = sums.at(self._at).reshape(-1, 2, len(BUCKETS))
        totals = ends.sum(axis=1)
        np.add.at(totals, numbers[:, 0], people)
        self._kept = kept = bounded_shares(totals, ONE_PERSON)
        weights = (people * kept[numbers[:, 0]]).sum(axis=1)
        absorbed_bounded = (ends * kept[:, np.newaxis]).sum(axis=2)
        left = weights > 0  # not decayed to nothing
        trusted = distinct(people[left]) >= self._config.min_users
        return Chain(states, numbers[left], weights[left], trusted, absorbed_bounded, max_steps=self._config.max_states)

    def _read_steps(self, states: Collection[str]) -> Sums:
        return self._sums.read(self._learner.transitions, "state", states)

    def _read_absorbed(self, states: Collection[str]) -> Sums:
        return self._sums.read(self._learner.absorptions, "state", states)


def state_of(query: Query) -> str:
    """Return the chain's state for a query; empty if nothing was recognised."""
    return query.interpretation or normalize(query.text)
