"""Simulated queries on a catalogue."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from backchannel.ops.lab.search.corpus import Corpus
from backchannel.ops.lab.search.generated import generated_corpus
from backchannel.ops.lab.search.simulator import KINDS, MOST_RELEVANT, simulate
from backchannel.schemas.text import normalize


def test_all_kinds_are_there_in_their_shares(made_up: Corpus) -> None:
    count = Counter(query.kind for query in made_up.queries)
    assert set(count) == set(KINDS) - {"paraphrase"}  # which need a sentence encoder
    assert sum(count.values()) == len(made_up.queries) > 100
    assert made_up.origin == "generated"


def test_the_same_seed_gives_the_same_queries(made_up: Corpus) -> None:
    assert generated_corpus(1, documents=300, queries=120).fingerprint == made_up.fingerprint
    assert generated_corpus(2, documents=300, queries=120).fingerprint != made_up.fingerprint


def test_what_is_relevant_follows_from_the_catalogue(made_up: Corpus) -> None:
    by_id = {document.doc_id: document for document in made_up.documents}
    for query in made_up.queries:
        relevant = [by_id[doc_id] for doc_id in made_up.relevant(query)]
        assert 1 <= len(relevant) <= MOST_RELEVANT
        words = normalize(query.text).split()
        best = [by_id[doc_id] for doc_id, grade in query.grades.items() if grade == 3.0]
        if query.kind == "title words":
            assert any(set(words) <= set(normalize(document.title).split()) for document in best)
        if query.kind == "description words":
            assert any(set(words) <= set(normalize(document.body).split()) for document in best)
        if query.kind == "brand + type":
            assert {(document.brand.lower(), document.category) for document in best} == {
                (best[0].brand.lower(), best[0].category)
            }
            assert words[0] == best[0].brand.lower()
        if query.kind == "attribute values":
            assert len({document.category for document in best}) == 1


def test_mistakes_are_mistakes(made_up: Corpus) -> None:
    known = {word for one in made_up.documents for word in normalize(f"{one.title} {one.body}").split()}
    misspelt = [query for query in made_up.queries if query.kind == "misspelt"]
    assert all(set(normalize(query.text).split()) - known for query in misspelt)


def test_paraphrases_replace_words_by_their_neighbours(made_up: Corpus) -> None:
    def encode(texts: list[str]) -> NDArray[np.float32]:
        """As if words of the same length meant much the same."""
        lengths = np.array([len(text) for text in texts], dtype=np.float32)
        angles = lengths[:, np.newaxis] + np.random.default_rng(1).random((len(texts), 1)) * 0.6
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    queries = simulate(made_up, 60, 3, encode).queries  # type: ignore[arg-type]
    assert sum(query.kind == "paraphrase" for query in queries) == 6
