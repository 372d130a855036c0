"""The memory index against a direct computation."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.memory import MemoryConfig, MemoryIndex
from backchannel.agents.outcomes import RewardConfig
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import Result, Rewrite
from backchannel.schemas.turn import Turn
from tests.agents.turns import DAY, changes, click, impression, judged, query, turns

CONFIG = MemoryConfig(kappa=2.0, position_decay=1.0, half_life_days=10.0)


def learned(some: list[Turn], config: MemoryConfig = CONFIG, rewards: RewardConfig | None = None) -> Delta:
    return MemoryIndex(config).learn(judged(some, rewards))


def scores(delta: Delta, at: int = 0, config: MemoryConfig = CONFIG) -> dict[str, list[tuple[str, Any]]]:
    section = MemoryIndex(config).solve(MemorySums(delta), changes(delta), at)
    return {key: [(entity, score) for entity, score in orjson.loads(row)] for key, row in section.items() if row}


def shown(*entities: str) -> tuple[Result, ...]:
    return tuple(Result(entity, position) for position, entity in enumerate(entities, start=1))


@given(st.lists(turns(st.integers(0, 100 * DAY)), max_size=6), st.integers(0, 100 * DAY))
@settings(max_examples=60)
def test_scores_equal_their_definition(some: list[Turn], later: int) -> None:
    at = max((turn.query.ts for turn in some), default=0) + later
    gain: dict[tuple[str, str], float] = {}
    exposure: dict[tuple[str, str], float] = {}
    for outcome in judged(some):
        weight = 2.0 ** (-(at - outcome.turn.query.ts) / (10 * DAY))
        for event in outcome.turn.impressions:
            for result in event.results:
                pair = outcome.query, result.entity_id
                exposure[pair] = exposure.get(pair, 0.0) + weight / result.position
        for entity, value in outcome.gains.items():
            gain[outcome.query, entity] = gain.get((outcome.query, entity), 0.0) + weight * value
    expected: dict[str, dict[str, float]] = {}
    for (text, entity), value in gain.items():
        if text and value > 0:
            expected.setdefault(text, {})[entity] = min(value / (2 + exposure.get((text, entity), 0.0)), 1.0)
    found = scores(learned(some), at)
    assert {key: dict(row) for key, row in found.items()} == {
        key: pytest.approx(row, rel=1e-9) for key, row in expected.items()
    }
    for row in found.values():
        assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))


def test_an_entity_is_worth_more_the_lower_it_was_clicked() -> None:
    some = [
        Turn(query(text="first"), (impression(*shown("a", "b")),), (click("a"),)),
        Turn(query(text="second"), (impression(*shown("a", "b")),), (click("b"),)),
    ]
    found = scores(learned(some))
    assert found == {"first": [("a", pytest.approx(1 / 3))], "second": [("b", pytest.approx(1 / 2.5))]}


def test_what_is_shown_and_not_clicked_sinks() -> None:
    clicked = Turn(query(), (impression(*shown("a", "b")),), (click("a"), click("b")))
    ignored = Turn(query(), (impression(*shown("b")),))
    assert scores(learned([clicked]))["play jazz"][0][0] == "b"
    assert scores(learned([clicked, *[ignored] * 5]))["play jazz"][0][0] == "a"


def test_a_score_never_exceeds_one() -> None:
    some = [Turn(query(), (), (click("unseen"),))] * 50
    assert scores(learned(some)) == {"play jazz": [("unseen", 1.0)]}


def test_ties_are_broken_by_name_and_only_the_top_is_published() -> None:
    some = [Turn(query(), (), tuple(click(entity) for entity in "dbca"))]
    config = MemoryConfig(top=3)
    assert [entity for entity, _ in scores(learned(some, config), config=config)["play jazz"]] == ["a", "b", "c"]


def test_feedback_belongs_to_the_query_that_was_served() -> None:
    rewritten = impression(*shown("a"), rewrite=Rewrite(source="play jass", target="Play  JAZZ"))
    some = [Turn(query(text="play jass"), (rewritten,), (click("a"),))]
    assert set(scores(learned(some))) == {"play jazz"}


def test_a_query_without_anything_left_is_taken_out() -> None:
    taken_back = RewardConfig(click_gain={"click": 0.0})
    delta = learned([Turn(query(), (impression(*shown("a")),), (click("a"),))], rewards=taken_back)
    assert MemoryIndex(CONFIG).solve(MemorySums(delta), changes(delta), 0) == {"play jazz": None}


def test_only_what_changed_is_solved() -> None:
    total = merge([learned([Turn(query(text=text), (), (click("a"),))]) for text in ("one", "two")])
    index = MemoryIndex(CONFIG)
    assert set(index.solve(MemorySums(total), {"memory": {"one"}}, 0)) == {"one"}
    assert index.solve(MemorySums(total), {"memory": {"never heard"}}, 0) == {"never heard": None}
    assert index.solve(MemorySums(total), {"absorptions": {"one"}}, 0) == {}
