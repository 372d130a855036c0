"""Turns for the learners' tests."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Asked, Gains, Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.learner import state_of
from backchannel.schemas.events import (
    BargeIn,
    Canary,
    Click,
    Feedback,
    Hypothesis,
    Impression,
    Label,
    Query,
    Recognition,
    Result,
    Rewrite,
)
from backchannel.schemas.turn import Turn
from tests.support.oracle import Credit, Outcome

DAY: Final = 86_400_000
LAST: Final = 253_402_300_799_999
"""The largest valid `ts` of an event: the end of the year 9999, ms since the Unix epoch."""

STRATEGIES = ("lexical", "semantic", "memory", "unheard-of")
ENTITIES = st.sampled_from(["e1", "e2", "e3", "e4"])
# Two similar texts, so that one may rephrase the other; a different one; symbols; nothing recognised.
TEXTS = st.sampled_from(["play jazz", "Play, jass!", "weather", "🙂", ""])
INTERPRETATIONS = st.none() | st.sampled_from(["a", "b", "c", "d", "e"])
SESSIONS = st.sampled_from(["s", "t", "held out 3"])
USERS = st.none() | st.sampled_from(["ann", "bob"])
# Recognised with its opposite.
HEARD = st.none() | st.just(Recognition(hypotheses=(Hypothesis("play jazz", -1.0), Hypothesis("play no jazz", -2.0))))
CONTEXTS = st.dictionaries(
    st.sampled_from(["hour", "device", "driving"]),
    st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.sampled_from(["car", "phone", "tv"]),
    max_size=3,
)


def query(ts: int = 0, text: str = "play jazz", session_id: str = "s", **fields: Any) -> Query:
    return Query(event_id="e", ts=ts, session_id=session_id, query_id="q", text=text, **fields)


def impression(*results: Result, **fields: Any) -> Impression:
    return Impression(event_id="e", ts=0, session_id="s", query_id="q", results=results, **fields)


def click(entity: str, kind: str = "click", dwell_ms: int | None = None) -> Click:
    return Click(event_id="e", ts=0, session_id="s", query_id="q", entity_id=entity, kind=kind, dwell_ms=dwell_ms)


def feedback(**fields: Any) -> Feedback:
    return Feedback(event_id=fields.pop("event_id", "e"), ts=0, session_id="s", query_id="q", **fields)


def label(labeller: str = "eve", at: int = 0, **fields: Any) -> Label:
    name = f"{labeller} {at} {fields}"
    return Label(event_id=name, ts=0, session_id="s", query_id="q", labeller=labeller, labelled_at=at, **fields)


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


def judged(turns: Iterable[Turn], config: RewardConfig | None = None) -> Outcomes:
    return Judge(config or RewardConfig()).judge(columns_of(list(turns)))


def outcomes_of(turns: Sequence[Turn], config: RewardConfig | None = None) -> list[Outcome]:
    """Return the outcomes of `turns` as objects."""
    outcomes = judged(turns, config)
    keys, pools = [*outcomes.keys, None], outcomes.columns.pools
    gains = [dict[str, float]() for _ in turns]
    for place, entity, gain in zip(
        outcomes.gains.turns.tolist(), outcomes.gains.entities.tolist(), outcomes.gains.gains.tolist(), strict=True
    ):
        gains[place][pools.entities[entity]] = gain
    asked, own = outcomes.asked, [dict[str, int]() for _ in turns]
    for place, code, drawn in zip(asked.rows.tolist(), asked.codes.tolist(), asked.drawn.tolist(), strict=True):
        own[place][pools.strategies[code]] = drawn
    credited = [dict[str, Credit]() for _ in turns]
    for place, reward, rank, position in zip(
        asked.credited.tolist(), asked.rewards.tolist(), asked.ranks.tolist(), asked.positions.tolist(), strict=True
    ):
        credited[asked.rows[place]][pools.strategies[asked.codes[place]]] = (reward, rank, position)
    return [
        Outcome(
            turn=turn,
            query=outcomes.keys[outcomes.query[row]],
            gains=gains[row],
            success=float(outcomes.success[row]),
            rephrased=float(outcomes.rephrased[row]),
            rewritten=keys[outcomes.rewritten[row]],
            asked=own[row],
            credited=credited[row],
            unrephrased=float(outcomes.unrephrased[row]),
        )
        for row, turn in enumerate(turns)
    ]


def as_columns(some: Iterable[Outcome]) -> Outcomes:
    """Return made-up outcomes as columns, the learners' input, without gains and credits."""
    made_up = list(some)
    columns = columns_of([one.turn for one in made_up])
    states = [state_of(one.turn.query) for one in made_up]
    following = [None if one.turn.next is None else state_of(one.turn.next) for one in made_up]
    named: list[Sequence[str | None]] = [
        [one.query for one in made_up],
        states,
        following,
        [one.rewritten for one in made_up],
    ]
    keys = sorted({key for column in named for key in column if key is not None})
    codes: dict[str | None, int] = {None: MISSING} | {key: code for code, key in enumerate(keys)}
    query, state, after, rewritten = (np.array([codes[key] for key in column], dtype=np.int64) for column in named)
    success, unrephrased, rephrased = (
        np.array([getattr(one, name) for one in made_up], dtype=float)
        for name in ("success", "unrephrased", "rephrased")
    )
    none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    gains, asked = Gains(none, none, nothing, none, none, none), Asked(none, none, none, none, nothing, none, none)
    unheard = np.zeros(len(made_up))
    return Outcomes(
        columns, keys, query, state, after, rewritten, success, unrephrased, rephrased, gains, asked, unheard
    )


def outcome(state: str, following: str | None = None, success: bool = False, ts: int = 0, **fields: Any) -> Outcome:
    """Return the outcome of a turn on interpretation `state` that was rephrased to `following`, or had `success`."""
    later = query(ts + 1, interpretation=following) if following else None
    return Outcome(
        turn=closed_turn(query(ts, interpretation=state, **fields), next=later),
        query="",
        gains={},
        success=0.0 if following else float(success),
        unrephrased=0.0 if following else float(success),
        rephrased=1.0 if following else 0.0,
        rewritten=None,
    )


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
    queries = st.builds(
        query, ts, TEXTS, SESSIONS, interpretation=INTERPRETATIONS, user_id=USERS, context=CONTEXTS, asr=HEARD
    )
    impressions = st.builds(
        lambda results, **fields: impression(*results, **fields),
        st.lists(results, max_size=3),
        allocation=st.dictionaries(names, st.integers(0, 3), max_size=3),
        propensities=st.dictionaries(names, st.sampled_from([0.0, 0.5, 1.0]), max_size=3),
        allocation_propensity=st.none() | st.just(0.25),
        canary=st.none()
        | st.builds(
            Canary, trial=st.just(7), share=st.sampled_from([0.25, 0.5]), propensity=st.sampled_from([0.0, 0.25, 0.5])
        ),
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
        st.lists(st.builds(click, ENTITIES, st.sampled_from(["click", "play"]), st.none() | st.just(5000)), max_size=3),
        st.just(()) | st.just((barge_in(),)),
        st.none() | st.tuples(TEXTS, INTERPRETATIONS),
        st.integers(0, 90_000),
    )
