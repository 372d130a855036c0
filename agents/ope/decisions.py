"""Logged decisions: the part of a turn that is needed to estimate what another policy would have earned in it.

A bounded sample of them is kept, which favours recent turns: the turns of lowest rank, where

    rank = ln(-ln u) - ln 2 * t / HALF_LIFE,    u in (0, 1) by a hash of the turn,

is weighted sampling without replacement (Efraimidis & Spirakis, Information Processing Letters 2006) under forward
decay (Cormode et al., ICDE 2009): a turn counts half as much after a half-life, and its rank never changes. So the
sample is mergeable: the sample of a union is the sample of the union of samples, in any order and on any number of
    workers.
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf, isnan
from operator import itemgetter
from typing import Final
from zlib import crc32

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.decision import StrategyContext
from backchannel.agents.bandit.features import Encoder, Value, context_of
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.ope.estimators import Feedback, Model, weigh
from backchannel.agents.ope.reward_models import Integers, cross_fitted, folds_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sketches import mixed
from backchannel.agents.sums import Booleans, Floats

HALF_LIFE_MS: Final = 86_400_000
FOLDS: Final = 3
RIDGE: Final = 10.0
"""Strength of the ridge of the reward models, in turns."""


class LoggedDecision(Struct, frozen=True, gc=False):
    """A turn's decision, its probability, and its rewards.

    Attributes:
        session_id: the session of the turn.
        ts: time of its query, ms since the Unix epoch.
        context: the query's context as the policy saw it, including what was known of the user.
        strategy_context: strategy -> its context.
        allocation: strategy -> candidates drawn, for the strategies that were asked.
        propensities: strategy -> probability that it was asked.
        rewards: strategy -> reward in [0, 1], for the strategies that got one.
        success: the success of the turn as a whole, in [0, 1].
        allocation_propensity: the probability of the whole allocation, if it was logged.
        planned: strategy -> candidates planned, if the budget counted distinct ones; see `Impression`.
        distinct: that budget, if it was logged.
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
    distinct: int | None = None

    @property
    def decided(self) -> dict[str, int]:
        """Strategy -> number of candidates decided on, which the propensities refer to."""
        return self.planned or self.allocation

    @property
    def budget(self) -> int:
        """The number of candidates that the decision was asked for. Plans of distinct budgets are only proportions."""
        return self.distinct or sum(self.decided.values())


def is_logged(columns: Columns) -> Booleans:
    """Return whether each turn's decision was random, with logged and valid probabilities, (turns,)."""
    logged: Booleans = telling(columns) != MISSING
    return logged


def decisions_of(
    outcomes: Outcomes, rows: Sequence[int], features: Collection[str] | None = None
) -> list[LoggedDecision]:
    """Return the logged decisions of judged turns: for each turn, that of the first impression with propensities.

    Args:
        outcomes: the outcomes of the turns.
        rows: indexes of the turns with logged decisions.
        features: names of the context features to keep; by default all.
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
                distinct=int(shown.distinct[place]) or None,
            )
        )
    return decisions


def ranks_of(columns: Columns) -> Floats:
    """Return the turns' ranks in the sample, (turns,); see the module."""
    return ranks_by(chances_of(columns), columns.turns.query.ts)


def ranks_by(chances: Floats, times: Integers) -> Floats:
    """Return ranks in the sample, (turns,), by a uniform number in (0, 1) for each turn, and its event time, ms."""
    ranks: Floats = np.log(-np.log(chances)) - np.log(2.0) * times.astype(float) / HALF_LIFE_MS
    return ranks


def chances_of(columns: Columns) -> Floats:
    """Return a uniform number in (0, 1) for each turn, (turns,), by a hash, so it is always the same."""
    bits = mixed(columns.turns.query.hash.astype(np.uint64)) >> np.uint64(11)
    chances: Floats = np.minimum(bits * 2.0**-53 + 2.0**-54, 1.0 - 2.0**-53)
    return chances


class TurnSample:
    """The sample of some turns. Turns that rank too high are never read.

    Args:
        several: the outcomes of the turns, in portions.
        size: maximum number of logged decisions in the sample.
        features: names of the context features to keep.
    """

    def __init__(self, several: Sequence[Outcomes], size: int, features: Collection[str]) -> None:
        self.size: Final = size
        self._several: Final = several
        self._features: Final = features

    def below(self, bound: float) -> list[tuple[float, LoggedDecision]]:
        """Return at most `size` decisions that rank below `bound`, with their ranks, lowest first."""
        ranks = [np.where(is_logged(one.columns), ranks_of(one.columns), inf) for one in self._several]
        every = np.concatenate([np.zeros(0), *ranks])
        lowest = np.sort(every[every < bound])[: self.size]
        found: list[tuple[float, LoggedDecision]] = []
        for outcomes, own in zip(self._several, ranks, strict=True):
            kept = np.flatnonzero(own <= lowest[-1]).tolist() if len(lowest) else []
            found += zip(own[kept].tolist(), decisions_of(outcomes, kept, self._features), strict=True)
        return sorted(found, key=itemgetter(0))[: self.size]


class DecisionTable(Struct, frozen=True):
    """Logged decisions as columns.

    Attributes:
        strategies: the names of the K strategies.
        contexts: encoded contexts, (turns, K, d), or (turns, 1, d) if all strategies share one.
        counts: candidates drawn, (turns, K); 0 for strategies that were not asked.
        propensities: probabilities that the strategies were asked, (turns, K), 0 to 1.
        rewards: rewards, (turns, K), in [0, 1]; 0 for strategies that were not asked.
        folds: folds for cross-fitting, (turns,); all turns of a session are in the same one.
    """

    strategies: tuple[str, ...]
    contexts: Floats
    counts: NDArray[np.int64]
    propensities: Floats
    rewards: Floats
    folds: Integers

    @property
    def budgets(self) -> NDArray[np.int64]:
        """Total number of candidates drawn, (turns,)."""
        return np.asarray(self.counts.sum(axis=1))

    def expected(self, policy: Allocator, contexts: Floats, worth: Floats) -> Floats:
        """Return the expected worth of what a policy would draw in each turn from each strategy, (turns, K).

        Args:
            policy: the policy; its strategies are among the table's.
            contexts: the turns' contexts, encoded by the policy; see `vectors_of`.
            worth: the worth of each strategy's first 0, 1, ... n candidates, (K, n + 1), n being the most ever drawn.
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
        """Return the rewards that cross-fitted models expect for the strategies' whole lists, (turns, K)."""
        return cross_fitted(self.contexts, self.drawn(worth), self.rewards, self.folds, RIDGE)

    def drawn(self, worth: Floats) -> Floats:
        """Return the share of each strategy's list that was drawn, (turns, K), 0 to 1, by its rank curve."""
        return np.asarray(worth[np.arange(len(self.strategies)), self.counts])

    def feedback(self, extents: Floats, worth: Floats, modelled: Floats | None = None) -> Feedback:
        """Weigh the turns for a policy.

        A strategy's reward grows with what is drawn from it: with a share F of its list, it is F q. So the target's
        extents are tau = E[F], and r / F estimates q. Intervals ignore that the curve is an estimate itself.

        Args:
            extents: the policy's E[F] in each turn, (turns, K).
            worth: the worth of each strategy's first 0, 1, ... n candidates, (K, n + 1), n being the most ever drawn.
            modelled: the result of `modelled`, for the estimators that need a model.

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
    """Return encoded contexts, (turns, strategies, d), or (turns, 1, d) if all strategies share one."""
    if not encoder.of_strategies:
        return encoder.encode_all([one.context for one in decisions])[:, np.newaxis]
    contexts = [{**one.context, **one.strategy_context.get(name, {})} for one in decisions for name in strategies]
    return encoder.encode_all(contexts).reshape(len(decisions), len(strategies), -1)


def table_of(decisions: Sequence[LoggedDecision], contexts: Floats, strategies: Sequence[str]) -> DecisionTable:
    """Return logged decisions as columns.

    Args:
        decisions: the decisions, one per row.
        contexts: their encoded contexts; see `vectors_of`.
        strategies: the strategies, one per column; others are ignored.
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
        folds=folds_of(mixed(np.array(sessions, dtype=np.uint64)), FOLDS),
    )


def telling(columns: Columns) -> Integers:
    """Return the index of each turn's first impression that logs the propensity of every strategy asked,
    (turns,); MISSING if there is none.
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
