"""Reference implementations of the learners, which work on one outcome object at a time.

The property tests compare the learners, which work on columns, with these.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, count
from operator import attrgetter
from typing import Any, Final
from zlib import crc32

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.process import cpdist

from backchannel.agents.bandit.features import Encoder, Value, context_of
from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.pages import Pages, hash_of
from backchannel.agents.bandit.strategy_history import StrategyHistory
from backchannel.agents.bandit.user_history import UserHistory
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.goals.learner import begins_of
from backchannel.agents.learner import Learner
from backchannel.agents.memory.examination import HARVESTED, SHOWINGS, Examination
from backchannel.agents.memory.learner import MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.ope.decisions import LoggedDecision, chances_of
from backchannel.agents.ope.trials import Trials
from backchannel.agents.outcomes import judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.quality.learner import AnswerQuality
from backchannel.agents.ranking.learner import EXAMINED, ResultRanking
from backchannel.agents.ranking.sums import Lists, sums_of
from backchannel.agents.rephrases.detector import FLOOR, _corrects, _overlap, _sound
from backchannel.agents.rephrases.weights import WEIGHTS
from backchannel.agents.rewrites.learner import RephraseGraph, state_of
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.rewrites.rows import is_held_out
from backchannel.agents.rewrites.sample import blocks_of
from backchannel.agents.sketches import BUCKETS, SLOTS, bucket, unit_hash
from backchannel.agents.sums import ALL, GRID, Delta, Floats, Key, Sums, SumTable
from backchannel.schemas.events import MAX_DEPTH, Impression, Normalizer, Result
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn

Credit = tuple[float, int, int]
Integers = NDArray[np.int64]
_rewrite = attrgetter("rewrite")
_results = attrgetter("results")


class Outcome(Struct, frozen=True, gc=False):
    """A judged turn.

    Attributes:
        turn: the turn.
        query: the normalised query that the results were for: the rewrite, if one was served.
        gains: entity -> gain of its best click, reduced by a barge-in and a rephrase, 0 to 1.
        success: the largest gain; without a click, the value of going on to something else.
        rephrased: the probability, 0 to 1, that the session's next query rephrases this one.
        rewritten: the target of the rewrite that was served; None without one.
        asked: strategy -> number of candidates that it drew.
        credited: the credit of each strategy that produced a clicked result.
        unrephrased: the success before the reduction by a rephrase.
    """

    turn: Turn
    query: str
    gains: dict[str, float]
    success: float
    rephrased: float
    rewritten: str | None
    asked: dict[str, int] = {}
    credited: dict[str, Credit] = {}
    unrephrased: float = 0.0


class Asked(Struct, frozen=True):
    """The strategies that were asked in some turns, turn by turn, as columns.

    Attributes:
        rows: index of the turn, (asked,).
        codes: code of the strategy, (asked,).
        drawn: number of candidates drawn, (asked,).
        credited: indices into the columns above of the strategies with a credit, (credited,).
        rewards: rewards of the credits, (credited,); see `Credit`.
        ranks: ranks of the credits, (credited,); see `Credit`.
        positions: positions of the credits, (credited,); see `Credit`.
    """

    rows: Integers
    codes: Integers
    drawn: Integers
    credited: Integers
    rewards: NDArray[np.float64]
    ranks: Integers
    positions: Integers


def asked_in(outcomes: Sequence[Outcome], codes: Mapping[str, int]) -> Asked:
    """Return the strategies that were asked and have a code.

    Args:
        outcomes: the outcomes of the turns.
        codes: strategy -> code, from 0.
    """
    asked = [outcome.asked for outcome in outcomes]
    coded = np.array([codes.get(name, -1) for own in asked for name in own], dtype=np.int64)
    drawn = np.array([count for own in asked for count in own.values()], dtype=np.int64)
    lengths = np.array([len(own) for own in asked], dtype=np.int64)
    rows = np.repeat(np.arange(len(asked)), lengths)
    credited = [
        (first + place, *credit)
        for first, outcome in zip((lengths.cumsum() - lengths).tolist(), outcomes, strict=True)
        if outcome.credited
        for place, name in enumerate(outcome.asked)
        if (credit := outcome.credited.get(name)) and name in codes
    ]
    place, reward, rank, position = np.array(credited, dtype=float).reshape(-1, 4).T
    known = coded >= 0
    at = (known.cumsum() - 1)[place.astype(np.int64)]
    return Asked(rows[known], coded[known], drawn[known], at, reward, rank.astype(np.int64), position.astype(np.int64))


class Judge:
    """Judges turns. Pure: an outcome depends on its turn only."""

    def __init__(self, config: RewardConfig) -> None:
        self.config: Final = config
        self._gap_ms: Final = config.rephrase_gap_s * 1000
        self._dwell_ms: Final = config.dwell_s * 1000

    def judge(self, turns: Sequence[Turn]) -> list[Outcome]:
        """Return the outcome of each of `turns`."""
        rephrased = [0.0] * len(turns)
        places = [place for place, turn in enumerate(turns) if self._may_be_rephrased(turn)]
        for place, probability in zip(places, probabilities([turns[place] for place in places]), strict=True):
            rephrased[place] = probability
        return list(map(self._judge, turns, rephrased))

    def _may_be_rephrased(self, turn: Turn) -> bool:
        """Return whether a query followed soon, and both queries have a text."""
        following = turn.next
        return (
            following is not None
            and following.ts - turn.query.ts <= self._gap_ms
            and bool(normalize(turn.query.text))
            and bool(normalize(following.text))
        )

    def _judge(self, turn: Turn, rephrased: float) -> Outcome:
        rewrite = next(filter(None, map(_rewrite, turn.impressions)), None)
        query = normalize(rewrite.target if rewrite else turn.query.text)
        rewritten = None
        if rewrite:
            rewritten = rewrite.target if turn.query.interpretation else query
        config = self.config
        kept = 1.0 - config.barge_in_weight if turn.barge_ins else 1.0
        taken_back = config.rephrase_weight * rephrased
        if not turn.clicks:
            unrephrased = kept * config.unclicked_gain if turn.next else 0.0
            success = unrephrased * (1.0 - taken_back)
            results = [result for impression in turn.impressions for result in impression.results]
            alone = {results[0].entity_id: success} if success and len(results) == 1 else {}
            credited = _credits(turn, alone)
            return Outcome(turn, query, alone, success, rephrased, rewritten, _asked(turn), credited, unrephrased)
        gains: dict[str, float] = {}
        worst: dict[str, float] = {}
        for click in turn.clicks:
            gain = kept * config.worth(click.kind)
            if gain > 0 and click.dwell_ms is not None and click.dwell_ms < self._dwell_ms:
                gain *= click.dwell_ms / self._dwell_ms
            gains[click.entity_id] = max(gains.get(click.entity_id, 0.0), gain)
            worst[click.entity_id] = min(worst.get(click.entity_id, 0.0), gain)
        gains = {entity: max(gain + worst[entity], 0.0) for entity, gain in gains.items()}
        unrephrased = max(gains.values())
        if taken_back:
            gains = {entity: gain * (1.0 - taken_back) for entity, gain in gains.items()}
        credited = _credits(turn, gains)
        return Outcome(
            turn, query, gains, max(gains.values()), rephrased, rewritten, _asked(turn), credited, unrephrased
        )


def _asked(turn: Turn) -> dict[str, int]:
    """Return the number of candidates that each strategy asked in a turn drew.

    It is taken from the allocation or, if none is logged, from the results.
    """
    if len(turn.impressions) == 1 and 0 not in (allocation := turn.impressions[0].allocation).values() and allocation:
        return allocation  # the usual case
    drawn: dict[str, int] = {}
    for impression in turn.impressions:
        for name, most in impression.allocation.items():
            if most > drawn.get(name, 0):
                drawn[name] = most
    if not drawn:
        for impression in turn.impressions:
            for name, count in Counter(chain.from_iterable(one.strategies for one in impression.results)).items():
                drawn[name] = max(count, drawn.get(name, 0))
    return drawn


def _credits(turn: Turn, gains: Mapping[str, float]) -> dict[str, Credit]:
    """Return the credit of each strategy that produced a clicked result.

    The rank, from 1, counts the strategy's own results in order of position. Of several clicks, the one with the
    largest gain counts, then the one with the better rank.
    """
    credited: dict[str, Credit] = {}
    for impression in turn.impressions:
        placed: dict[str, int] = {}
        results = sorted(impression.results, key=attrgetter("position"))
        chosen = [place for place, result in enumerate(results) if result.entity_id in gains]
        for result in results[: chosen[-1] + 1] if chosen else ():
            for strategy in result.strategies:
                placed[strategy] = placed.get(strategy, 0) + 1
            gain = gains.get(result.entity_id)
            if gain is not None:
                for strategy in result.strategies:
                    best, rank, _ = credited.get(strategy, (-1.0, 0, 0))
                    if gain > best or (gain == best and placed[strategy] < rank):
                        credited[strategy] = gain, placed[strategy], result.position
    return credited


def probabilities(turns: Sequence[Turn]) -> list[float]:
    score = np.zeros(len(turns))
    for name, values in _features(turns).items():
        score += WEIGHTS[name] * values
    probability = np.rint(GRID / (1.0 + np.exp(-score))) / GRID
    return [one if one >= FLOOR else 0.0 for one in probability.tolist()]


def _features(turns: Sequence[Turn]) -> dict[str, Floats]:
    """Return the features by name, each (turns,).

    Similarities range from 0 to 1; "words" is a token set ratio, 1 if one query has all words of the other; "sounds"
    compares Metaphone codes; "longer" is the share by which the next query is longer in characters, -1 to 1; "meaning"
    is the overlap of the interpretations. Interpretations measure similarity differently from texts, hence
    the separate features for pairs in which "both" queries have an interpretation.
    """
    pairs = [(turn.query, turn.next) for turn in turns if turn.next is not None]
    texts, next_texts = [normalize(query.text) for query, _ in pairs], [normalize(after.text) for _, after in pairs]
    forms, next_forms = [query.interpretation for query, _ in pairs], [after.interpretation for _, after in pairs]
    gap = np.log1p([max(after.ts - query.ts, 0) / 1000 for query, after in pairs])
    same = np.array([text == after for text, after in zip(texts, next_texts, strict=True)], float)
    characters = cpdist(texts, next_texts, scorer=Indel.normalized_similarity)
    lengths, next_lengths = (np.fromiter(map(len, some), float, len(some)) for some in (texts, next_texts))
    length = np.log1p(lengths)
    interpreted, next_interpreted = (np.array([bool(form) for form in some], float) for some in (forms, next_forms))
    both = interpreted * next_interpreted
    answered = np.array([any(map(_results, turn.impressions)) for turn in turns], float)
    return {
        "constant": np.ones(len(turns)),
        "gap": gap,
        "gap squared": gap**2,
        "same text": same,
        "same text, length": same * length,
        "characters": characters,
        "characters squared": characters**2,
        "characters, gap": characters * gap,
        "characters, answered": characters * answered,
        "words": cpdist(texts, next_texts, scorer=token_set_ratio) / 100,
        "sounds": cpdist(list(map(_sound, texts)), list(map(_sound, next_texts)), scorer=Indel.normalized_similarity),
        "longer": (next_lengths - lengths) / np.maximum(np.maximum(lengths, next_lengths), 1.0),
        "length": length,
        "interpreted": interpreted,
        "next interpreted": next_interpreted,
        "both": both,
        "both, characters": both * characters,
        "both, characters squared": both * characters**2,
        "meaning": np.array(list(map(_overlap, forms, next_forms))) if both.any() else both,
        "corrects": np.array([_corrects(text) is not None for text in next_texts], float),
        "barged in": np.array([bool(turn.barge_ins) for turn in turns], float),
        "answered": answered,
        "chosen": np.array([bool(turn.clicks) for turn in turns], float),
    }


def _memory(self: MemoryIndex, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`."""
    shown = Shown(self.table, outcomes, lambda outcome: (outcome.query,) if outcome.query else None)
    delta = {}
    if shown.keys:
        delta[self.table.name] = _by_people(self, outcomes)
        delta[self.examination.table.name] = shown.harvest(self.examination)
    if outcomes and self.config.min_users > 1:
        delta[self.people.name] = _people(self, outcomes)
    return delta


def _by_people(self: MemoryIndex, outcomes: Sequence[Outcome]) -> Sums:
    """Return the sums of pairs by bucket of people: those of each person's turns, added up."""
    people: defaultdict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        people[bucket(outcome.turn.query.user_id or outcome.turn.query.session_id)].append(outcome)
    total = Sums(self.table)
    for number, own in people.items():
        of_bucket = Shown(self.table, own, lambda outcome: (outcome.query,) if outcome.query else None)
        if of_bucket.keys:
            sums = of_bucket.sums(self.examination)
            total = total.merge(Sums(self.table, [(*key, number) for key in sums.keys], sums.values, sums.landmark))
    return total


def _people(self: MemoryIndex, outcomes: Sequence[Outcome]) -> Sums:
    """Return the slots of each query that people's hashes hit: linear counting (Whang et al., TODS 1990)."""
    landmark = self.people.landmark(max(outcome.turn.query.ts for outcome in outcomes))
    turns: defaultdict[Key, float] = defaultdict(float)
    for outcome in outcomes:
        asked = outcome.turn.query
        if outcome.query:
            slot = crc32((asked.user_id or asked.session_id).encode()) % SLOTS
            turns[outcome.query, slot] += self.people.weight(asked.ts, landmark)
    return Sums(self.people, list(turns), np.array(list(turns.values()))[:, np.newaxis], landmark)


_entity = attrgetter("entity_id")


_position = attrgetter("position")


class Shown:
    """The showings and clicks of some turns, by the key under which they are summed.

    Args:
        table: the table; its key ends in the entity.
        outcomes: the outcomes of the turns.
        owner: returns the part of the key before the entity; None leaves the turn out.

    Attributes:
        keys: the keys, in the order that the ledger expects.
    """

    def __init__(
        self, table: SumTable, outcomes: Sequence[Outcome], owner: Callable[[Outcome], tuple[str, ...] | None]
    ) -> None:
        self._table: Final = table
        # By the part of the key before the entity, so that pairs are counted without building their keys.
        number = count().__next__
        index: defaultdict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(number))
        rows: list[int] = []
        positions: list[int] = []
        lengths: list[int] = []
        gained: list[tuple[int, int, int, float]] = []
        for turn, outcome in enumerate(outcomes):
            prefix, first = owner(outcome), len(rows)
            if prefix is not None:
                of_prefix = index[prefix]
                seen: dict[str, int] = {}  # several showings in a turn count once, as the first
                for impression in outcome.turn.impressions:
                    for result in impression.results:
                        seen.setdefault(result.entity_id, result.position)
                rows += map(of_prefix.__getitem__, seen)
                positions += seen.values()
                for entity, gain in outcome.gains.items():
                    row = of_prefix[entity]
                    # An entity shown at several positions counts as clicked at the first; one not shown, at 0.
                    where = positions[rows.index(row, first)] if row in rows[first:] else 0
                    gained.append((row, where, turn, gain))
            lengths.append(len(rows) - first)
        ordered = [(prefix, entity, of[entity]) for prefix, of in sorted(index.items()) for entity in sorted(of)]
        self.keys: Final[list[Key]] = [(*prefix, entity) for prefix, entity, _ in ordered]
        self._order: Final = np.array([row for _, _, row in ordered], dtype=np.intp)
        # Each row is either a showing or a click.
        clicked_rows, clicked_positions, clicked_turns, gains = zip(*gained, strict=True) if gained else ((),) * 4
        self._rows: Final = np.array([*rows, *clicked_rows], dtype=np.intp)
        self._positions: Final = np.array([*positions, *clicked_positions], dtype=np.intp)
        turns = np.repeat(np.arange(len(lengths)), np.array(lengths, dtype=np.intp))
        self._turns: Final = np.append(turns, np.array(clicked_turns, dtype=np.intp))
        self._gains: Final = np.zeros(len(self._rows))
        self._gains[len(rows) :] = gains
        self._shown: Final = np.ones(len(self._rows))
        self._shown[len(rows) :] = 0.0
        self._times: Final = np.array([outcome.turn.query.ts for outcome in outcomes], dtype=np.int64)
        self._by_click: Final = np.array([bool(outcome.turn.clicks) for outcome in outcomes])

    def sums(self, examination: Examination) -> Sums:
        """Return each key's gain, and its exposure for each power of the curve."""
        landmark = self._table.landmark(int(self._times.max()))
        weights = self._table.weights(self._times, landmark)[self._turns]
        values = np.zeros((len(self.keys), 1 + len(SHOWINGS)))
        values[:, 0] = np.bincount(self._rows, weights * self._gains, len(self.keys))
        for row, position, shown in zip(self._rows, self._positions, weights * self._shown, strict=True):
            values[row, min(max(position, 1), HARVESTED + 1)] += shown * examination.relative[position]
        return Sums(self._table, self.keys, values[self._order], landmark)

    def harvest(self, examination: Examination) -> Sums:
        """Return the keys' contributions to the comparison of positions."""
        hashes = np.empty(len(self.keys), dtype=np.uint32)
        hashes[self._order] = [crc32("\0".join(key).encode()) for key in self.keys]
        return examination.harvest(
            self._times[self._turns],
            hashes[self._rows],
            self._positions,
            self._gains * self._by_click[self._turns],
            self._shown,
        )


def _personal(self: PersonalMemory, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`."""
    shown = Shown(self.table, outcomes, _owner)
    return {self.table.name: shown.sums(self._index.examination)} if shown.keys else {}


def _owner(outcome: Outcome) -> tuple[str, ...] | None:
    user = outcome.turn.query.user_id
    return (user, outcome.query) if user and outcome.query else None


def _bandit(self: StrategyBandit, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`. A strategy that is not configured is ignored, unless none is."""
    strategies = _strategies(self.config.strategies, outcomes)
    codes = {name: code for code, name in enumerate(strategies)}
    return self.learn_pages(pages_of(outcomes, self.encoder, codes), strategies) if outcomes else {}


def _strategies(configured: Sequence[str], outcomes: Sequence[Outcome]) -> Sequence[str]:
    """Return the strategies to learn: those that impressions name, if none are configured."""
    shown = [one for outcome in outcomes for one in outcome.turn.impressions]
    produced = {name for one in shown for result in one.results for name in result.strategies}
    return configured or sorted(produced.union(*(one.allocation for one in shown)))


def _known_of(strategy: str, turn: Turn) -> Mapping[str, Value]:
    """Return the context of a strategy from the turn's first impression that has one."""
    return next((own for shown in turn.impressions if (own := shown.strategy_context.get(strategy))), {})


def _known_of_user(turn: Turn) -> Mapping[str, Value]:
    """Return the context of the user from the turn's first impression that has one."""
    return next((shown.user_context for shown in turn.impressions if shown.user_context), {})


def _history(self: StrategyHistory, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`."""
    if not outcomes:
        return {}
    table = self.table
    strategies = set(_strategies(self._strategies, outcomes))
    landmark = table.landmark(max(outcome.turn.query.ts for outcome in outcomes))
    sums: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for outcome in outcomes:
        if not outcome.query:  # an empty query
            continue
        weight = table.weight(outcome.turn.query.ts, landmark)
        credited = outcome.credited
        for strategy in outcome.asked.keys() & strategies:
            row = sums[outcome.query, strategy]
            row[0] += weight
            if strategy in credited:
                row[1] += weight * credited[strategy][0]
    return {table.name: Sums(table, list(sums), np.array(list(sums.values())), landmark)} if sums else {}


def _users(self: UserHistory, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`. Turns without a user are left out."""
    table = self.table
    landmark = table.landmark(max((outcome.turn.query.ts for outcome in outcomes), default=0))
    rows: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for outcome in outcomes:
        query = outcome.turn.query
        if not query.user_id:
            continue
        weight = table.weight(query.ts, landmark)
        for who in (ALL, query.user_id):
            row = rows[(who,)]
            row[0] += weight
            row[1] += weight * outcome.success
            row[2] += weight * (1.0 if outcome.turn.barge_ins else outcome.rephrased)
    return {table.name: Sums(table, list(rows), np.array(list(rows.values())), landmark)} if rows else {}


def _quality(self: AnswerQuality, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`."""
    if not outcomes:
        return {}
    codes_of = {name: code for code, name in enumerate(_strategies(self._strategies, outcomes))}
    asked = asked_in(outcomes, codes_of)
    turns = len(outcomes)
    feedback = np.array(
        [
            (bool(one.turn.clicks), bool(one.turn.barge_ins), one.rephrased, one.success, sum(one.asked.values()))
            for one in outcomes
        ]
    )
    # Every turn has a row for all strategies together, which comes first, and one for each strategy asked.
    rows = np.concatenate((np.arange(turns), asked.rows))
    clicked, barged_in, rephrased, reward, candidates = feedback[rows].T
    candidates[turns:] = asked.drawn
    by_click = clicked[turns + asked.credited]
    clicked[turns:] = reward[turns:] = 0.0
    clicked[turns + asked.credited] = by_click
    reward[turns + asked.credited] = asked.rewards
    rephrased, reward = (np.rint(one * GRID) / GRID for one in (rephrased, reward))
    defects = np.maximum(barged_in, rephrased)
    names = [ALL, *codes_of]
    codes = np.concatenate((np.zeros(turns, dtype=np.int64), asked.codes + 1))
    buckets = np.array([one.turn.query.ts // self.bucket_ms for one in outcomes])[rows]
    groups, line = np.unique((buckets - buckets.min()) * len(names) + codes, return_inverse=True)
    columns = (np.ones(len(rows)), candidates, clicked, barged_in, rephrased, defects, reward)
    sums = np.array([np.bincount(line, column, len(groups)) for column in columns], dtype=float).T
    placed = ((int(group) // len(names) + int(buckets.min()), int(group) % len(names)) for group in groups)
    keys = [(names[code], bucket * self.bucket_ms) for bucket, code in placed]
    return {self.table.name: Sums(self.table, keys, sums)}


def _graph(self: RephraseGraph, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`."""
    steps: dict[Key, list[float]] = {}
    absorbed: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0] * 2 * len(BUCKETS))
    tried: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0] * 2 * len(BUCKETS))
    both: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0] * 2 * len(BUCKETS))
    sampled: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0])
    times = np.array([outcome.turn.query.ts for outcome in outcomes], dtype=np.int64)
    landmark = self.absorptions.landmark(int(times.max(initial=0)))
    weights = self.absorptions.weights(times, landmark).tolist()
    for outcome, weight in zip(outcomes, weights, strict=True):
        query = outcome.turn.query
        state = state_of(query)
        if not state:
            continue
        people = bucket(query.user_id or query.session_id)
        gained = weight * outcome.success, weight * (1.0 - outcome.success)
        if outcome.rewritten is not None:
            if outcome.rewritten:
                _add(tried[state, outcome.rewritten], people, *gained)
            continue
        if is_held_out(query.session_id, self.config.held_out):
            _add(tried[state, ALL], people, *gained)
        following, kept = outcome.turn.next, weight
        if outcome.rephrased and following is not None:
            sketch = steps.setdefault((state, state_of(following)), [0.0] * len(BUCKETS))
            sketch[people] += weight * outcome.rephrased
            kept *= 1.0 - outcome.rephrased
        absorbed[state,][people] += kept * outcome.unrephrased
        absorbed[state,][len(BUCKETS) + people] += kept * (1.0 - outcome.unrephrased)
        if self.config.online_odds and query.interpretation is None:
            sampled["min-hash 1", int(blocks_of([state])[0]), state][0] += weight
        heard = {normalize(one.text) for one in query.asr.hypotheses} if query.asr else set()
        for text in heard if state in heard else ():
            if change(state, text) == Change.OPPOSITE:
                rephrased = outcome.rephrased if following is not None else 0.0
                reached = following is not None and state_of(following) == text
                content = (1.0 - rephrased) * outcome.unrephrased + (0.0 if reached else rephrased)
                _add(both[state, text], people, weight * rephrased * reached, weight * content)
    learned = {
        self.transitions: steps,
        self.absorptions: absorbed,
        self.trials: tried,
        self.both.table: both,
        self.sample.table: sampled,
    }
    return {
        table.name: Sums(table, list(rows), np.array(list(rows.values())), landmark)
        for table, rows in learned.items()
        if rows
    }


def _add(row: list[float], people: int, success: float, failure: float) -> None:
    row[people] += success
    row[len(BUCKETS) + people] += failure


def _rewrites(self: PersonalRewrites, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`. Turns without a user, or without a rephrase or success, are left out."""
    rows: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    landmark = self.table.landmark(max((outcome.turn.query.ts for outcome in outcomes), default=0))
    for outcome in outcomes:
        query, following = outcome.turn.query, outcome.turn.next
        user, state = query.user_id, state_of(query)
        if not user or not state or not self.config.personal:
            continue
        weight = self.table.weight(query.ts, landmark)
        if outcome.rewritten is not None:
            if outcome.rewritten:
                row = rows[user, state, outcome.rewritten]
                row[1] += weight * outcome.success
                row[2] += weight * (1.0 - outcome.success)
            continue
        if outcome.rephrased and following is not None:
            rows[user, state, state_of(following)][0] += weight * outcome.rephrased
            weight *= 1.0 - outcome.rephrased
        if outcome.unrephrased and outcome.rephrased < 1.0:
            row = rows[user, state, ALL]
            row[1] += weight * outcome.unrephrased
            row[2] += weight * (1.0 - outcome.unrephrased)
    if not rows:
        return {}
    return {self.table.name: Sums(self.table, list(rows), np.array(list(rows.values())), landmark)}


def is_logged(turn: Turn) -> bool:
    """Return whether a turn's decision was randomised, with valid propensities."""
    return any(map(_tells, turn.impressions))


def decision_of(outcome: Outcome, features: Collection[str] | None = None) -> LoggedDecision:
    """Return the logged decision of a judged turn: that of the first impression with propensities.

    Args:
        outcome: the outcome of the turn.
        features: names of the context features to keep; by default all.
    """
    turn = outcome.turn
    shown = next(filter(_tells, turn.impressions))
    asked = {name: count for name, count in shown.allocation.items() if count}
    return LoggedDecision(
        session_id=turn.query.session_id,
        ts=turn.query.ts,
        context=_only(features, {**context_of(turn.query), **shown.user_context}),
        allocation=asked,
        propensities=shown.propensities,
        rewards={name: outcome.credited[name][0] for name in asked if name in outcome.credited},
        success=outcome.success,
        allocation_propensity=shown.allocation_propensity,
        strategy_context={name: _only(features, known) for name, known in shown.strategy_context.items()},
    )


def _tells(shown: Impression) -> bool:
    """Return whether an impression has the propensity of each strategy that was asked."""
    asked, known = shown.allocation, shown.propensities
    return any(asked.values()) and all(map(known.get, filter(asked.get, asked)))


def _only(features: Collection[str] | None, context: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in context.items() if features is None or name in features}


def pages_of(outcomes: Sequence[Outcome], encoder: Encoder, codes: Mapping[str, int]) -> Pages:
    """Return judged turns as columns.

    A turn with several impressions, as in paging, is one page: each entity counts where it was first shown, and each
    strategy with the largest number of candidates that it was ever asked for.

    Args:
        outcomes: the outcomes of the turns.
        encoder: the encoder of contexts.
        codes: strategy -> code, from 0. Other strategies are ignored.
    """
    depths = np.zeros((len(outcomes), len(codes)), dtype=np.int64)
    shown: list[tuple[int, int, float]] = []
    produced: list[tuple[int, int, int]] = []
    for row, outcome in enumerate(outcomes):
        for name, most in outcome.asked.items():
            code = codes.get(name)
            if code is not None:
                depths[row, code] = most
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
    # A list is at least this long, whatever the allocation says.
    np.maximum.at(depths, (turns[results], strategies), np.minimum(ranks, MAX_DEPTH))
    return Pages(
        times=np.array([outcome.turn.query.ts for outcome in outcomes], dtype=np.int64),
        queries=np.array([hash_of(outcome.query) for outcome in outcomes], dtype=np.int64),
        contexts=_page_contexts(outcomes, encoder, list(codes)),
        depths=depths,
        distinct=np.array([any(one.planned for one in outcome.turn.impressions) for outcome in outcomes], dtype=bool),
        turns=turns,
        positions=positions.astype(np.int64),
        gains=gained,
        results=results,
        strategies=strategies,
        ranks=ranks,
    )


def _page_contexts(outcomes: Sequence[Outcome], encoder: Encoder, strategies: Sequence[str]) -> Floats:
    """Return the encoded contexts of the decisions; see `Pages.contexts`."""
    contexts: list[Mapping[str, Value]] = [context_of(outcome.turn.query) for outcome in outcomes]
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
    return vectors.reshape(len(outcomes), len(strategies), encoder.dimension)


def _distinct(results: Sequence[Result]) -> Sequence[Result]:
    """Return each entity once, where it was first shown."""
    if len({one.entity_id for one in results}) == len(results):
        return results
    first: dict[str, Result] = {}
    for one in sorted(results, key=_position):
        first.setdefault(one.entity_id, one)
    return [one for one in results if first[one.entity_id] is one]


def _ranking(self: ResultRanking, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`. Lists with a single result are left out."""
    results: list[Result] = []
    gains: list[float] = []
    examined: list[float] = []
    lengths: list[int] = []
    logged: list[Mapping[str, Normalizer]] = []
    curves: list[bool] = []
    contexts: list[Mapping[str, Value]] = []
    places: list[tuple[int, int]] = []
    for outcome in outcomes:
        left, query = dict(outcome.gains), outcome.turn.query
        for impression in outcome.turn.impressions:
            shown = _distinct(impression.results)
            if len(shown) < 2:
                continue
            curve = impression.examined or EXAMINED
            results += shown
            gains += [left.pop(one.entity_id, 0.0) for one in shown] if left else [0.0] * len(shown)
            examined += [curve[min(one.position, len(curve)) - 1] for one in shown]
            lengths.append(len(shown))
            logged.append(impression.normalizers)
            curves.append(bool(impression.examined))
            contexts.append(query.context)
            places.append((query.ts // self._bucket_ms * self._bucket_ms, int(unit_hash(outcome.query) < 0.5)))
    if not places:
        return {}
    sizes = np.array(lengths, dtype=np.int64)
    features = [one.features for one in results]
    numbers = self.encoder.numbers(features, [one.ranks for one in results])
    normalizers = self.encoder.normalizers(numbers, sizes)
    for place, own in enumerate(logged):
        for column, name in enumerate(self.encoder.normalized if own else ()):
            if name in own:
                normalizers[0][place, column] = own[name].mean
                normalizers[1][place, column] = own[name].deviation
    vectors = self.encoder.encode(numbers, normalizers, features, contexts, sizes)
    keys = sorted(set(places))
    code = {key: group for group, key in enumerate(keys)}
    groups = np.array([code[place] for place in places])
    lists = Lists(sizes, vectors, np.array(examined), np.array(gains), groups, np.array(curves))
    rows: list[Key] = [(self.encoder.fingerprint, *key) for key in keys]
    return {self.table.name: Sums(self.table, rows, sums_of(lists, len(keys)))}


def _trials(self: Trials, outcomes: Sequence[Outcome]) -> Delta:
    """See `Learner.learn`."""
    if not outcomes:
        return {}
    columns = columns_of([one.turn for one in outcomes])
    chances = chances_of(columns).tolist()
    begins = begins_of(judge.Judge(RewardConfig()).judge(columns)).tolist()
    rows: dict[Key, list[float]] = {}
    for outcome, chance, begin in zip(outcomes, chances, begins, strict=True):
        shown = [one for one in outcome.turn.impressions if one.canary is not None and one.allocation_propensity]
        if not shown or shown[0].canary is None:
            continue
        canary, whole = shown[0].canary, shown[0].allocation_propensity or 0.0
        weight = min(canary.share * canary.propensity / whole, 1.0)
        row = rows.setdefault(
            (str(canary.trial), round(canary.share * 1024), int(weight * 32 + chance)), [0.0, 0.0, 0.0]
        )
        row[0] += 1.0
        row[1] += round(outcome.success * GRID) / GRID
        end = 1.0 if np.isnan(begin) else min(begin, 1.0 - round(outcome.rephrased * GRID) / GRID)
        row[2] += round(end * outcome.unrephrased * GRID) / GRID
    if not rows:
        return {}
    sums = np.array(list(rows.values()))
    return {
        self.table.name: Sums(self.table, list(rows), sums[:, :2]),
        self.goals.name: Sums(self.goals, list(rows), sums[:, 2:]),
    }


_LEARN: Final[dict[type[Learner], Callable[[Any, Sequence[Outcome]], Delta]]] = {
    AnswerQuality: _quality,
    MemoryIndex: _memory,
    PersonalMemory: _personal,
    PersonalRewrites: _rewrites,
    ResultRanking: _ranking,
    RephraseGraph: _graph,
    StrategyBandit: _bandit,
    StrategyHistory: _history,
    Trials: _trials,
    UserHistory: _users,
}


def knows(learner: Learner) -> bool:
    """Return whether there is a reference for `learner`: for those that once learned from objects."""
    return type(learner) in _LEARN


def learn(learner: Learner, outcomes: Sequence[Outcome]) -> Delta:
    """Return the reference delta of `learner` for `outcomes`."""
    return _LEARN[type(learner)](learner, outcomes)
