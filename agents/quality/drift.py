"""Changes of a rate, found in its time buckets with ADWIN.

A. Bifet and R. Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007. The detector is the one
that `river.drift.ADWIN` wraps; importing `river.drift` itself also imports River's data sets, pandas and SciPy, which
takes a second of processor time.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct, structs
from river._river_rust.drift import AdaptiveWindowing

SAMPLES: Final = 100
"""Maximum number of observations that a bucket counts for, so that a tiny change in heavy traffic raises no alarm."""


class Bucket(Struct, frozen=True):
    """The observations of a rate in one time bucket.

    Attributes:
        start: the start of the bucket (event time, ms).
        count: the number of observations.
        total: the sum of their values, each 0 to 1.
    """

    start: int
    count: float
    total: float


class Change(Struct, frozen=True):
    """A change of a rate.

    Attributes:
        noticed: the start of the newest bucket needed to notice the change, ms.
        since: the start of the first bucket after the change, ms.
        before: the rate between the preceding change and this one, 0 to 1.
        after: the rate since this change, 0 to 1.
    """

    noticed: int
    since: int
    before: float
    after: float


def changes(buckets: Sequence[Bucket], confidence: float) -> list[Change]:
    """Return the changes of a rate over `buckets`; the same buckets always give the same changes.

    Changes noticed at the same bucket, such as a drop and a recovery, are one change.

    ADWIN takes single values, but the ledger has sums. So a bucket is replayed as evenly spread zeros and ones with the
    same mean: one per observation, at most `SAMPLES`. This makes ADWIN conservative where values lie between 0 and 1 or
    traffic is heavier. ADWIN does not know seasons: a rate that rises every morning changes every morning.

    Args:
        buckets: the buckets with observations, in order of time.
        confidence: ADWIN's delta, 0 to 1.
    """
    found: list[Change] = []
    begin = 0  # first bucket since the last change
    while (noticed := _notice(buckets[begin:], confidence)) is not None:
        regime = buckets[begin : begin + noticed + 1]
        split = _split(regime)
        change = Change(regime[-1].start, regime[split].start, _rate(regime[:split]), _rate(regime[split:]))
        if found and change.noticed <= found[-1].noticed:
            # The regimes overlap: this change was noticeable no later than the preceding one.
            found[-1] = structs.replace(found[-1], after=change.after)
        else:
            found.append(change)
        begin += split
    return found


def new_changes(
    buckets: Sequence[Bucket], since: int, judged: int, *, span_ms: int, confidence: float
) -> tuple[list[Change], int]:
    """Return the changes noticed at or after `judged`, and the start (ms) of the newest regime.

    To bound the time that this takes, time is divided into spans, and a bucket is compared only with buckets of its own
    span and the preceding one. The result does not depend on how the buckets are divided over calls.

    Args:
        buckets: the buckets with observations, in order of time, from the span before that of `judged` on.
        since: the start of the newest regime so far, ms; earlier buckets are ignored.
        judged: the start of the first bucket not examined yet, ms.
        span_ms: the length of a span, ms; a multiple of a bucket's length.
        confidence: ADWIN's delta, 0 to 1.
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
    """Return the detector that `river.drift.ADWIN(delta=confidence)` wraps.

    `update(value)` returns whether there is a drift; replace the detector after one, as `river.drift.ADWIN` does.
    """
    return AdaptiveWindowing(delta=confidence, clock=32, max_buckets=5, min_window_length=5, grace_period=10)


def _notice(buckets: Sequence[Bucket], confidence: float) -> int | None:
    """Return the place, from 1, of the first bucket at which ADWIN cuts its window; None if it does not."""
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
    """Return the least squares estimate of the place of a change: that of the first bucket after it, from 1."""
    counts = np.minimum([bucket.count for bucket in buckets], SAMPLES)
    totals = counts * [bucket.total / bucket.count for bucket in buckets]
    left, before = np.cumsum(counts)[:-1], np.cumsum(totals)[:-1]
    right, after = counts.sum() - left, totals.sum() - before
    return int(np.argmax(left * right * (before / left - after / right) ** 2)) + 1


def _rate(buckets: Sequence[Bucket]) -> float:
    return sum(bucket.total for bucket in buckets) / sum(bucket.count for bucket in buckets)
