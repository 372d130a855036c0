"""Confidence sequences hold at all looks together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.ope.sequences import Contrast, gain_bounds


def contrast(own: float, others: float, share: float = 0.25, turns: float = 1000.0) -> Contrast:
    """Two policies that never do the same."""
    return Contrast(np.full(2, share), np.array([1.0, 0.0]), np.array([own, others]), turns)


@pytest.mark.parametrize(("gain", "share"), [(0.0, 0.25), (-0.5, 0.25), (1.0, 0.5)])
def test_gains_are_covered_at_all_looks_together(gain: float, share: float) -> None:
    runs, looks = 200, 40
    rng = np.random.default_rng(1)
    chance = share * (1 + gain) / (share * (1 + gain) + 1 - share)
    own = rng.binomial(20, chance, (runs, looks)).cumsum(axis=1)
    missed = np.zeros(2)
    for run in range(runs):
        sums = [contrast(float(one), 20.0 * look - one, share) for look, one in enumerate(own[run].tolist(), 1)]
        missed += any(one.is_more(gain, 0.95) for one in sums), any(one.is_less(gain, 0.95) for one in sums)
    assert (missed / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)).all()


@given(st.floats(0, 500), st.floats(0, 500), st.floats(0.01, 0.99))
def test_bounds_enclose_the_estimate_and_agree_with_the_tests(own: float, others: float, share: float) -> None:
    sums = contrast(own, others, share)
    found = gain_bounds(sums, 0.95)
    assert -1.0 <= found.low <= found.high
    if others:
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9
    if found.low > -0.99:
        assert sums.is_more(found.low - 1e-3, 0.95)
        assert not sums.is_more(found.low + 1e-3, 0.95)
    if found.high < np.inf:
        assert sums.is_less(found.high + 1e-3 * (1 + found.high), 0.95)


def test_more_rewards_tell_more_whatever_their_rate() -> None:
    widths = [gain_bounds(contrast(n / 4, 3 * n / 4), 0.95) for n in (100.0, 1000.0, 10_000.0)]
    assert widths[0].high > widths[1].high > widths[2].high > 0 > widths[2].low > widths[1].low > widths[0].low
    assert gain_bounds(contrast(25.0, 75.0, turns=10.0), 0.95) == gain_bounds(contrast(25.0, 75.0, turns=1e6), 0.95)


def test_what_both_would_have_done_tells_nothing() -> None:
    same = Contrast(np.full(1, 0.25), np.full(1, 0.25), np.full(1, 1e6), 1e7)
    assert same.gain == 0.0
    assert not same.is_more(0.0, 0.6)
    assert not same.is_less(0.0, 0.6)


def test_of_nothing_nothing_is_known() -> None:
    nothing = Contrast(np.empty(0), np.empty(0), np.empty(0))
    assert np.isnan(nothing.value)
    assert (gain_bounds(nothing, 0.95).low, gain_bounds(nothing, 0.95).high) == (-1.0, np.inf)
