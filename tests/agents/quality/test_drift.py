"""Drift: one change, one alarm, wherever the buckets are cut; and none without a change."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN

from backchannel.agents.quality.drift import Bucket, Change, adwin_of, changes, new_changes

MINUTE = 60_000
CONFIDENCE = 0.002


def series(seed: int, *regimes: tuple[int, float], turns: float = 400.0) -> list[Bucket]:
    """Buckets of a minute: so many of each rate."""
    rng = np.random.default_rng(seed)
    rates = [rate for length, rate in regimes for _ in range(length)]
    counts = rng.poisson(turns, len(rates))
    return [
        Bucket(place * MINUTE, float(count), float(rng.binomial(count, rate)))
        for place, (count, rate) in enumerate(zip(counts, rates, strict=True))
        if count
    ]


@pytest.mark.parametrize("turns", [20.0, 400.0])
@pytest.mark.parametrize("rates", [(0.3, 0.2), (0.2, 0.3), (0.02, 0.1), (0.0, 0.2)])
def test_a_change_is_noticed_once_and_found_where_it_was(rates: tuple[float, float], turns: float) -> None:
    for seed in range(5):
        (found,) = changes(series(seed, (200, rates[0]), (200, rates[1]), turns=turns), CONFIDENCE)
        assert abs(found.since / MINUTE - 200) <= 8
        assert found.since <= found.noticed <= 300 * MINUTE
        assert found.before == pytest.approx(rates[0], abs=0.03)
        assert found.after == pytest.approx(rates[1], abs=4 / turns**0.5)  # it may be one bucket's


def test_a_second_change_is_another_one() -> None:
    found = changes(series(1, (150, 0.3), (150, 0.15), (150, 0.3)), CONFIDENCE)
    assert [round(one.since / MINUTE / 10) for one in found] == [15, 30]


def test_chance_is_no_change() -> None:
    for seed in range(20):
        assert changes(series(seed, (400, 0.3)), CONFIDENCE) == []


BUCKETS = st.lists(
    st.builds(
        lambda start, count, share: Bucket(start * MINUTE, float(count), count * share),
        st.integers(0, 200),
        st.integers(1, 1000),
        st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    ),
    max_size=80,
    unique_by=lambda bucket: bucket.start,
).map(lambda buckets: sorted(buckets, key=lambda bucket: bucket.start))


@given(BUCKETS)
def test_what_is_noticed_at_once_is_one_change(buckets: list[Bucket]) -> None:
    found = changes(buckets, 0.5)
    for one, other in itertools.pairwise(found):
        assert one.since < other.since
        assert one.noticed < other.noticed


@given(BUCKETS, st.lists(st.integers(0, 201), max_size=6))
@settings(max_examples=100)
def test_it_does_not_matter_when_buckets_are_judged(buckets: list[Bucket], looks: list[int]) -> None:
    span = 20 * MINUTE

    def look(times: list[int]) -> list[Change]:
        since, judged, found = 0, 0, []
        for time in sorted({*times, 201}):
            complete = [bucket for bucket in buckets if bucket.start < time * MINUTE]
            new, since = new_changes(complete, since, judged, span_ms=span, confidence=0.5)
            found += new
            judged = time * MINUTE
        return found

    assert look(looks) == look([])


def test_the_past_is_forgotten_in_spans() -> None:
    """What lies two spans back is not needed any more."""
    buckets = series(3, (300, 0.3), (100, 0.2))
    span = 100 * MINUTE
    whole = new_changes(buckets, 0, 0, span_ms=span, confidence=CONFIDENCE)
    late = new_changes(buckets[200:], 0, 300 * MINUTE, span_ms=span, confidence=CONFIDENCE)
    assert late == whole
    assert len(late[0]) == 1


def test_the_detector_is_the_one_of_river() -> None:
    rng = np.random.default_rng(1)
    ours, rivers = adwin_of(CONFIDENCE), ADWIN(delta=CONFIDENCE)  # type: ignore[no-untyped-call]
    found: tuple[list[int], list[int]] = [], []
    for place in range(4_000):
        value = float(rng.random() < (0.2 if place // 500 % 2 else 0.7))
        if ours.update(value):
            found[0].append(place)
            ours = adwin_of(CONFIDENCE)
        rivers.update(value)  # type: ignore[no-untyped-call]
        if rivers.drift_detected:
            found[1].append(place)
    assert found[0] == found[1]
    assert len(found[0]) == 7
