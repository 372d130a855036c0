"""`lab satisfaction`: the learner on some of the callers of DSTC2."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backchannel.ops.lab.satisfaction.evaluation import area, evaluate, read


def test_signals_tell_more_than_length(public_log: Callable[[str], Path]) -> None:
    known = read(public_log("dstc2"))
    callers = sorted({one.caller for one in known})[::3]
    some = [one for one in known if one.caller in callers]
    report = evaluate(some, (0,))
    quality = report.quality[0]
    assert report.callers == len(callers)
    assert quality.area.value > max(quality.length.value, quality.defects.value)
    assert quality.area.low > 0.6
    assert quality.brier < quality.brier_of_mean
    assert sum(group.dialogues for group in quality.calibration) == len(some)


@pytest.mark.parametrize(("scores", "expected"), [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([1, 1, 1, 1], 0.5)])
def test_area_under_the_curve(scores: list[float], expected: float) -> None:
    assert area(np.array([False, False, True, True]), np.array(scores, dtype=float)) == expected
