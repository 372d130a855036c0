"""Features of a query that any search engine can compute before strategies are chosen.

================  ==============================================================================================
words             number of words
idf_mean, idf_max, idf_min   inverse document frequencies of its words, log(N / df); unknown words as if df were 1
unknown           share of its words that occur in no document
digits            share of its words with a digit
matches           number n of documents with all its words, as log(1 + n)
bm25, bm25_gap    best BM25 score of a cheap probe, per word; and the relative gap to the tenth
cosine, cosine_gap   best cosine of a cheap dense probe; and the gap to the tenth (only with a dense strategy)
head              document frequency of the last word, the head of most noun phrases, log(1 + df)
understood        share of its words that the query understanding recognises as a field's value
brand, category, attribute, number   1 if it names one, by the query understanding
================  ==============================================================================================
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.sums import Floats
from backchannel.ops.lab.search.generators.base import Found
from backchannel.ops.lab.search.generators.lexical import TextIndex
from backchannel.ops.lab.search.generators.structured import Understanding

_PROBED: Final = 10
_ROLES: Final = ("brand", "category", "attribute", "number")


def features_of(
    query: str, index: TextIndex, understanding: Understanding, lexical: Found, dense: Found | None
) -> dict[str, float]:
    """Return the features of `query`.

    Args:
        index, understanding: the index and the query understanding of the corpus.
        lexical, dense: the results of the probes, to a depth of at least ten.
    """
    words = index.words(query)
    count = max(len(words), 1)
    frequencies = [index.document_frequency(word) for word in words] or [0]
    idf = np.log(index.size / np.maximum(frequencies, 1))
    understood = understanding.take_apart(query)
    named = {
        "words": float(count),
        "idf_mean": float(idf.mean()),
        "idf_max": float(idf.max()),
        "idf_min": float(idf.min()),
        "unknown": float(np.mean(np.equal(frequencies, 0))),
        "digits": sum(any(map(str.isdigit, word)) for word in words) / count,
        "matches": float(np.log1p(index.count(words))),
        "bm25": _top(lexical) / count,
        "bm25_gap": _gap(lexical),
        "head": float(np.log1p(frequencies[-1])),
        "understood": 1.0 - len(understood.rest) / count if understood.constraints else 0.0,
        **{role: float(role in understood.roles) for role in _ROLES},
    }
    if dense is not None:
        named |= {"cosine": _top(dense), "cosine_gap": _gap(dense)}
    return named


def numeric_features(names: Sequence[str], values: Floats) -> tuple[Numeric, ...]:
    """Return the bandit's features, centred and scaled on training queries.

    Args:
        names: names of the features.
        values: their values on training queries, (queries, features).
    """
    centers, scales = values.mean(axis=0), values.std(axis=0)
    return tuple(
        Numeric(name, center=round(float(center), 3), scale=round(float(scale), 3) or 1.0)
        for name, center, scale in zip(names, centers, scales, strict=True)
    )


def _top(found: Found) -> float:
    return float(found.scores[0]) if len(found.scores) else 0.0


def _gap(found: Found) -> float:
    """Return the gap between the best and the tenth score, relative to the best; 1 if there is no tenth."""
    if len(found.scores) < _PROBED or found.scores[0] <= 0:
        return 1.0
    return float(1.0 - found.scores[_PROBED - 1] / found.scores[0])
