"""Turns for the learners' tests."""

from collections.abc import Iterable
from typing import Any, Final

from hypothesis import strategies as st

from backchannel.agents.outcomes import Judge, Outcome, RewardConfig
from backchannel.schemas.events import BargeIn, Click, Impression, Query, Result, Rewrite
from backchannel.schemas.turn import Turn

DAY: Final = 86_400_000
LAST: Final = 253_402_300_799_999
"""The largest valid `ts` of an event: the end of the year 9999, ms since the Unix epoch."""

STRATEGIES = ("lexical", "semantic", "memory", "unheard-of")
ENTITIES = st.sampled_from(["e1", "e2", "e3", "e4"])
# Two similar texts, so that one may rephrase the other; a different one; symbols; nothing recognised.
TEXTS = st.sampled_from(["play jazz", "Play, jass!", "weather", "🙂", ""])
INTERPRETATIONS = st.none() | st.sampled_from(["a", "b", "c", "d", "e"])
USERS = st.none() | st.sampled_from(["ann", "bob"])
CONTEXTS = st.dictionaries(
    st.sampled_from(["hour", "device", "driving"]),
    st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.sampled_from(["car", "phone", "tv"]),
    max_size=3,
)


def query(ts: int = 0, text: str = "play jazz", session_id: str = "s", **fields: Any) -> Query:
    return Query(event_id="e", ts=ts, session_id=session_id, query_id="q", text=text, **fields)


def impression(*results: Result, **fields: Any) -> Impression:
    return Impression(event_id="e", ts=0, session_id="s", query_id="q", results=results, **fields)


def click(entity: str, kind: str = "click") -> Click:
    return Click(event_id="e", ts=0, session_id="s", query_id="q", entity_id=entity, kind=kind)


def barge_in() -> BargeIn:
    return BargeIn(event_id="e", ts=0, session_id="s", query_id="q")


def closed_turn(
    query: Query,
    impressions: Iterable[Impression] = (),
    clicks: Iterable[Click] = (),
    barge_ins: Iterable[BargeIn] = (),
    next: Query | None = None,  # noqa: A002 - the field's name
) -> Turn:
    return Turn.of(query, [*impressions, *clicks, *barge_ins], next)


def judged(turns: Iterable[Turn], config: RewardConfig | None = None) -> list[Outcome]:
    return Judge(config or RewardConfig()).judge(list(turns))


def turns(
    ts: st.SearchStrategy[int],
    positions: st.SearchStrategy[int] = st.integers(1, 12),  # noqa: B008 - is immutable
) -> st.SearchStrategy[Turn]:
    """Return a strategy for turns of a small world, so that they share rows."""
    names = st.sampled_from(STRATEGIES)
    results = st.builds(
        Result,
        ENTITIES,
        positions,
        st.lists(names, max_size=2, unique=True).map(tuple),
        ranks=st.dictionaries(names, st.integers(1, 20), max_size=2),
        features=st.dictionaries(
            st.sampled_from(["score", "price", "brand"]), st.floats(-1e3, 1e3) | st.sampled_from(["x", "y"]), max_size=3
        ),
    )
    queries = st.builds(query, ts, TEXTS, interpretation=INTERPRETATIONS, user_id=USERS, context=CONTEXTS)
    impressions = st.builds(
        lambda results, **fields: impression(*results, **fields),
        st.lists(results, max_size=3),
        allocation=st.dictionaries(names, st.integers(0, 3), max_size=3),
        strategy_context=st.dictionaries(
            names, st.dictionaries(st.just("strategy.results"), st.floats(0, 100), max_size=1), max_size=2
        ),
        user_context=st.dictionaries(st.just("user.reward"), st.floats(-1, 1), max_size=1),
        rewrite=st.none() | st.none() | st.none() | st.builds(Rewrite, source=TEXTS, target=TEXTS),
    )
    return st.builds(
        lambda asked, shown, clicks, barge_ins, later, gap: closed_turn(
            asked,
            shown,
            clicks,
            barge_ins,
            later and query(asked.ts + gap, later[0], interpretation=later[1]),
        ),
        queries,
        st.lists(impressions, max_size=2),
        st.lists(st.builds(click, ENTITIES, st.sampled_from(["click", "play"])), max_size=2),
        st.just(()) | st.just((barge_in(),)),
        st.none() | st.tuples(TEXTS, INTERPRETATIONS),
        st.integers(0, 90_000),
    )
