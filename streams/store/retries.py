"""Retrying work that conflicted with other transactions."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

_PAUSES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)  # seconds
_T = TypeVar("_T")


def retry(work: Callable[[], _T], is_conflict: Callable[[Exception], bool]) -> _T:
    """Return the result of `work`, retried while `is_conflict(error)`, at most five times and after growing pauses."""
    for pause in _PAUSES:
        try:
            return work()
        except Exception as error:
            if not is_conflict(error):
                raise
        time.sleep(pause)
    return work()
