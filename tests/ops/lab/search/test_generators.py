"""Candidate generators, on the generated catalogue and on a handful of documents."""

import numpy as np
import pytest

from backchannel.ops.lab.search.build import Engine, engine, popularity
from backchannel.ops.lab.search.corpus import Corpus, Document
from backchannel.ops.lab.search.generators.base import Generator, best
from backchannel.ops.lab.search.generators.browse import Browse
from backchannel.ops.lab.search.generators.lexical import AllWords, Lexical, TextIndex, Trigrams
from backchannel.ops.lab.search.generators.structured import Structured, Understanding

DOCUMENTS = [
    Document(
        "0", "Alder desk lamp 5 W black", "light for reading", "Alder", "desk lamp", {"colour": "black"}, {"power": 5.0}
    ),
    Document("1", "Alder desk lamp 8 W white", "dimmable", "Alder", "desk lamp", {"colour": "white"}, {"power": 8.0}),
    Document(
        "2",
        "Corvid Audio speaker 8 W black",
        "for a desk",
        "Corvid Audio",
        "speaker",
        {"colour": "black"},
        {"power": 8.0},
    ),
    Document("3", "Corvid Audio lamp", "a lamp on a desk", "Corvid Audio", "floor lamp", {"colour": "black"}),
]


@pytest.fixture(scope="module")
def index() -> TextIndex:
    return TextIndex(DOCUMENTS)


@pytest.fixture(scope="module")
def understanding() -> Understanding:
    return Understanding(DOCUMENTS * 4)  # enough of each value to be one


@pytest.fixture(scope="module")
def searching(made_up: Corpus) -> Engine:
    return engine(made_up, popularity(made_up, range(20)), None)


def test_words_count_by_field(index: TextIndex) -> None:
    found = Lexical(index).find("desk lamps", 10)
    assert found.places.tolist()[:2] == [0, 1]
    assert set(found.places.tolist()) == {0, 1, 2, 3}
    assert found.total == 4
    assert Lexical(index, {"body": 1.0}).find("desk lamps", 10).places.tolist() == [3, 2]


def test_all_words_must_stand_there_and_a_phrase_is_first(index: TextIndex) -> None:
    assert AllWords(index).find("desk lamp", 10).places.tolist() == [1, 0, 3]  # the shorter first
    assert AllWords(index).find("desk lamp purple", 10).places.tolist() == []
    assert AllWords(index).find("lamp reading", 10).places.tolist() == [0]


def test_trigrams_find_what_is_misspelt_joined_or_split(index: TextIndex) -> None:
    for query in ("speakr", "spea ker", "corvidaudio speaker"):
        assert Trigrams(index).find(query, 1).places.tolist() == [2], query
    assert Lexical(index).find("speakr", 1).total == 0


def test_a_query_is_taken_apart(understanding: Understanding) -> None:
    understood = understanding.take_apart("Corvid desk lamps 8W in black, please")
    assert [(one.role, one.words) for one in understood.constraints] == [
        ("number", "8w"),
        ("brand", "corvid audio"),
        ("category", "desk lamp"),
        ("attribute", "black"),
    ]
    assert understood.rest == ("in", "please")
    assert understanding.take_apart("gizmo 8 parsecs").constraints == ()


def test_structure_is_searched(understanding: Understanding) -> None:
    structured = Structured(DOCUMENTS * 4, understanding)
    found = structured.find("alder lamp 8 W", 100)
    assert {place % 4 for place in found.places.tolist()[:4]} == {1}
    assert found.total == 8  # of that brand
    assert structured.find("gizmo", 10).total == 0


def test_browsing_stays_within_what_was_named(understanding: Understanding) -> None:
    popular = Browse(understanding, np.arange(16.0))
    assert popular.find("whatever", 3).places.tolist() == [15, 14, 13]
    assert popular.find("a desk lamp", 3).places.tolist() == [13, 12, 9]


def test_ties_are_broken_in_the_catalogues_order() -> None:
    scores = np.array([1.0, 2.0, 2.0, 0.0, 2.0, 1.0])
    assert best(scores, 2).places.tolist() == [1, 2]
    assert best(scores, 4).places.tolist() == [1, 2, 4, 0]
    assert best(scores, 9).places.tolist() == [1, 2, 4, 0, 5]
    assert best(scores, 2).total == 5
    assert best(np.zeros(3), 2).places.tolist() == []


@pytest.mark.parametrize("query", ["", "   ", "!?", "zzzz", "lamp " * 60, "8", 'title:"x" AND (', "\0"])
def test_any_text_is_a_query(query: str, searching: Engine) -> None:
    found = searching.find(query, 10)
    for name, one in found.items():
        assert len(one.places) == len(one.scores) <= min(one.total, 10), name
        assert len(set(one.places.tolist())) == len(one.places)
        assert (np.diff(one.scores) <= 0).all()
    assert all(np.isfinite(value) for value in searching.features(query, found).values())


def test_the_same_catalogue_gives_the_same_lists(made_up: Corpus, searching: Engine) -> None:
    engines = [searching, engine(made_up, popularity(made_up, range(20)), None)]
    for query in made_up.queries[:20]:
        first, second = (one.find(query.text, 20) for one in engines)
        assert {name: found.places.tolist() for name, found in first.items()} == {
            name: found.places.tolist() for name, found in second.items()
        }


def test_every_generator_is_one(searching: Engine) -> None:
    generators: list[Generator] = list(searching.generators.values())
    assert len(generators) == 6
