"""Turns as columns: what was asked of each strategy, what was shown, and what came of it.

This is the seam between how turns arrive and how the bandit learns. `pages_of` fills it from judged turns; whoever has
turns as columns already fills it directly. It says nothing of rank buckets, positions' examination or time buckets:
those are the learner's.

A result's producers are the strategies that brought it to the page, each with the rank that the result has in its
list. Where ranks are logged (`Result.ranks`), they are used. Where they are not, a result's rank is its place among
the results of that strategy on the page, in the order of their positions. That is exact for a strategy whose
candidates were all shown; candidates that were dropped from the page (another strategy's duplicates are not: they are
shown once, for both) make ranks too good.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, TypeAlias
from zlib import crc32

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Encoder, Value
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Matrix
from backchannel.schemas.events import MAX_DEPTH
from backchannel.schemas.turn import Turn

Integers: TypeAlias = NDArray[np.int64]

_position: Final = attrgetter("position")


class Pages(Struct, frozen=True):
    """Turns, the results that they showed, and the producers of those: three ragged levels, each in the outer's order.

    Attributes:
        times: event time of the query, ms, (turns,).
        queries: `hash_of` the normalised query, (turns,).
        contexts: encoded, (turns, strategies, d), or (turns, 1, d) if all strategies have the same.
        depths: candidates asked of each strategy, (turns, strategies); 0 if it was not asked, MAX_DEPTH if its list was
            walked to the end. A list that ended early was still asked that deep.
        turns: the turn that each result was shown in, (results,), rising.
        positions: on the page, from 1, (results,).
        gains: of the click on it, in [0, 1]; 0 without one, (results,).
        results: the result that each producer produced, (producers,), rising.
        strategies: codes of the producers, (producers,).
        ranks: of the result in the producer's list, from 1, (producers,).
    """

    times: Integers
    queries: Integers
    contexts: Matrix
    depths: Integers
    turns: Integers
    positions: Integers
    gains: Matrix
    results: Integers
    strategies: Integers
    ranks: Integers


def hash_of(query: str) -> int:
    """Return the hash of a normalised query, 32 bits; the same in every process."""
    return crc32(query.encode(errors="surrogatepass"))


def pages_of(outcomes: Sequence[Outcome], encoder: Encoder, codes: Mapping[str, int]) -> Pages:
    """Return judged turns as columns.

    A turn with several impressions, as when somebody leafs through pages, is one page: each entity counts where it was
    shown first, and each strategy as deep as it was ever asked.

    Args:
        outcomes: of the turns.
        encoder: of contexts.
        codes: strategy -> its code, 0 and up. Other strategies are ignored.
    """
    depths = np.zeros((len(outcomes), len(codes)), dtype=np.int64)
    shown: list[tuple[int, int, float]] = []
    produced: list[tuple[int, int, int]] = []
    for row, outcome in enumerate(outcomes):
        for name, count in outcome.asked.items():
            code = codes.get(name)
            if code is not None:
                depths[row, code] = count
        gains, seen = outcome.gains, set[str]()
        for impression in outcome.turn.impressions:
            placed: dict[str, int] = {}
            for result in sorted(impression.results, key=_position):
                entity = result.entity_id
                first = entity not in seen
                if first:
                    seen.add(entity)
                    shown.append((row, result.position, gains.get(entity, 0.0)))
                for name in result.strategies:
                    placed[name] = placed.get(name, 0) + 1
                    code = codes.get(name)
                    if code is not None and first:
                        produced.append((len(shown) - 1, code, result.ranks.get(name, placed[name])))
    turns, positions, gained = np.array(shown, dtype=float).reshape(-1, 3).T
    results, strategies, ranks = np.array(produced, dtype=np.int64).reshape(-1, 3).T
    turns = turns.astype(np.int64)
    # So deep a list must have been, whatever the allocation says.
    np.maximum.at(depths, (turns[results], strategies), np.minimum(ranks, MAX_DEPTH))
    return Pages(
        times=np.array([outcome.turn.query.ts for outcome in outcomes], dtype=np.int64),
        queries=np.array([hash_of(outcome.query) for outcome in outcomes], dtype=np.int64),
        contexts=_contexts(outcomes, encoder, list(codes)),
        depths=depths,
        turns=turns,
        positions=positions.astype(np.int64),
        gains=gained,
        results=results,
        strategies=strategies,
        ranks=ranks,
    )


def _contexts(outcomes: Sequence[Outcome], encoder: Encoder, strategies: Sequence[str]) -> Matrix:
    """The encoded contexts, as they were decided with; see `Pages.contexts`."""
    contexts = encoder.contexts([outcome.turn.query for outcome in outcomes])
    if encoder.of_users:
        known = [_known_of_user(outcome.turn) for outcome in outcomes]
        contexts = [{**context, **own} for context, own in zip(contexts, known, strict=True)]
    if not encoder.of_strategies:
        return np.asarray(encoder.encode_all(contexts)[:, np.newaxis])
    vectors = encoder.encode_all(
        [
            {**context, **_known_of(name, outcome.turn)}
            for context, outcome in zip(contexts, outcomes, strict=True)
            for name in strategies
        ]
    )
    return vectors.reshape(len(outcomes), len(strategies), -1)


def _known_of(strategy: str, turn: Turn) -> Mapping[str, Value]:
    """What was known of a strategy when the turn's first impression was decided that says so."""
    return next((own for shown in turn.impressions if (own := shown.strategy_context.get(strategy))), {})


def _known_of_user(turn: Turn) -> Mapping[str, Value]:
    """What was known of who asked when the turn's first impression was decided that says so."""
    return next((shown.user_context for shown in turn.impressions if shown.user_context), {})
