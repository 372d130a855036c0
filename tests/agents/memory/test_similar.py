"""The search for similar queries against an exhaustive one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz, process

from backchannel.agents.memory import similar
from backchannel.agents.memory.serving import Guess
from backchannel.agents.memory.similar import SimilarQueries
from backchannel.agents.sums import ALL
from backchannel.streams.serving.rows import Rows

WORDS = ["play", "the", "song", "hey", "jude", "kansas", "city", "airport", "weather", "straße", "音楽を再生", "радио"]
queries = st.lists(st.sampled_from(WORDS), min_size=2, max_size=5, unique=True).map(" ".join)


def index(known: set[str], least: float = 0.9) -> SimilarQueries:
    return SimilarQueries(least).updated(sorted(known), known)


@given(st.sets(queries, max_size=60), queries, st.data())
def test_it_finds_what_an_exhaustive_search_does(known: set[str], asked: str, data: st.DataObject) -> None:
    known |= {asked}
    place = data.draw(st.integers(0, len(asked) - 1))
    written = " ".join((asked[:place] + data.draw(st.sampled_from(["", "q", "日"])) + asked[place + 1 :]).split())
    best = process.extractOne(written, known, scorer=fuzz.token_sort_ratio, score_cutoff=90)
    found = index(known).nearest(written, known)
    assert (found and found.similarity) == (best and pytest.approx(best[1] / 100))


@pytest.mark.parametrize(
    ("asked", "nearest", "similarity"),
    [
        ("hey jude play", "play hey jude", 1.0),  # words in another order
        ("play hey jud", "play hey jude", 24 / 25),
        ("channel 4", None, None),  # 0.78 like "channel 4 news"
        ("chanel 5", "channel 5", 16 / 17),
        ("chanel 6", None, None),  # another number is no error of writing
        ("x" * 100_000, None, None),
        ("", None, None),
        ("☂", None, None),
    ],
)
def test_examples(asked: str, nearest: str | None, similarity: float | None) -> None:
    known = {"play hey jude", "channel 4 news", "channel 5", ALL}
    found = index(known, 0.8).nearest(asked, known)
    assert (found and found.query) == nearest
    assert (found and found.similarity) == (similarity and pytest.approx(similarity))


def test_of_several_that_are_alike_it_is_always_the_same_one() -> None:
    known = {f"play hey jude{letter}" for letter in "abcdefgh"}
    shuffled = SimilarQueries(0.9)
    for query in sorted(known, reverse=True):
        shuffled = shuffled.updated([query], known)
    assert index(known).nearest("play hey jude", known) == shuffled.nearest("play hey jude", known)


@given(st.lists(st.tuples(st.sets(queries, max_size=5), st.sets(queries, max_size=5)), max_size=20))
@settings(max_examples=50)
def test_over_many_versions_it_finds_what_one_made_at_once_does(changes: list[tuple[set[str], set[str]]]) -> None:
    kept: list[tuple[SimilarQueries, Rows]] = []
    found, rows = SimilarQueries(0.9), Rows()
    for removed, added in changes:
        now = rows.updated(removed, dict.fromkeys(added, b""))
        found, rows = found.updated(now.added_to(rows), now), now
        kept.append((found, now))
    for one, known in kept:
        at_once = index(set(known))
        for query in {query[:-1] for change in changes for queries in change for query in queries}:
            assert one.nearest(query, known) == at_once.nearest(query, known)


def test_its_parts_are_few_and_as_large_as_what_is_known() -> None:
    known: set[str] = set()
    found = SimilarQueries(0.9)
    for number in range(300):
        query = f"query number {number}"
        known.add(query)
        found = found.updated([query], known)
    assert sum(len(part.queries) for part in found._parts) == 300
    assert len(found._parts) < 12
    left = {"query number 7"}
    found = found.updated([f"another {number}" for number in range(300)], left)
    assert sum(len(part.queries) for part in found._parts) == 301


def test_trigrams_that_are_too_common_to_read_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"play the song {word}" for word in WORDS}
    monkeypatch.setattr(similar, "_READ", 5)
    found = index(known).nearest("play the song weathr", known)
    assert found == Guess(
        "play the song weather", fuzz.token_sort_ratio("play song the weathr", "play song the weather") / 100
    )
    monkeypatch.setattr(similar, "_READ", 0)
    assert index(known).nearest("play the song weathr", known) is None


@pytest.mark.parametrize("least", [0.49, 1.01, np.nan])
def test_a_similarity_out_of_bounds_is_an_error(least: float) -> None:
    with pytest.raises(ValueError, match="to guess from"):
        SimilarQueries(least)
