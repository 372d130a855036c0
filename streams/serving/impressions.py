"""The impression event of a served query, from the decision and the ranking of the candidates."""

from collections.abc import Mapping

from backchannel.agents.bandit.decision import Decision, Retrieval
from backchannel.agents.bandit.features import Value
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
    looked_up: float | None = None,
    retrieval: Retrieval | None = None,
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
        looked_up: the probability, over 0 and up to 1, with which ranks are looked up in every strategy, if those of
            these results were; None: they were not. From such turns `evaluate` tells what other allocations are worth.
        retrieval: what the decision brings, as returned by `Policy.retrieval`; needed with `looked_up`.

    Raises:
        ValueError: the budget was one of distinct candidates, and `depths` is missing; or ranks were looked up, and
            `retrieval` is missing.
    """
    decided = decision or Decision({}, {})
    if decided.planned and depths is None:
        raise ValueError("depths: with distinct candidates, pass how deep each list was walked, as `walk` returns it")
    if looked_up is not None and (retrieval is None or decided.planned):
        raise ValueError(
            "retrieval: with ranks that were looked up, pass what `Policy.retrieval` returned; the budget must count "
            "drawn candidates, not distinct ones"
        )
    drawn = decided.allocation if depths is None else depths
    results = tuple(
        Result(
            one.entity_id,
            one.position,
            # A rank that was looked up may be deeper than what was drawn.
            tuple(name for name, rank in one.ranks.items() if looked_up is None or rank <= drawn.get(name, 0)),
            dict(one.ranks),
            _known(one.features),
            None if looked_up is None or retrieval is None else retrieval.places(one.ranks),
        )
        for one in ranking.results
    )
    return Impression(
        event_id=f"{query.query_id}/impression",
        ts=ts,
        session_id=query.session_id,
        query_id=query.query_id,
        results=results,
        allocation=dict(drawn),
        planned=decided.planned,
        distinct=decided.distinct,
        propensities=decided.propensities,
        allocation_propensity=decided.allocation_propensity,
        looked_up=looked_up,
        strategy_context={name: _known(own) for name, own in decided.strategy_context.items()},
        user_context=dict(decided.user_context),
        examined=ranking.examined,
        normalizers=dict(ranking.normalizers),
        policy_version=ranking.policy_version,
        canary=decided.canary,
        ask=decided.ask,
        ask_propensity=decided.ask_propensity,
        offers=decided.offers,
        rewrite=rewrite,
    )


def _known(context: Mapping[str, Value]) -> dict[str, float | bool | str]:
    return {name: value for name, value in context.items() if value is not None}
