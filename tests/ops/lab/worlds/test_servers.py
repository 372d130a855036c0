from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.lab.worlds.people import SHOWN, SearchWorld
from backchannel.ops.lab.worlds.servers import STRATEGIES, Retrieval, UniformServer, blend, rank

CANDIDATES = st.dictionaries(
    st.sampled_from(STRATEGIES), st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=SHOWN)
)


@given(CANDIDATES)
def test_a_blend_shows_every_candidate_once_with_its_strategies(candidates: dict[str, list[str]]) -> None:
    results = blend(candidates)
    assert [result.position for result in results] == list(range(1, len(results) + 1))
    shown = {result.entity_id: set(result.strategies) for result in results}
    assert len(shown) == len(results)
    assert shown == {
        entity: {strategy for strategy, found in candidates.items() if entity in found}
        for entity in {entity for found in candidates.values() for entity in found}
    }


def test_a_blend_lets_the_favoured_strategy_lead() -> None:
    results = blend({"lexical": ["a", "b"], "semantic": ["p", "q", "a", "r"], "new": ["x"]})
    assert [result.entity_id for result in results] == ["p", "q", "a", "b", "r", "x"]


def test_a_ranking_is_in_order_of_expected_gain() -> None:
    results = rank({"lexical": ["a", "b"], "semantic": ["p", "b"]}, {"lexical": [0.5, 0.3], "semantic": [0.4, 0.3]})
    assert [(result.entity_id, result.strategies) for result in results] == [
        ("b", ("lexical", "semantic")),
        ("a", ("lexical",)),
        ("p", ("semantic",)),
    ]


@pytest.fixture(scope="module")
def world() -> SearchWorld:
    return SearchWorld(seed=1, turns=5_000)


def test_each_strategy_is_good_at_its_kind_of_query(world: SearchWorld) -> None:
    retrieval, now = Retrieval(world.catalogue), world.end
    entity = world.catalogue[0]
    assert retrieval.candidates("lexical", entity.title, SHOWN, now)[0] == entity.entity_id
    assert retrieval.candidates("lexical", "new songs", SHOWN, now) == []
    found = retrieval.candidates("semantic", f"{entity.mood} {entity.style} {entity.kind}s", SHOWN, now)
    assert entity.entity_id in found
    newest = [entity for entity in world.catalogue if entity.kind == "song"][::-1][:SHOWN]
    assert retrieval.candidates("new", "latest songs", SHOWN, now) == [entity.entity_id for entity in newest]
    popular = max((entity for entity in world.catalogue if entity.kind == "venue"), key=lambda entity: entity.chart)
    assert retrieval.candidates("popular", "best venues", SHOWN, now)[0] == popular.entity_id


@pytest.mark.parametrize("strategy", ["lexical", "semantic", "popular", "new"])
def test_nothing_is_found_before_its_release(world: SearchWorld, strategy: str) -> None:
    retrieval, last = Retrieval(world.catalogue), world.catalogue[-1]
    for text in (last.title, f"{last.mood} {last.style} {last.kind}s", f"new {last.kind}s"):
        assert last.entity_id not in retrieval.candidates(strategy, text, len(world.catalogue), last.released - 1)


def test_the_uniform_server_asks_for_as_many_candidates_as_fit(world: SearchWorld) -> None:
    server = UniformServer(Retrieval(world.catalogue), np.random.default_rng(0))
    asked = set[str]()
    for person in islice(world.people(), 100):
        turn = world.visit(person, server)[0]
        assert sum(turn.answer.allocation.values()) == SHOWN
        asked |= turn.answer.allocation.keys()
    assert asked == set(STRATEGIES) - {"memory"}
