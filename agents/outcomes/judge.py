"""The judge of closed turns: the one place where clicks, barge-ins and rephrases are weighed."""

from typing import Final

import numpy as np

from backchannel.agents.columnar.columns import Columns, Impressions
from backchannel.agents.columnar.frames import MISSING, Codes, Ragged, spans
from backchannel.agents.outcomes.outcomes import Asked, Gains, Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.outcomes.said import said_of, shares_of
from backchannel.agents.rephrases.detector import RephraseDetector
from backchannel.agents.sums import Booleans, Floats, Integers
from backchannel.schemas.text import language_of, normalize

POSITIONS: Final = 16_384
"""A number above the largest position that `schemas.events` accepts."""


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
        success = unrephrased * left
        said = said_of(columns)
        heard = shares_of(columns, config.least_propensity)
        weight, said = config.feedback_weight * heard, np.nan_to_num(said)
        told = (1.0 - weight) * success + weight * said
        # The best click has the success of its turn, and the others have their share.
        factor = np.divide(told, success, out=np.ones(len(columns)), where=success > 0)
        gains = np.minimum(gains * (left * factor)[clicks], 1.0)
        # Of one result, success without a click says who earned it; of a page, nobody knows.
        alone, only = _alone(turns.impressions, (told > 0) & ~clicked)
        clicks, entities, gains = np.append(clicks, alone), np.append(entities, only), np.append(gains, told[alone])
        order = np.argsort(clicks, kind="stable")
        clicks, entities, gains = clicks[order], entities[order], gains[order]
        shown, showings = _showings(turns.impressions, clicks, entities)
        places = np.full(len(clicks), MISSING, dtype=np.int64)
        places[shown[::-1]] = showings[::-1]
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
        followed = np.flatnonzero(after.counts > 0)
        self.following[followed] = states(after.rows.spelled, after.rows.form)
        # What is said in another language tells what was meant, but not what it should have been in this one.
        languages = [language_of(label) for label in pools.labels]
        known = {name: code for code, name in enumerate(sorted(filter(None, languages)))}
        of_label = np.array([*(known.get(name, MISSING) for name in languages), MISSING], dtype=np.int64)
        apart = _differ(of_label[query.locale[followed]], of_label[after.rows.locale])
        # What another user says on a shared device is theirs: kept as this one's, it could not be forgotten with them.
        apart |= _differ(query.user[followed], after.rows.user)
        self.following[followed[apart]] = MISSING


def _differ(ones: Codes | Integers, others: Codes | Integers) -> Booleans:
    """Return where two codes differ and none is MISSING."""
    return np.asarray((ones != others) & (ones != MISSING) & (others != MISSING))


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


def _alone(shown: Ragged[Impressions], wanted: Booleans) -> tuple[Integers, Integers]:
    """Return the `wanted` turns, (n,), that showed a single result, and its entity: (alone,) each."""
    results = shown.rows.results
    turns = shown.parents[results.parents]
    places = np.flatnonzero((np.bincount(turns, minlength=len(wanted)) == 1)[turns] & wanted[turns])
    return turns[places], results.rows.entity[places].astype(np.int64)


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
    ordered = impressions * POSITIONS + positions
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
