"""Judgement of closed turns: the one place where clicks, barge-ins and rephrases are weighed."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import ArrayLike

from backchannel.agents.columnar.columns import Columns, Impressions
from backchannel.agents.columnar.frames import MISSING, Codes, Ragged, spans
from backchannel.agents.rephrases.detector import RephraseDetector
from backchannel.agents.said import said_of, shares_of
from backchannel.agents.sums import GRID, Booleans, Floats, Integers
from backchannel.schemas.text import normalize

MAX_STRATEGIES: Final = 32
"""The most strategies that are learned."""
_POSITIONS: Final = 16_384  # above the largest position that `schemas.events` accepts

Share = Annotated[float, Meta(ge=0, le=1)]


NEGATIVE: Final = frozenset(
    {"dislike", "dismiss", "downvote", "hide", "not_interested", "report", "skip", "thumb_down", "thumbs_down"}
)
"""Kinds of clicks that are worth 0 unless the configuration says otherwise."""


class RewardConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The worth of feedback."""

    click_gain: Annotated[
        dict[str, Annotated[float, Meta(ge=-1, le=1)]],
        Meta(
            description="kind of click -> its worth; a negative worth takes back what other clicks on the same entity "
            f"earned. Other kinds are worth 1, those that are plainly negative 0: {', '.join(sorted(NEGATIVE))}"
        ),
    ] = field(default_factory=lambda: {"click": 1.0})
    dwell_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="dwell time at which a click has its full worth; a shorter dwell time gives a "
            "proportional share. Clicks without a dwell time have their full worth; 0: dwell "
            "times are ignored",
        ),
    ] = 0.0
    unclicked_gain: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="success of a query without a click, if the session continues with a query that does "
            "not rephrase it. Where nobody clicks, as with most voice assistants, rewrites are "
            "learned only if this is above 0",
        ),
    ] = 0.0
    barge_in_weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of the gain that a barge-in takes back. In real dialogue logs barge-ins depend"
            " on the system and are not always rejections: raise this if they are in yours",
        ),
    ] = 0.5
    rephrase_weight: Annotated[float, Meta(ge=0, le=1, description="share of the gain that a rephrase takes back")] = (
        1.0
    )
    feedback_weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share by which what somebody said about an answer takes the place of what clicks, barge-ins "
            "and rephrases say; 0: `feedback` is ignored",
        ),
    ] = 1.0
    least_propensity: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="the smallest probability with which people are asked: an answer to a question that was asked "
            "with the logged probability p counts only least_propensity / p of feedback_weight, so that asking more in "
            "one segment biases nothing. 1: all answers count alike. Volunteered answers count in full",
        ),
    ] = 0.01
    rephrase_gap_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="longest time between a query and its rephrase"),
    ] = 60.0

    def worth(self, kind: str) -> float:
        """Return what a click of a kind is worth, in [-1, 1]."""
        otherwise = 0.0 if kind.casefold().replace("-", "_") in NEGATIVE else 1.0
        return self.click_gain.get(kind, otherwise)

    def names(self, kind: str) -> bool:
        """Return whether a kind of click has a worth of its own, configured or by its plain meaning."""
        return kind in self.click_gain or kind == "click" or not self.worth(kind)


class Gains(Struct, frozen=True):
    """The gains of clicked entities: a row per turn and entity, by turn and then by first click.

    Attributes:
        turns: index of the turn, (gains,), rising.
        entities: code of the entity, (gains,).
        gains: gain of the entity's best click, after a barge-in and a rephrase took their shares back, (gains,), in
            [0, 1].
        places: index of the turn's first result that showed the entity, (gains,); MISSING if none did.
        shown: indexes of all results that showed a clicked entity, (clicked,).
        of_shown: the row of gains that each of these results belongs to, (clicked,), rising.
    """

    turns: Integers
    entities: Integers
    gains: Floats
    places: Integers
    shown: Integers
    of_shown: Integers


class Asked(Struct, frozen=True):
    """The strategies asked in each turn.

    A strategy is credited if it produced a clicked result. If there are several, the one with the highest gain counts,
    then the one with the best rank. Ranks, from 1, count the strategy's own results in the order of their positions.

    Attributes:
        rows: index of the turn, (asked,), rising.
        codes: code of the strategy, (asked,).
        drawn: number of candidates in the allocation or, if none is logged, among the results, (asked,).
        credited: indexes of the credited ones among these, (credited,), rising.
        rewards: gain credited, (credited,), in [0, 1].
        ranks: rank of the clicked result, (credited,).
        positions: position of the clicked result, (credited,).
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
        following: code of the state of the session's next query, (n,); MISSING without one.
        rewritten: code of the target of the served rewrite, (n,); MISSING without one.
        success: the highest gain, (n,), in [0, 1]; without a click, the worth of a session that moves on. What somebody
            said about the answer takes its place.
        unrephrased: the success before a rephrase took its share back, (n,).
        rephrased: the probability, 0 to 1, that the session's next query rephrases this one, (n,).
        gains: the gains of clicked entities.
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
        known = np.array([*map(bool, self.columns.pools.people), False])
        user = self.columns.turns.query.user.astype(np.int64)
        return np.where(known[user], user, MISSING)

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


class Judge:
    """Judges turns. Pure: an outcome depends on nothing but its turn."""

    def __init__(self, config: RewardConfig) -> None:
        self.config: Final = config
        self._gap_ms: Final = config.rephrase_gap_s * 1000
        self._dwell_ms: Final = config.dwell_s * 1000
        self._detector: Final = RephraseDetector()

    def judge(self, columns: Columns) -> Outcomes:
        """Return the outcomes of turns."""
        config, turns, pools = self.config, columns.turns, columns.pools
        named = _Keys(columns)
        follows = turns.following.counts > 0
        rephrased = self._rephrased(columns, follows, named)
        kept = np.where(turns.barge_ins > 0, 1.0 - config.barge_in_weight, 1.0)
        left = 1.0 - config.rephrase_weight * rephrased
        clicks, entities, gains = self._gains(columns, kept)
        unrephrased = np.where(follows, kept * config.unclicked_gain, 0.0)
        clicked = turns.clicks.counts > 0
        unrephrased[clicked] = 0.0
        np.maximum.at(unrephrased, clicks, gains)
        shown, showings = _showings(turns.impressions, clicks, entities)
        places = np.full(len(clicks), MISSING, dtype=np.int64)
        places[shown[::-1]] = showings[::-1]
        success = unrephrased * left
        said = said_of(columns)
        heard = shares_of(columns, config.least_propensity)
        weight, said = config.feedback_weight * heard, np.nan_to_num(said)
        told = (1.0 - weight) * success + weight * said
        # The best click has the success of its turn, and the others have their share.
        factor = np.divide(told, success, out=np.ones(len(columns)), where=success > 0)
        gains = np.minimum(gains * (left * factor)[clicks], 1.0)
        asked = _asked(turns.impressions, len(pools.strategies))
        return Outcomes(
            columns=columns,
            keys=named.keys,
            query=named.query,
            state=named.state,
            following=named.following,
            rewritten=named.rewritten,
            success=told,
            unrephrased=(1.0 - weight) * unrephrased + weight * said,
            rephrased=rephrased,
            gains=Gains(clicks, entities, gains, places, showings, shown),
            asked=_credited(asked, turns.impressions, gains[shown], showings, len(pools.strategies)),
            heard=heard,
        )

    def _rephrased(self, columns: Columns, follows: Booleans, named: "_Keys") -> Floats:
        """Return the probabilities that turns were rephrased, (n,).

        They are 0 unless the next query came soon, and neither text is empty.
        """
        turns = columns.turns
        rows = np.flatnonzero(follows)
        after = turns.following.rows
        soon = after.ts - turns.query.ts[rows] <= self._gap_ms
        soon &= named.said[turns.query.spelled[rows]] & named.said[after.spelled]
        rephrased = np.zeros(len(columns))
        rephrased[rows[soon]] = self._detector.probabilities(columns, rows[soon])
        return rephrased

    def _gains(self, columns: Columns, kept: Floats) -> tuple[Integers, Integers, Floats]:
        """Return the turns, entities and gains of `Gains`, before a rephrase takes its share back."""
        clicks = columns.turns.clicks
        worth = np.array([self.config.worth(kind) for kind in columns.pools.labels])
        turns, dwell = clicks.parents, clicks.rows.dwell_ms
        gain = kept[turns] * worth[clicks.rows.kind] if len(turns) else np.zeros(0)
        short = (dwell != MISSING) & (dwell < self._dwell_ms) & (gain > 0)
        gain[short] *= dwell[short] / self._dwell_ms
        pairs = turns * max(len(columns.pools.entities), 1) + clicks.rows.entity
        _, first, group = np.unique(pairs, return_index=True, return_inverse=True)
        best = np.zeros(len(first))
        worst = best.copy()
        np.maximum.at(best, group, gain)
        np.minimum.at(worst, group, gain)
        best = np.maximum(best + worst, 0.0)
        order = np.argsort(first)
        first = first[order]
        return turns[first], clicks.rows.entity[first].astype(np.int64), best[order]


class _Keys:
    """The keys of turns, see `Outcomes`; `said` holds whether a text is not empty, (texts + 1,)."""

    def __init__(self, columns: Columns) -> None:
        turns, pools = columns.turns, columns.pools
        shown = turns.impressions
        normal = list(map(normalize, pools.texts))
        # The first rewrite served in each turn.
        served = np.full(len(turns), MISSING, dtype=np.int64)
        rewrites = np.flatnonzero(shown.rows.rewrite != MISSING)[::-1]
        served[shown.parents[rewrites]] = shown.rows.rewrite[rewrites]
        raw = [pools.texts[code] for code in np.unique(served[served != MISSING]).tolist()]
        self.keys: Final = sorted({*normal, *pools.forms, *raw})
        index = {key: code for code, key in enumerate(self.keys)}
        of_text = np.array([*map(index.__getitem__, normal), MISSING], dtype=np.int64)
        of_form = np.array([*map(index.__getitem__, pools.forms), MISSING], dtype=np.int64)
        as_served = np.array([*(index.get(text, MISSING) for text in pools.texts), MISSING], dtype=np.int64)
        tells = np.array([*map(bool, pools.forms), False])
        self.said: Final = np.array([*map(bool, normal), False])

        def states(text: Codes, form: Codes) -> Integers:
            return np.where(tells[form], of_form[form], of_text[text])

        query, after = turns.query, turns.following
        self.query: Final = of_text[np.where(served == MISSING, query.spelled, served)]
        self.rewritten: Final = np.where(tells[query.form], as_served[served], of_text[served])
        self.state: Final = states(query.spelled, query.form)
        self.following: Final = np.full(len(turns), MISSING, dtype=np.int64)
        self.following[after.counts > 0] = states(after.rows.spelled, after.rows.form)


def _asked(shown: Ragged[Impressions], strategies: int) -> Asked:
    """Return the strategies asked in each turn with their numbers of candidates; none is credited yet."""
    turn_of, allocation, results = shown.parents, shown.rows.allocation, shown.rows.results
    drawn = allocation.rows.count.astype(np.int64)
    positive = drawn > 0
    rows = turn_of[allocation.parents][positive]
    codes = allocation.rows.strategy.astype(np.int64)[positive]
    drawn = drawn[positive]
    logged = np.zeros(len(shown), dtype=bool)
    logged[rows] = True
    if not logged[turn_of].all():
        # Count the candidates among the results of each impression.
        producers = results.rows.producers
        of_result = results.parents[producers.parents]
        unlogged = ~logged[turn_of[of_result]]
        pairs = of_result[unlogged] * strategies + producers.rows.strategy[unlogged]
        pairs, counted = np.unique(pairs, return_counts=True)
        rows = np.concatenate((rows, turn_of[pairs // max(strategies, 1)]))
        codes = np.concatenate((codes, pairs % max(strategies, 1)))
        drawn = np.concatenate((drawn, counted))
    pairs = rows * strategies + codes
    if (np.diff(pairs) > 0).all():
        order = np.arange(len(pairs))
    elif (shown.counts <= 1).all():
        order = np.argsort(pairs)
    else:  # the largest count of several impressions
        order = np.lexsort((drawn, pairs))
        order = order[np.diff(pairs[order], append=-1) != 0]
    nothing = np.zeros(0, dtype=np.int64)
    return Asked(rows[order], codes[order], drawn[order], nothing, np.zeros(0), nothing, nothing)


def _showings(shown: Ragged[Impressions], turns: Integers, entities: Integers) -> tuple[Integers, Integers]:
    """Return the showings of pairs of turn and entity: the index of the pair, rising, and of the result."""
    results = shown.rows.results
    counts = np.bincount(shown.parents, results.counts, len(shown)).astype(np.int64)
    starts = counts.cumsum() - counts
    pairs = np.repeat(np.arange(len(turns)), counts[turns])
    places = spans(starts[turns], counts[turns])
    same = results.rows.entity[places] == entities[pairs]
    return pairs[same], places[same]


def _credited(asked: Asked, shown: Ragged[Impressions], gained: Floats, showings: Integers, strategies: int) -> Asked:
    """Credit the strategies that produced clicked results.

    Args:
        asked: the strategies asked, none of them credited.
        shown: the impressions.
        gained: the gain of each result that showed a clicked entity, (clicked,).
        showings: the indexes of these results, (clicked,).
        strategies: the number of strategies.
    """
    results = shown.rows.results
    gains = np.full(len(results.rows), -1.0)  # of results not clicked
    gains[showings] = gained
    # All results of the impressions with clicked ones, in the order of their positions.
    impressions = np.unique(results.parents[showings])
    counts = results.counts[impressions]
    places = spans(results.starts[impressions], counts)
    impressions = np.repeat(impressions, counts)
    positions = results.rows.position[places].astype(np.int64)
    ordered = impressions * _POSITIONS + positions
    if not (np.diff(ordered) > 0).all():
        order = np.argsort(ordered, kind="stable")
        places, impressions, positions = places[order], impressions[order], positions[order]
    turns, gains = shown.parents[impressions], gains[places]
    # A line for each strategy that produced a result.
    producers = results.rows.producers
    counts = producers.counts[places]
    lines = np.repeat(np.arange(len(places)), counts)
    names = producers.rows.strategy[spans(producers.starts[places], counts)].astype(np.int64)
    ranks = ranks_in(impressions[lines] * strategies + names, lines)
    chosen = np.flatnonzero(gains[lines] >= 0)
    lines, names, ranks = lines[chosen], names[chosen], ranks[chosen]
    rewards = gains[lines]
    strategy = turns[lines] * strategies + names
    # The best line of each strategy; the first among equals.
    order = np.lexsort((ranks, -rewards, strategy))
    order = order[np.diff(strategy[order], prepend=-1) != 0]
    # Match them with the strategies asked.
    own = asked.rows * strategies + asked.codes
    at = np.searchsorted(own, strategy[order])
    there = at < len(own)
    there[there] = own[at[there]] == strategy[order][there]
    order, at = order[there], at[there]
    return Asked(asked.rows, asked.codes, asked.drawn, at, rewards[order], ranks[order], positions[lines[order]])


def ranks_in(lists: Integers, results: Integers) -> Integers:
    """Return the rank of each line in its list, from 1, (lines,).

    Args:
        lists: the list of each line, (lines,).
        results: the result of each line, (lines,), rising. If a list holds a result twice, the last one counts.
    """
    order = np.argsort(lists, kind="stable")
    lists, results = lists[order], results[order]
    places = np.arange(len(order))
    first = np.diff(lists, prepend=-1) != 0
    starts = np.maximum.accumulate(np.where(first, places, 0))
    last = np.append(first[1:] | (np.diff(results) != 0), True)[: len(order)]
    ends = np.flatnonzero(last)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = ends[np.cumsum(last) - last] - starts + 1
    return ranks
