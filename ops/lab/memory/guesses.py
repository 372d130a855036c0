"""How often an unseen query means the same as the known query most similar to it, by similarity."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.memory.similar import SimilarQueries
from backchannel.agents.statistics import wilson
from backchannel.ops.lab.memory.relevance import Judged
from backchannel.ops.lab.rephrases.pairs import hypotheses
from backchannel.ops.lab.rephrases.recogniser import sentences
from backchannel.schemas.text import normalize

BANDS: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""The lower ends of the bands of similarity, 0 to 1."""


class Band(Struct, frozen=True):
    """The guesses within a band of similarity.

    Attributes:
        similarity: lower end of the band, 0 to 1; the band ends where the next one begins, and the last one includes 1.
        guesses: number of guesses.
        right: number of right guesses.
        low, high: bounds of the 95% score interval (Wilson, JASA 1927) of the share that is right; guesses are assumed
            to be independent.
    """

    similarity: float
    guesses: int
    right: int
    low: float
    high: float


class Guesses(Struct, frozen=True):
    """Results of guessing known queries for unseen ones.

    Attributes:
        unseen: number of unseen queries.
        known: number of known queries, among which guesses are made.
        bands: the guesses by similarity, ascending.
    """

    unseen: int
    known: int
    bands: list[Band]


def searched(judged: Judged) -> Guesses:
    """Guess for queries that only one session of the TREC log asked; a guess from the same topic is right."""
    topics = judged.topics
    asked = [(query, turn.query.session_id) for turn in judged.turns if (query := normalize(turn.query.text))]
    found: list[tuple[float, bool]] = []
    unseen = 0
    for session in dict.fromkeys(session for _, session in asked):
        on_topics: dict[str, set[str]] = {}
        for query, other in asked:
            if other != session:
                on_topics.setdefault(query, set()).add(topics[other])
        similar = _index(on_topics)
        for query in (query for query, own in asked if own == session and query not in on_topics):
            unseen += 1
            if guess := similar.nearest(query, on_topics):
                found.append((guess.similarity, topics[session] in on_topics[guess.query]))
    return Guesses(unseen, len({query for query, _ in asked}), _bands(found))


def heard(data: Path, rng: Generator) -> Guesses:
    """Guess sentences of SLURP, half of which are known, from a speech recogniser's hypotheses.

    A guess is right if the sentence has the same annotated intent and entities as the one spoken. Each distinct
    hypothesis for a sentence counts once.

    Args:
        data: the folder that contains slurp_asr.
        rng: the random generator, which draws the known half.
    """
    meaning = sentences(data)
    every = sorted(meaning)
    known = dict.fromkeys(every[number] for number in sorted(rng.permutation(len(every))[: len(every) // 2].tolist()))
    similar = _index(known)
    forms = sorted({(one.heard, one.meant) for one in hypotheses(data) if one.heard not in known})
    found: list[tuple[float, bool]] = []
    for form, meant in forms:
        if guess := similar.nearest(form, known):
            found.append((guess.similarity, meaning[guess.query] == meaning[meant]))
    return Guesses(len(forms), len(known), _bands(found))


def _index(known: Iterable[str]) -> SimilarQueries:
    everything = dict.fromkeys(known)
    return SimilarQueries(BANDS[0]).updated(everything, everything)


def _bands(found: list[tuple[float, bool]]) -> list[Band]:
    counts = Counter((int(np.searchsorted(BANDS, similarity, "right")) - 1, right) for similarity, right in found)
    bands = []
    for number, similarity in enumerate(BANDS):
        right, guesses = counts[number, True], counts[number, True] + counts[number, False]
        low, high = wilson(np.array([float(right)]), np.array([float(guesses)]), 1.96)
        bands.append(Band(similarity, guesses, right, float(low[0]), float(high[0])))
    return bands
