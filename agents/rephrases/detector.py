"""The rephrase detector: the probability that a session's next query rephrases this one.

It is a logistic model of a few features of a turn and the next query, after Wang et al., "Contextual rephrase detection
for reducing friction in dialogue systems" (EMNLP 2021), whose model is far larger. `backchannel rephrases train` fits
the weights, which are in `weights`.

Similar queries need not be rephrases: people whose query was understood narrow it down, compare, or ask for the next
thing. So the model also considers how soon the next query came, what was added to it, whether the answer was
interrupted, and whether something was chosen.

How soon is soon depends on who speaks. The model was fitted to callers who go on after `_PACE_S`, so times in slower
sessions are divided by how many times as slow they have been, as far as the query's `earlier` tells. Where results were
shown, people look at them: then times say nothing of how fast they speak, and stay as they are.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from jellyfish import metaphone
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.process import cpdist

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, Codes
from backchannel.agents.rephrases.weights import WEIGHTS
from backchannel.agents.sums import GRID, Floats, Integers, unique_inverse
from backchannel.schemas.events import Earlier
from backchannel.schemas.text import normalize

FLOOR: Final = 0.05
"""Lower probabilities count as 0: otherwise every pair of successive queries would become a row of the ledger."""

_PACE_S: Final = 6.5  # geometric mean of the seconds between queries of DSTC2's callers
_SLOWEST_S: Final = 30.0  # what takes longer is a pause, and no pace
_USUAL: Final = 0.25  # gaps that the usual pace counts as; on DSTC2's training callers .1 to .5 are alike

_corrects = re.compile(r"(no|nope|not|wrong|actually|sorry|i (said|meant|mean|asked))\b").match
_parts = re.compile(r"[\w=' ]+").findall
_decode_earlier = msgspec.msgpack.Decoder(Earlier).decode


class RephraseDetector:
    """Estimates the probabilities that turns were rephrased.

    Args:
        weights: weights by name of the feature.
    """

    def __init__(self, weights: Mapping[str, float] = WEIGHTS) -> None:
        self._weights: Final = dict(weights)

    def probabilities(self, columns: Columns, rows: Integers) -> Floats:
        """Return the probabilities that the next queries of turns are rephrases, (rows,).

        Words and sounds, which take the most time, are compared only where they can raise a probability to FLOOR.

        Args:
            columns: the turns.
            rows: indexes of turns with a next query, (rows,).
        """
        pairs = _Pairs(columns, rows)
        seen = {**pairs.likeness(), **dict.fromkeys(_COMPARED, np.ones(len(rows)))}
        likely = np.flatnonzero(self._probability(seen, upper=True) >= FLOOR - 1.0 / GRID)
        compared = pairs.compared(likely)
        seen = {name: compared[name] if name in compared else seen[name][likely] for name in self._weights}
        found = self._probability(seen)
        probabilities = np.zeros(len(rows))
        probabilities[likely] = np.where(found >= FLOOR, found, 0.0)
        return probabilities

    def _probability(self, values: Mapping[str, Floats], *, upper: bool = False) -> Floats:
        """Return probabilities on the grid; if `upper`, the highest for any comparisons from 0 to the given values."""
        score = np.zeros(len(values["constant"]))
        for name, weight in self._weights.items():
            score += (max(weight, 0.0) if upper and name in _COMPARED else weight) * values[name]
        return np.asarray(np.rint(GRID / (1.0 + np.exp(-score))) / GRID)


_COMPARED: Final = ("words", "sounds")


def features(columns: Columns) -> dict[str, Floats]:
    """Return the features of turns, all of which have a next query: name -> (turns,).

    Similarities range from 0 to 1; "words" is a token set ratio, 1 if one query has all words of the other; "sounds"
    compares Metaphone codes, or characters where there is no code; "longer" is the share by which the next query is
    longer in characters, -1 to 1; "meaning" is the overlap of the interpretations. Interpretations say more about
    likeness than texts, so queries that "both" have one have features of their own.
    """
    every = np.arange(len(columns))
    pairs = _Pairs(columns, every)
    found = {**pairs.likeness(), **pairs.compared(every)}
    return {name: found[name] for name in WEIGHTS}


class _Pairs:
    """Turns and their next queries; each distinct pair of texts is compared once."""

    def __init__(self, columns: Columns, rows: Integers) -> None:
        turns, self._pools = columns.turns, columns.pools
        self._query, self._after = turns.query.take(rows), turns.following.take(rows).rows
        results = turns.impressions.rows.results
        self._answered = np.zeros(len(columns), dtype=bool)
        self._answered[turns.impressions.parents[results.counts > 0]] = True
        self._answered = self._answered[rows]
        self._barged_in, self._chosen = turns.barge_ins[rows] > 0, turns.clicks.counts[rows] > 0
        asked, then = self._query.spelled, self._after.spelled
        normal = {code: normalize(self._pools.texts[code]) for code in self._codes(asked, then)}
        self._firsts, self._seconds, self._pair = self._distinct(asked, then)
        self._texts = [normal[code] for code in self._firsts], [normal[code] for code in self._seconds]

    @staticmethod
    def _codes(*codes: Codes) -> list[int]:
        distinct: list[int] = np.unique(np.concatenate(codes)).tolist()
        return distinct

    @staticmethod
    def _distinct(one: Codes, other: Codes) -> tuple[list[int], list[int], Integers]:
        """Return the distinct pairs of codes, which may be MISSING, and the index of each pair among them."""
        first, second = one.astype(np.int64) + 1, other.astype(np.int64) + 1
        size = int(second.max(initial=0)) + 1
        pairs, place = unique_inverse(first * size + second)
        return (pairs // size - 1).tolist(), (pairs % size - 1).tolist(), place

    def likeness(self) -> dict[str, Floats]:
        """Return all features except those of `compared`: name -> (turns,)."""
        texts, others = self._texts
        pair, query, after = self._pair, self._query, self._after
        gap = np.log1p(np.maximum(after.ts - query.ts, 0) / 1000 / self._slowness())
        same = np.array([text == other for text, other in zip(texts, others, strict=True)], float)[pair]
        characters = cpdist(texts, others, scorer=Indel.normalized_similarity)[pair]
        lengths, next_lengths = (np.fromiter(map(len, some), float, len(some))[pair] for some in self._texts)
        length = np.log1p(lengths)
        forms = np.array([*map(bool, self._pools.forms), False], float)
        interpreted, next_interpreted = forms[query.form], forms[after.form]
        both = interpreted * next_interpreted
        answered = self._answered.astype(float)
        return {
            "constant": np.ones(len(pair)),
            "gap": gap,
            "gap squared": gap**2,
            "same text": same,
            "same text, length": same * length,
            "characters": characters,
            "characters squared": characters**2,
            "characters, gap": characters * gap,
            "characters, answered": characters * answered,
            "longer": (next_lengths - lengths) / np.maximum(np.maximum(lengths, next_lengths), 1.0),
            "length": length,
            "interpreted": interpreted,
            "next interpreted": next_interpreted,
            "both": both,
            "both, characters": both * characters,
            "both, characters squared": both * characters**2,
            "meaning": self._meaning() if both.any() else both,
            "corrects": np.array([_corrects(other) is not None for other in others], float)[pair],
            "barged in": self._barged_in.astype(float),
            "answered": answered,
            "chosen": self._chosen.astype(float),
        }

    def _slowness(self) -> Floats:
        """Return how many times as slow as usual each session has been, (rows,); 1 where that is unknown or less."""
        distinct, place = np.unique(np.where(self._answered, MISSING, self._query.earlier), return_inverse=True)
        known = [_slowness(self._pools.contexts[code]) if code != MISSING else 1.0 for code in distinct.tolist()]
        return np.array(known)[place]

    def _meaning(self) -> Floats:
        firsts, seconds, place = self._distinct(self._query.form, self._after.form)
        forms = [*self._pools.forms, None]
        return np.array([_overlap(forms[one], forms[two]) for one, two in zip(firsts, seconds, strict=True)])[place]

    def compared(self, rows: Integers) -> dict[str, Floats]:
        """Return the features that take the most time, words and sounds, of the pairs at `rows`: name -> (rows,)."""
        distinct, place = np.unique(self._pair[rows], return_inverse=True)
        texts, others = ([some[one] for one in distinct.tolist()] for some in self._texts)
        sounds, next_sounds = list(map(_sound, texts)), list(map(_sound, others))
        # Only Latin letters have a phonetic code. Without one, the characters are compared instead.
        for pair, (sound, other) in enumerate(zip(sounds, next_sounds, strict=True)):
            if not (sound and other):
                sounds[pair], next_sounds[pair] = texts[pair], others[pair]
        return {
            "words": (cpdist(texts, others, scorer=token_set_ratio) / 100)[place],
            "sounds": cpdist(sounds, next_sounds, scorer=Indel.normalized_similarity)[place],
        }


def _slowness(encoded: bytes) -> float:
    """Return how many times as slow as usual a session has been, at least 1, from an encoded `Earlier`."""
    earlier = _decode_earlier(encoded)
    if not (earlier.turns and earlier.seconds):
        return 1.0
    pace = min(max(earlier.seconds / earlier.turns, _PACE_S), _SLOWEST_S)
    return float((pace / _PACE_S) ** (earlier.turns / (earlier.turns + _USUAL)))


@lru_cache(maxsize=1 << 16)
def _sound(text: str) -> str:
    return metaphone(text).replace(" ", "")


def _overlap(one: str | None, other: str | None) -> float:
    """Return the share of the shorter interpretation's parts (acts, intents, slots with values) that both have."""
    if not one or not other:
        return 0.0
    parts, others = _parts_of(one), _parts_of(other)
    return len(parts & others) / max(min(len(parts), len(others)), 1)


@lru_cache(maxsize=1 << 16)
def _parts_of(interpretation: str) -> frozenset[str]:
    return frozenset(_parts(interpretation))
