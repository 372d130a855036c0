"""What is proposed for new entities."""

from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.memory.proposals import HIT, Entity, Predictor
from backchannel.schemas.text import normalize

NIGHT = Entity("e1", "Velvet Night", ("VN",), {"mood": "mellow", "style": ("jazz", "lounge"), "kind": "songs"})
DAWN = Entity("e2", "Silver Dawn", (), {"mood": "mellow", "style": "jazz", "kind": "songs"})


def proposed(entities: list[Entity], queries: dict[str, float]) -> dict[tuple[str, str], float]:
    return {(query, entity): score for query, entity, score in Predictor(entities, queries).proposals()}


def test_an_entity_is_found_by_its_names_even_if_nobody_ever_asked_anything() -> None:
    assert proposed([NIGHT], {}) == {("velvet night", "e1"): HIT, ("vn", "e1"): HIT}


def test_peoples_words_decide_what_else_and_in_their_own_order() -> None:
    found = proposed([NIGHT, DAWN], {"jazz songs mellow": 5.0, "mellow rock": 1.0})
    assert found["jazz songs mellow", "e1"] == HIT / 2  # which both of them answer
    assert ("mellow jazz songs", "e1") not in found
    assert ("mellow", "e2") in found
    assert not any("lounge" in query or "rock" in query for query, _ in found)


def test_what_people_ask_most_is_proposed_first() -> None:
    words = [f"w{number}" for number in range(12)]
    queries = {word: float(2**number) for number, word in enumerate(words)}
    found = proposed([Entity("e", "title", attributes={"all": tuple(words)})], queries)
    assert ("w11", "e") in found
    assert ("w11 w10", "e") not in found  # in the entity's own order
    assert ("w10 w11", "e") in found
    assert len(found) == 21


TEXTS = st.text("abc d!", max_size=8)


@given(
    st.lists(st.builds(Entity, st.sampled_from("xyz"), TEXTS, st.lists(TEXTS).map(tuple)), max_size=4),
    st.dictionaries(TEXTS.map(normalize), st.floats(0, 9), max_size=9),
)
def test_proposals_are_normalised_and_scores_lie_in_range(entities: list[Entity], queries: dict[str, float]) -> None:
    for query, _, score in Predictor(entities, queries).proposals():
        assert query == normalize(query) != ""
        assert 0 < score <= HIT
