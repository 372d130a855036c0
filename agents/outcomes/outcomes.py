"""The outcomes of closed turns, as the judge gives them and learners read them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.outcomes.said import said_of
from backchannel.agents.sketches import buckets
from backchannel.agents.sums import GRID, Booleans, Floats, Integers, unique_inverse

MAX_STRATEGIES: Final = 32
"""The most strategies that are learned."""


class Gains(Struct, frozen=True):
    """The gains of chosen entities: a row per turn and entity, by turn and then by first click.

    Chosen is what was clicked. A turn without a click that showed a single result chose it as far as it succeeded: so
    strategies and the memory index learn where answers are spoken.

    Attributes:
        turns: index of the turn, (gains,), rising.
        entities: code of the entity, (gains,).
        gains: gain of the entity's best click, after a barge-in and a rephrase took their shares back, (gains,), in
            [0, 1]; without a click, the turn's success.
        places: index of the turn's first result that showed the entity, (gains,); MISSING if none did.
        shown: indexes of all results that showed a chosen entity, (chosen,).
        of_shown: the row of gains that each of these results belongs to, (chosen,), rising.
    """

    turns: Integers
    entities: Integers
    gains: Floats
    places: Integers
    shown: Integers
    of_shown: Integers


class Asked(Struct, frozen=True):
    """The strategies asked in each turn.

    A strategy is credited if it produced a chosen result. If there are several, the one with the highest gain counts,
    then the one with the best rank. Ranks, from 1, count the strategy's own results in the order of their positions.

    Attributes:
        rows: index of the turn, (asked,), rising.
        codes: code of the strategy, (asked,).
        drawn: number of candidates in the allocation or, if none is logged, among the results, (asked,).
        credited: indexes of the credited ones among these, (credited,), rising.
        rewards: gain credited, (credited,), in [0, 1].
        ranks: rank of the chosen result, (credited,).
        positions: position of the chosen result, (credited,).
    """

    rows: Integers
    codes: Integers
    drawn: Integers
    credited: Integers
    rewards: Floats
    ranks: Integers
    positions: Integers

    def of(self, codes: Integers) -> "Asked":
        """Return the rows of strategies that have a new code; `codes` maps old codes to new ones, or MISSING."""
        coded = codes.take(self.codes)
        known = coded != MISSING
        places = known.cumsum() - 1
        kept = known[self.credited]
        return Asked(
            self.rows[known],
            coded[known],
            self.drawn[known],
            places[self.credited[kept]],
            self.rewards[kept],
            self.ranks[kept],
            self.positions[kept],
        )


class Outcomes(Struct, frozen=True, dict=True):
    """The outcomes of n turns.

    Attributes:
        columns: the turns.
        keys: normalised queries, interpretations and targets of rewrites, sorted; the codes below index them.
        query: code of the normalised query that the results were for, (n,): the rewrite, if one was served.
        state: code of the query as asked, (n,): its interpretation or, without one, its normalised text.
        following: code of the state of the session's next query, (n,); MISSING without one, or if it is in another
            language or another user's.
        rewritten: code of the target of the served rewrite, (n,); MISSING without one.
        success: the highest gain, (n,), in [0, 1]; without a click, the worth of a session that moves on. What somebody
            said about the answer takes its place.
        unrephrased: the success before a rephrase took its share back, (n,).
        rephrased: the probability, 0 to 1, that the session's next query rephrases this one, (n,).
        gains: the gains of chosen entities.
        asked: the strategies asked; codes are those of `columns`.
        heard: the share of what somebody said about the answer that counts, (n,), 0 to 1; 0 if nothing was said.
    """

    columns: Columns
    keys: list[str]
    query: Integers
    state: Integers
    following: Integers
    rewritten: Integers
    success: Floats
    unrephrased: Floats
    rephrased: Floats
    gains: Gains
    asked: Asked
    heard: Floats

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def times(self) -> Integers:
        """Event times of the queries (ms), (n,)."""
        return self.columns.turns.query.ts

    @cached_property
    def named(self) -> Booleans:
        """Whether a key is not empty, (keys + 1,); the last element is for MISSING."""
        return np.array([*map(bool, self.keys), False])

    @cached_property
    def users(self) -> Integers:
        """Codes of the users in `Pools.people`, (n,); MISSING without a `user_id`."""
        user = self.columns.turns.query.user.astype(np.int64)
        empty = 0 if self.columns.pools.people[:1] == [""] else MISSING  # pools are sorted
        return np.where(user == empty, MISSING, user)

    @cached_property
    def shared(self) -> dict[Any, Any]:
        """What learners have worked out of these turns for each other; see `shared.once`."""
        return {}

    @property
    def clicked(self) -> Booleans:
        """Whether anything was clicked, (n,)."""
        return self.columns.turns.clicks.counts > 0

    @property
    def barged_in(self) -> Booleans:
        """Whether the answer was interrupted, (n,)."""
        return self.columns.turns.barge_ins > 0

    @property
    def defects(self) -> Floats:
        """The probability, 0 to 1, that the turn was a defect, (n,): see `defects`; or somebody said that it failed."""
        unsaid = defects(self.barged_in, self.rephrased)
        failed = np.maximum(1.0 - np.nan_to_num(said_of(self.columns), nan=1.0) - unsaid, 0.0)
        return np.asarray(unsaid + np.rint(self.heard * failed * GRID) / GRID)

    @property
    def people(self) -> Integers:
        """Codes of the users in `Pools.people`, or of the sessions where there is no `user_id`, (n,)."""
        return np.where(self.users == MISSING, self.columns.turns.query.session, self.users)

    @cached_property
    def buckets(self) -> Integers:
        """The place in `sketches.BUCKETS` of each of `people`, (n,)."""
        codes, place = unique_inverse(self.people)
        names = self.columns.pools.people
        return buckets(map(names.__getitem__, codes.tolist()))[place]

    def strategies_of(self, configured: Sequence[str]) -> Sequence[str]:
        """Return the configured strategies; without any, those that these turns name, in the order of their names.

        Of more than MAX_STRATEGIES, it is those that most turns asked.
        """
        pool = self.columns.pools.strategies
        if configured or len(pool) <= MAX_STRATEGIES:
            return configured or pool
        turns = np.bincount(self.asked.codes, minlength=len(pool))
        return [pool[code] for code in sorted(np.argsort(-turns, kind="stable")[:MAX_STRATEGIES].tolist())]

    def asked_of(self, strategies: Sequence[str]) -> Asked:
        """Return the rows of `strategies`; their codes are their indexes."""
        code = {name: place for place, name in enumerate(strategies)}
        pool = self.columns.pools.strategies
        return self.asked.of(np.array([code.get(name, MISSING) for name in pool], dtype=np.int64))


def defects(barged_in: ArrayLike, rephrased: ArrayLike) -> Floats:
    """Return the probability, 0 to 1, that turns were defects: interrupted, or rephrased.

    A turn without a click is not a defect for that alone: where answers are heard, nobody clicks.

    Args:
        barged_in: whether the answers were interrupted, (n,).
        rephrased: the probabilities that the queries were rephrased, (n,).
    """
    return np.asarray(np.maximum(barged_in, rephrased), dtype=float)
