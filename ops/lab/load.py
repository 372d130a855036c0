"""Made-up events in any number for benchmarks and load tests; they have the shape of real traffic, not its meaning."""

from collections.abc import Iterator

import numpy as np

from backchannel.schemas.events import BargeIn, Click, Event, Impression, Query, Result

STRATEGIES = ("lexical", "semantic", "memory", "popular", "new")
SHOWN = 10
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def mixed_stream(
    turns: int,
    rng: np.random.Generator,
    *,
    queries: int = 5_000,
    new_every: int | None = None,
    start_ms: int = 1_700_000_000_000,
    gap_ms: int = 20,
) -> Iterator[Event]:
    """Yield the events of `turns` turns in time order: per query an impression of ten, 0.4 clicks and 0.1 barge-ins.

    Args:
        turns: the number of turns.
        rng: the random generator.
        queries: the number of distinct queries, with Zipf popularity.
        new_every: one query in so many is asked only once, and shows what the query that it replaces shows; None: none.
        start_ms: event time of the first query, ms since the Unix epoch.
        gap_ms: event time between two queries, ms; each query's signals come before the next query.
    """
    popularity = 1.0 / np.arange(1, queries + 1)
    asked = rng.choice(queries, size=turns, p=popularity / popularity.sum())
    shown = rng.integers(0, 30, size=(turns, SHOWN)) + asked[:, np.newaxis]
    clicked = rng.random(turns) < 0.4
    clicked_rank = rng.integers(0, SHOWN, size=turns)
    interrupted = rng.random(turns) < 0.1
    syllables = rng.choice(_SYLLABLES, size=(queries, 9))
    texts = [" ".join("".join(row[at : at + 3]) for at in (0, 3, 6)) for row in syllables.tolist()]
    rank_strategies = [(STRATEGIES[rank % 5],) if rank % 3 else (STRATEGIES[rank % 5], "lexical") for rank in range(10)]
    allocation = dict.fromkeys(STRATEGIES, 2)
    propensities = dict.fromkeys(STRATEGIES, 0.9)
    for turn in range(turns):
        ts = start_ms + turn * gap_ms
        session_id, query_id = f"session-{turn // 3}", f"query-{turn}"
        new = new_every is not None and turn % new_every == 0
        entities = [f"entity-{entity}" for entity in dict.fromkeys(shown[turn].tolist())]
        yield Query(
            event_id=f"{query_id}-q",
            ts=ts,
            session_id=session_id,
            query_id=query_id,
            text=f"{texts[asked[turn]]} {turn}" if new else texts[asked[turn]],
            context={"hour": float(turn % 24), "device": "speaker"},
        )
        yield Impression(
            event_id=f"{query_id}-i",
            ts=ts + 1,
            session_id=session_id,
            query_id=query_id,
            results=tuple(Result(entity, rank + 1, rank_strategies[rank]) for rank, entity in enumerate(entities)),
            allocation=allocation,
            propensities=propensities,
            policy_version=1,
        )
        if clicked[turn]:
            yield Click(
                event_id=f"{query_id}-c",
                ts=ts + 2,
                session_id=session_id,
                query_id=query_id,
                entity_id=entities[clicked_rank[turn] % len(entities)],
            )
        if interrupted[turn]:
            yield BargeIn(event_id=f"{query_id}-b", ts=ts + 3, session_id=session_id, query_id=query_id, offset_ms=900)
