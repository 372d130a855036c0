"""The impression event of a served query, from the decision and the ranking of the candidates."""

from collections.abc import Mapping

from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.serving import Decision
from backchannel.agents.ranking.serving import Ranking
from backchannel.schemas.events import Impression, Query, Result, Rewrite


def impression_of(
    query: Query,
    ranking: Ranking,
    decision: Decision | None = None,
    *,
    ts: int,
    depths: Mapping[str, int] | None = None,
    rewrite: Rewrite | None = None,
) -> Impression:
    """Return the `impression` event of an answered query, with everything that learning needs.

    Args:
        query: the query as asked.
        ranking: the results shown, as returned by `Policy.rank`.
        decision: the allocation of the candidates, as returned by `Policy.allocate`; None: not Backchannel's.
        ts: when the results were shown, ms since the Unix epoch.
        depths: strategy -> how deep its list was walked, as `walk` returns it; needed if the decision's budget was one
            of distinct candidates.
        rewrite: the query that was served in place of the one asked.

    Raises:
        ValueError: the budget was one of distinct candidates, and `depths` is missing.
    """
    results = tuple(
        Result(
            one.entity_id,
            one.position,
            tuple(one.ranks),
            dict(one.ranks),
            _known(one.features),
        )
        for one in ranking.results
    )
    decided = decision or Decision({}, {})
    if decided.planned and depths is None:
        raise ValueError("depths: with distinct candidates, pass how deep each list was walked, as `walk` returns it")
    return Impression(
        event_id=f"{query.query_id}/impression",
        ts=ts,
        session_id=query.session_id,
        query_id=query.query_id,
        results=results,
        allocation=dict(decided.allocation if depths is None else depths),
        planned=decided.planned,
        propensities=decided.propensities,
        allocation_propensity=decided.allocation_propensity,
        strategy_context={name: _known(own) for name, own in decided.strategy_context.items()},
        user_context=dict(decided.user_context),
        examined=ranking.examined,
        normalizers=dict(ranking.normalizers),
        policy_version=ranking.policy_version,
        canary=decided.canary,
        rewrite=rewrite,
    )


def _known(context: Mapping[str, Value]) -> dict[str, float | bool | str]:
    return {name: value for name, value in context.items() if value is not None}
