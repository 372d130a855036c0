"""The search server: asks the policy for an allocation, unites the strategies' results, and logs the decision."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator as Rng

from backchannel.agents.bandit.decision import Decision
from backchannel.agents.ranking.features import SCORE
from backchannel.agents.ranking.serving import Candidate, Ranking
from backchannel.ops.lab.search.generators.memory import Memory
from backchannel.ops.lab.search.union import Union, unite
from backchannel.schemas.events import Canary, Impression, Query, Result
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader

MEMORY: Final = "memory"
"""The strategy that recalls from the policy's memory index."""
FUSION: Final = 60.0
"""The constant of reciprocal rank fusion."""
FUSED: Final = "fused"
"""The feature with a candidate's score by reciprocal rank fusion."""
REMEMBERED: Final = "remembered"
"""The feature with the number n of documents that the memory index has for the query, as log(1 + n)."""


class Page(Struct, frozen=True):
    """The page for a query, and the decision behind it.

    Attributes:
        union: the candidates, in the union's order.
        shown: documents as indexes into the corpus, from the top.
        ranking: the policy's order of them; None if they are shown in the union's order.
        planned: strategy -> number of candidates requested.
        propensities, allocation_propensity: probabilities of the plan; empty and None without a policy.
        policy_version: version of the policy; None before the first.
        canary: how the decision was made while a policy was on trial; None otherwise.
        context: the context of the decision.
    """

    union: Union
    shown: Sequence[int]
    ranking: Ranking | None
    planned: Mapping[str, int]
    propensities: Mapping[str, float]
    allocation_propensity: float | None
    policy_version: int | None
    context: Mapping[str, float]
    canary: Canary | None = None


class SearchServer:
    """Serves the learned policy. Until there is one, it asks a random set of strategies for equal numbers of
    candidates.

    Args:
        reader: the reader of the policy.
        strategies: names of the strategies, which may include MEMORY.
        doc_ids: the ids of the corpus's documents, by index.
        budget: the budget of candidates.
        distinct: whether the budget is of distinct candidates; see `union`.
        ranked: whether the policy orders the candidates.
        explained: whether to explain each candidate's score.
        rng: the source of all randomness.

    Attributes:
        memory: the generator behind the strategy MEMORY.
    """

    def __init__(
        self,
        reader: PolicyReader,
        strategies: Sequence[str],
        doc_ids: Sequence[str],
        budget: int,
        rng: Rng,
        *,
        distinct: bool = False,
        ranked: bool = False,
        explained: bool = False,
    ) -> None:
        self._ranked: Final = ranked
        self._explained: Final = explained
        self._reader: Final = reader
        self._strategies: Final = tuple(strategies)
        self._doc_ids: Final = doc_ids
        self._number: Final = {doc_id: place for place, doc_id in enumerate(doc_ids)}
        self.memory: Final = Memory(reader, self._number)
        self._budget: Final = budget
        self._rng: Final = rng
        self._distinct: Final = budget if distinct else None

    def serve(self, text: str, context: Mapping[str, float], lists: Mapping[str, Sequence[int]]) -> Page:
        """Serve one query.

        Args:
            text: the query's text.
            context: the query's features.
            lists: the results of each strategy except MEMORY, as indexes into the corpus, to at least the depth of the
                budget.
        """
        try:
            policy: Policy | None = self._reader.policy
        except NoPolicyError:
            policy = None
        lists = dict(lists)
        if MEMORY in self._strategies:
            lists[MEMORY] = self.memory.find(text, self._budget).places.tolist()
            context = {**context, REMEMBERED: float(np.log1p(len(lists[MEMORY])))}
        if policy is None:
            decision = Decision(self._uniform(), {})
        else:
            decision = policy.allocate(context, self._budget, self._rng, distinct=self._distinct is not None)
        union = unite(lists, decision.allocation, self._distinct)
        ranking = None
        if self._ranked and policy:
            ranking = self.rank(policy, union, text, context, self._rng, explain=self._explained)
        return Page(
            union,
            self.places(ranking) if ranking else [one.item for one in union.candidates],
            ranking,
            decision.allocation,
            decision.propensities,
            decision.allocation_propensity,
            decision.policy_version,
            context,
            decision.canary,
        )

    def rank(
        self, policy: Policy, union: Union, text: str, context: Mapping[str, float], rng: Rng, *, explain: bool = False
    ) -> Ranking:
        """Return the policy's order of a union.

        The caller's own score, from which the policy starts, falls with the place in the union. The feature FUSED holds
        the score by reciprocal rank fusion (Cormack et al. 2009).
        """
        candidates = [
            Candidate(
                self._doc_ids[one.item],
                {SCORE: -float(np.log2(place)), FUSED: sum(1.0 / (FUSION + at) for at in one.ranks.values())},
                one.ranks,
            )
            for place, one in enumerate(union.candidates, start=2)
        ]
        return policy.rank(context, candidates, max(len(candidates), 1), query=text, rng=rng, explain=explain)

    def places(self, ranking: Ranking) -> list[int]:
        """Return the documents of a ranking, from the top, as indexes into the corpus."""
        return [self._number[one.entity_id] for one in ranking.results]

    def _uniform(self) -> dict[str, int]:
        size = int(self._rng.integers(1, len(self._strategies), endpoint=True))
        asked = self._rng.choice(self._strategies, size, replace=False).tolist()
        dealt = {name: len(range(place, self._budget, len(asked))) for place, name in enumerate(asked)}
        return {name: count for name, count in dealt.items() if count}


def impression(query: Query, page: Page, doc_ids: Sequence[str], ts: int, *, distinct: int | None = None) -> Impression:
    """Return the event that logs a page.

    Args:
        query: the query that the page answers.
        page: the page served.
        doc_ids: the ids of the corpus's documents, by index.
        ts: event time, ms since the Unix epoch.
        distinct: the budget of distinct candidates, if it is one: the plan is then logged beside the depths.
    """
    brought = {one.item: one.ranks for one in page.union.candidates}
    features = {one.entity_id: dict(one.features) for one in page.ranking.results} if page.ranking else {}
    results = tuple(
        Result(
            doc_ids[item],
            position,
            tuple(brought[item]),
            dict(brought[item]),
            {name: value for name, value in features.get(doc_ids[item], {}).items() if value is not None},
        )
        for position, item in enumerate(page.shown, start=1)
    )
    return Impression(
        event_id=f"{query.query_id}-i",
        ts=ts,
        session_id=query.session_id,
        query_id=query.query_id,
        results=results,
        allocation=page.union.depth,
        planned=dict(page.planned) if distinct else {},
        distinct=distinct,
        propensities=dict(page.propensities),
        allocation_propensity=page.allocation_propensity,
        examined=page.ranking.examined if page.ranking else (),
        normalizers=dict(page.ranking.normalizers) if page.ranking else {},
        policy_version=page.policy_version,
        canary=page.canary,
    )
