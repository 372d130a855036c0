"""Logged decisions: what of a turn is needed to say what another policy would have earned in it.

A bounded sample of them is kept, in favour of recent turns: the turns of least rank, where

    rank = ln(-ln u) - ln 2 * t / HALF_LIFE,    u in (0, 1) by a hash of the turn,

is weighted sampling without replacement (Efraimidis & Spirakis, Information Processing Letters 2006) under forward
decay (Cormode et al., ICDE 2009): a turn counts half as much after a half-life, and its rank never changes. So the
sample is mergeable: that of a union is that of the union of samples, in any order and on any number of workers.
"""

from collections.abc import Collection, Mapping, Sequence
from math import isnan
from typing import Final
from zlib import crc32

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Encoder, Value, context_of
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.serving import Allocator, StrategyContext
from backchannel.agents.columns import MISSING, Columns
from backchannel.agents.ope.estimators import Feedback, Model, weigh
from backchannel.agents.ope.reward_models import Integers, cross_fitted, folds_of
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.sums import Booleans, Floats

HALF_LIFE_MS: Final = 86_400_000
FOLDS: Final = 3
RIDGE: Final = 10.0
"""Of the models of rewards."""


class LoggedDecision(Struct, frozen=True, gc=False):
    """A turn's decision, its probability, and its rewards.

    Attributes:
        session_id: of the turn.
        ts: of its query, ms since the Unix epoch.
        context: of the query, as the policy saw it, with what was known of who asked.
        strategy_context: strategy -> its context.
        allocation: strategy -> candidates drawn, for the strategies that were asked.
        propensities: strategy -> probability that it was asked.
        rewards: strategy -> reward in [0, 1], for those that got one.
        success: of the turn as a whole, in [0, 1].
        allocation_propensity: the probability of the whole allocation, if that was logged.
        planned: strategy -> candidates planned, where that is not what was drawn; see `Impression`.
    """

    session_id: str
    ts: int
    context: dict[str, Value]
    allocation: dict[str, int]
    propensities: dict[str, float]
    rewards: dict[str, float]
    success: float = 0.0
    allocation_propensity: float | None = None
    strategy_context: StrategyContext = {}
    planned: dict[str, int] = {}

    @property
    def decided(self) -> dict[str, int]:
        """Strategy -> candidates that were decided on, which propensities are of."""
        return self.planned or self.allocation


def is_logged(columns: Columns) -> Booleans:
    """Return of which turns the decision was left to chance, with probabilities that are known and possible."""
    logged: Booleans = telling(columns) != MISSING
    return logged


def decisions_of(
    outcomes: Outcomes, rows: Sequence[int], features: Collection[str] | None = None
) -> list[LoggedDecision]:
    """Return the decisions of judged turns that are logged: each that of the first impression that tells.

    Args:
        outcomes: of turns.
        rows: places of those that are logged.
        features: what of the contexts to keep; by default all.
    """
    columns = outcomes.columns.take(np.asarray(rows, dtype=np.int64))
    shown = columns.turns.impressions.rows.take(telling(columns))
    contexts, names, asked = columns.contexts(), columns.pools.strategies, outcomes.asked
    credit = np.full(len(asked.rows), np.nan)
    credit[asked.credited] = asked.rewards
    begins, ends = (np.searchsorted(asked.rows, rows, side).tolist() for side in ("left", "right"))
    allocations = columns.by_strategy(shown.allocation, shown.allocation.rows.count)
    planned = columns.by_strategy(shown.planned, shown.planned.rows.count)
    propensities = columns.by_strategy(shown.propensities, shown.propensities.rows.probability)
    decisions = []
    for place, (row, begin, end) in enumerate(zip(rows, begins, ends, strict=True)):
        allocation = {name: count for name, count in allocations[place].items() if count}
        own = zip(asked.codes[begin:end].tolist(), credit[begin:end].tolist(), strict=True)
        rewards = {names[code]: reward for code, reward in own if not isnan(reward)}
        query, known = columns.query(place), contexts[shown.strategy_context[place]]
        whole = float(shown.allocation_propensity[place])
        decisions.append(
            LoggedDecision(
                session_id=query.session_id,
                ts=query.ts,
                context=_only(features, {**context_of(query), **contexts[shown.user_context[place]]}),
                allocation=allocation,
                propensities=propensities[place],
                rewards={name: rewards[name] for name in allocation if name in rewards},
                success=float(outcomes.success[row]),
                allocation_propensity=None if isnan(whole) else whole,
                strategy_context={name: _only(features, one) for name, one in known.items()},
                planned={name: count for name, count in planned[place].items() if count},
            )
        )
    return decisions


def ranks_of(columns: Columns) -> Floats:
    """Return the turns' ranks in the sample, (turns,); see the module."""
    times = columns.turns.query.ts.astype(float)
    ranks: Floats = np.log(-np.log(chances_of(columns))) - np.log(2.0) * times / HALF_LIFE_MS
    return ranks


def chances_of(columns: Columns) -> Floats:
    """Return a number for each turn, (turns,), evenly spread between 0 and 1: by a hash, so always the same."""
    mixed = _mixed(columns.turns.query.hash.astype(np.uint64)) >> np.uint64(11)
    chances: Floats = np.minimum(mixed * 2.0**-53 + 2.0**-54, 1.0 - 2.0**-53)
    return chances


class TurnSample:
    """The sample of some turns. Of those that rank too high nothing but the rank is ever looked at.

    Args:
        outcomes: of the turns.
        size: how many are kept of those that are logged.
        features: of contexts, to be kept.
    """

    def __init__(self, outcomes: Outcomes, size: int, features: Collection[str]) -> None:
        self.size: Final = size
        self._outcomes: Final = outcomes
        self._features: Final = features

    def below(self, bound: float) -> list[tuple[float, LoggedDecision]]:
        """Return the decisions that rank below `bound`, least first and at most `size` of them, with their ranks."""
        columns = self._outcomes.columns
        ranks = ranks_of(columns)
        below = np.flatnonzero(ranks < bound)
        below = below[is_logged(columns.take(below))]
        kept = below[np.argsort(ranks[below], kind="stable")][: self.size].tolist()
        return list(zip(ranks[kept].tolist(), decisions_of(self._outcomes, kept, self._features), strict=True))


class DecisionTable(Struct, frozen=True):
    """Logged decisions as columns.

    Attributes:
        strategies: K names.
        contexts: encoded, (turns, K, d), or (turns, 1, d) if all strategies have one.
        counts: candidates drawn, (turns, K); 0 of those that were not asked.
        propensities: that they were asked, (turns, K).
        rewards: (turns, K); 0 of those that were not asked.
        folds: for cross-fitting, (turns,); a session's turns are in one.
    """

    strategies: tuple[str, ...]
    contexts: Floats
    counts: NDArray[np.int64]
    propensities: Floats
    rewards: Floats
    folds: Integers

    @property
    def budgets(self) -> NDArray[np.int64]:
        """Candidates drawn in all, (turns,)."""
        return np.asarray(self.counts.sum(axis=1))

    def expected(self, policy: Allocator, contexts: Floats, worth: Floats) -> Floats:
        """Return the expected worth of what a policy would draw in each turn from each strategy, (turns, K).

        Args:
            policy: its strategies are among the table's.
            contexts: of the turns, as the policy encodes them; see `vectors_of`.
            worth: of a strategy's first 0, 1, ... candidates, (K, as many as are ever drawn + 1).
        """
        budgets = np.clip(self.budgets, policy.least, MAX_BUDGET)
        columns = [self.strategies.index(name) for name in policy.strategies]
        expected = np.zeros(self.counts.shape)
        for budget in np.unique(budgets).tolist():
            rows = np.flatnonzero(budgets == budget)
            worths = worth[np.newaxis, columns, : budget + 1]
            expected[rows[:, np.newaxis], columns] = policy.expect(contexts[rows], budget, worths)[0]
        return expected

    def modelled(self, worth: Floats) -> Floats:
        """Return what strategies' whole lists would get as cross-fitted models expect it, (turns, K)."""
        return cross_fitted(self.contexts, self.drawn(worth), self.rewards, self.folds, RIDGE)

    def drawn(self, worth: Floats) -> Floats:
        """Return which share of its list was drawn from each strategy, (turns, K), by its rank curve."""
        return np.asarray(worth[np.arange(len(self.strategies)), self.counts])

    def feedback(self, extents: Floats, worth: Floats, modelled: Floats | None = None) -> Feedback:
        """Weigh the turns for a policy.

        What a strategy gets grows with what is drawn from it: with a share F of its list, F q. So the target's extents
        are tau = E[F], and a reward stands for q as r / F. Intervals leave out that the curve is an estimate itself.

        Args:
            extents: E[F] of the policy in each turn, (turns, K).
            worth: of a strategy's first 0, 1, ... candidates, (K, as many as are ever drawn + 1).
            modelled: see there; for the estimators that need a model.

        Raises:
            SupportError: see `weigh`.
        """
        asked, drawn = self.counts > 0, self.drawn(worth)
        ceiling = np.divide(1.0, drawn, out=np.ones_like(drawn), where=asked & (drawn > 0))
        return Feedback(
            weights=weigh(extents, self.propensities, asked),
            rewards=self.rewards * ceiling,
            total=float(extents.sum(axis=1).mean()) if len(extents) else 0.0,
            ceiling=ceiling,
            model=None if modelled is None else Model(np.einsum("ik,ik->i", extents, modelled), modelled),
        )


def vectors_of(decisions: Sequence[LoggedDecision], encoder: Encoder, strategies: Sequence[str]) -> Floats:
    """Return encoded contexts, (turns, strategies, d), or (turns, 1, d) if all strategies have one."""
    if not encoder.of_strategies:
        return encoder.encode_all([one.context for one in decisions])[:, np.newaxis]
    contexts = [{**one.context, **one.strategy_context.get(name, {})} for one in decisions for name in strategies]
    return encoder.encode_all(contexts).reshape(len(decisions), len(strategies), -1)


def table_of(decisions: Sequence[LoggedDecision], contexts: Floats, strategies: Sequence[str]) -> DecisionTable:
    """Return logged decisions as columns.

    Args:
        decisions: the rows.
        contexts: of them, encoded; see `vectors_of`.
        strategies: the columns. What was done by others is left out.
    """
    shape = len(decisions), len(strategies)
    counts, propensities, rewards = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    for column, name in enumerate(strategies):
        counts[:, column] = [one.allocation.get(name, 0) for one in decisions]
        propensities[:, column] = [one.propensities.get(name, 0.0) for one in decisions]
        rewards[:, column] = [one.rewards.get(name, 0.0) for one in decisions]
    sessions = [crc32(one.session_id.encode(errors="surrogatepass")) for one in decisions]
    return DecisionTable(
        strategies=tuple(strategies),
        contexts=contexts,
        counts=counts,
        propensities=propensities,
        rewards=rewards,
        folds=folds_of(_mixed(np.array(sessions, dtype=np.uint64)), FOLDS),
    )


def telling(columns: Columns) -> Integers:
    """Return the place of each turn's first impression that says with what probability each strategy was asked that
    was, (turns,); MISSING without one.
    """
    impressions, strategies = columns.turns.impressions, len(columns.pools.strategies)
    allocation, known = impressions.rows.allocation, impressions.rows.propensities
    asked = allocation.rows.count > 0
    owners = allocation.parents[asked]
    possible = known.rows.probability > 0
    there = np.isin(
        owners * strategies + allocation.rows.strategy[asked],
        known.parents[possible] * strategies + known.rows.strategy[possible],
    )
    tells = np.zeros(len(impressions.rows), dtype=bool)
    tells[owners] = True
    tells[owners[~there]] = False
    first = np.full(len(columns), MISSING, dtype=np.int64)
    places = np.flatnonzero(tells)[::-1]
    first[impressions.parents[places]] = places
    return first


def _only(features: Collection[str] | None, context: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in context.items() if features is None or name in features}


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread hashes evenly over 64 bits: the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    mixed = hashes + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
