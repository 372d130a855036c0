"""Logged decisions: what of a turn is needed to say what another policy would have earned in it.

A bounded sample of them is kept, in favour of recent turns: the turns of least rank, where

    rank = ln(-ln u) - ln 2 * t / HALF_LIFE,    u in (0, 1) by a hash of the turn,

is weighted sampling without replacement (Efraimidis & Spirakis, Information Processing Letters 2006) under forward
decay (Cormode et al., ICDE 2009): a turn counts half as much after a half-life, and its rank never changes. So the
sample is mergeable: that of a union is that of the union of samples, in any order and on any number of workers.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from heapq import nsmallest
from math import log
from typing import Final
from zlib import crc32

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.allocation import MAX_BUDGET, Allocator, StrategyContext
from backchannel.agents.features import Encoder, Value, context_of
from backchannel.agents.ope.estimators import Feedback, Model, weigh
from backchannel.agents.ope.rewards import Integers, cross_fitted, folds_of
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Matrix
from backchannel.schemas.turn import Turn

HALF_LIFE_MS: Final = 86_400_000
FOLDS: Final = 3
RIDGE: Final = 10.0
"""Of the models of rewards."""


class LoggedDecision(Struct, frozen=True, gc=False):
    """What was decided in a turn, with what probability, and what came of it.

    Attributes:
        session_id: of the turn.
        ts: of its query, ms since the Unix epoch.
        context: of the query, as the policy saw it.
        strategy_context: strategy -> what was known of it.
        allocation: strategy -> candidates drawn, for the strategies that were asked.
        propensities: strategy -> probability that it was asked.
        rewards: strategy -> reward in [0, 1], for those that got one.
        success: of the turn as a whole, in [0, 1].
        allocation_propensity: the probability of the whole allocation, if that was logged.
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


def is_logged(turn: Turn) -> bool:
    """Return whether a turn's decision was left to chance, with probabilities that are known."""
    return any(shown.propensities and shown.allocation for shown in turn.impressions)


def decision_of(outcome: Outcome) -> LoggedDecision:
    """Return the decision of a judged turn that is logged: that of the first impression that tells."""
    turn = outcome.turn
    shown = next(shown for shown in turn.impressions if shown.propensities and shown.allocation)
    asked = {name: count for name, count in shown.allocation.items() if count}
    return LoggedDecision(
        session_id=turn.query.session_id,
        ts=turn.query.ts,
        context=context_of(turn.query),
        allocation=asked,
        propensities=shown.propensities,
        rewards={name: outcome.credited[name][0] for name in asked if name in outcome.credited},
        success=outcome.success,
        allocation_propensity=shown.allocation_propensity,
        strategy_context=shown.strategy_context,
    )


def rank_of(turn: Turn) -> float:
    """Return a turn's rank in the sample; see the module."""
    query = turn.query
    digest = blake2b(f"{query.session_id}\n{query.query_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    chance = (int.from_bytes(digest, "big") + 0.5) * 2.0**-64
    # Of a chance that rounds to 1 the logarithm would be 0; the largest below it stands in.
    return log(-log(min(chance, 1.0 - 2.0**-53))) - log(2.0) * query.ts / HALF_LIFE_MS


def sample(turns: Iterable[Turn], size: int) -> list[tuple[float, Turn]]:
    """Return the `size` turns of least rank among those that are logged, with their ranks, least first."""
    ranked = [(rank_of(turn), number, turn) for number, turn in enumerate(turns) if is_logged(turn)]
    return [(rank, turn) for rank, _, turn in nsmallest(size, ranked)]


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
    contexts: Matrix
    counts: NDArray[np.int64]
    propensities: Matrix
    rewards: Matrix
    folds: Integers

    @property
    def budgets(self) -> NDArray[np.int64]:
        """Candidates drawn in all, (turns,)."""
        return np.asarray(self.counts.sum(axis=1))

    def expected(
        self,
        policy: Allocator,
        decisions: Sequence[LoggedDecision],
        worth: Matrix,
        rng: np.random.Generator,
        draws: int,
    ) -> Matrix:
        """Return what a policy is expected to draw in each turn: candidates and their worth, (2, turns, K).

        Args:
            policy: its strategies are among the table's.
            decisions: that the table is of, as the policy encodes contexts in its own way.
            worth: of a strategy's first 0, 1, ... candidates, (K, as many as are ever drawn + 1).
            rng: where chance comes from.
            draws: of Thompson sampling's for each turn; 0: what a random set of strategies would draw.
        """
        vectors = vectors_of(decisions, policy.encoder, policy.strategies)
        budgets = np.clip(self.budgets, policy.least, MAX_BUDGET)
        columns = [self.strategies.index(name) for name in policy.strategies]
        expected = np.zeros((2, *self.counts.shape))
        for budget in np.unique(budgets).tolist():
            rows = np.flatnonzero(budgets == budget)
            worths = np.stack([np.tile(np.arange(budget + 1.0), (len(columns), 1)), worth[columns, : budget + 1]])
            expected[:, rows[:, np.newaxis], columns] = (
                policy.expect(vectors[rows], budget, worths, rng, draws)
                if draws
                else policy.expect_at_random(budget, worths)[:, np.newaxis]
            )
        return expected

    def modelled(self, worth: Matrix) -> Matrix:
        """Return what strategies' whole lists would get as cross-fitted models expect it, (turns, K)."""
        return cross_fitted(self.contexts, self.drawn(worth), self.rewards, self.folds, RIDGE)

    def drawn(self, worth: Matrix) -> Matrix:
        """Return which share of its list was drawn from each strategy, (turns, K), by its rank curve."""
        return np.asarray(worth[np.arange(len(self.strategies)), self.counts])

    def feedback(self, extents: Matrix, worth: Matrix, modelled: Matrix | None = None) -> Feedback:
        """Weigh the turns for a policy.

        What a strategy gets grows with what is drawn from it: with a share F of its list, F q. So the target's extents
        are tau = E[F], and a reward stands for q as r / F.

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


def vectors_of(decisions: Sequence[LoggedDecision], encoder: Encoder, strategies: Sequence[str]) -> Matrix:
    """Return encoded contexts, (turns, strategies, d), or (turns, 1, d) if all strategies have one."""
    if not encoder.of_strategies:
        return encoder.encode_all([one.context for one in decisions])[:, np.newaxis]
    contexts = [{**one.context, **one.strategy_context.get(name, {})} for one in decisions for name in strategies]
    return encoder.encode_all(contexts).reshape(len(decisions), len(strategies), -1)


def table_of(decisions: Sequence[LoggedDecision], encoder: Encoder, strategies: Sequence[str]) -> DecisionTable:
    """Return logged decisions as columns. Strategies that are not among `strategies` are left out."""
    shape = len(decisions), len(strategies)
    counts, propensities, rewards = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    for column, name in enumerate(strategies):
        counts[:, column] = [one.allocation.get(name, 0) for one in decisions]
        propensities[:, column] = [one.propensities.get(name, 0.0) for one in decisions]
        rewards[:, column] = [one.rewards.get(name, 0.0) for one in decisions]
    keys = np.array([crc32(one.session_id.encode(errors="surrogatepass")) for one in decisions], dtype=np.uint64)
    return DecisionTable(
        strategies=tuple(strategies),
        contexts=vectors_of(decisions, encoder, strategies),
        counts=counts,
        propensities=propensities,
        rewards=rewards,
        folds=folds_of(keys, FOLDS),
    )
