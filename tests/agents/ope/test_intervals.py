"""Intervals: what they hold, and that they hold it as often as they say."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.ope.estimators import Feedback, Terms, snips
from backchannel.agents.ope.intervals import BLOCKS, Method, interval


def terms(seed: int, turns: int) -> Terms:
    rng = np.random.default_rng(seed)
    return Terms(rng.random(turns) ** 3, 0.0, 1.0)


@given(st.integers(0, 1000), st.integers(2, 200), st.sampled_from(get_args(Method)))
def test_an_interval_holds_its_estimate_and_grows_with_confidence(seed: int, turns: int, method: Method) -> None:
    some = terms(seed, turns)
    narrow, wide = (interval(some, method, confidence, np.random.default_rng(1)) for confidence in (0.8, 0.99))
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


@pytest.mark.parametrize(
    ("method", "least", "most"), [("normal", 0.9, 0.99), ("bootstrap", 0.9, 0.99), ("bernstein", 0.99, 1)]
)
def test_coverage(method: Method, least: float, most: float) -> None:
    found = [interval(terms(seed, 150), method, rng=np.random.default_rng(seed)) for seed in range(300)]
    share = np.mean([one.low <= 0.25 <= one.high for one in found])
    assert least <= share <= most


def test_a_sequence_holds_at_every_look_together() -> None:
    looks, kept = np.geomspace(100, 20_000, 40).astype(int), Counter[Method]()
    for seed in range(200):
        values = terms(seed, int(looks[-1])).values
        for method in ("normal", "sequence"):
            found = [interval(Terms(values[:turns], 0.0, 1.0), method) for turns in looks.tolist()]
            kept[method] += all(one.low <= 0.25 <= one.high for one in found)
    assert kept["sequence"] >= 190
    assert kept["normal"] < 170


def test_a_ratio_is_resampled_as_one() -> None:
    rng = np.random.default_rng(3)
    weights = rng.exponential(size=(400, 1))
    ratio = snips(Feedback(weights, np.full((400, 1), 0.3)))  # whatever is drawn, the ratio is 0.3
    found = interval(ratio, "bootstrap", rng=rng)
    assert (found.low, found.value, found.high) == pytest.approx((0.3, 0.3, 0.3))
    assert interval(ratio, "normal").low == pytest.approx(0.3)


def test_many_turns_are_resampled_in_blocks() -> None:
    many = terms(5, 4 * BLOCKS + 17)
    by_blocks, by_theory = interval(many, "bootstrap", rng=np.random.default_rng(0)), interval(many, "normal")
    assert by_blocks.low == pytest.approx(by_theory.low, abs=0.1 * (by_theory.high - by_theory.low))
    assert by_blocks.high == pytest.approx(by_theory.high, abs=0.1 * (by_theory.high - by_theory.low))


def test_differences_are_paired() -> None:
    one = terms(1, 1000)
    same = interval(one.minus(one))
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    shifted = interval(Terms(one.values + 0.1, 0.1, 1.1).minus(one))
    assert (shifted.low, shifted.high) == pytest.approx((0.1, 0.1))


def test_one_turn_tells_nothing_of_its_error() -> None:
    assert np.isnan(interval(terms(0, 1)).low)


def test_a_bootstrap_needs_chance() -> None:
    with pytest.raises(ValueError, match="rng"):
        interval(terms(0, 5), "bootstrap")
