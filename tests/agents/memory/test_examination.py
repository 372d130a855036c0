"""The examination curve, learned from pairs that were shown at several positions."""

from collections.abc import Iterator

import numpy as np
import pytest

from backchannel.agents.memory.examination import HARVESTED, Examination
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, judged, query

INDEX = MemoryIndex(MemoryConfig(position_decay=0.7))


def simulated(turns: int, decay: float, seed: int = 0, shuffled: float = 0.15) -> Iterator[Turn]:
    """People who follow the position-based model. What attracts them stands mostly, not always, on top."""
    rng = np.random.default_rng(seed)
    attraction = rng.beta(1, 4, (100, 15))
    popularity = 1 / np.arange(1, 101)
    for asked in rng.choice(100, turns, p=popularity / popularity.sum()):
        ranked = np.argsort(-(attraction[asked] + rng.normal(0, shuffled, 15)))[:HARVESTED].tolist()
        results = tuple(Result(f"e{entity}", position) for position, entity in enumerate(ranked, start=1))
        clicks = tuple(
            click(result.entity_id)
            for result, entity, luck in zip(results, ranked, rng.random(HARVESTED), strict=True)
            if luck < attraction[asked, entity] * result.position**-decay
        )
        yield closed_turn(query(text=f"q{asked}"), (impression(*results),), clicks)


def learned(turns: Iterator[Turn]) -> Delta:
    return INDEX.learn(judged(turns))


def curve(delta: Delta) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    examination: Examination = INDEX.examination
    return examination.curve(MemorySums(delta)).examined


@pytest.mark.parametrize("decay", [0.0, 0.35, 0.7, 1.0, 1.4])
def test_the_curve_that_people_follow_is_found(decay: float) -> None:
    found = curve(learned(simulated(6000, decay)))
    truth = np.arange(1.0, HARVESTED + 1) ** -decay
    configured = np.arange(1.0, HARVESTED + 1) ** -0.7
    assert found[0] == 1.0
    error, before = (np.abs(np.log(one / truth)).mean() for one in (found, configured))
    assert error < 0.25
    assert error < max(0.5 * before, 0.1)


def test_without_evidence_it_is_the_configured_one() -> None:
    configured = np.arange(1.0, HARVESTED + 1) ** -0.7
    np.testing.assert_allclose(curve({}), configured)
    # Every pair in one place: nothing can be compared, but for pairs that share a bucket.
    fixed = learned(simulated(2000, 0.0, shuffled=0.0))
    assert np.abs(np.log(curve(fixed) / configured)).mean() < 0.25


def test_little_evidence_moves_it_little() -> None:
    configured = np.arange(1.0, HARVESTED + 1) ** -0.7
    error = np.abs(np.log(curve(learned(simulated(30, 1.4))) / configured)).mean()
    assert error < 0.3


def test_evidence_decades_apart_is_compared() -> None:
    decades_ms = 44 * 365 * 86_400_000
    old = learned(simulated(300, 1.0))
    recent = closed_turn(query(decades_ms), (impression(Result("e1", 1)),))
    found = curve(merge([old, learned(iter([recent]))]))
    assert np.isfinite(found).all()
    assert found[0] == 1.0


def test_it_is_learned_from_sums() -> None:
    turns = list(simulated(2000, 1.0))
    parts = [learned(iter(turns[start::3])) for start in range(3)]
    np.testing.assert_array_equal(curve(merge(parts)), curve(learned(iter(turns))))


def test_the_policy_says_which_curve_was_in_use() -> None:
    delta = learned(simulated(3000, 1.4))
    header = INDEX.solve(MemorySums(delta), {"memory": set()}, 0)[""]
    assert header is not None
    assert b'"examined":[1.0,0.' in header
