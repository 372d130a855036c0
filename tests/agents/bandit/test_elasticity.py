from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.bandit.elasticity import Elasticities, counts_of, elasticities, plans_of
from backchannel.agents.bandit.pages import Pages
from backchannel.agents.bandit.plans import corrections, fill
from backchannel.agents.bandit.ranks import BUCKETS
from tests.agents.bandit.test_plans import overlap, terms

NAMES = ("a", "b", "c")
D = 2


def pages(depths: list[list[int]], gains: list[list[float]], distinct: list[bool]) -> Pages:
    turns = [turn for turn, own in enumerate(gains) for _ in own]
    nothing: Any = np.zeros(0, dtype=np.int64)
    return Pages(
        times=np.zeros(len(depths), dtype=np.int64),
        queries=np.zeros(len(depths), dtype=np.int64),
        contexts=np.tile([1.0, 0.5], (len(depths), 1, 1)),
        depths=np.array(depths, dtype=np.int64).reshape(-1, len(NAMES)),
        distinct=np.array(distinct, dtype=bool),
        turns=np.array(turns, dtype=np.int64),
        positions=np.ones(len(turns), dtype=np.int64),
        gains=np.array([gain for own in gains for gain in own]),
        results=nothing,
        strategies=nothing,
        ranks=nothing,
    )


turn = st.tuples(
    st.lists(st.integers(0, 7), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3),
    st.booleans(),
)


@given(st.lists(turn, max_size=20))
@settings(max_examples=50)
def test_rows_are_what_came_of_each_allocation(turns: list[tuple[list[int], list[float], bool]]) -> None:
    some = pages([one for one, _, _ in turns], [one for _, one, _ in turns], [one for _, _, one in turns])
    texts, rows = plans_of(some, NAMES)
    expected: dict[tuple[int, ...], list[float]] = {}
    for own, clicked, of_distinct in turns:
        if sum(own) > 1 and not of_distinct:
            row = expected.setdefault(tuple(own), [0.0] * 4)
            for place, value in enumerate((sum(clicked), sum(clicked) ** 2, 1.0, 0.5)):
                row[place] += value
    plans = [tuple(counts_of(text).get(name, 0) for name in NAMES) for text in texts]
    assert dict(zip(plans, rows.tolist(), strict=True)) == expected


def test_deep_allocations_are_told_apart_to_three_significant_bits() -> None:
    texts, rows = plans_of(pages([[96, 5, 0], [97, 5, 0], [111, 5, 0], [112, 5, 0]], [[]] * 4, [False] * 4), NAMES)
    assert texts == ['{"a":96,"b":5}', '{"a":112,"b":5}']
    assert rows[:, 2].tolist() == [3.0, 1.0]


def learned(beta: list[float], turns: int, seed: int = 0) -> Elasticities:
    """Return what is learned from pages that earn what they promise times what elasticities make of it."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(10, [0.2, 0.4, 0.4], 60)
    promises = rng.uniform(0.2, 0.4, len(counts))
    each = turns // len(counts)
    lift = corrections(counts, np.array([beta]))[0]
    gains = rng.binomial(each, 0.5 * promises * lift).astype(float)
    rows = np.column_stack((gains, gains, np.full((len(counts), D), each)))
    return elasticities(counts, rows, each * promises)


def test_what_whole_pages_earn_is_learned() -> None:
    found = learned([-0.4, 0.0, 0.0], 30_000)
    deviation = np.linalg.norm(found.whitener, axis=0)
    assert found.mean[0] - found.mean[1:].mean() == pytest.approx(-0.4, abs=0.1)
    assert (deviation < 0.2).all()


def test_pages_that_earn_what_they_promise_are_hardly_corrected() -> None:
    found = [learned([0.0, 0.0, 0.0], 3_000, seed).mean for seed in range(20)]
    assert np.abs(found).mean() < 0.04


def test_without_gains_nothing_is_corrected() -> None:
    found = learned([0.0, 0.0, 0.0], 60, 1)
    none = elasticities(np.zeros((0, 3), dtype=np.int64), np.zeros((0, 2 + D)), np.zeros(0))
    assert not none.mean.any()
    assert not none.whitener.any()
    assert np.isfinite(found.mean).all()


def test_what_spoils_pages_is_asked_for_less() -> None:
    """The first strategy is as good as the others, but it costs the rest of the page."""
    rates = np.full((1, 3, BUCKETS), 0.3)
    plain, corrected = (
        fill(rates, overlap(np.zeros((3, 3))), terms(3, 9), np.array([[beta, 0.0, 0.0]]))[0].tolist()
        for beta in (0.0, -0.4)
    )
    assert plain[0] >= 2
    assert corrected[0] == 0
    assert sum(plain) == sum(corrected) == 9
