"""Changes in a rate, found in its time buckets with ADWIN.

A. Bifet and R. Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007. The detector is the one
that `river.drift.ADWIN` wraps. The package `river.drift` imports River's data sets, and with them pandas and SciPy: a
second of processor time before the first event is read.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct, structs
from river._river_rust.drift import AdaptiveWindowing

SAMPLES: Final = 100
"""Observations that a bucket stands for, at most: beyond that a change must be large, not only certain."""


class Bucket(Struct, frozen=True):
    """What is known of a rate in one time bucket.

    Attributes:
        start: event time, ms.
        count: of observations.
        total: of their values, each in [0, 1].
    """

    start: int
    count: float
    total: float


class Change(Struct, frozen=True):
    """A rate has changed.

    Attributes:
        noticed: start (ms) of the newest bucket that was needed to notice it.
        since: start (ms) of the first bucket that it is seen in.
        before: the rate until then, as far back as the change before.
        after: the rate from then on.
    """

    noticed: int
    since: int
    before: float
    after: float


def changes(buckets: Sequence[Bucket], confidence: float) -> list[Change]:
    """Return how a rate changed over `buckets`, which are in order of time; the same for the same buckets.

    What is noticed at once, such as a rate that fell and rose again, is one change.

    ADWIN takes values one by one, but sums are what we have. So a bucket is shown to it as zeros and ones with the
    same mean, evenly spread, as many as it has observations, up to `SAMPLES`. Values between 0 and 1, and traffic above
    that, make it more careful than it would have to be. It knows no seasons: a rate that rises every morning has
    changed every morning.

    Args:
        buckets: without those that are empty.
        confidence: ADWIN's delta.
    """
    found: list[Change] = []
    begin = 0  # of the buckets since the last change
    while (noticed := _notice(buckets[begin:], confidence)) is not None:
        regime = buckets[begin : begin + noticed + 1]
        split = _split(regime)
        change = Change(regime[-1].start, regime[split].start, _rate(regime[:split]), _rate(regime[split:]))
        if found and change.noticed <= found[-1].noticed:
            # Some of the buckets are looked at once more: what is found in them now was there to be noticed then.
            found[-1] = structs.replace(found[-1], after=change.after)
        else:
            found.append(change)
        begin += split
    return found


def judge(
    buckets: Sequence[Bucket], since: int, judged: int, *, span_ms: int, confidence: float
) -> tuple[list[Change], int]:
    """Return the changes noticed from the time `judged` on, and the start of the newest regime.

    So that it takes bounded time, the past is forgotten in spans: buckets of a span are compared with those of the same
    span and the one before. Whether buckets are judged in one call or in many makes no difference.

    Args:
        buckets: without those that are empty; from the span before that of `judged` on.
        since: the start (ms) of the newest regime so far; buckets before it are ignored.
        judged: start (ms) of the first bucket that was not judged yet.
        span_ms: a multiple of a bucket's length.
        confidence: ADWIN's delta.
    """
    found = []
    for span in sorted({bucket.start // span_ms for bucket in buckets if bucket.start >= judged}):
        begin, end = max(since, (span - 1) * span_ms), (span + 1) * span_ms
        for change in changes([bucket for bucket in buckets if begin <= bucket.start < end], confidence):
            since = change.since
            if change.noticed >= max(judged, span * span_ms):
                found.append(change)
    return found, since


def adwin_of(confidence: float) -> AdaptiveWindowing:
    """Return the detector that `river.drift.ADWIN(delta=confidence)` wraps: `update(value)` tells of a drift.

    Replace it after a drift, as `river.drift.ADWIN` does.
    """
    return AdaptiveWindowing(delta=confidence, clock=32, max_buckets=5, min_window_length=5, grace_period=10)


def _notice(buckets: Sequence[Bucket], confidence: float) -> int | None:
    """The first bucket at which ADWIN cuts its window, other than the very first."""
    adwin = adwin_of(confidence)
    carried = 0.5
    for place, bucket in enumerate(buckets):
        rate = bucket.total / bucket.count
        for _ in range(round(min(bucket.count, SAMPLES))):
            carried += rate
            one = carried >= 1.0
            carried -= one
            if adwin.update(float(one)):
                if place:
                    return place
                adwin = adwin_of(confidence)
    return None


def _split(buckets: Sequence[Bucket]) -> int:
    """Where the rates on both sides differ most: the least squares estimate of a change's place, from 1 on."""
    counts = np.minimum([bucket.count for bucket in buckets], SAMPLES)
    totals = counts * [bucket.total / bucket.count for bucket in buckets]
    left, before = np.cumsum(counts)[:-1], np.cumsum(totals)[:-1]
    right, after = counts.sum() - left, totals.sum() - before
    return int(np.argmax(left * right * (before / left - after / right) ** 2)) + 1


def _rate(buckets: Sequence[Bucket]) -> float:
    return sum(bucket.total for bucket in buckets) / sum(bucket.count for bucket in buckets)
