"""Times in words, and those that cannot be right."""

from datetime import UTC, datetime
from typing import Final

_EARLIEST: Final = 315_532_800_000
"""1980, in ms since the Unix epoch. Times in seconds, mistaken for milliseconds, all lie in 1970."""


def since_epoch(ms: int) -> str:
    """Format a time in ms since the Unix epoch as UTC, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def learned_up_to(watermark: int) -> str:
    """Say up to which event time, ms since the Unix epoch, a version has learned; 0: nothing yet."""
    return f"learned up to {since_epoch(watermark)}" if watermark else "nothing learned yet"


def untimely(ts: int, now: int, max_ahead: int) -> str | None:
    """Return why an event's time `ts` cannot be right; None if it can. All are in ms, two since the Unix epoch."""
    if ts < _EARLIEST:
        return f"ts: {ts} is before 1980: it must be in ms since 1970; for times in seconds, set events.time"
    if ts > now + max_ahead:
        return f"ts: {ts} is {(ts - now) / 1000:,.0f} s ahead of the clock, turns.max_ahead_s = {max_ahead / 1000:g}"
    return None
