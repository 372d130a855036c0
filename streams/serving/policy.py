"""A policy as serving uses it: immutable, in memory, no I/O."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from msgspec import structs

from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.history import History
from backchannel.agents.bandit.serving import (
    NOTHING_KNOWN,
    Allocator,
    Decision,
    StrategyContext,
    StrategySummary,
)
from backchannel.agents.bandit.users import USER_FEATURES, Users
from backchannel.agents.memory.serving import Memory, Recalled, Similar
from backchannel.agents.ranking.serving import Candidate, Ranker, Ranking, remembered
from backchannel.agents.rewrites.serving import Rewriter, Rewriting
from backchannel.agents.serving import Sections, Serving
from backchannel.schemas.snapshot import Snapshot

S = TypeVar("S", bound=Serving)


class Policy:
    """One version of the policy.

    Args:
        snapshot: its header.
        sections: its rows, by learner.
        rng: where chance comes from when `allocate` is given no other.
        similar: what unseen queries are taken for by `recall`; None: nothing is recalled for them.

    Attributes:
        snapshot, similar: as given.
        allocator: what decides.

    Raises:
        EncodingError: the publisher encodes contexts in another way than this process would.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        sections: Sections,
        rng: np.random.Generator,
        similar: Similar | None = None,
    ) -> None:
        self.snapshot: Final = snapshot
        self.similar: Final = similar
        self._sections: Final = sections
        self.allocator: Final = Allocator.of(sections, snapshot)
        self._memory: Final = Memory.of(sections, snapshot, similar)
        self._ranker: Final = Ranker.of(sections, snapshot)
        self._rewriter: Final = Rewriter.of(sections, snapshot)
        self._history: Final = History.of(sections, snapshot)
        self._users: Final = Users.of(sections, snapshot)
        self._of_users: Final = USER_FEATURES & {feature.name for feature in self.allocator.encoder.features}
        self._rng: Final = rng

    @property
    def version(self) -> int:
        """1, 2, 3 ..."""
        return self.snapshot.version

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that it chooses from."""
        return self.allocator.strategies

    @property
    def remembered(self) -> int:
        """How many queries the memory index knows something of."""
        return len(self._memory)

    @property
    def examined(self) -> tuple[float, ...]:
        """The probabilities that positions 1, 2 ... are looked at which the memory index was made with."""
        return self._memory.header.examined if self._memory.header else ()

    def allocate(
        self,
        context: Mapping[str, Value],
        budget: int,
        rng: np.random.Generator | None = None,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        user: str | None = None,
    ) -> Decision:
        """Decide which strategies to ask for a query, and how many candidates from each.

        Args:
            context: of the query, see `features.context_of`.
            budget: candidates to draw in all, at least 1.
            rng: where chance comes from.
            strategy_context: strategy -> what is known of it: `history`, and whatever else is configured as features.
            user: the `user_id` of who asks; see `of_user`.

        Returns:
            the decision; log its fields in the `impression` event.

        Raises:
            ValueError: no budget.
        """
        known = self.of_user(user)
        decision = self.allocator.allocate({**context, **known}, budget, rng or self._rng, strategy_context)
        return structs.replace(decision, user_context=known, policy_version=self.version)

    def utilities(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, tuple[float, float]]:
        """Return each strategy's expected reward for a query and the standard deviation that is explored."""
        means, deviations = self.allocator.utilities(context, strategy_context)
        return dict(zip(self.strategies, zip(means.tolist(), deviations.tolist(), strict=True), strict=True))

    def gains(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, list[float]]:
        """Return what each strategy's candidates are expected to gain, best rank first: for ranking their union."""
        return self.allocator.gains(context, strategy_context)

    def history(self, query: str) -> dict[str, dict[str, float]]:
        """Return how each strategy has done on `query` in particular, as a context of strategies for `allocate`.

        It is known if `strategy.history` is one of the configured features.
        """
        means = {name: mean for name, (_, mean) in self.allocator.evidence.items()}
        return self._history.features(query, means)

    def of_user(self, user: str | None) -> dict[str, float]:
        """Return what is known of a user, as far as it is a configured feature: `user.turns` and so on, see `users`.

        `allocate` adds it to the context by itself. Of None nothing is known; of a stranger, what is so on average.
        """
        if user is None or not self._of_users:
            return {}
        return {name: value for name, value in self._users.features(user).items() if name in self._of_users}

    def summaries(self) -> dict[str, StrategySummary]:
        """Return what was learned of each strategy, for people."""
        return self.allocator.summaries()

    def recall(self, query: str, k: int, user: str | None = None) -> list[Recalled]:
        """Return at most `k` entities that have worked for `query`, or are predicted to, best first.

        If the reader guesses (see `PolicyReader`), a query that nothing is known of is taken for the known one that it
        is most like. What is recalled then says so, with the similarity by which its score is less.

        Args:
            query: the text.
            k: how many at most.
            user: the `user_id` of who asks, whose own evidence then counts more, if `memory.personal` is configured.
        """
        return self._memory.recall(query, k, user)

    def rank(
        self,
        context: Mapping[str, Value],
        candidates: Sequence[Candidate],
        k: int,
        *,
        query: str = "",
        user: str | None = None,
        rng: np.random.Generator | None = None,
        explain: bool = False,
    ) -> Ranking:
        """Order the candidates that retrieval brought.

        Log the fields of what is returned in the `impression` event, and its results as the event's results: what was
        ranked with is what is learned from; see `impression_of`.

        Args:
            context: The query's context, see `features.context_of`.
            candidates: What may be shown, in the caller's own order, or with a feature `score`.
            k: The number of results wanted.
            query: The text, for features of the memory index.
            user: The `user_id` of who asks, for the personal layer of the memory index.
            rng: Where chance comes from.
            explain: Whether results say what their scores are made of.

        Returns:
            The first k candidates; in the caller's order as long as clicks do not speak for another one.

        Raises:
            ValueError: k is less than 1.
        """
        if self._ranker.encoder.of_memory:
            known = {one.entity_id: one for one in self.recall(query, sys.maxsize, user)}
            candidates = [remembered(one, known.get(one.entity_id)) for one in candidates]
        ranking = self._ranker.rank(context, candidates, k, rng or self._rng, explain=explain)
        return structs.replace(ranking, examined=self.examined, policy_version=self.version)

    def rewrite(
        self, query: str, *, interpretation: str | None = None, user: str | None = None, session: str | None = None
    ) -> Rewriting | None:
        """Return what `query` should have been, or None if it had better stay as it is.

        Log what is served as `rewrite` of the `impression`: only so can a rewrite that does harm be withdrawn.

        Args:
            query: the text.
            interpretation: the NLU's, where events carry one; then the target is an interpretation too.
            user: who asks; their own rephrases come before everybody's.
            session: the session's id. The configured share of sessions is served no rewrites but pinned ones, so that
                it shows what rewrites are good for. Without it, nobody is held out.
        """
        return self._rewriter.rewrite(query, interpretation=interpretation, user=user, session=session)

    def ranking(self) -> Ranker:
        """Return what ranks: its settings and weights, for people and reports."""
        return self._ranker

    def evidence(self) -> dict[str, tuple[float, float]]:
        """Return for each strategy in how many turns it was asked, as far as not faded, and their mean reward."""
        return self.allocator.evidence

    def memory(self) -> dict[str, list[Recalled]]:
        """Return the memory index whole, best entities first: for people and reports."""
        return {query: self.recall(query, sys.maxsize) for query in self._memory.queries()}

    def rewrites(self) -> dict[str, Rewriting]:
        """Return all rewrites of the global layer, the withdrawn ones too: for people and reports."""
        return self._rewriter.rewrites()

    def served(self, serving: type[S]) -> S:
        """Return what serves a section that the policy has no method for: that of a learner of your own."""
        return serving.of(self._sections, self.snapshot)
