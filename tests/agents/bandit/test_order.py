"""The order of pages: what is learned of it, and what it costs plans."""

import numpy as np
import pytest

from backchannel.agents.bandit.evidence import order_of
from backchannel.agents.bandit.order import QUARTERS, departures, seen_more
from backchannel.agents.bandit.pages import Pages
from backchannel.agents.sums import Floats, Integers


def pages(counts: Integers, one_after_the_other: bool) -> Pages:
    """Pages of two lists of other items, the second list first, or in turns."""
    shown: list[tuple[int, int, int, int]] = []
    for turn, own in enumerate(counts.tolist()):
        candidates = [
            (-code if one_after_the_other else (rank - 0.5) / count, rank, code)
            for code, count in enumerate(own)
            for rank in range(1, count + 1)
        ]
        shown += [(turn, place, code, rank) for place, (_, rank, code) in enumerate(sorted(candidates), 1)]
    turns, positions, strategies, ranks = np.array(shown).T
    return Pages(
        times=np.zeros(len(counts), dtype=np.int64),
        queries=np.zeros(len(counts), dtype=np.int64),
        contexts=np.ones((len(counts), 1, 1)),
        depths=counts,
        turns=turns,
        positions=positions,
        gains=np.zeros(len(turns)),
        results=np.arange(len(turns)),
        strategies=strategies,
        ranks=ranks,
    )


def learned(one_after_the_other: bool) -> Floats:
    counts = np.random.default_rng(1).integers(1, 9, (2_000, 2))
    return departures(order_of(pages(counts, one_after_the_other)))


def test_lists_one_after_the_other_push_all_or_nothing() -> None:
    found, at = learned(one_after_the_other=True), (np.arange(QUARTERS) + 0.5) / QUARTERS
    assert found[0, 1] == pytest.approx(1.0 - at, abs=0.06)
    assert found[1, 0] == pytest.approx(-at, abs=0.06)
    assert found[[0, 1], [0, 1]] == pytest.approx(0.0, abs=0.01)
    assert learned(one_after_the_other=False) == pytest.approx(0.0, abs=0.06)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    whole = pages(np.random.default_rng(2).integers(0, 9, (50, 2)), one_after_the_other=True)
    first = np.arange(50) < 20
    assert (order_of(whole) == order_of(whole.only(first)) + order_of(whole.only(~first))).all()


def test_what_stands_above_costs_what_is_seen_less() -> None:
    found = seen_more(np.array([[4, 0], [4, 4]]), learned(one_after_the_other=True), decay=1.0)
    assert found[0, 0] == pytest.approx(1.0, abs=0.01)
    # First of its list, the fifth on the page, and in the proportional order the first or the second.
    assert found[1, 0, 0] == pytest.approx(1.5 / 5.0, abs=0.05)
    assert found[1, 1, 0] > 1.0
    assert (seen_more(np.array([[4, 4]]), np.zeros((2, 2, QUARTERS)), decay=1.0) == 1.0).all()
