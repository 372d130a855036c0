"""Is the next query of a session a rephrase of this one? The probability, from what the two look and sound like.

A logistic model over a few features of a turn and the query that follows it; after Wang et al., "Contextual rephrase
detection for reducing friction in dialogue systems" (EMNLP 2021), who use a far larger one. Its numbers are in
`rephrase_weights`; `backchannel rephrases train` derives them.

Whoever is understood goes on: narrows down, compares, asks the next thing. So what is alike is not yet a rephrase. It
matters how soon it came, what was added, whether the answer was interrupted or something in it chosen.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

import numpy as np
from jellyfish import metaphone
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.process import cpdist

from backchannel.agents.rewrites.weights import WEIGHTS
from backchannel.agents.sums import GRID, Matrix
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn

FLOOR: Final = 0.05
"""A lower probability is none: else every two queries of a session would become a row in the ledger."""

_results = attrgetter("results")
_corrects = re.compile(r"(no|nope|not|wrong|actually|sorry|i (said|meant|mean|asked))\b").match
_parts = re.compile(r"[\w=' ]+").findall


class RephraseDetector:
    """Says how probable it is that turns were rephrased.

    Args:
        weights: of the features, by name.
    """

    def __init__(self, weights: Mapping[str, float] = WEIGHTS) -> None:
        self._weights: Final = dict(weights)

    def probabilities(self, turns: Sequence[Turn]) -> list[float]:
        """Return for each of `turns`, which all have a next query, the probability that it is a rephrase."""
        score = np.zeros(len(turns))
        for name, values in features(turns).items():
            score += self._weights[name] * values
        probability = np.rint(GRID / (1.0 + np.exp(-score))) / GRID
        return [one if one >= FLOOR else 0.0 for one in probability.tolist()]


def features(turns: Sequence[Turn]) -> dict[str, Matrix]:
    """Return what the model looks at, by name, each an array with an element for each of `turns`.

    Similarities range from 0 to 1; "words" is a token set ratio, 1 if one query has all words of the other; "sounds"
    compares Metaphone codes; "longer" is the share by which the next query is longer in characters, -1 to 1; "meaning"
    is the overlap of the interpretations. What an interpretation says of likeness differs from what texts say, hence
    the features of their own for queries that "both" have one.
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


@lru_cache(maxsize=1 << 16)
def _sound(text: str) -> str:
    return metaphone(text).replace(" ", "")


def _overlap(one: str | None, other: str | None) -> float:
    """The share of the shorter interpretation's parts (acts, intents, slots with their values) that both have."""
    if not one or not other:
        return 0.0
    parts, others = _parts_of(one), _parts_of(other)
    return len(parts & others) / max(min(len(parts), len(others)), 1)


@lru_cache(maxsize=1 << 16)
def _parts_of(interpretation: str) -> frozenset[str]:
    return frozenset(_parts(interpretation))
