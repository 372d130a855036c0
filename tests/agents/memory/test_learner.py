"""The memory index against a direct computation."""

from collections import Counter
from statistics import NormalDist
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.fuzz import ratio
from scipy.stats import gamma

from backchannel.agents.checks import changes
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.serving import Guess, Header, Memory, Recalled
from backchannel.agents.memory.similar import SimilarQueries
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.statistics import gamma_rate
from backchannel.agents.sums import ALL, Delta, MemorySums, Sums, merge
from backchannel.schemas.events import Result, Rewrite
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, click, closed_turn, impression, judged, outcomes_of, query, turns

CONFIG = MemoryConfig(kappa=2.0, position_decay=1.0, half_life_days=10.0, one_person=1000.0)


def learned(some: list[Turn], config: MemoryConfig = CONFIG, rewards: RewardConfig | None = None) -> Delta:
    return MemoryIndex(config).learn(judged(some, rewards))


def section(delta: Delta, at: int = 0, config: MemoryConfig = CONFIG) -> dict[str, bytes]:
    solved = MemoryIndex(config).solve(MemorySums(delta), changes(delta), at)
    return live_rows(solved)


def recalled(delta: Delta, at: int = 0, config: MemoryConfig = CONFIG) -> dict[str, list[Recalled]]:
    memory = Memory(section(delta, at, config), {}, at)
    return {text: memory.recall(text, 1000) for text in memory.queries()}


def scores(delta: Delta, at: int = 0, config: MemoryConfig = CONFIG) -> dict[str, list[tuple[str, Any]]]:
    return {text: [(one.entity_id, one.score) for one in found] for text, found in recalled(delta, at, config).items()}


def shown(*entities: str) -> tuple[Result, ...]:
    return tuple(Result(entity, position) for position, entity in enumerate(entities, start=1))


@given(st.lists(turns(st.integers(0, 100 * DAY)), max_size=6), st.integers(0, 20 * DAY))
@settings(max_examples=60)
def test_scores_equal_their_definition(some: list[Turn], later: int) -> None:
    at = max((turn.query.ts for turn in some), default=0) + later
    delta = learned(some)
    header = section(delta, at).get(ALL)
    # Without a header nothing was learned, as from queries without words: then the curve does not matter.
    curve = msgspec.json.decode(header, type=Header).examined if header else (1.0,) * 10
    gain: dict[tuple[str, str], float] = {}
    exposure: dict[tuple[str, str], float] = {}
    for outcome in outcomes_of(some):
        weight = 2.0 ** (-(at - outcome.turn.query.ts) / (10 * DAY))
        positions: dict[str, int] = {}
        for event in outcome.turn.impressions:
            for result in event.results:
                positions.setdefault(result.entity_id, result.position)
        for entity, position in positions.items():
            pair = outcome.query, entity
            examined = curve[min(position, 10) - 1] * min(10 / position, 1.0)
            exposure[pair] = exposure.get(pair, 0.0) + weight * examined
        for entity, value in outcome.gains.items():
            gain[outcome.query, entity] = gain.get((outcome.query, entity), 0.0) + weight * value
    expected: dict[str, dict[str, float]] = {}
    for (text, entity), value in gain.items():
        if text and value > 1e-5:
            expected.setdefault(text, {})[entity] = min(value / (2 + exposure.get((text, entity), 0.0)), 1.0)
    found = recalled(delta, at)
    assert {
        key: {one.entity_id: one.score for one in row if one.score > 1e-5}
        for key, row in found.items()
        if key in expected
    } == {key: pytest.approx(row, abs=2e-3) for key, row in expected.items()}
    for row in found.values():
        assert row == sorted(row, key=lambda one: (-one.lower, -one.score, one.entity_id))
        assert all(0 <= one.lower <= one.score <= 1 for one in row)


@given(st.floats(0.5, 1e6), st.floats(0.01, 1e6), st.floats(-2.5, 2.5))
def test_bounds_are_quantiles_of_the_posterior(alpha: float, beta: float, deviations: float) -> None:
    mean, bound = gamma_rate(alpha, beta, deviations)
    assert mean == pytest.approx(min(alpha / beta, 1.0))
    quantile = gamma.ppf(NormalDist().cdf(deviations), alpha) / beta
    assert bound == pytest.approx(min(quantile, 1.0), rel=0.05, abs=0.05 * alpha / beta)


def test_one_lucky_click_does_not_outrank_long_evidence() -> None:
    lucky = closed_turn(query(), (impression(*shown("lucky")),), (click("lucky"),))
    long = [
        closed_turn(query(), (impression(*shown("long")),), (click("long"),) if n % 3 == 0 else ()) for n in range(300)
    ]
    config = MemoryConfig(kappa=0.5, one_person=1000)
    ranked = recalled(learned([lucky, *long], config), config=config)["play jazz"]
    assert [one.entity_id for one in ranked] == ["long", "lucky"]
    assert ranked[0].score < ranked[1].score
    assert ranked[0].evidence == pytest.approx(300)


def test_an_entity_is_worth_more_the_lower_it_was_clicked() -> None:
    some = [
        closed_turn(query(text="first"), (impression(*shown("a", "b")),), (click("a"),)),
        closed_turn(query(text="second"), (impression(*shown("a", "b")),), (click("b"),)),
    ]
    found = scores(learned(some))
    assert found == {"first": [("a", pytest.approx(1 / 3))], "second": [("b", pytest.approx(1 / 2.5))]}


def test_what_is_shown_and_not_clicked_sinks() -> None:
    clicked = closed_turn(query(), (impression(*shown("a", "b")),), (click("a"), click("b")))
    ignored = closed_turn(query(), (impression(*shown("b")),))
    assert scores(learned([clicked]))["play jazz"][0][0] == "b"
    assert scores(learned([clicked, *[ignored] * 5]))["play jazz"][0][0] == "a"


def test_a_score_never_exceeds_one() -> None:
    some = [closed_turn(query(), (), (click("unseen"),))] * 50
    assert scores(learned(some)) == {"play jazz": [("unseen", 1.0)]}


def test_ties_are_broken_by_name_and_only_the_top_and_challengers_are_published() -> None:
    some = [closed_turn(query(), (), tuple(click(entity) for entity in "dbcea"))]
    config = MemoryConfig(top=2, challengers=1)
    assert [entity for entity, _ in scores(learned(some), config=config)["play jazz"]] == ["a", "b", "c"]


def test_challengers_are_those_that_may_turn_out_best() -> None:
    config = MemoryConfig(kappa=0.5, top=1, challengers=1, one_person=1000)
    known = [closed_turn(query(), (impression(*shown("known")),), (click("known"),))] * 100
    poor = [
        closed_turn(query(), (impression(*shown("poor")),), (click("poor"),) if n % 20 == 0 else ()) for n in range(100)
    ]
    new = [closed_turn(query(), (impression(*shown("new")),), (click("new"),) if n == 0 else ()) for n in range(9)]
    found = recalled(learned([*known, *poor, *new], config), config=config)["play jazz"]
    assert [one.entity_id for one in found] == ["known", "new"]


def test_evidence_fades_after_it_was_published() -> None:
    delta = learned([closed_turn(query(), (impression(*shown("a")),), (click("a"),))] * 8)
    published = section(delta)
    (fresh,), (faded,) = (Memory(published, {}, at).recall("play jazz", 1) for at in (0, 10 * DAY))
    assert (fresh.evidence, faded.evidence) == (8.0, 4.0)
    assert (fresh.score, faded.score) == (8 / 10, 4 / 6)
    assert faded.lower < fresh.lower
    assert faded == recalled(delta, 10 * DAY)["play jazz"][0]


def test_feedback_belongs_to_the_query_that_was_served() -> None:
    rewritten = impression(*shown("a"), rewrite=Rewrite(source="play jass", target="Play  JAZZ"))
    some = [closed_turn(query(text="play jass"), (rewritten,), (click("a"),))]
    assert set(scores(learned(some))) == {"play jazz"}


def test_a_query_without_anything_left_is_taken_out() -> None:
    taken_back = RewardConfig(click_gain={"click": 0.0})
    delta = learned([closed_turn(query(), (impression(*shown("a")),), (click("a"),))], rewards=taken_back)
    assert MemoryIndex(CONFIG).solve(MemorySums(delta), changes(delta), 0)["play jazz"] is None


def test_only_what_changed_is_solved() -> None:
    total = merge([learned([closed_turn(query(text=text), (), (click("a"),))]) for text in ("one", "two")])
    index = MemoryIndex(CONFIG)
    assert index.solve(MemorySums(total), {"memory": {"one"}}, 0).keys() == {ALL, "one"}
    assert index.solve(MemorySums(total), {"memory": {"never heard"}}, 0)["never heard"] is None
    assert index.solve(MemorySums(total), {}, 0) == {}


def test_the_empty_query_recalls_nothing() -> None:
    assert Memory(section(learned([closed_turn(query(), (), (click("a"),))])), {}, 0).recall(" ", 5) == []


@pytest.mark.parametrize("later", [100 * DAY, 100_000 * DAY])
def test_what_has_faded_to_nothing_is_not_recalled(later: int) -> None:
    published = section(learned([closed_turn(query(), (impression(*shown("a")),), (click("a"),))]))
    assert len(Memory(published, {}, later).recall("play jazz", 1)) == (later == 100 * DAY)


def test_an_unseen_query_recalls_what_it_is_taken_for_marked_and_for_less() -> None:
    published = section(learned([closed_turn(query(text="play jazz"), (), (click("a"), click("b")))]))
    memory = Memory(published, {}, 0, SimilarQueries(0.9).updated(published, published))
    known, guessed = memory.recall("Play jazz", 5), memory.recall("Play jaz!", 5)
    assert [one.guess for one in known] == [None, None]
    assert [one.guess for one in guessed] == [Guess("play jazz", ratio("jaz play", "jazz play") / 100)] * 2
    for one, other in zip(known, guessed, strict=True):
        assert (other.entity_id, other.evidence) == (one.entity_id, one.evidence)
        assert (other.score, other.lower) == pytest.approx((16 / 17 * one.score, 16 / 17 * one.lower))
    assert len(memory.recall("play jaz", 1)) == 1
    assert memory.recall("rock", 5) == memory.recall("", 5) == []
    assert Memory(published, {}, 0).recall("play jaz", 5) == []


@given(st.lists(turns(st.integers(0, 100 * DAY)), max_size=12), st.integers(0, 20 * DAY))
@settings(max_examples=60)
def test_what_is_dropped_of_a_crowded_query_is_not_missed_by_readers(some: list[Turn], later: int) -> None:
    config = MemoryConfig(kappa=0.5, top=2, challengers=1, reserve=1)
    index, at = MemoryIndex(config), max((turn.query.ts for turn in some), default=0) + later
    delta = learned(some, config)
    sums = delta.get("memory") or Sums(index.table)
    dropped = set(index.excess(MemorySums(delta), {query for query, *_ in sums.keys}, at))
    left = [row for row, key in enumerate(sums.keys) if key not in dropped]
    after = {**delta, "memory": Sums(sums.table, [sums.keys[row] for row in left], sums.values[left], sums.landmark)}
    pairs, left_over = (Counter(query for query, _ in {key[:2] for key in one.keys}) for one in (sums, after["memory"]))
    assert left_over == {query: min(count, 4) for query, count in pairs.items()}
    solved = [index.solve(MemorySums(one), changes(delta), at) for one in (delta, after)]
    assert solved[0] == solved[1]


def test_what_least_is_known_of_is_dropped_first() -> None:
    config = MemoryConfig(top=1, challengers=0, reserve=1)
    often = [closed_turn(query(), (impression(*shown("often")),), ())] * 9
    # Together one more than the bound of rows, two entities in eight groups of people each.
    once = [closed_turn(query(), (impression(*shown(f"once{number:02}")),), ()) for number in range(15)]
    clicked = [closed_turn(query(), (impression(*shown("clicked")),), (click("clicked"),))]
    delta = learned([*often, *once, *clicked], config)
    (dropped,) = MemoryIndex(config).excess(MemorySums(delta), {"play jazz"}, 0)
    assert dropped[:2] == ("play jazz", "once14")


def test_the_sketch_of_positions_is_dropped_when_it_weighs_nothing_any_more() -> None:
    some = [closed_turn(query(ts), (impression(*shown("a")),), ()) for ts in (0, 10 * DAY, 100 * DAY, 110 * DAY)]
    delta, index = learned(some), MemoryIndex(CONFIG)
    table = index.examination.table
    assert index.compact(table, delta[table.name].keys, MemorySums(delta), 0) == {("all", 0): None}
    assert index.compact(table, (), MemorySums({}), 0) == {}
