"""The policy that serving uses: immutable, in memory, without I/O."""

import copy
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Self, TypeVar

import numpy as np
from msgspec import structs

from backchannel.agents.bandit.decision import NOTHING_KNOWN, Decision, Retrieval, StrategyContext
from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.history import History
from backchannel.agents.bandit.serving import Allocator, StrategySummary
from backchannel.agents.bandit.users import USER_FEATURES, Users
from backchannel.agents.failures.serving import Diagnoser, Diagnosis
from backchannel.agents.goals.serving import GoalRates
from backchannel.agents.horizon.serving import Horizon
from backchannel.agents.memory.serving import Memory, Recalled, Similar
from backchannel.agents.ope.canary import Shared
from backchannel.agents.ranking.serving import Candidate, Ranker, Ranking, remembered
from backchannel.agents.ranking.tastes import Tastes
from backchannel.agents.rewrites.serving import Online, Rewriter, Rewriting
from backchannel.agents.satisfaction.asking import OFFERED, Question
from backchannel.agents.satisfaction.serving import Satisfaction
from backchannel.agents.serving import Sections, Serving
from backchannel.agents.taught.rules import TaughtRule
from backchannel.agents.taught.serving import NOTHING_TAUGHT, Taught
from backchannel.schemas.events import MAX_PHRASE, Hypothesis, Means, Prefer, Rule
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize, spelled
from backchannel.schemas.turn import Turn

S = TypeVar("S", bound=Serving)


class Policy:
    """One version of the policy.

    Args:
        snapshot: the header of the version.
        sections: the rows of the version, by section.
        rng: the default source of randomness.
        similar: the index from which `recall` finds known queries like an unseen one; None: no guesses.
        taught: what people said outright, which comes before everything learned. It belongs to no version.
        online: rewrites of queries that nobody has rephrased yet; None: there are none.

    Attributes:
        snapshot, similar, online: as given.
        allocator: what decides, unless another policy is on trial and has a share of the decisions.
        canary: both of them; None if there is no other.
        diagnoser: what is known about failure points.
        goals: how many goals were reached, as people label them.
        satisfaction: how satisfied people are, and with which turns.
        horizon: after which strategies people come back.

    Raises:
        EncodingError: the publisher encodes contexts differently from this process.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        sections: Sections,
        rng: np.random.Generator,
        similar: Similar | None = None,
        taught: Taught = NOTHING_TAUGHT,
        *,
        online: Online | None = None,
    ) -> None:
        self.snapshot: Final = snapshot
        self.similar: Final = similar
        self.online: Final = online
        self._sections: Final = sections
        self.allocator: Final = Allocator.of(sections, snapshot)
        self.canary: Final = Shared.of(sections, snapshot)
        self._memory: Final = Memory.of(sections, snapshot, similar)
        self._ranker: Final = Ranker.of(sections, snapshot)
        self._tastes: Final = Tastes.of(sections, snapshot)
        self._rewriter: Final = Rewriter.of(sections, snapshot, online)
        self._history: Final = History.of(sections, snapshot)
        self._users: Final = Users.of(sections, snapshot)
        self.diagnoser: Final = Diagnoser.of(sections, snapshot)
        self.goals: Final = GoalRates.of(sections, snapshot)
        self.satisfaction: Final = Satisfaction.of(sections, snapshot)
        self.horizon: Final = Horizon.of(sections, snapshot)
        self._of_users: Final = USER_FEATURES & {feature.name for feature in self.allocator.encoder.features}
        self._rng = rng
        self._taught = taught

    @property
    def version(self) -> int:
        """The number of the version: 1, 2, 3 ..."""
        return self.snapshot.version

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies to choose from."""
        return self.allocator.strategies

    @property
    def remembered(self) -> int:
        """The number of queries in the memory index."""
        return len(self._memory)

    @property
    def examined(self) -> tuple[float, ...]:
        """The probabilities that positions 1, 2 ... are examined, as the memory index assumes."""
        return self._memory.header.examined if self._memory.header else ()

    def allocate(
        self,
        context: Mapping[str, Value],
        budget: int,
        rng: np.random.Generator | None = None,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        user: str | None = None,
        *,
        distinct: bool = False,
        available: Collection[str] | None = None,
        question: Question | None = None,
    ) -> Decision:
        """Decide which strategies to ask for a query, and how many candidates from each.

        Args:
            context: the query's context; see `features.context_of`.
            budget: the total number of candidates to draw, at least 1.
            rng: the source of randomness; None: the policy's.
            strategy_context: strategy -> its features, from `history` and any others that are configured.
            user: the `user_id` of the user who asks; see `of_user`.
            distinct: whether the budget is one of different candidates; lists are then walked as `walk` does.
            available: the strategies that can be asked now; None: all.
            question: what to ask with the answer, as `Asker.ask` returned it: the decision's `ask` and so on.

        Returns:
            the decision; log its fields in the `impression` event.

        Raises:
            ValueError: the budget is less than 1 or no whole number, or no strategy is available.
        """
        known = self.of_user(user)
        decides = self.canary or self.allocator
        decision = decides.allocate(
            {**context, **known},
            _whole(budget),
            rng or self._rng,
            strategy_context,
            distinct=distinct,
            available=available,
        )
        decision = structs.replace(decision, user_context=known, policy_version=self.version)
        return decision if question is None else asking(decision, question)

    def retrieval(
        self,
        context: Mapping[str, Value],
        budget: int,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        user: str | None = None,
        *,
        available: Collection[str] | None = None,
    ) -> Retrieval:
        """Return what `allocate`, asked the same with a budget of drawn candidates, brings with what probability.

        For logging results whose ranks were looked up in every strategy; see `impression_of`.
        """
        decides = self.canary or self.allocator
        known = {**context, **self.of_user(user)}
        return decides.retrieval(known, _whole(budget), strategy_context, available=available)

    def prepare(self, before: "Policy") -> None:
        """Make ready for the budgets that the version before was asked for; see `Allocator.prepare`."""
        (self.canary or self.allocator).prepare(before.canary.served if before.canary else before.allocator)

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw from `rng` from now on: a process that was forked must not draw what its siblings draw."""
        self._rng = rng

    def with_taught(self, taught: Taught) -> Self:
        """Return this version with what has been taught since it was read."""
        policy = copy.copy(self)
        policy._taught = taught
        return policy

    def taught(self, user: str | None = None, group: str | None = None) -> list[TaughtRule]:
        """Return the rules that hold for a user: the user's own, then the group's, then everyone's; latest first."""
        return self._taught.rules(user, group)

    def utilities(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, tuple[float, float]]:
        """Return each strategy's expected reward for a query, and the standard deviation used for exploration."""
        means, deviations = self.allocator.utilities(context, strategy_context)
        return dict(zip(self.strategies, zip(means.tolist(), deviations.tolist(), strict=True), strict=True))

    def gains(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, list[float]]:
        """Return the expected gain of each strategy's candidates, best rank first: for ranking their union."""
        return (self.canary or self.allocator).gains(context, strategy_context)

    def history(self, query: str, *, locale: str | None = None) -> dict[str, dict[str, float]]:
        """Return how each strategy has done on this `query`, as the strategy context of `allocate`.

        It is empty unless `strategy.history` is a configured feature. The query is read in its `locale`.
        """
        means = {name: mean for name, (_, mean) in self.allocator.evidence.items()}
        return self._history.features(self._spelled(query, locale), means)

    def of_user(self, user: str | None) -> dict[str, float]:
        """Return the configured features of a user: `user.turns` and so on; see `users`.

        `allocate` adds them to the context itself. A user of None has no features; a new user has average ones.
        """
        if user is None or not self._of_users:
            return {}
        return {name: value for name, value in self._users.features(user).items() if name in self._of_users}

    def summaries(self) -> dict[str, StrategySummary]:
        """Return a summary of what was learned about each strategy, for reports."""
        return self.allocator.summaries()

    def unseen_features(self) -> list[str]:
        """Return the bandit's features that no learned turn had a value of, or only their center; for reports."""
        return self.allocator.unseen_features

    def recall(
        self,
        query: str,
        k: int,
        user: str | None = None,
        *,
        explore: int = 0,
        rng: np.random.Generator | None = None,
        locale: str | None = None,
        group: str | None = None,
    ) -> list[Recalled]:
        """Return at most `k` entities that have worked for `query`, or are predicted to, best first.

        What was taught comes before: an entity preferred for the query is the first one, whatever its score; an entity
        never to be shown is left out. An entity that is liked counts as if the user had often chosen it, which
        clicks can overrule.

        If the reader guesses (see `PolicyReader`), an unknown query is served as the most similar known one. The
        recalled entities then say so, and their scores are multiplied by the similarity.

        Args:
            query: the query's text.
            k: the maximum number of entities.
            user: the `user_id` of the user who asks, whose own evidence counts more if `memory.personal` is set.
            explore: the number of the last places given to challengers: entities with so little evidence that they may
                turn out to be the best. Each says with which probability it was drawn. A user with evidence of their
                own for the query is shown none.
            rng: the randomness that challengers are drawn with; without it, none are.
            group: the user's group, such as a household, whose rules hold for the user too.
            locale: the query's locale, as in its event: in Turkish, the small letter of I is ı.
        """
        text = self._spelled(query, locale)
        wishes = self._taught.wishes(text, user, group)
        first, liked = wishes.preferred, self._taught.likes(text, user, group)
        if first is None or k < 1:
            return self._memory.recall(text, k, user, explore=explore, rng=rng, without=wishes.never, liked=liked)
        without = {*wishes.never, first}
        others = self._memory.recall(text, k - 1, user, explore=explore, rng=rng, without=without, liked=liked)
        return [Recalled(first, 1.0, 1.0, 0.0, taught=True), *others]

    def rank(
        self,
        context: Mapping[str, Value],
        candidates: Sequence[Candidate],
        k: int,
        *,
        query: str = "",
        locale: str | None = None,
        user: str | None = None,
        rng: np.random.Generator | None = None,
        explain: bool = False,
        group: str | None = None,
    ) -> Ranking:
        """Rank the retrieved candidates.

        What was taught comes before: a candidate preferred for `query` is the first one; one never to be shown is left
        out. Candidates with a value that is liked count as if the user had often chosen it, which the user's clicks can
        overrule if `ranking.personal` names its feature.

        Log the fields of the ranking, and its results, in the `impression` event, because learning needs the features
        that were used; see `impression_of`.

        Args:
            context: the query's context; see `features.context_of`.
            candidates: the candidates, in the caller's own order, or with a feature `score`.
            k: the number of results wanted.
            query: the query's text, for features of the memory index.
            locale: the query's locale, as in its event.
            user: the `user_id` of the user who asks, for the personal layers of the memory index and the ranking.
            rng: the source of randomness; None: the policy's.
            explain: whether results include the parts of their scores.
            group: the user's group, such as a household, whose rules hold for the user too.

        Returns:
            the first k candidates; in the caller's order until clicks favour another one.

        Raises:
            ValueError: k is less than 1, an entity is twice among the candidates, a rank is less than 1, or a score
                that the order follows is not finite.
        """
        text = self._spelled(query, locale)
        wishes = self._taught.wishes(text, user, group)
        if wishes.never:
            candidates = [one for one in candidates if one.entity_id not in wishes.never]
        if self._ranker.encoder.of_memory:
            liked = self._taught.likes(text, user, group)
            known = {one.entity_id: one for one in self._memory.recall(text, sys.maxsize, user, liked=liked)}
            candidates = [remembered(one, known.get(one.entity_id)) for one in candidates]
        tastes = self._tastes.weights(user, wishes.liked)
        ranking = self._ranker.rank(
            context, candidates, k, rng or self._rng, explain=explain, first=wishes.preferred, tastes=tastes
        )
        return structs.replace(ranking, examined=self.examined, policy_version=self.version)

    def rewrite(
        self,
        query: str,
        *,
        interpretation: str | None = None,
        user: str | None = None,
        session: str | None = None,
        locale: str | None = None,
        group: str | None = None,
        hypotheses: Sequence[Hypothesis] = (),
    ) -> Rewriting | None:
        """Return what `query` should have been, or None if it should stay as it is.

        Log a served rewrite as `rewrite` of the `impression`; otherwise a harmful one cannot be withdrawn.

        Args:
            query: the query's text.
            interpretation: the NLU's interpretation, if events carry one; the target is then an interpretation too.
            user: the `user_id` of the user who asks; what they taught comes first, and their own rephrases take
                precedence over those of others.
            session: the session's id. A configured share of sessions is served only taught and pinned rewrites, to
                measure the effect of the others. Without it, no session is held out.
            locale: the query's locale, as in its event.
            group: the user's group, such as a household, whose rules hold for the user too.
            hypotheses: what the recogniser may have heard, as in `query.asr`. One that has succeeded may be the
                rewrite. To the opposite of what was recognised, a query is only rewritten if both are among them.
        """
        text = self._spelled(query, locale)
        taught = self._taught.target(interpretation or normalize(text), user, group)
        return self._rewriter.rewrite(
            text, interpretation=interpretation, user=user, session=session, taught=taught, hypotheses=hypotheses
        )

    def offers(
        self,
        query: str,
        *,
        interpretation: str | None = None,
        user: str | None = None,
        locale: str | None = None,
        group: str | None = None,
    ) -> list[Rule]:
        """Return what somebody who asks `query` may mean, as rules to choose from, the best first; see `Asker.ask`.

        First come queries, without those that an operator has blocked: the user's own rewrite, everybody's, even if it
        is no longer served, and, if the reader guesses, the known query that is most similar. Then come entities that
        have worked for the query.
        """
        text = self._spelled(query, locale)
        state = interpretation or normalize(text)
        if not state or max(len(state), len(text)) > MAX_PHRASE:
            return []
        recalled = self.recall(query, OFFERED, user, locale=locale, group=group)
        targets = self._rewriter.candidates(state, user)
        if not interpretation and recalled and recalled[0].guess:
            targets.append(recalled[0].guess.query)
        rules: list[Rule] = [
            Means(source=state, target=target, interpretation=interpretation is not None)
            for target in dict.fromkeys(targets)
            if target != state and 0 < len(target) <= MAX_PHRASE
        ]
        rules += [Prefer(entity_id=one.entity_id, query=text) for one in recalled if not one.taught and normalize(text)]
        return rules[:OFFERED]

    def _spelled(self, query: str, locale: str | None) -> str:
        return spelled(query, locale, self.snapshot.fold)

    def diagnose(self, turn: Turn) -> Diagnosis | None:
        """Return which component failed first in a turn, with reasons; None if neither labels nor its events tell.

        Args:
            turn: the query, its signals, and the session's next query: `Turn.of(query, signals, next)`.
        """
        return self.diagnoser.diagnose(turn)

    def ranking(self) -> Ranker:
        """Return the ranker, whose settings and weights are for reports."""
        return self._ranker

    def evidence(self) -> dict[str, tuple[float, float]]:
        """Return for each strategy the decayed number of turns that asked it, and their mean reward."""
        return self.allocator.evidence

    def memory(self) -> dict[str, list[Recalled]]:
        """Return the whole memory index, best entities first, for reports."""
        return {query: self._memory.recall(query, sys.maxsize) for query in self._memory.queries()}

    def rewrites(self) -> dict[str, Rewriting]:
        """Return all rewrites of the global layer, including withdrawn ones, for reports."""
        return self._rewriter.rewrites()

    def served(self, serving: type[S]) -> S:
        """Return the serving object of a learner of your own, for whose section the policy has no method."""
        return serving.of(self._sections, self.snapshot)


def _whole(budget: int) -> int:
    """Return a budget as an integer; one of 2.5 candidates, which Python lets pass, would never be spent."""
    whole = int(budget)
    if whole != budget:
        raise ValueError(f"budget: {budget!r} is not a whole number of candidates")
    return whole


def asking(decision: Decision, question: Question) -> Decision:
    """Return a decision with a question to ask with the answer."""
    return structs.replace(decision, ask=question.kind, ask_propensity=question.propensity, offers=question.offers)
