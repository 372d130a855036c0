"""What one person adds to the memory index is bounded, as is what one turn adds."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.checks import changes
from backchannel.agents.memory.examination import Examination
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.serving import Memory
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums, merge
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, judged, query

INDEX = MemoryIndex(MemoryConfig())
PAGE = impression(Result("good", 1), Result("bad", 2))


def turn(person: str, clicked: str | None) -> Turn:
    return closed_turn(query(user_id=person), (PAGE,), (click(clicked),) if clicked else ())


def crowd(people: int, rate: float) -> list[Turn]:
    """People who click the good entity at some rate, and otherwise nothing."""
    return [turn(f"p{one}", "good" if one % 100 < 100 * rate else None) for one in range(people)]


def scores(turns: Iterable[Turn]) -> dict[str, float]:
    """Return the entities with their scores, best first."""
    delta = INDEX.learn(judged(turns))
    section = live_rows(INDEX.solve(MemorySums(delta), changes(delta), 0))
    return {one.entity_id: one.score for one in Memory(section, {}, 0).recall("play jazz", 10)}


@pytest.mark.parametrize("rate", [0.9, 0.3, 0.05])
@pytest.mark.parametrize("shown", [("bad",), ("good", "bad")])
def test_one_bot_does_not_outrank_a_thousand_people(rate: float, shown: tuple[str, ...]) -> None:
    page = impression(*(Result(entity, position) for position, entity in enumerate(shown, start=1)))
    bot = [closed_turn(query(user_id="bot"), (page,), (click("bad"),))] * 600
    honest = [
        closed_turn(
            query(user_id=f"p{one}"), (impression(Result("good", 1)),), (click("good"),) * (one % 100 < 100 * rate)
        )
        for one in range(1000)
    ]
    assert next(iter(scores([*honest, *bot]))) == "good"


@given(st.integers(0, 50), st.integers(0, 60), st.sampled_from([0.1, 0.5]), st.sampled_from([20, 300]))
@settings(max_examples=10)
def test_turns_of_one_person_move_a_score_by_no_more_than_a_bound(
    name: int, people: int, rate: float, turns: int
) -> None:
    honest = crowd(people, rate)
    before, after = (scores([*honest, *flood]) for flood in ([], [turn(f"bot-{name}", "bad")] * turns))
    for entity in ("good", "bad"):
        # One bucket at twice the median, beside seven: two ninths of the exposures, over the examination of position 2.
        assert abs(after.get(entity, 0.0) - before.get(entity, 0.0)) <= 2 / 9 / 0.6


def test_challengers_are_shown_in_slots_of_known_propensity() -> None:
    page = impression(*(Result(f"e{one}", one) for one in range(1, 10)))
    turns = [closed_turn(query(user_id=f"p{one}"), (page,), (click(f"e{1 + one % 9}"),)) for one in range(90)]
    index = MemoryIndex(MemoryConfig(top=5, challengers=4))
    delta = index.learn(judged(turns))
    memory = Memory(live_rows(index.solve(MemorySums(delta), changes(delta), 0)), {}, 0)
    best = [one.entity_id for one in memory.recall("play jazz", 5)]
    shown: Counter[str] = Counter()
    for seed in range(400):
        found = memory.recall("play jazz", 5, explore=2, rng=np.random.default_rng(seed))
        assert [one.entity_id for one in found[:3]] == best[:3]
        assert [one.propensity for one in found] == [1.0, 1.0, 1.0, 0.5, 0.5]
        shown.update(one.entity_id for one in found[3:])
    assert len(shown) == 4
    assert not set(shown) & set(best)
    assert all(160 <= times <= 240 for times in shown.values())
    assert memory.recall("play jazz", 5, explore=2, rng=np.random.default_rng(0)) == memory.recall(
        "play jazz", 5, explore=2, rng=np.random.default_rng(0)
    )


def test_an_impression_logged_twice_counts_once() -> None:
    once = [turn(f"p{one}", "good") for one in range(30)]
    twice = [closed_turn(one.query, (PAGE, PAGE), one.clicks) for one in once]
    assert scores(once) == scores(twice)


def test_the_bound_does_not_depend_on_how_turns_are_split() -> None:
    turns = [*crowd(40, 0.5), *[turn("bot", "bad")] * 100]
    whole, parts = INDEX.learn(judged(turns)), [INDEX.learn(judged(turns[start::7])) for start in range(7)]
    solved = [INDEX.solve(MemorySums(one), changes(one), 0) for one in (whole, merge(parts[::-1]))]
    assert solved[0] == solved[1]


def test_a_fold_is_found() -> None:
    """After the third position people look at a quarter of what they did: no power of the position is like it."""
    rng = np.random.default_rng(3)
    examination = Examination(0.7, 1)
    truth = np.array([1.0, 0.85, 0.75, *[0.2] * 7])
    attraction = rng.beta(1, 4, 1000)
    pairs = rng.integers(0, 1000, 100_000)
    positions = np.clip(np.round(10 - 10 * attraction[pairs] ** 0.5 + rng.normal(0, 2, 100_000)), 1, 10).astype(np.intp)
    clicked = rng.random(100_000) < attraction[pairs] * truth[positions - 1]
    hashes = rng.integers(0, 2**32, 1000).astype(np.uint32)[pairs]
    sums = examination.harvest(
        np.zeros(200_000, np.int64),
        np.tile(hashes, 2),
        np.tile(positions, 2),
        np.append(np.zeros(100_000), clicked),
        np.append(np.ones(100_000), np.zeros(100_000)),
    )
    examined = examination.curve(MemorySums({"examination": sums})).examined
    assert (np.diff(examined) <= 0).all()
    np.testing.assert_allclose(examined / examined[2], truth / truth[2], rtol=0.3)


def test_clicks_out_of_trust_are_not_taken_for_attractiveness() -> None:
    examination = Examination(0.7, 1, trust=0.6)
    curve = examination.curve(MemorySums({}))
    shown = np.zeros((2, 11))
    shown[:, 0] = 1000.0
    attractive = np.array([0.2, 0.6])
    gain, exposure = curve.evidence(1000.0 * (attractive + 0.6 * (1 - attractive)), shown)
    np.testing.assert_allclose(gain / exposure, attractive, atol=0.05)
    assert (exposure < 1000.0 * curve.slopes[0]).all()


POWER = [place**-0.7 for place in range(1, 11)]
FOLD = [1.0, 0.85, 0.75, *[0.2] * 7]


@pytest.mark.parametrize(
    ("examined", "trust"), [(POWER, 0.0), (POWER, 0.3), (FOLD, 0.0)], ids=["power", "trust", "fold"]
)
def test_bounds_of_the_best_hold_in_worlds_that_are_not_assumed(examined: list[float], trust: float) -> None:
    rng = np.random.default_rng(2)
    attraction = rng.beta(1, 4, (40, 12))
    turns = []
    for number in range(6_000):
        of = number % 40
        order = np.argsort(-(attraction[of] + rng.normal(0, 0.3, 12)))[:10]
        attractive = attraction[of, order]
        clicked = rng.random(10) < np.array(examined) * (attractive + (1 - attractive) * trust * np.array(examined))
        page = impression(*(Result(f"e{entity}", place) for place, entity in enumerate(order.tolist(), 1)))
        clicks = tuple(click(f"e{entity}") for entity in order[clicked].tolist())
        turns.append(closed_turn(query(number * 1_000, f"q{of}", user_id=f"u{number}"), (page,), clicks))
    index = MemoryIndex(MemoryConfig(confidence=0.9, position_trust=trust))
    delta = index.learn(judged(turns))
    memory = Memory(live_rows(index.solve(MemorySums(delta), changes(delta), 6_000_000)), {}, 6_000_000)
    found = [
        (one.score, one.lower, attraction[of, int(one.entity_id[1:])])
        for of in range(40)
        for one in memory.recall(f"q{of}", 12)
    ]
    best = sorted(found, reverse=True)[: len(found) // 10]
    assert np.mean([lower <= truth for _, lower, truth in best]) >= 0.85
